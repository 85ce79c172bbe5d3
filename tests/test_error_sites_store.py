"""Errors of feature files and of tables of vectors that no other test brings about."""

from __future__ import annotations

import errno
import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tlpipe
from feature_files import header_of, some_rows, write_features
from refusals import disk_error, refused
from tlpipe.card import Card
from tlpipe.errors import FeatureFileError, OutputError, TableError
from tlpipe.stages.predictions import rows_of_part
from tlpipe.stages.store import feature_writer, inspect_features, read_features
from tlpipe.stages.tables import parquet

VECTORS = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
KEYS = [f"{number}.png" for number in range(300)]


def test_a_feature_file_that_may_not_be_read(
    tmp_path: Path, tiny_card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_features(tmp_path / "f.h5", tiny_card, 10)
    disk_error(monkeypatch, path, errno.EACCES)
    with refused(FeatureFileError, f"{str(path)!r} cannot be read: Permission denied", "chmod"):
        read_features(path)
    with refused(FeatureFileError, f"{str(path)!r} cannot be read: Permission denied", "chmod"):
        tlpipe.repair(path, tmp_path / "g.h5")


def test_a_file_with_something_before_it(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    with h5py.File(path, "w", userblock_size=512) as file:
        file.attrs["format"] = "tlpipe-features"
    with refused(FeatureFileError, str(path), "something else stands before it", "tlpipe embed"):
        inspect_features(path)


def test_files_of_one_fingerprint_and_two_sizes(tmp_path: Path, tiny_card: Card) -> None:
    for name, dim in (("a.h5", 8), ("b.h5", 4)):
        with feature_writer(tmp_path / name, header_of(tiny_card), dim) as writer:
            writer.add(some_rows(0, 3, dim))
    with refused(FeatureFileError, "embeddings of 8 numbers", "b.h5' of 4", "tlpipe verify FILE"):
        tlpipe.merge([tmp_path / "a.h5", tmp_path / "b.h5"], tmp_path / "c.h5")
    assert not (tmp_path / "c.h5").exists()


def test_a_part_of_predictions_that_is_not_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "000000-ab.jsonl"
    path.write_text('{"first": "a.png"}\n')
    with refused(OutputError, str(path), "written a moment ago", "Remove it, and run the same"):
        rows_of_part(path)


# Tables of vectors


def refused_table(path: Path, *words: str) -> None:
    with refused(TableError, *words):
        tlpipe.import_features(path, path.with_name("f.h5"), declare="elsewhere")
    assert not path.with_name("f.h5").exists()


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_an_array_that_ends_before_its_shape_is_full(tmp_path: Path) -> None:
    """Its checksum and packed size are those of the few bytes there are; only its size lies."""
    path = tmp_path / "t.npz"
    keys = npy(np.array(KEYS))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("vectors.npy", npy(VECTORS))
        archive.writestr("keys.npy", keys[:-8])
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"keys.npy") - 46
    struct.pack_into("<I", content, entry + 24, len(keys))
    path.write_bytes(content)
    refused_table(path, "'keys' ends before its shape (300,) is full", "make or copy the table")


def vectors(path: Path, metadata: dict[str, str] | None = None) -> Path:
    columns = {"key": KEYS, "embedding": pa.array(VECTORS.tolist(), pa.list_(pa.float32(), 4))}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)
    return path


def test_a_table_whose_own_header_is_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "MOST_NOTE", 1_000)  # 8 MB take long to write
    path = vectors(tmp_path / "t.parquet", {"header": "x" * 5_000})
    refused_table(path, str(path), "a header of 5,000 bytes; at most 4,000 are read")


def test_a_table_of_fewer_rows_than_it_states(tmp_path: Path) -> None:
    path = vectors(tmp_path / "t.parquet")
    content = path.read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    stated = content.index(b"\x16\xd8\x04", footer)  # 300 rows, as the format writes a number
    path.write_bytes(content[:stated] + b"\x16\xda\x04" + content[stated + 3 :])
    refused_table(path, str(path), "states 301 rows and has 300", "make or copy it again")
