"""Feature files as tables and back; tables made elsewhere, some of them hostile."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

import tlpipe
from conftest import write_classes, write_image
from tlpipe.card import Card
from tlpipe.cli.main import cli
from tlpipe.errors import (
    FeatureFileError,
    OptionError,
    OutputError,
    StaleFeaturesError,
    TableError,
)
from tlpipe.stages.store import FeatureFile, FeatureHeader, feature_writer, read_features
from tlpipe.stages.store.layout import COLUMNS


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture
def features(tmp_path: Path, tiny_card: Card) -> Path:
    """A feature file with splits, groups, rejects, an unlabelled row and odd keys."""
    photos = write_classes(tmp_path / "photos", 4)
    write_image(photos / "red" / 'odd, "name"\nü.png', 99)
    (photos / "red" / "empty.png").write_bytes(b"")
    first = tmp_path / "first.h5"
    tlpipe.embed(photos, first, backbone=tiny_card)
    path = tmp_path / "features.h5"
    with FeatureFile(first) as file, feature_writer(path, file.header, file.dim) as writer:
        rows = file.rows(0, file.count, vectors=True)
        rows.labels[3] = None
        rows.splits[:3] = [0, 1, 2]
        rows.groups[5:7] = [2**62, 7]
        assert rows.vectors is not None
        rows.vectors[0, :4] = [np.float32(1e-45), -0.0, np.float32(1) / 3, np.finfo("f4").max]
        writer.add(rows)
        for key, reject in file.rejects():
            writer.reject(key, reject)
    return path


def datasets(path: Path) -> dict[str, bytes]:
    with h5py.File(path) as file:
        return {name: repr(file[name][:].tolist()).encode() for name in COLUMNS}


def header(path: Path) -> FeatureHeader:
    with FeatureFile(path) as file:
        return file.header


def seal(path: Path) -> str:
    with h5py.File(path) as file:
        return str(file.attrs["seal"])


@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
def test_a_table_gives_the_file_back(features: Path, tmp_path: Path, suffix: str) -> None:
    table, back = tmp_path / f"t{suffix}", tmp_path / "back.h5"
    result = tlpipe.export_features(features, table)
    assert (result.count, result.dim, result.carries, result.rejects_left_out) == (13, 8, True, 0)
    found = tlpipe.import_features(table, back)
    assert (found.count, found.rejects, found.contents_known) == (13, 1, True)
    assert found.backbone == "tiny.test"
    assert datasets(back) == datasets(features)
    assert header(back) == header(features)
    assert seal(back) == seal(features)  # every byte of every dataset, and the header


def test_a_csv_gives_the_rows_back(features: Path, tmp_path: Path, tiny_card: Card) -> None:
    table, back = tmp_path / "t.csv", tmp_path / "back.h5"
    result = tlpipe.export_features(features, table)
    assert (result.carries, result.rejects_left_out) == (False, 1)
    with pytest.raises(OptionError, match="does not say what made its vectors"):
        tlpipe.import_features(table, back)
    tlpipe.import_features(table, back, backbone=tiny_card)
    ours, theirs = datasets(features), datasets(back)
    for name in COLUMNS:
        assert name.startswith("rejects/") or ours[name] == theirs[name], name
    assert read_features(back).vectors.tobytes() == read_features(features).vectors.tobytes()
    assert header(back).fingerprint == header(features).fingerprint


def test_other_tools_read_what_is_written(features: Path, tmp_path: Path) -> None:
    whole = read_features(features)
    tlpipe.export_features(features, tmp_path / "t.npz")
    with np.load(tmp_path / "t.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["vectors"], whole.vectors)
        assert arrays["keys"].tolist() == whole.keys
        assert arrays["classes"].tolist() == whole.classes
        assert arrays["labels"][3] == ""
        assert str(arrays["fingerprint"]) == whole.header.fingerprint
        assert json.loads(str(arrays["header"]))["header"] == whole.header.to_attributes()
    tlpipe.export_features(features, tmp_path / "t.parquet")
    table = pq.read_table(tmp_path / "t.parquet")
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 8)
    assert table["label"][3].as_py() is None
    assert table["split"].to_pylist()[:4] == ["train", "validation", "test", None]
    assert table.schema.metadata[b"fingerprint"].decode() == whole.header.fingerprint
    tlpipe.export_features(features, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["key"] for row in rows] == whole.keys
    assert np.float32(rows[0]["e2"]) == whole.vectors[0, 2]


def test_the_same_file_makes_the_same_table(features: Path, tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        tlpipe.export_features(features, tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("suffix", [".parquet", ".npz", ".csv"])
def test_more_rows_than_a_block(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(20_001, 3)).astype(np.float32)
    keys = [f"k{n}" for n in range(len(vectors))]
    np.savez(tmp_path / "v.npz", vectors=vectors, keys=np.array(keys))
    tlpipe.import_features(tmp_path / "v.npz", tmp_path / "a.h5", declare="x")
    tlpipe.export_features(tmp_path / "a.h5", tmp_path / f"t{suffix}")
    declare = "x" if suffix == ".csv" else None
    tlpipe.import_features(tmp_path / f"t{suffix}", tmp_path / "b.h5", declare=declare)
    assert read_features(tmp_path / "b.h5").vectors.tobytes() == vectors.tobytes()
    assert read_features(tmp_path / "b.h5").keys == keys


def test_an_output_is_whole_or_not_there(
    features: Path, tmp_path: Path, leftovers: Callable[[], list[str]]
) -> None:
    raw = bytearray(features.read_bytes())
    at = raw.rindex(read_features(features).vectors[-1].tobytes())
    raw[at] ^= 1
    damaged = tmp_path / "damaged.h5"
    damaged.write_bytes(raw)
    for suffix in (".parquet", ".npz", ".csv"):
        with pytest.raises(FeatureFileError, match="not those that were stored"):
            tlpipe.export_features(damaged, tmp_path / f"t{suffix}")
        assert not (tmp_path / f"t{suffix}").exists()
    assert leftovers() == []
    with pytest.raises(OutputError, match="must end in"):
        tlpipe.export_features(features, tmp_path / "t.json")
    (tmp_path / "t.csv").touch()
    with pytest.raises(OutputError, match="exists already"):
        tlpipe.export_features(features, tmp_path / "t.csv")


# Tables made elsewhere


def npz(file: Path, /, **arrays: Any) -> Path:
    np.savez(file, **arrays)
    return file


VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3)
KEYS = np.array(["a", "b", "c", "d"])


def test_vectors_made_elsewhere(tmp_path: Path) -> None:
    twice = VECTORS.copy()
    twice[3] = twice[0]
    table = npz(
        tmp_path / "v.npz", embeddings=twice, path=KEYS, label=np.array(["x", "y", "", "x"])
    )
    result = tlpipe.import_features(table, tmp_path / "f.h5", declare="CLIP ViT-B/32")
    assert (result.backbone, result.classes) == ("CLIP ViT-B/32", ["x", "y"])
    assert not result.contents_known
    data = read_features(tmp_path / "f.h5")
    assert data.labels.tolist() == [0, 1, -1, 0]
    assert data.splits.tolist() == [-1] * 4
    assert data.content_sha256[0].tobytes() == data.content_sha256[3].tobytes()
    assert data.content_sha256[0].tobytes() != data.content_sha256[1].tobytes()
    assert json.loads(data.header.backbone) == {"declared": "CLIP ViT-B/32"}
    again = tlpipe.import_features(table, tmp_path / "g.h5", declare="CLIP ViT-B/32")
    other = tlpipe.import_features(table, tmp_path / "h.h5", declare="CLIP ViT-L/14")
    assert again.fingerprint == result.fingerprint != other.fingerprint


def test_what_can_be_done_with_them(tmp_path: Path, tiny_card: Card) -> None:
    table = npz(tmp_path / "v.npz", vectors=VECTORS, keys=KEYS, labels=np.array(list("xyxy")))
    path = tmp_path / "f.h5"
    tlpipe.import_features(table, path, declare="another tool")
    assert tlpipe.inspect(path).facts["backbone"] == "declared 'another tool'"
    with pytest.raises(FeatureFileError, match="made elsewhere, by 'another tool'"):
        tlpipe.train_head(path, tmp_path / "c.onnx")
    photos = write_classes(tmp_path / "photos", 2)
    with pytest.raises(StaleFeaturesError) as refused:
        tlpipe.embed(photos, path, backbone=tiny_card)
    assert "differ in: backbone: 'another tool' -> 'tiny.test'." in refused.value.message


def test_vectors_of_a_backbone_of_ones_own(tmp_path: Path, tiny_card: Card) -> None:
    table = npz(tmp_path / "v.npz", vectors=VECTORS, keys=KEYS)
    with pytest.raises(TableError, match=r"vectors of 3 numbers; the backbone 'tiny.test' gives 8"):
        tlpipe.import_features(table, tmp_path / "f.h5", backbone=tiny_card)
    table = npz(tmp_path / "w.npz", vectors=np.ones((4, 8)), keys=KEYS, labels=np.arange(4))
    result = tlpipe.import_features(table, tmp_path / "f.h5", backbone=tiny_card)
    assert result.backbone == "tiny.test"
    assert result.classes == ["0", "1", "2", "3"]
    with pytest.raises(OptionError, match="not both"):
        tlpipe.import_features(
            table, tmp_path / "f.h5", backbone=tiny_card, declare="x", overwrite=True
        )


def test_a_table_that_says_what_made_it_may_not_be_contradicted(
    features: Path, tmp_path: Path, tiny_card: Card
) -> None:
    table = tmp_path / "t.npz"
    tlpipe.export_features(features, table)
    tlpipe.import_features(table, tmp_path / "a.h5", backbone=tiny_card)
    with pytest.raises(TableError, match=r"not [0-9a-f]{12}... as you stated"):
        tlpipe.import_features(table, tmp_path / "b.h5", declare="something else")


def test_parquet_as_pandas_writes_it(tmp_path: Path) -> None:
    table = pa.table(
        {
            "path": pa.array(list("abcd"), pa.large_string()),
            "label": pa.array(["x", "y", None, "x"]).dictionary_encode(),
            "split": ["train", "val", None, "test"],
            "embedding": pa.array(VECTORS.astype(np.float64).tolist()),
            "size": [1, 2, 3, 4],
        }
    )
    pq.write_table(table, tmp_path / "v.parquet")
    tlpipe.import_features(tmp_path / "v.parquet", tmp_path / "f.h5", declare="x")
    data = read_features(tmp_path / "f.h5")
    assert data.vectors.tolist() == VECTORS.tolist()
    assert data.splits.tolist() == [0, 1, -1, 2]
    assert data.labels.tolist() == [0, 1, -1, 0]


def test_labels_as_numbers_of_classes(tmp_path: Path) -> None:
    arrays = {"vectors": VECTORS, "keys": KEYS, "labels": np.array([1, 0, -1, 1])}
    table = npz(tmp_path / "v.npz", **arrays, classes=np.array(["zebra", "ant"]))
    tlpipe.import_features(table, tmp_path / "f.h5", declare="x")
    data = read_features(tmp_path / "f.h5")
    assert [data.classes[k] if k >= 0 else None for k in data.labels] == [
        "ant",
        "zebra",
        None,
        "ant",
    ]
    arrays["labels"][0] = 2
    table = npz(tmp_path / "w.npz", **arrays, classes=np.array(["zebra", "ant"]))
    with pytest.raises(TableError, match="beyond its 2 classes"):
        tlpipe.import_features(table, tmp_path / "g.h5", declare="x")


# Hostile tables


def archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def npy_header(text: str, version: int = 1) -> bytes:
    raw = text.encode()
    return b"\x93NUMPY" + bytes([version, 0]) + len(raw).to_bytes(2 * version, "little") + raw


def shape_text(shape: str, descr: str = "<f4") -> str:
    return f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n"


def nan() -> Any:
    vectors = VECTORS.copy()
    vectors[2, 1] = np.nan
    return vectors


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("code of the file was run",))


NPZ_ATTACKS: list[tuple[str, dict[str, bytes], str]] = [
    ("no vectors", {"keys": npy(KEYS)}, "no column of vectors"),
    ("no keys", {"vectors": npy(VECTORS)}, "no column of keys"),
    ("two of vectors", {"embedding": npy(VECTORS)}, "more than one column of vectors"),
    ("a pickle", {"keys": npy(np.array([Evil()] * 4, object))}, "may run code"),
    ("a pickle of vectors", {"vectors": npy(np.array([[Evil()]] * 4, object))}, "may run code"),
    ("records", {"vectors": npy(np.zeros(4, [("a", "f4")]))}, "no plain values"),
    ("integers", {"vectors": npy(VECTORS.astype(int))}, "it must be floats"),
    ("one dimension", {"vectors": npy(VECTORS.reshape(-1))}, "of the shape"),
    ("another count", {"vectors": npy(VECTORS[:3])}, "must be text of the shape"),
    ("column by column", {"vectors": npy(np.asfortranarray(VECTORS))}, "column by column"),
    ("NaN", {"vectors": npy(nan())}, "row 2 holds NaN"),
    ("beyond float32", {"vectors": npy(VECTORS.astype(np.float64) * 1e300)}, "beyond float32"),
    ("a key twice", {"keys": npy(np.array(["a", "b", "a", "c"]))}, "key 'a' more than once"),
    ("an empty key", {"keys": npy(np.array(["a", "b", "", "c"]))}, "the key ''"),
    ("NUL in a key", {"keys": npy(np.array(["a", "b", "c\0d", "c"]))}, "the key 'c"),
    ("half a surrogate", {"keys": npy(np.array(["a", "b", "\ud800", "c"]))}, "the key '.ud800'"),
    ("no code point", {"keys": npy(np.full(4, 2**31 - 1, "<u4").view("<U1"))}, "cannot be read"),
    ("half a label", {"labels": npy(np.array(["a", "\udcff", "c", "c"]))}, "the label"),
    ("a split", {"splits": npy(np.array([0, 1, 2, 3]))}, "splits that are not of"),
    ("a named split", {"splits": npy(np.array(["train", "x", "", ""]))}, "the split 'x'"),
    ("a group", {"groups": npy(np.array([0, 1, 2, -7]))}, "the group -7"),
    ("digests", {"content_sha256": npy(np.zeros((4, 31), "u1"))}, "of the shape"),
    ("digests' type", {"content_sha256": npy(np.zeros((4, 32), "u2"))}, "not uint8"),
    ("no array", {"vectors": b"hello"}, "no NumPy array"),
    ("nothing", {"vectors": b""}, "no NumPy array"),
    (
        "an absurd shape",
        {"vectors": npy_header(shape_text("(1000000000000, 1000000)"))},
        "claims the shape",
    ),
    (
        "a negative shape",
        {"vectors": npy_header(shape_text("(-4, -3)")) + bytes(48)},
        "has the shape",
    ),
    ("a wide vector", {"vectors": npy(np.zeros((4, 100_001), "f4"))}, "1 to 100,000"),
    ("no numbers", {"vectors": npy_header(shape_text("(4, 0)"))}, "vectors of 0 numbers"),
    ("no rows", {"vectors": npy(VECTORS[:0]), "keys": npy(KEYS[:0])}, "has no rows"),
    ("too little", {"vectors": npy(VECTORS)[:-4]}, "claims the shape"),
    ("too much", {"vectors": npy(VECTORS) + b"more"}, "claims the shape"),
    ("a long header", {"vectors": npy_header(" " * 60_000)}, "header of 60,000 bytes"),
    ("a longer header", {"vectors": npy_header("(" * 100_000, 2)}, "header of 100,000 bytes"),
    ("a deep header", {"vectors": npy_header("[" * 9_000 + "]" * 900)}, "cannot be read"),
    ("a header of code", {"vectors": npy_header("__import__('os').abort()")}, "cannot be read"),
    ("a header that ends early", {"vectors": b"\x93NUMPY\x01\x00\xff"}, "cannot be read"),
    ("an unknown type", {"vectors": npy_header(shape_text("(4, 3)", "<f99"))}, "cannot be read"),
    ("a header's text", {"header": npy(np.array("{}"))}, "damaged header"),
    ("a deep text", {"header": npy(np.array("[" * 100_000))}, "damaged header"),
    ("no text", {"header": npy(np.zeros(3))}, "must be one text"),
]


@pytest.mark.parametrize(
    ("members", "message"),
    [case[1:] for case in NPZ_ATTACKS],
    ids=[case[0] for case in NPZ_ATTACKS],
)
def test_hostile_npz(
    tmp_path: Path, members: dict[str, bytes], message: str, leftovers: Callable[[], list[str]]
) -> None:
    whole = {"vectors": npy(VECTORS), "keys": npy(KEYS)}
    if message.startswith("no column"):
        whole = {}
    table = archive(tmp_path / "t.npz", **whole | members)
    with pytest.raises(TableError, match=message):
        tlpipe.import_features(table, tmp_path / "f.h5", declare="x")
    assert not (tmp_path / "f.h5").exists()
    assert leftovers() == []


def test_an_archive_that_unpacks_to_far_more(tmp_path: Path) -> None:
    table = tmp_path / "t.npz"
    with zipfile.ZipFile(table, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("keys.npy", npy(KEYS))
        with file.open("vectors.npy", "w") as stream:
            stream.write(npy_header(shape_text("(300000, 100)")))
            for _ in range(120):
                stream.write(bytes(1_000_000))
    with pytest.raises(TableError, match=r"claims to unpack to 120,000,\d+ bytes"):
        tlpipe.import_features(table, tmp_path / "f.h5", declare="x")


def test_damaged_archives(tmp_path: Path) -> None:
    table = npz(tmp_path / "t.npz", vectors=VECTORS, keys=KEYS)
    raw = table.read_bytes()
    at = raw.index(VECTORS.tobytes())
    for damaged in (
        b"",
        b"PK",
        raw[:-30],
        raw[: len(raw) // 2],
        raw[:at] + b"\xff" + raw[at + 1 :],  # its checksum tells
        raw.replace(b"vectors.npy", b"../../x.npy", 1),  # local and central names differ
    ):
        table.write_bytes(damaged)
        with pytest.raises(TableError):
            tlpipe.import_features(table, tmp_path / "f.h5", declare="x")


def test_flipped_bytes_of_an_archive(tmp_path: Path) -> None:
    table = npz(tmp_path / "t.npz", vectors=VECTORS, keys=KEYS, labels=np.array(list("xyxy")))
    raw = table.read_bytes()
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(raw), 400).tolist():
        table.write_bytes(raw[:at] + bytes([raw[at] ^ int(rng.integers(1, 256))]) + raw[at + 1 :])
        try:
            tlpipe.import_features(table, tmp_path / "f.h5", declare="x", overwrite=True)
        except (TableError, OptionError):
            continue


def test_members_with_paths_are_not_extracted(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    table = archive(folder / "t.npz", vectors=npy(VECTORS), keys=npy(KEYS))
    with zipfile.ZipFile(table, "a") as file:
        file.writestr("../escaped.npy", npy(KEYS))
        file.writestr("/abs.npy", npy(KEYS))
    tlpipe.import_features(table, folder / "f.h5", declare="x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]


def test_other_ways_of_packing_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "t.npz", "w", zipfile.ZIP_LZMA) as file:
        file.writestr("vectors.npy", npy(VECTORS))
        file.writestr("keys.npy", npy(KEYS))
    with pytest.raises(TableError, match="packed by method 14"):
        tlpipe.import_features(tmp_path / "t.npz", tmp_path / "f.h5", declare="x")


def edited(table: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    with np.load(table) as arrays:
        values = dict(arrays)
    note = json.loads(str(values["header"]))
    change(note)
    values["header"] = np.array(json.dumps(note))
    return npz(table, **values)


HEADERS: list[tuple[str, Callable[[dict[str, Any]], Any], str]] = [
    ("fingerprint", lambda n: n["header"].update(fingerprint="0" * 64), "not that of the backbone"),
    ("no card", lambda n: n["header"].update(backbone="{}"), "is damaged"),
    ("deep card", lambda n: n["header"].update(backbone="[" * 100_000), "is damaged"),
    ("a number", lambda n: n["header"].update(source=7), "must be of type str"),
    ("a field too many", lambda n: n["header"].update(more="x"), "unknown fields"),
    ("NUL", lambda n: n["header"].update(source="a\0b"), "NUL"),
    ("half a surrogate", lambda n: n["header"].update(source="\ud800"), "surrogates"),
    ("a newer version", lambda n: n.update(format_version=2), "format version is 2"),
    ("a reject's reason", lambda n: n["rejects"][0].__setitem__(2, "x"), "damaged header"),
    ("a reject's size", lambda n: n["rejects"][0].__setitem__(4, 2**70), "damaged header"),
    ("a reject's key", lambda n: n["rejects"][0].__setitem__(0, 5), "damaged header"),
    ("short rejects", lambda n: n.update(rejects=[["a"]]), "damaged header"),
    ("rejects that are none", lambda n: n.update(rejects=5), "damaged header"),
]


@pytest.mark.parametrize(
    ("change", "message"), [case[1:] for case in HEADERS], ids=[case[0] for case in HEADERS]
)
def test_hostile_headers(
    features: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    table = tmp_path / "t.npz"
    tlpipe.export_features(features, table)
    edited(table, change)
    with pytest.raises((TableError, FeatureFileError), match=message):
        tlpipe.import_features(table, tmp_path / "f.h5")
    assert not (tmp_path / "f.h5").exists()


PARQUET_ATTACKS: list[tuple[str, dict[str, Any], str]] = [
    ("no vectors", {"embedding": None}, "no column of vectors"),
    ("no keys", {"key": None}, "no column of keys"),
    ("text", {"embedding": pa.array(list("abcd"))}, "must be lists of floats"),
    ("integers", {"embedding": pa.array([[1], [2], [3], [4]])}, "must be lists of floats"),
    (
        "lists of lists",
        {"embedding": pa.array([[[1.0]], [[1.0]], [[1.0]], [[1.0]]])},
        "must be lists of floats",
    ),
    ("junk", {"key": pa.array([{"a": [{"b": 1}]}] * 4)}, "must be text"),
    ("bytes", {"key": pa.array([b"\xff"] * 4)}, "must be text"),
    ("a map", {"label": pa.array([[("a", 1)]] * 4, pa.map_("str", "int64"))}, "text or integers"),
    ("no vector", {"embedding": pa.array([[1.0], None, [2.0], [3.0]])}, "null"),
    ("no number", {"embedding": pa.array([[1.0], [None], [2.0], [3.0]])}, "null"),
    ("lengths", {"embedding": pa.array([[1.0], [2.0, 3.0], [1.0], []])}, "vectors of the lengths"),
    (
        "empty",
        {"embedding": pa.array([[], [], [], []], pa.list_(pa.float32()))},
        "vectors of the lengths .0.",
    ),
    ("NaN", {"embedding": pa.array([[1.0], [float("nan")], [1.0], [1.0]])}, "row 1 holds NaN"),
    ("no key", {"key": pa.array(["a", None, "c", "d"])}, "the key ''"),
    ("a key twice", {"key": pa.array(["a", "b", "b", "d"])}, "more than once"),
    ("a split", {"split": pa.array(["a", None, None, None])}, "the split 'a'"),
    ("a digest", {"content_sha256": pa.array(["00"] * 4)}, "64 hexadecimal digits"),
    ("a huge size", {"size_bytes": pa.array([2**64 - 1] * 4, pa.uint64())}, "cannot be read"),
]


def parquet(path: Path, **changes: Any) -> Path:
    columns: dict[str, Any] = {
        "key": pa.array(["a", "b", "c", "d"]),
        "embedding": pa.array(VECTORS.tolist(), pa.list_(pa.float32())),
    } | changes
    pq.write_table(pa.table({k: v for k, v in columns.items() if v is not None}), path)
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [case[1:] for case in PARQUET_ATTACKS],
    ids=[case[0] for case in PARQUET_ATTACKS],
)
def test_hostile_parquet(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    table = parquet(tmp_path / "t.parquet", **changes)
    with pytest.raises(TableError, match=message):
        tlpipe.import_features(table, tmp_path / "f.h5", declare="x")
    assert not (tmp_path / "f.h5").exists()


def test_parquet_that_packs_to_far_more_than_is_plausible(tmp_path: Path) -> None:
    zeros = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(30_000_000, np.float32)), 100_000)
    table = pa.table({"key": [f"k{n}" for n in range(300)], "embedding": zeros})
    pq.write_table(table, tmp_path / "t.parquet", compression="zstd")
    assert (tmp_path / "t.parquet").stat().st_size < 1_000_000
    with pytest.raises(TableError, match="claims to hold"):
        tlpipe.import_features(tmp_path / "t.parquet", tmp_path / "f.h5", declare="x")


def varint(number: int, length: int = 0) -> bytes:
    """A number as Thrift writes it, padded to a length."""
    number, digits = 2 * number, b""
    while number or len(digits) < max(1, length):
        digits += bytes([number & 127 | 128])
        number >>= 7
    return digits[:-1] + bytes([digits[-1] & 127])


def test_parquet_whose_footer_hides_how_large_its_pages_are(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    keys = [str(n) + "a" * (1 << 20) for n in range(80)]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(160, "f4")), 2)
    table = pa.table({"key": keys, "embedding": vectors})
    pq.write_table(table, path, use_dictionary=False, compression="zstd", data_page_size=1 << 30)
    raw = path.read_bytes()
    size = pq.ParquetFile(path).metadata.row_group(0).column(0).total_uncompressed_size
    lie = varint(1000, len(varint(size)))
    length = int.from_bytes(raw[-8:-4], "little")
    footer = raw[-8 - length : -8]
    assert varint(size) in footer
    path.write_bytes(raw[: -8 - length] + footer.replace(varint(size), lie) + raw[-8:])
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).total_uncompressed_size == 1000
    with pytest.raises(TableError, match=r"pages that claim to unpack to 83,886,\d+ bytes"):
        tlpipe.import_features(path, tmp_path / "f.h5", declare="x")


def test_parquet_of_one_long_text_in_many_rows(tmp_path: Path) -> None:
    labels = pa.DictionaryArray.from_arrays(np.zeros(5000, np.int32), ["a" * 1_000_000])
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(10_000, "f4")), 2)
    table = {"key": [str(n) for n in range(5000)], "label": labels, "embedding": vectors}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    with pytest.raises(TableError, match="a text of 1,000,000 bytes"):
        tlpipe.import_features(tmp_path / "t.parquet", tmp_path / "f.h5", declare="x")


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "lz4", "brotli"])
def test_parquet_of_every_kind_of_page(tmp_path: Path, version: str, compression: str) -> None:
    count = 9000
    vectors = np.random.default_rng(0).normal(size=(count, 5)).astype(np.float32)
    table = pa.table(
        {
            "key": [f"k{n}" for n in range(count)],
            "label": [None if n % 3 else "x" for n in range(count)],
            "embedding": pa.array(list(vectors)),
        }
    )
    pq.write_table(
        table,
        tmp_path / "t.parquet",
        compression=compression,
        data_page_version=version,
        data_page_size=2000,
        row_group_size=4000,
        write_page_checksum=version == "1.0",
        write_page_index=True,
    )
    result = tlpipe.import_features(tmp_path / "t.parquet", tmp_path / "f.h5", declare="x")
    assert result.count == count
    assert read_features(tmp_path / "f.h5").vectors.tobytes() == vectors.tobytes()


def test_parquet_of_any_bytes(tmp_path: Path) -> None:
    raw = parquet(tmp_path / "t.parquet").read_bytes()
    for damaged in (b"", b"PAR1", b"PAR1" * 3, raw[:-1], raw[: len(raw) // 2], raw[:-8] + raw[-4:]):
        (tmp_path / "t.parquet").write_bytes(damaged)
        with pytest.raises(TableError, match="cannot be read"):
            tlpipe.import_features(tmp_path / "t.parquet", tmp_path / "f.h5", declare="x")


def test_flipped_bytes_of_a_parquet_file(tmp_path: Path) -> None:
    table = tmp_path / "t.parquet"
    raw = parquet(table).read_bytes()
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(raw), 300).tolist():
        table.write_bytes(raw[:at] + bytes([raw[at] ^ int(rng.integers(1, 256))]) + raw[at + 1 :])
        try:
            tlpipe.import_features(table, tmp_path / "f.h5", declare="x", overwrite=True)
        except (TableError, OptionError):
            continue


def test_parquet_that_lies_about_its_rows(tmp_path: Path) -> None:
    table = parquet(tmp_path / "t.parquet")
    raw = table.read_bytes()
    length = int.from_bytes(raw[-8:-4], "little")
    footer = raw[-8 - length : -8]
    # Thrift's compact protocol: field 3 (num_rows of the file), i64, zigzag of 4.
    at = footer.index(b"\x16\x08")
    for rows in (b"\x16\x06", b"\x16\x7e"):
        changed = footer[:at] + rows + footer[at + 2 :]
        table.write_bytes(raw[: -8 - length] + changed + raw[-8:])
        with pytest.raises(TableError):
            tlpipe.import_features(table, tmp_path / "f.h5", declare="x")


HEAD = "key,label,e0,e1\n"
CSV_ATTACKS: list[tuple[str, str, str]] = [
    ("nothing", "", "no column of keys"),
    ("no numbers", "key,label\na,x\n", "columns e0, e1"),
    ("a hole", "key,e0,e2\na,1,2\n", "columns e0, e1"),
    ("twice", "key,e0,e0\na,1,2\n", "columns e0, e1"),
    ("two keys", "key,path,e0\na,b,1\n", "more than one column of keys"),
    ("a short row", HEAD + "a,x,1\n", "line 2, has 3 values"),
    ("a long row", HEAD + "a,x,1,2,3\n", "line 2, has 5 values"),
    ("no number", HEAD + "a,x,1,two\n", "cannot be read"),
    ("NaN", HEAD + "a,x,1,nan\n", "row 0 holds NaN"),
    ("infinity", HEAD + "a,x,1,1e999\n", "row 0 holds NaN"),
    ("beyond float32", HEAD + "a,x,1,1e300\n", "row 0 holds NaN"),
    ("a key twice", HEAD + "a,x,1,2\na,x,1,2\n", "more than once"),
    ("no rows", HEAD, "has no rows"),
    ("an open quote", HEAD + '"a,x,1,2\n', "line"),
    ("a group", "key,group,e0\na,99999999999999999999,1\n", "cannot be read"),
    ("many digits", "key,group,e0\na," + "9" * 5000 + ",1\n", "cannot be read"),
    ("a giant line", HEAD + "a," + "x" * 5_000_000, "more than 4,194,304 characters"),
    ("many columns", "," * 200_000, "has 200,001 columns"),
    ("a giant first line", "x" * 5_000_000, "more than 4,194,304 characters"),
]


@pytest.mark.parametrize(
    ("text", "message"), [case[1:] for case in CSV_ATTACKS], ids=[case[0] for case in CSV_ATTACKS]
)
def test_hostile_csv(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    with pytest.raises(TableError, match=message):
        tlpipe.import_features(tmp_path / "t.csv", tmp_path / "f.h5", declare="x")
    assert not (tmp_path / "f.h5").exists()


def test_a_csv_of_other_bytes(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(HEAD.encode() + b"\xff,x,1,2\n")
    with pytest.raises(TableError, match="cannot be read"):
        tlpipe.import_features(tmp_path / "t.csv", tmp_path / "f.h5", declare="x")


def test_what_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="does not exist"):
        tlpipe.import_features(tmp_path / "t.csv", tmp_path / "f.h5", declare="x")
    (tmp_path / "t.txt").touch()
    with pytest.raises(TableError, match=r"must end in .parquet or .npz or .csv"):
        tlpipe.import_features(tmp_path / "t.txt", tmp_path / "f.h5", declare="x")
    with pytest.raises(OptionError, match="declared as ' '"):
        tlpipe.import_features(
            npz(tmp_path / "t.npz", vectors=VECTORS, keys=KEYS), tmp_path / "f.h5", declare=" "
        )


def test_the_commands(features: Path, tmp_path: Path) -> None:
    table, back = tmp_path / "t.csv", tmp_path / "back.h5"
    result = run("export", features, "-o", table)
    assert result.exit_code == 0, result.output
    assert "13 embeddings of 8 numbers" in result.stderr
    assert "CSV does not carry" in result.stderr
    assert "does not list the 1 rejected image of" in result.stderr
    result = run("import", table, "-o", back)
    assert result.exit_code == 1
    assert "--declare TEXT" in result.stderr
    result = run("import", table, "-o", back, "--declare", "x", "--pooling", "cls")
    assert result.exit_code == 1
    assert "--pooling say something of a --backbone" in result.stderr
    result = run("import", table, "-o", back, "--declare", "my tool")
    assert result.exit_code == 0, result.output
    assert "made by 'my tool'" in result.stderr
    assert "backbone: declared 'my tool'" in run("inspect", back).stdout
