"""Writes tables as NPZ: array after array, each a few rows at a time."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tlpipe.stages.tables.block import TableSource

_EPOCH = (1980, 1, 1, 0, 0, 0)  # of every member: the same vectors make the same file


def write_npz(path: Path, source: TableSource) -> None:
    """Write an NPZ file, array after array: the rows are asked for once for each."""
    widths = [1, 1]
    for block in source.blocks(False):
        widths[0] = max(widths[0], *map(len, block.keys))
        widths[1] = max(widths[1], *(len(label or "") for label in block.labels))
    count, texts = (source.count,), [f"<U{width}" for width in widths]
    with zipfile.ZipFile(path, "w") as archive:

        def write(name: str, dtype: str, row: Sequence[int], values: Iterator[Any]) -> None:
            _write_array(archive, name, np.dtype(dtype), (*count, *row), values)

        blocks = source.blocks
        write("keys", texts[0], (), (b.keys for b in blocks(False)))
        labels = ([label or "" for label in b.labels] for b in blocks(False))
        write("labels", texts[1], (), labels)
        write("splits", "|i1", (), (b.splits for b in blocks(False)))
        write("groups", "<i8", (), (b.groups for b in blocks(False)))
        write("content_sha256", "|u1", (32,), (b.content_sha256 for b in blocks(False)))
        write("stat", "<i8", (2,), (b.stat for b in blocks(False)))
        write("vectors", "<f4", (source.dim,), (b.vectors for b in blocks(True)))
        for name, value in (
            ("classes", np.array([*source.classes], str)),
            ("fingerprint", np.array(source.fingerprint)),
            ("header", np.array(source.note)),
        ):
            _write_array(archive, name, value.dtype, value.shape, iter([value]))


def _write_array(
    archive: zipfile.ZipFile,
    name: str,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    values: Iterator[Any],
) -> None:
    info = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
    # Text is padded to the longest with zeros; numbers hardly pack.
    info.compress_type = zipfile.ZIP_DEFLATED if dtype.kind == "U" else zipfile.ZIP_STORED
    info.external_attr = 0o644 << 16
    with archive.open(info, "w", force_zip64=True) as stream:
        header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        for part in values:
            stream.write(np.ascontiguousarray(part, dtype).tobytes())
