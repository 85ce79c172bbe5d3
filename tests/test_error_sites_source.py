"""Errors of sources that no other test brings about: each by files as they may be found."""

from __future__ import annotations

import io
import json
import os
import struct
import sys
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tlpipe
from conftest import write_image
from refusals import disk_error, refused
from tlpipe.errors import SourceError, TableError
from tlpipe.files import CACHE_VARIABLE
from tlpipe.stages.source import Source, archives, open_source

IMAGES = np.zeros((3, 4, 4), np.uint8)


def keys(source: Source, *columns: str) -> list[str]:
    return [item.key for item in source.items(columns=columns)]


def npy(array: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def npz(path: Path, **arrays: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in arrays.items():
            archive.writestr(f"{name}.npy", content)
    return path


# Addresses and lists


def test_a_file_of_another_machine() -> None:
    with refused(SourceError, "'file://other/photos'", "another machine, 'other'", "file:///PATH"):
        open_source("file://other/photos")


def test_an_empty_path_among_images_given() -> None:
    with refused(SourceError, "Number 1 (from 0)", "is an empty path", "Give paths or addresses"):
        keys(open_source(["a.png", ("b.png", "")]))


def test_standard_input_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Failing())))
    with refused(SourceError, "Standard input cannot be read", "Input/output error"):
        keys(open_source("-"))


def test_a_column_that_has_gone(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("path,camera\na.png,1\n")
    source = open_source(path)
    assert keys(source, "camera") == ["a.png"]
    path.write_text("path,lens\na.png,1\n")
    with refused(SourceError, str(path), "no columns ['camera'] any more"):
        keys(source, "camera")


def test_json_lines_of_too_many_columns(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    row = {"path": "a.png"} | {f"c{number}": "" for number in range(10_001)}
    path.write_text(json.dumps(row) + "\n")
    with refused(
        SourceError, "line 1: there are 10,002 columns; at most 10,000", "path, and maybe"
    ):
        open_source(path)


@pytest.mark.skipif(sys.platform != "linux", reason="names of bytes are Linux's")
def test_names_that_read_the_same(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 1)
    for name in (b"x\xff.png", rb"x\xff.png"):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as stream:  # noqa: PTH118, PTH123
            stream.write((tmp_path / "a.png").read_bytes())
    with refused(SourceError, str(tmp_path), "read 'x\\\\xff.png'", "Rename one of them"):
        keys(open_source(tmp_path))


# Archives


def test_an_archive_that_changes_while_it_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MOST_KEPT", 0)  # as if it were too long to be kept in memory
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for number in range(9_000):
            archive.addfile(tarfile.TarInfo(f"{number:04d}.png"))
    items = open_source(tmp_path / "a.tar").items()
    next(items)
    os.utime(tmp_path / "a.tar", ns=(1, 1))
    with refused(SourceError, "a.tar' changed while it was listed", "Run the same command"):
        list(items)


def test_an_archive_on_a_failing_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(write_image(tmp_path / "a.png", 1), "a.png")
    source = open_source(path)
    disk_error(monkeypatch, path)
    with refused(SourceError, f"The archive {str(path)!r} cannot be read", "Input/output error"):
        keys(source)


# IDX and NumPy files


def test_an_idx_file_of_two_channels(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx4-ubyte"
    path.write_bytes(bytes([0, 0, 8, 4]) + struct.pack(">4I", 1, 2, 2, 2) + bytes(8))
    with refused(SourceError, str(path), "images of 2 channels; 1, 3 or 4 are read"):
        open_source(path)


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_arrays_on_a_failing_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = tmp_path / f"images.{kind}"
    path.write_bytes(npy(IMAGES)) if kind == "npy" else npz(path, images=npy(IMAGES))
    disk_error(monkeypatch, path)
    with refused(SourceError, f"{str(path)!r} cannot be read", "Correct its permissions"):
        open_source(path)


def test_names_of_classes_on_a_failing_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(
        bytes([0, 0, 8, 3]) + struct.pack(">3I", *IMAGES.shape) + IMAGES.tobytes()
    )
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 0, 1, 2]))
    names = tmp_path / "classes.txt"
    names.write_text("a\nb\nc\n")
    assert len(keys(open_source(tmp_path))) == 3
    disk_error(monkeypatch, names)
    with refused(SourceError, f"class names {str(names)!r} cannot be read", "Input/output error"):
        open_source(tmp_path)


def patched(path: Path, at: int, layout: str, *values: int) -> Path:
    content = bytearray(path.read_bytes())
    struct.pack_into(layout, content, at, *values)
    path.write_bytes(content)
    return path


def test_an_npz_of_too_many_arrays(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(10_001):
            archive.writestr(f"{number}.npy", b"")
    with refused(SourceError, str(path), "more than 10,000 arrays"):
        open_source(path)


def test_an_array_packed_in_another_way(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("images.npy", npy(IMAGES))
    with refused(SourceError, str(path), "array 'images', cannot be read", "method 12"):
        open_source(path)


def test_two_arrays_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            archive.writestr("images.npy", npy(IMAGES))
    with refused(SourceError, str(path), "two arrays of the name 'images'"):
        open_source(path)


def test_an_array_that_is_not_where_the_directory_says(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", images=npy(IMAGES))
    patched(path, 0, "<I", 7)
    with refused(SourceError, str(path), "'images', does not begin where"):
        open_source(path)


def test_an_array_beyond_the_end(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", images=npy(IMAGES))
    patched(path, 28, "<H", 60_000)  # bytes of further fields before the array
    with refused(SourceError, str(path), "'images', reaches beyond the end of the archive"):
        open_source(path)


def packed(path: Path, **arrays: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in arrays.items():
            archive.writestr(f"{name}.npy", content)
    return path


def test_an_array_that_cannot_be_unpacked(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.npz", images=npy(IMAGES))
    patched(path, 30 + len("images.npy"), "<Q", (1 << 64) - 1)
    with refused(SourceError, str(path), "'images', cannot be unpacked", "invalid block type"):
        open_source(path)


@pytest.mark.parametrize("what", ["labels", "classes"])
def test_an_array_with_another_checksum(tmp_path: Path, what: str) -> None:
    arrays = {"labels": npy(np.arange(3)), "classes": npy(np.array(["a", "b", "c"]))}
    path = packed(tmp_path / "a.npz", images=npy(IMAGES), **arrays)
    assert len(keys(open_source(path))) == 3
    at = path.read_bytes().rindex(f"{what}.npy".encode()) - 46  # its entry of the directory
    patched(path, at + 16, "<I", 7)
    with refused(SourceError, str(path), "is damaged: its checksum (CRC-32) is not the stated"):
        keys(open_source(path))


@pytest.mark.parametrize(
    "labels",
    [
        npy(np.array([b"a", b"\xff", b"c"])),
        npy(np.array(["a", "b", "c"])).replace(b"b\0\0\0", b"\0\0\x11\0"),  # no code point
    ],
    ids=["bytes", "text"],
)
def test_labels_that_are_no_text(tmp_path: Path, labels: bytes) -> None:
    path = npz(tmp_path / "a.npz", images=npy(IMAGES), labels=labels)
    with refused(SourceError, str(path), "array 'labels' holds text that is none"):
        keys(open_source(path))


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (np.arange(3), "names of classes are texts of the shape (K,)"),
        (np.array(["a", "b", "a"]), "names a class twice"),
        (np.array(["a", " ", "b"]), "or with an empty name"),
    ],
)
def test_names_of_classes_that_are_none(tmp_path: Path, classes: Any, words: str) -> None:
    arrays = {"labels": npy(np.arange(3)), "classes": npy(classes)}
    path = npz(tmp_path / "a.npz", images=npy(IMAGES), **arrays)
    with refused(SourceError, str(path), "array 'classes'", words):
        open_source(path)


# Parquet


def parquet(path: Path, labels: Any = None, rows: int = 3, **columns: Any) -> Path:
    content = write_image(path.parent / "image.png", 1).read_bytes()
    found = {"image": [content] * rows} | ({} if labels is None else {"label": labels}) | columns
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(found), path, row_group_size=4_000)
    return path


def varint(number: int) -> bytes:
    """A number of a Parquet file's footer, after the byte that says what it is."""
    number, found = 2 * number, b"\x16"
    while number > 127:
        found, number = found + bytes([number & 127 | 128]), number >> 7
    return found + bytes([number])


def test_a_row_group_with_fewer_rows_than_it_states(tmp_path: Path) -> None:
    path = parquet(tmp_path / "t.parquet", [["a", "b"]] * 3_000, 3_000)
    before, stated, after = path.read_bytes().rpartition(varint(3_000))
    assert stated
    path.write_bytes(before + varint(3_100) + after)
    with refused(SourceError, str(path), "row group 0 states 3,100 rows and has 3,000", "anew"):
        keys(open_source(path))


def test_a_table_that_changes_while_it_is_read(tmp_path: Path) -> None:
    path = parquet(tmp_path / "t.parquet", ["a"] * 12_000, 12_000)
    items = open_source(path).items()
    next(items)
    os.utime(path, ns=(1, 1))
    with refused(SourceError, f"{str(path)!r} changed while it was read"):
        list(items)


def test_a_footer_that_is_too_long(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with path.open("wb") as stream:  # it takes no room on the disk
        stream.write(b"PAR1")
        stream.seek(90 << 20)
        stream.write(struct.pack("<I", 80 << 20) + b"PAR1")
    words = (str(path), "a footer of 83,886,080 bytes; at most 67,108,864", "larger row groups")
    with refused(SourceError, *words):
        open_source(path)
    with refused(TableError, *words):
        tlpipe.import_features(path, tmp_path / "f.h5", declare="elsewhere")


def test_tables_of_a_folder_with_other_columns(tmp_path: Path) -> None:
    parquet(tmp_path / "t" / "a.parquet", camera=["x"] * 3)
    parquet(tmp_path / "t" / "b.parquet")
    (tmp_path / "t" / "image.png").unlink()
    with refused(SourceError, "b.parquet", "no columns ['camera']", "the same columns"):
        keys(open_source(tmp_path / "t"), "camera")


def test_lists_of_labels_that_are_too_long(tmp_path: Path) -> None:
    labels = [["x" * 100_000], *[["y"]] * 2_999]
    path = parquet(tmp_path / "t.parquet", labels, 3_000)
    with refused(SourceError, str(path), "row 0", "and rows behind it have too long labels"):
        keys(open_source(path))


# Object stores


def test_a_store_that_is_set_up_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fsspec.config.conf, "s3", {"key": "a", "username": "b"})
    with refused(SourceError, "s3://set-up-wrongly", "cannot be opened", "key or username"):
        open_source("s3://set-up-wrongly/photos")


def test_a_copy_that_is_too_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    store = fsspec.filesystem("memory")
    store.pipe("/short/list.csv", b"path\na.png\n")
    monkeypatch.setattr(
        type(store), "get_file", lambda _, __, target, **___: Path(target).write_bytes(b"path")
    )
    with refused(SourceError, "'memory://short/list.csv' 4 bytes came, not 11", "run the same"):
        open_source("memory://short/list.csv")
