"""Tables as NPZ: a ZIP archive of NumPy arrays, read a few rows at a time.

``numpy.load`` would hold the arrays whole, and believe what an archive says of itself.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from tlpipe.errors import CUT_OR_DAMAGED, TableError
from tlpipe.stages.tables.block import MOST_NOTE, Table, TableBlock
from tlpipe.stages.tables.checks import (
    ALIASES,
    block_rows,
    brief,
    checked_dim,
    digests_of,
    find_columns,
    float32,
    foreign_errors,
    most_unpacked,
    need_columns,
    split_numbers,
    unknown_stat,
)
from tlpipe.types import Split

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST_HEADER = 10_000  # characters that NumPy takes for safe to parse; its own headers have 128


@dataclass
class _Member:
    """An array in an archive, open for reading."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stream: IO[bytes]

    def row_bytes(self) -> int:
        """Bytes of one row."""
        count = 1
        for length in self.shape[1:]:
            count *= length
        return count * self.dtype.itemsize

    def read(self, rows: int) -> NDArray[Any]:
        """Rows from where reading stands."""
        size = rows * self.row_bytes()
        data = bytearray()
        while len(data) < size:
            more = self.stream.read(size - len(data))
            if not more:
                raise TableError(
                    f"The array {self.name!r} ends before its shape {self.shape} is full.",
                    hint="It was cut, or is damaged: make or copy the table again.",
                )
            data += more
        return np.frombuffer(data, self.dtype).reshape(rows, *self.shape[1:])

    def finish(self) -> None:
        """Read on to the end, where the archive's checksum is compared; its size fits the shape."""
        self.stream.read(1)


class NpzTable(Table):
    """An NPZ file of vectors."""

    def __init__(self, path: Path) -> None:
        self.where = f"The table {str(path)!r}"
        self._most = most_unpacked(path)
        self._zip = zipfile.ZipFile(path)
        try:
            self._start()
        except BaseException:
            self._zip.close()
            raise

    def _start(self) -> None:
        have = [info.filename for info in self._zip.infolist()]
        names = [name.removesuffix(".npy") for name in have if name.endswith(".npy")]
        self._found = find_columns(names, self.where)
        need_columns(self._found, ["vectors", "keys"], have, self.where)
        members = {holds: self._open(name) for holds, name in self._found.items()}
        vectors = members["vectors"]
        if vectors.dtype.kind != "f" or len(vectors.shape) != 2:
            raise self._wrong(vectors, "floats of the shape (N, D)")
        self.dim = checked_dim(vectors.shape[1], self.where)
        self.count = vectors.shape[0]
        for holds, member in members.items():
            kinds, row = _EXPECTED.get(holds, ("f", vectors.shape[1:]))
            if member.shape != (self.count, *row) or member.dtype.kind not in kinds:
                expected = " or ".join(_KINDS[kind] for kind in kinds)
                raise self._wrong(member, f"{expected} of the shape {(self.count, *row)}")
        self._classes = None
        if members.get("labels") is not None and members["labels"].dtype.kind == "i":
            self._classes = self._texts("classes")
        if "header.npy" in have:
            self.note = self._scalar("header")
        for member in members.values():
            member.stream.close()

    def _open(self, name: str) -> _Member:
        """Open an array, and hold what it says of itself against what is there."""
        info = self._zip.getinfo(f"{name}.npy")
        what = f"{self.where}, array {brief.repr(name)},"
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise TableError(
                f"{what} is packed by method {info.compress_type}, not deflated.",
                hint="Save it with numpy.savez or numpy.savez_compressed.",
            )
        if info.file_size > self._most:
            raise TableError(
                f"{what} claims to unpack to {info.file_size:,} bytes, far more than its file can"
                f" hold (at most {self._most:,} are believed).",
                hint="Save it with numpy.savez, without compression.",
            )
        stream = self._zip.open(info)
        shape, fortran, dtype, start = _array_header(stream, what)
        size = dtype.itemsize
        for length in shape:
            size *= length
        if dtype.hasobject or dtype.itemsize < 1 or dtype.names or dtype.subdtype:
            raise TableError(
                f"{what} has the type {brief.repr(str(dtype))}, which is not read: it may run code"
                " or has no plain values.",
                hint="Make plain arrays of text (dtype str), integers and floats.",
            )
        if size != info.file_size - start:
            raise TableError(
                f"{what} claims the shape {brief.repr(shape)} of {dtype}, {size:,} bytes, and has"
                f" {info.file_size - start:,}.",
                hint=CUT_OR_DAMAGED,
            )
        if fortran and len(shape) > 1:
            raise TableError(
                f"{what} lies in memory column by column, so no row can be read by itself.",
                hint="Save numpy.ascontiguousarray(...) of it.",
            )
        return _Member(name, shape, dtype, stream)

    def _wrong(self, member: _Member, expected: str) -> TableError:
        return TableError(
            f"{self.where} has {member.name!r} as {member.dtype} of the shape"
            f" {brief.repr(member.shape)}; it must be {expected}."
        )

    def _scalar(self, name: str) -> str:
        member = self._open(name)
        if member.dtype.kind != "U" or member.shape != () or member.row_bytes() > 8 * MOST_NOTE:
            raise self._wrong(member, f"one text of up to {2 * MOST_NOTE:,} characters")
        with member.stream:
            text: str = np.frombuffer(member.stream.read(), member.dtype).tolist()[0]
        return text

    def _texts(self, name: str) -> list[str] | None:
        """An array of texts, whole; None where there is none."""
        if f"{name}.npy" not in self._zip.namelist():
            return None
        member = self._open(name)
        if member.dtype.kind != "U" or len(member.shape) != 1 or member.shape[0] > 10_000_000:
            raise self._wrong(member, "texts, one for each class")
        with member.stream:
            texts: list[str] = member.read(member.shape[0]).tolist()
        return texts

    def blocks(self) -> Iterator[TableBlock]:
        """Rows, a block at a time."""
        with foreign_errors(self.where):
            members = {holds: self._open(name) for holds, name in self._found.items()}
        most = block_rows(max(member.row_bytes() for member in members.values()))
        try:
            for first in range(0, self.count, most):
                rows = min(most, self.count - first)
                with foreign_errors(self.where):
                    block = self._block({h: m.read(rows) for h, m in members.items()}, first)
                yield block
            with foreign_errors(self.where):
                for member in members.values():
                    member.finish()
        finally:
            for member in members.values():
                member.stream.close()

    def _block(self, values: dict[str, NDArray[Any]], first: int) -> TableBlock:
        rows = len(values["keys"])
        digests = values.get("content_sha256")
        stat = unknown_stat(rows)
        if "stat" in values:
            stat = values["stat"].astype(np.int64)
        for column, name in enumerate(("size_bytes", "mtime_ns")):
            if name in values:
                stat[:, column] = values[name]
        if digests is not None and digests.dtype.kind == "U":
            digests = digests_of(digests.tolist(), self.where)
        elif digests is not None and digests.dtype != np.uint8:
            raise TableError(
                f"{self.where} has content_sha256 as {digests.dtype}, not uint8.",
                hint="Save it as uint8 of the shape (N, 32), or as texts of 64 hexadecimal digits.",
            )
        return TableBlock(
            keys=values["keys"].tolist(),
            vectors=float32(values["vectors"], first, self.where),
            labels=self._labels(values.get("labels"), rows),
            splits=self._splits(values.get("splits"), rows),
            groups=values.get("groups", np.full(rows, -1)).astype(np.int64),
            content_sha256=digests,
            stat=stat,
        )

    def _labels(self, values: NDArray[Any] | None, rows: int) -> list[str | None]:
        if values is None:
            return [None] * rows
        if values.dtype.kind == "U":
            return [label or None for label in values.tolist()]
        names = self._classes
        if names is None:
            return [str(number) if number >= 0 else None for number in values.tolist()]
        if values.size and not -1 <= values.min() <= values.max() < len(names):
            raise TableError(
                f"{self.where} has labels that point beyond its {len(names)} classes.",
                hint="Name all classes in 'classes', in the order of their numbers.",
            )
        return [names[number] or None if number >= 0 else None for number in values.tolist()]

    def _splits(self, values: NDArray[Any] | None, rows: int) -> NDArray[np.int8]:
        if values is None:
            return np.full(rows, Split.NONE, np.int8)
        if values.dtype.kind == "U":
            return split_numbers(values.tolist(), self.where)
        if not np.isin(values, list(Split)).all():
            raise TableError(
                f"{self.where} has splits that are not of -1 (none), 0 (train), 1 (validation) and"
                " 2 (test)."
            )
        return values.astype(np.int8)

    def close(self) -> None:
        """Close the file."""
        self._zip.close()


_KINDS = {"U": "text", "i": "integers", "u": "unsigned integers", "f": "floats"}
_EXPECTED: dict[str, tuple[str, tuple[int, ...]]] = {
    "keys": ("U", ()),
    "labels": ("Ui", ()),
    "splits": ("Ui", ()),
    "groups": ("i", ()),
    "content_sha256": ("u", (32,)),
    "stat": ("i", (2,)),
    "size_bytes": ("i", ()),
    "mtime_ns": ("i", ()),
}
assert _EXPECTED.keys() | {"vectors"} == ALIASES.keys()


def _array_header(stream: IO[bytes], what: str) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, order and type of an NPY array, and where its data start (NumPy, NEP 1)."""
    magic = stream.read(8)
    version = tuple(magic[6:])
    if magic[:6] != b"\x93NUMPY" or version not in ((1, 0), (2, 0)):
        raise TableError(
            f"{what} is no NumPy array of version 1.0 or 2.0.", hint="Save it with numpy.savez."
        )
    field = stream.read(2 if version == (1, 0) else 4)
    (length,) = struct.unpack("<H" if version == (1, 0) else "<I", field)
    if length > _MOST_HEADER:
        raise TableError(
            f"{what} has a header of {length:,} bytes; {_MOST_HEADER:,} are read.",
            hint="Save plain arrays with numpy.savez.",
        )
    content = io.BytesIO(field + stream.read(length))
    parse = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = parse(content, max_header_size=_MOST_HEADER)
    if any(length < 0 for length in shape):
        raise TableError(
            f"{what} has the shape {brief.repr(shape)}.",
            hint=CUT_OR_DAMAGED,
        )
    return shape, fortran, dtype, 8 + len(field) + length
