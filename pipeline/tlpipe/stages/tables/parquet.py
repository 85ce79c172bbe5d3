"""Tables as Parquet, through pyarrow. Imported only where such a file is read or written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tlpipe.errors import CUT_OR_DAMAGED, TableError
from tlpipe.parquet_guard import chunks_of, first_page, open_parquet
from tlpipe.parquet_pages import check_pages
from tlpipe.stages.tables.block import MOST_NOTE, SPLIT_TEXTS, Table, TableBlock, TableSource
from tlpipe.stages.tables.checks import (
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

MOST_TEXT = 16 << 10
"""Bytes of a key, label or other text: four times the longest path of Linux."""


class ParquetTable(Table):
    """A Parquet file of vectors."""

    def __init__(self, path: Path) -> None:
        self.where = f"The table {str(path)!r}"
        self._file = open_parquet(path)
        try:
            self._start(most_unpacked(path))
            self._check_pages(path, most_unpacked(path))
            schema = self._file.schema_arrow
            texts = [n for n in self._found.values() if _is_text(schema.field(n).type)]
            self._file.close()
            self._file = open_parquet(path, texts)  # one long text of many rows stays one
        except BaseException:
            self._file.close()
            raise

    def _start(self, most: int) -> None:
        schema = self._file.schema_arrow
        self._found = find_columns(schema.names, self.where)
        self._found.pop("stat", None)
        need_columns(self._found, ["vectors", "keys"], schema.names, self.where)
        for holds, name in self._found.items():
            found = schema.field(name).type
            if not _EXPECTED.get(holds, _is_integer)(found):
                raise TableError(
                    f"{self.where} has {name!r} as {brief.repr(str(found))}; it must be"
                    f" {_WORDS.get(holds, 'integers')}."
                )
        self.count = self._file.metadata.num_rows
        self.dim = checked_dim(self._dim(schema.field(self._found["vectors"]).type), self.where)
        self._check_sizes(most)
        note = (schema.metadata or {}).get(b"header")
        if note is not None and len(note) > 4 * MOST_NOTE:
            raise TableError(
                f"{self.where} has a header of {len(note):,} bytes; at most {4 * MOST_NOTE:,} are"
                " read.",
                hint="Write the table without the metadata 'header', and say what made its vectors"
                " with --backbone or --declare.",
            )
        self.note = None if note is None else note.decode()

    def _chunks(self) -> Iterator[Any]:
        """What the file says of each stretch of each column that is read."""
        metadata = self._file.metadata
        for number in range(metadata.num_row_groups):
            yield from chunks_of(metadata, number, self._found.values())

    def _dim(self, kind: Any) -> int:
        """D: of the type where that tells, else of how many numbers there are."""
        if pa.types.is_fixed_size_list(kind):
            return int(kind.list_size)
        root = f"{self._found['vectors']}."
        values = sum(c.num_values for c in self._chunks() if c.path_in_schema.startswith(root))
        return int(values) // self.count if self.count > 0 else 0

    def _check_sizes(self, most: int) -> None:
        """Refuse what claims to be far more than the file can hold."""
        size = max(0, self.count) * self.dim * 4
        unpacked = sum(max(0, chunk.total_uncompressed_size) for chunk in self._chunks())
        for claimed in (size, unpacked):
            if claimed > most:
                raise TableError(
                    f"{self.where} claims to hold {claimed:,} bytes, far more than its file can"
                    f" (at most {most:,} are believed).",
                    hint=CUT_OR_DAMAGED,
                )

    def _check_pages(self, path: Path, most: int) -> None:
        """See that no page unpacks to far more than the footer says."""
        with path.open("rb", buffering=0) as stream:
            for chunk in self._chunks():
                most -= check_pages(stream, first_page(chunk), chunk.num_values, most, self.where)

    def blocks(self) -> Iterator[TableBlock]:
        """Rows, a block at a time."""
        batches = self._file.iter_batches(
            batch_size=block_rows(4 * self.dim),
            columns=list(self._found.values()),
            use_threads=False,
        )
        first = 0
        while True:
            with foreign_errors(self.where):
                batch = next(batches, None)
                if batch is None:
                    break
                block = self._block(batch, first)
            first += len(block)
            yield block
        if first != self.count:
            raise TableError(
                f"{self.where} is damaged: it states {self.count:,} rows and has {first:,}.",
                hint=CUT_OR_DAMAGED,
            )

    def _block(self, batch: Any, first: int) -> TableBlock:
        rows = batch.num_rows
        values = {holds: batch.column(name) for holds, name in self._found.items()}
        texts = {
            holds: _texts(values[holds], self.where)
            for holds in ("keys", "labels", "splits", "content_sha256")
            if holds in values
        }
        none: list[str | None] = [None] * rows
        digests = texts.get("content_sha256")
        stat = unknown_stat(rows)
        for column, name in enumerate(("size_bytes", "mtime_ns")):
            if name in values:
                stat[:, column] = _integers(values[name])
        groups = values.get("groups")
        return TableBlock(
            keys=[key or "" for key in texts["keys"]],
            vectors=float32(self._vectors(values["vectors"], first), first, self.where),
            labels=[label or None for label in texts.get("labels", none)],
            splits=split_numbers(texts.get("splits", none), self.where),
            groups=np.full(rows, -1, np.int64) if groups is None else _integers(groups),
            content_sha256=None if digests is None else digests_of(digests, self.where),
            stat=stat,
        )

    def _vectors(self, column: Any, first: int) -> NDArray[Any]:
        """Numbers of a column of lists."""
        if column.null_count or column.values.null_count:
            raise TableError(
                f"{self.where} lacks vectors, or numbers of vectors (null), among the rows"
                f" {first:,} to {first + len(column) - 1:,}.",
                hint="Leave out what has no usable vector.",
            )
        numbers: NDArray[Any] = column.flatten().to_numpy(zero_copy_only=False)
        lengths = column.value_lengths().to_numpy(zero_copy_only=False)
        if not (lengths == self.dim).all() or numbers.size != len(column) * self.dim:
            raise TableError(
                f"{self.where} has vectors of the lengths"
                f" {brief.repr(sorted(set(lengths.tolist())))}; all must have the same, from 1 on."
            )
        return numbers.reshape(len(column), self.dim)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _texts(column: Any, where: str) -> list[str | None]:
    """Texts of a column, or the digits of its integers.

    A file may name one long text for each of many rows: its length is seen before it is copied.
    """
    texts = column.dictionary if pa.types.is_dictionary(column.type) else column
    if _is_text(texts.type) and len(texts):
        longest = pc.max(pc.binary_length(texts)).as_py() or 0
        if longest > MOST_TEXT:
            raise TableError(
                f"{where} has a text of {longest:,} bytes; at most {MOST_TEXT:,} are read.",
                hint="Shorten it.",
            )
    return [None if value is None else str(value) for value in column.to_pylist()]


def _integers(column: Any) -> NDArray[np.int64]:
    """Integers of a column; -1 where one is missing."""
    filled: NDArray[np.int64] = (
        column.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    )
    return filled


def _is_text(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_integer(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_null(kind))


def _is_vectors(kind: Any) -> bool:
    lists = (pa.types.is_fixed_size_list, pa.types.is_list, pa.types.is_large_list)
    return any(is_list(kind) for is_list in lists) and pa.types.is_floating(kind.value_type)


def _is_label(kind: Any) -> bool:
    return _is_text(kind) or _is_integer(kind)


_EXPECTED = {
    "vectors": _is_vectors,
    "keys": _is_text,
    "labels": _is_label,
    "splits": lambda kind: _is_text(kind) or pa.types.is_null(kind),
    "content_sha256": _is_text,
}
_WORDS = {
    "vectors": "lists of floats",
    "keys": "text",
    "labels": "text or integers",
    "splits": "text",
    "content_sha256": "text",
}


def write_parquet(path: Path, source: TableSource) -> None:
    """Write a Parquet file, a row group for each block."""
    note = {"header": source.note, "fingerprint": source.fingerprint}
    schema = pa.schema(
        [
            pa.field("key", pa.string(), nullable=False),
            ("label", pa.string()),
            ("split", pa.string()),
            ("group", pa.int64()),
            pa.field("content_sha256", pa.string(), nullable=False),
            ("size_bytes", pa.int64()),
            ("mtime_ns", pa.int64()),
            pa.field("embedding", pa.list_(pa.float32(), source.dim), nullable=False),
        ],
        metadata=note,
    )
    texts = ["label", "split"]
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=texts) as writer:
        for block in source.blocks(True):
            assert block.vectors is not None
            assert block.content_sha256 is not None
            names = [SPLIT_TEXTS[Split(number)] or None for number in block.splits.tolist()]
            numbers = pa.array(block.vectors.reshape(-1))
            columns = [
                pa.array(block.keys, pa.string()),
                pa.array(block.labels, pa.string()),
                pa.array(names, pa.string()),
                pa.array(block.groups, pa.int64(), mask=block.groups < 0),
                pa.array([row.tobytes().hex() for row in block.content_sha256], pa.string()),
                *(pa.array(column.copy(), pa.int64()) for column in block.stat.T),
                pa.FixedSizeListArray.from_arrays(numbers, source.dim),
            ]
            writer.write_table(pa.table(columns, schema=schema))
