"""One Parquet file of a source, open: its columns a batch at a time, and what its footer claims."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tlpipe.errors import SourceError, TableError, TlpipeError
from tlpipe.parquet_guard import chunks_of, open_parquet, pages_of
from tlpipe.parquet_pages import Page
from tlpipe.stages.source.parquet.columns import TableColumns, understand
from tlpipe.stages.source.parquet.stretch import rows_at_once
from tlpipe.stages.source.rows import MOST_COLUMNS
from tlpipe.stages.source.survey import BLOCK_ITEMS
from tlpipe.stages.source.text_rows import check_regular

MOST_GROUPS = 1 << 16
"""Row groups of a file. Writers make one of some 10,000 or 1,000,000 rows."""

_MOST_ROWS = 1 << 20  # and eight for each byte: rows of nothing take no room
_ROWS_PER_BYTE = 8
_MOST_VALUES = 1 << 24  # of a column of a row group that holds lists: they are in memory together
_BUFFER_BYTES = 1 << 18  # read at once, of each column
_HINT = "It may be damaged: make it anew, or leave it out."


class TableFile:
    """An open Parquet file, held against what it claims.

    Parameters
    ----------
    path : pathlib.Path
    where : str
        What errors call it.

    Attributes
    ----------
    columns : TableColumns
    stat : (int, int)
        Size in bytes and time of change in ns of the file.
    rows : list of int
        Number of rows of each row group.

    Raises
    ------
    SourceError
    """

    def __init__(self, path: Path, where: str) -> None:
        self.where, self._path = where, path
        check_regular(path, where)
        with errors(where):
            found = path.stat()
            self.stat = (found.st_size, found.st_mtime_ns)
            self._open(path, found.st_size)

    def _open(self, path: Path, size: int) -> None:
        with open_parquet(path) as file:
            metadata = file.metadata
            if metadata.num_row_groups > MOST_GROUPS or metadata.num_columns > MOST_COLUMNS:
                raise SourceError(
                    f"{self.where} has {metadata.num_row_groups:,} row groups and"
                    f" {metadata.num_columns:,} columns; at most {MOST_GROUPS:,} and"
                    f" {MOST_COLUMNS:,} are read.",
                    hint="Write it with fewer.",
                )
            self.columns: TableColumns = understand(file.schema_arrow, self.where)
            schema = map(file.schema.column, range(len(file.schema)))
            texts = [
                column.path
                for column in schema
                if column.logical_type.type == "STRING" and column.max_repetition_level
            ]
        groups = range(metadata.num_row_groups)
        self.rows = [metadata.row_group(number).num_rows for number in groups]
        most = _MOST_ROWS + _ROWS_PER_BYTE * size
        if min(self.rows, default=0) < 0 or sum(self.rows) > most:
            raise SourceError(
                f"{self.where} claims to have {sum(self.rows):,} rows, in {size:,} bytes.",
                hint=_HINT,
            )
        # Of texts in lists nobody knows how many there are in a row: those that are the same stay
        # one, as a dictionary.
        self._file = open_parquet(path, texts, buffer_size=_BUFFER_BYTES, metadata=metadata)

    def batches(self, leaves: Sequence[str]) -> Iterator[tuple[int, int, Any]]:
        """Columns of all rows, a block at a time.

        Parameters
        ----------
        leaves : sequence of str
            Columns, or parts of columns, by their paths in the schema.

        Yields
        ------
        group, first : int
            The row group, and the number in it of the first row.
        batch : pyarrow.RecordBatch, or None without `leaves`
            Of at most 4,096 rows.

        Raises
        ------
        SourceError
        """
        for group, rows in enumerate(self.rows):
            if leaves:
                yield from self._group(group, rows, leaves)
                continue
            for first in range(0, rows, BLOCK_ITEMS):
                yield group, first, None

    def _group(
        self, group: int, rows: int, leaves: Sequence[str]
    ) -> Iterator[tuple[int, int, Any]]:
        first = 0
        most = min(self._rows_of(group, rows, leaf) for leaf in leaves)
        for batch in self.stretches(group, leaves, most):
            yield group, first, batch
            first += batch.num_rows
        if first != rows:
            raise SourceError(
                f"{self.where}, row group {group} states {rows:,} rows and has {first:,}.",
                hint=_HINT,
            )

    def _rows_of(self, group: int, rows: int, leaf: str) -> int:
        """How many rows may be read at once; sees that pages claim no more than they may hold."""
        most = BLOCK_ITEMS
        with errors(f"{self.where}, row group {group}"):
            for chunk in chunks_of(self._file.metadata, group, [leaf]):
                pages = list(self._pages(chunk, group))
                values = sum(page.values for page in pages)
                flat = chunk.path_in_schema in (self.columns.path, leaf)
                if values != rows if flat else values > _MOST_VALUES:
                    raise SourceError(
                        f"{self.where}, row group {group} has {rows:,} rows, and in the column"
                        f" {leaf!r} {values:,} values.",
                        hint=_HINT,
                    )
                most = min(most, rows_at_once(pages, most) if flat else most)
        return most

    def _pages(self, chunk: Any, group: int) -> Iterator[Page]:
        with self._path.open("rb", buffering=0) as stream:
            found = os.fstat(stream.fileno())
            if (found.st_size, found.st_mtime_ns) != self.stat:
                raise SourceError(
                    f"{self.where} changed while it was read.",
                    hint="Run the same command when nothing writes to it any more.",
                )
            yield from pages_of(stream, chunk, f"{self.where}, row group {group}")

    def pages(self, group: int, leaf: str) -> list[Page]:
        """What the pages of one column of a row group hold; raises SourceError."""
        with errors(f"{self.where}, row group {group}"):
            chunks = chunks_of(self._file.metadata, group, [leaf])
            return [page for chunk in chunks for page in self._pages(chunk, group)]

    def stretches(self, group: int, leaves: Sequence[str], rows: int) -> Iterator[Any]:
        """Record batches of at most `rows` rows of a row group; raises SourceError."""
        where = f"{self.where}, row group {group}"
        with errors(where):
            batches = self._file.iter_batches(
                batch_size=rows, row_groups=[group], columns=[*leaves], use_threads=False
            )
        while True:
            with errors(where):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def leaf_of(batch: Any, leaf: str) -> Any:
    """One column of a record batch, or a part of a column, by its path in the schema."""
    names = batch.schema.names
    if leaf in names:
        return batch.column(names.index(leaf))
    name, _, part = leaf.rpartition(".")
    column = batch.column(names.index(name))
    # Flattening, unlike taking the field, has no value where the struct is none.
    return column.flatten()[column.type.get_field_index(part)]


@contextlib.contextmanager
def errors(where: str) -> Iterator[None]:
    """Turn whatever pyarrow makes of damaged or hostile bytes into one error."""
    try:
        yield
    except TableError as exc:  # from the guard, which two stages share
        raise SourceError(exc.message, hint=exc.hint) from exc
    except TlpipeError:
        raise
    except (
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        OSError,
        RuntimeError,
        SystemError,
        TypeError,
        ValueError,
        struct.error,
    ) as exc:
        text = " ".join(str(exc).split())
        said = text if len(text) <= 300 else f"{text[:300]}..."
        raise SourceError(
            f"{where} cannot be read: {type(exc).__name__}: {said}", hint=_HINT
        ) from exc
