"""IDX and NumPy files as sources: the same pixels, labels and splits; what lies is refused."""

from __future__ import annotations

import concurrent.futures
import gzip
import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tlpipe.stages.source.array_reader as reader_module
from conftest import aged
from tlpipe import embed
from tlpipe.card import Card
from tlpipe.errors import SourceError
from tlpipe.stages.decode import decode
from tlpipe.stages.source import Source, open_source
from tlpipe.stages.store import FeatureFile
from tlpipe.types import FileStat, Reject, Split

RNG = np.random.default_rng(3)
GREY = RNG.integers(0, 256, (10, 9, 7), dtype=np.uint8)
RGB = RNG.integers(0, 256, (10, 9, 7, 3), dtype=np.uint8)
LABELS = np.arange(10, dtype=np.uint8) % 3


def idx(array: np.ndarray, kind: int = 0x08) -> bytes:
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    return (
        bytes([0, 0, kind, array.ndim])
        + shape
        + array.astype(array.dtype.newbyteorder(">")).tobytes()
    )


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)
    return path


def pixels(source: Source) -> list[np.ndarray]:
    found = []
    for item in source.items():
        read = source.reader.read(item.place)
        assert not isinstance(read, Reject), read
        picture = decode(read[0], FileStat())
        assert not isinstance(picture, Reject), picture
        found.append(np.asarray(picture.image))
    return found


def told(source: Source) -> list[tuple[str, str | None, Split]]:
    return [(item.key, item.label, item.split) for item in source.items()]


def as_rgb(array: np.ndarray) -> np.ndarray:
    return np.repeat(array[..., None], 3, axis=-1) if array.ndim == 3 else array


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
        ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
        ("train-images.idx3-ubyte", "train-labels.idx1-ubyte.gz"),
        ("x.idx3-ubyte.gz", "x.idx1-ubyte"),
        ("emnist-letters-train-images-idx3-ubyte", "emnist-letters-train-labels-idx1-ubyte"),
    ],
)
@pytest.mark.parametrize("array", [GREY, RGB], ids=["grey", "rgb"])
def test_an_idx_file(tmp_path: Path, images: str, labels: str, array: np.ndarray) -> None:
    path = write(tmp_path / images, idx(array))
    write(tmp_path / labels, idx(LABELS))
    source = open_source(path)
    assert told(source) == [(f"{i:06d}", str(i % 3), Split.NONE) for i in range(10)]
    assert np.array_equal(pixels(source), as_rgb(array))
    (block,) = source.scan(stats=True)
    assert block.stats == [(array[0].size, path.stat().st_mtime_ns)] * 10


def test_a_folder_of_idx_files(tmp_path: Path) -> None:
    write(tmp_path / "train-images-idx3-ubyte.gz", idx(GREY))
    write(tmp_path / "train-labels-idx1-ubyte.gz", idx(LABELS))
    write(tmp_path / "t10k-images-idx3-ubyte", idx(GREY[:2]))
    write(tmp_path / "t10k-images-idx3-ubyte.gz", idx(GREY[:2]))  # the same, packed
    write(tmp_path / "t10k-labels-idx1-ubyte", idx(LABELS[:2].astype(np.int32), 0x0C))
    write(tmp_path / "classes.txt", b"cat\ndog\nbird, large\n\n")
    source = open_source(tmp_path)
    names = ["cat", "dog", "bird, large"]
    assert told(source) == [
        *((f"t10k/{i:06d}", names[i], Split.TEST) for i in range(2)),
        *((f"train/{i:06d}", names[i % 3], Split.TRAIN) for i in range(10)),
    ]
    assert np.array_equal(pixels(source), as_rgb(np.concatenate([GREY[:2], GREY])))
    assert source.text == str(tmp_path)


def test_idx_files_without_labels(tmp_path: Path) -> None:
    source = open_source(write(tmp_path / "images-idx3-ubyte", idx(GREY)))
    assert source.survey.labels == {(Split.NONE, None): 10}
    assert told(open_source(tmp_path))[0] == ("images/000000", None, Split.NONE)


@pytest.mark.parametrize(
    ("images", "labels", "names", "message"),
    [
        (idx(GREY)[:-1], None, None, "10 images of 9 x 7, which take 646 bytes .* has 645"),
        (idx(GREY) + b"x", None, None, "has 647"),
        (struct.pack(">4B3I", 0, 0, 8, 3, 1 << 31, 1 << 31, 1 << 31), None, None, "was cut"),
        (idx(GREY[:0]), None, None, "holds no image"),
        (idx(GREY[:, :0]), None, None, "holds no image"),
        (idx(LABELS), None, None, "holds labels.*Name the file of the images"),
        (idx(GREY.astype(np.float32), 0x0D), None, None, "holds no images: type 0x0d"),
        (b"", None, None, "begins with b''"),
        (b"\x89PNG" * 9, None, None, "is none: it begins with"),
        (b"\0\0\x08\xff" * 9, None, None, "is none: it begins with"),
        (idx(GREY), idx(LABELS[:9]), None, "has 9 labels, and .* has 10 images"),
        (idx(GREY), idx(LABELS)[:-1], None, "states 10 labels and has 9"),
        (idx(GREY), idx(LABELS) + b"x", None, "states 10 labels and has 11"),
        (idx(GREY), idx(GREY), None, "should hold labels"),
        (idx(GREY), idx(LABELS), b"a\nb", "label 2 is 2, and the names of classes are 2"),
        (idx(GREY), idx(LABELS), b"a\na\nb", "holds 'a' twice"),
        (idx(GREY), idx(LABELS), b"a\n\nb", "none empty"),
        (idx(GREY), idx(LABELS), b"\xff", "is no UTF-8"),
        (idx(GREY), idx(LABELS), b"", "one name a line"),
    ],
)
def test_idx_files_that_lie(
    tmp_path: Path, images: bytes, labels: bytes | None, names: bytes | None, message: str
) -> None:
    path = write(tmp_path / "train-images-idx3-ubyte", images)
    if labels is not None:
        write(tmp_path / "train-labels-idx1-ubyte", labels)
    if names is not None:
        write(tmp_path / "classes.txt", names)
    with pytest.raises(SourceError, match=message):
        _ = open_source(path).survey


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:-20],
        lambda raw: raw[:40] + bytes([raw[40] ^ 0xFF]) + raw[41:],
        lambda raw: b"no gzip at all",
        lambda raw: gzip.compress(idx(GREY)[:-1]),
        lambda raw: gzip.compress(idx(GREY) + bytes(50 << 20)),
    ],
)
def test_a_damaged_gzip(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "images-idx3-ubyte.gz"
    path.write_bytes(damage(gzip.compress(idx(GREY))))
    tracemalloc.start()
    wrong = ""
    outcomes = []
    try:
        source = open_source(path)
        outcomes = [source.reader.read(item.place) for item in source.items()]
    except SourceError as exc:
        wrong = str(exc)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20
    reasons = [outcome.reason for outcome in outcomes if isinstance(outcome, Reject)]
    assert "cannot be read" in wrong or reasons == ["corrupt"] * 10


def test_what_is_packed_and_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "images-idx3-ubyte.gz", idx(GREY))
    np.savez_compressed(tmp_path / "a.npz", images=GREY)
    monkeypatch.setattr(reader_module, "MOST_UNPACKED_BYTES", 600)
    with pytest.raises(SourceError, match=r"takes 646 bytes of memory.*gunzip --keep"):
        open_source(path)
    with pytest.raises(SourceError, match=r"of memory.*numpy\.savez, which does not pack"):
        open_source(tmp_path / "a.npz")


def test_several_sets_in_one_folder_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "emnist-letters-train-images-idx3-ubyte", idx(GREY))
    write(tmp_path / "emnist-digits-train-images-idx3-ubyte", idx(GREY))
    with pytest.raises(SourceError, match="several sets of images"):
        open_source(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="links of POSIX")
def test_links_of_a_folder_of_idx_files_stay_inside(tmp_path: Path) -> None:
    write(tmp_path / "out" / "labels", idx(LABELS))
    write(tmp_path / "in" / "train-images-idx3-ubyte", idx(GREY))
    (tmp_path / "in" / "train-labels-idx1-ubyte").symlink_to(tmp_path / "out" / "labels")
    with pytest.raises(SourceError, match="leads outside"):
        open_source(tmp_path / "in")
    assert open_source(tmp_path / "in", allow_outside=[tmp_path]).survey.count == 10


def save_npy(path: Path, array: np.ndarray) -> Path:
    np.save(path / "a.npy", array)
    return path / "a.npy"


def save_npz(path: Path, array: np.ndarray) -> Path:
    np.savez(path / "a.npz", images=array)
    return path / "a.npz"


def save_packed(path: Path, array: np.ndarray) -> Path:
    np.savez_compressed(path / "a.npz", x=array)
    return path / "a.npz"


SAVE = pytest.mark.parametrize("save", [save_npy, save_npz, save_packed])


@SAVE
@pytest.mark.parametrize("array", [GREY, RGB, GREY[..., None], GREY > 127], ids=str)
def test_numpy_files(tmp_path: Path, save: Callable[..., Path], array: np.ndarray) -> None:
    source = open_source(save(tmp_path, array))
    assert told(source) == [(f"{i:06d}", None, Split.NONE) for i in range(10)]
    expected = array.squeeze(-1) if array.shape[-1] == 1 else array
    expected = expected.astype(np.uint8) * 255 if expected.dtype == bool else expected
    assert np.array_equal(pixels(source), as_rgb(expected))


@SAVE
@pytest.mark.parametrize("order", "<>")
def test_grey_of_16_bits(tmp_path: Path, save: Callable[..., Path], order: str) -> None:
    values = (np.arange(65536, dtype=np.uint32).reshape(1, 256, 256)).astype(f"{order}u2")
    (found,) = pixels(open_source(save(tmp_path, values)))
    expected = (values[0].astype(np.int64) * 255 + 32767) // 65535
    assert np.array_equal(found, as_rgb(expected[None])[0])


@SAVE
@pytest.mark.parametrize(("channels", "mode"), [(4, "RGBA"), (2, "LA")])
def test_alpha(tmp_path: Path, save: Callable[..., Path], channels: int, mode: str) -> None:
    array = RNG.integers(0, 256, (3, 5, 6, channels), dtype=np.uint8)
    source = open_source(save(tmp_path, array))
    for item, expected in zip(source.items(), array, strict=True):
        read = source.reader.read(item.place)
        assert not isinstance(read, Reject)
        with Image.open(io.BytesIO(read[0])) as image:
            assert (image.format, image.mode) == ("TIFF", mode)
            assert np.array_equal(np.asarray(image), expected)


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        (LABELS.astype(np.int64), None, ["0", "1", "2"]),
        (LABELS.astype(">i2")[:, None], None, ["0", "1", "2"]),
        (np.array(["ä", "b", "c c"])[LABELS], None, ["ä", "b", "c c"]),
        (np.array([b"a", b"b", b"c"])[LABELS], None, ["a", "b", "c"]),
        (LABELS, np.array(["x", "y", "z"]), ["x", "y", "z"]),
        (np.array(["", "b", "c"])[LABELS], None, [None, "b", "c"]),
    ],
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_labels_of_an_npz(
    tmp_path: Path, labels: Any, names: Any, expected: list[str], save: Callable[..., None]
) -> None:
    more = {} if names is None else {"class_names": names}
    save(tmp_path / "a.npz", images=GREY, labels=labels, **more)
    found = [label for _, label, _ in told(open_source(tmp_path / "a.npz"))]
    assert found == [expected[i % 3] for i in range(10)]


def test_labels_beside_an_npy(tmp_path: Path) -> None:
    path = save_npy(tmp_path, GREY)
    np.save(tmp_path / "a.labels.npy", LABELS)
    assert [label for _, label, _ in told(open_source(path))] == [str(i % 3) for i in range(10)]


@pytest.mark.parametrize(
    "names",
    ["x_train y_train x_test y_test", "train_images train_labels test_images test_labels"],
)
def test_splits_of_an_npz(tmp_path: Path, names: str) -> None:
    arrays = dict(zip(names.split(), (GREY, LABELS, GREY[:2], LABELS[:2]), strict=True))
    np.savez(tmp_path / "a.npz", **arrays, unrelated=np.zeros(3))
    assert told(open_source(tmp_path / "a.npz")) == [
        *((f"train/{i:06d}", str(i % 3), Split.TRAIN) for i in range(10)),
        *((f"test/{i:06d}", str(i % 3), Split.TEST) for i in range(2)),
    ]


@SAVE
@pytest.mark.parametrize(
    ("array", "message"),
    [
        (GREY / np.float32(255), r"type float32.*\(array \* 255\)\.round\(\)\.astype"),
        (GREY.astype(np.int64), "type int64"),
        (RGB.astype(np.uint16), "only grey images may be"),
        (RGB.transpose(0, 3, 1, 2).copy(), r"channels stand first.*transpose\(0, 2, 3, 1\)"),
        (GREY.reshape(10, -1), r"array\.reshape\(-1, height, width\)"),
        (np.asfortranarray(RGB), "ascontiguousarray"),
        (GREY[:0], "holds no image"),
        (np.array([{"a": 1}], dtype=object), "may run code"),
        (np.zeros((2, 3, 3), dtype=[("r", "u1"), ("g", "u1")]), "no plain values"),
        (np.zeros((2, 3, 3, 5), dtype=np.uint8), "5 channels"),
    ],
)
def test_arrays_that_are_no_images(
    tmp_path: Path, save: Callable[..., Path], array: np.ndarray, message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        open_source(save(tmp_path, array))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS[:9], "9 labels, and .* 10 images"),
        (LABELS.astype(float), "labels are integers or texts"),
        (np.eye(3, dtype=int)[LABELS], r"array\.argmax\(axis=1\)"),
        (np.array([None] * 10), "may run code"),
        (np.array(3), "labels are integers or texts"),
    ],
)
def test_labels_that_are_none(tmp_path: Path, labels: np.ndarray, message: str) -> None:
    np.savez(tmp_path / "a.npz", images=GREY, labels=labels)
    with pytest.raises(SourceError, match=message):
        open_source(tmp_path / "a.npz")


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:-1],
        lambda raw: raw + b"x",
        lambda raw: raw[:5],
        lambda raw: b"",
        lambda raw: raw.replace(b"(10, 9, 7)", b"(-1, 9, 7)"),
        lambda raw: raw.replace(b"'shape'", b"'shapf'"),
        lambda raw: raw.replace(b"(10, 9, 7)", b"((((((((((("[:10]),
        lambda raw: raw.replace(b"|u1", b"|V1"),
        lambda raw: raw[:6] + b"\x03" + raw[7:],
        lambda raw: raw[:8] + b"\xff\xff" + raw[10:],
        lambda raw: raw.replace(b"(10, 9, 7)", b"(9**9**9,)"),
    ],
)
def test_damaged_npy(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = save_npy(tmp_path, GREY)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(SourceError):
        open_source(path)
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", path.read_bytes())
    with pytest.raises(SourceError):
        open_source(tmp_path / "b.npz")


def test_damaged_npz(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", images=GREY)
    raw = bytearray((tmp_path / "a.npz").read_bytes())
    raw[300] ^= 0xFF
    (tmp_path / "a.npz").write_bytes(raw)
    source = open_source(tmp_path / "a.npz")
    reads = [source.reader.read(item.place) for item in source.items()]
    assert {read.reason for read in reads if isinstance(read, Reject)} == {"corrupt"}
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("readme.txt", "x")
    with pytest.raises(SourceError, match=r"should hold one array 'images'.*numpy\.savez"):
        open_source(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", images=GREY, x=GREY)
    with pytest.raises(SourceError, match="both may be its images"):
        open_source(tmp_path / "c.npz")


def test_a_file_that_changed_since_it_was_opened(tmp_path: Path) -> None:
    path = save_npy(tmp_path, GREY)
    source = open_source(path)
    items = list(source.items())
    save_npy(tmp_path, GREY[:5])
    os.utime(path, ns=(1, 1))
    read = source.reader.read(items[0].place)
    assert isinstance(read, Reject)
    assert read.detail == "The file has changed since it was listed."
    with pytest.raises(SourceError, match="has changed since it was opened"):
        list(source.items())
    path.unlink()
    assert pickle.loads(pickle.dumps(source.reader)).read(items[0].place).reason == "missing"


@SAVE
def test_readers_are_pickled_and_used_by_threads(tmp_path: Path, save: Callable[..., Path]) -> None:
    source = open_source(save(tmp_path, RGB))
    reader = pickle.loads(pickle.dumps(source.reader))
    items = list(source.items()) * 30
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda item: reader.read(item.place)[0], items))
    assert [content[-189:] for content in read] == [image.tobytes() for image in RGB] * 30


def vectors(path: Path) -> np.ndarray:
    with FeatureFile(path) as file:
        return file.rows(0, file.count, vectors=True).vectors


@pytest.mark.parametrize("kind", ["idx", "idx.gz", "npy", "npz", "npz-packed"])
def test_embeddings_are_those_of_a_folder_and_are_kept(
    tmp_path: Path, tiny_card: Card, kind: str
) -> None:
    array = GREY if kind.startswith("idx") else RGB
    for number, image in enumerate(array):
        path = tmp_path / "folder" / str(LABELS[number]) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    source = tmp_path / "source"
    source.mkdir()
    if kind.startswith("idx"):
        end = kind[3:]
        path = write(source / f"images-idx3-ubyte{end}", idx(array))
        write(source / f"labels-idx1-ubyte{end}", idx(LABELS))
    elif kind == "npy":
        path = save_npy(source, array)
        np.save(source / "a.labels.npy", LABELS)
    else:
        path = source / "a.npz"
        (np.savez if kind == "npz" else np.savez_compressed)(path, images=array, labels=LABELS)
    aged(source)
    embed(tmp_path / "folder", tmp_path / "folder.h5", backbone=tiny_card)
    first = embed(path, tmp_path / "a.h5", backbone=tiny_card)
    assert (first.count, first.embedded) == (10, 10)
    order = np.argsort(np.argsort(LABELS, kind="stable"))
    assert np.array_equal(vectors(tmp_path / "a.h5"), vectors(tmp_path / "folder.h5")[order])
    again = embed(path, tmp_path / "a.h5", backbone=tiny_card)
    assert (again.unchanged, again.kept) == (True, 10)
