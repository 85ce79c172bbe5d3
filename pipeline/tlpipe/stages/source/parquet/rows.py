"""Rows of Parquet manifests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tlpipe.stages.source.parquet.file import TableFile, errors, leaf_of
from tlpipe.stages.source.parquet.values import labels, texts
from tlpipe.stages.source.rows import Columns, RowBatch
from tlpipe.stages.source.survey import Survey


class ParquetRows:
    """A Parquet file without images; see ``Rows``."""

    def __init__(self, path: Path, where: str) -> None:
        self._file = TableFile(path, where)
        known = self._file.columns
        used = [name for name in (known.path, known.label, known.split) if name is not None]
        self.names: Sequence[str] = [*used, *known.more]

    def batches(self, columns: Columns, more: Sequence[int], survey: Survey) -> Iterator[RowBatch]:
        """Rows, a block at a time."""
        del columns, survey  # they were understood with the types; there are no blank lines
        known = self._file.columns
        assert known.path is not None, "it was looked for"
        further = [self.names[at] for at in more]
        leaves = [name for name in (known.path, known.label, known.split) if name is not None]
        for group, first, batch in self._file.batches([*leaves, *further]):
            yield table_rows(self._file, group, first, batch, further)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def table_rows(
    file: TableFile,
    group: int,
    first: int,
    batch: Any,
    further: Sequence[str],
    *,
    paths: bool = True,
) -> RowBatch:
    """Cells of a record batch as text.

    Parameters
    ----------
    file : TableFile
    group, first : int
        The row group, and the number in it of the first row.
    batch : pyarrow.RecordBatch
    further : sequence of str
        Names of further columns.
    paths : bool
        Whether the column of paths was read.

    Raises
    ------
    SourceError
    """
    where, known, count = file.where, file.columns, batch.num_rows
    at = place_of(group, first)
    last = first + count - 1
    with errors(f"{where}, row group {group}, rows {first} to {last},"):
        more = [texts(leaf_of(batch, name), where) for name in further]
        return RowBatch(
            where=at,
            paths=texts(leaf_of(batch, known.path), where)
            if paths and known.path is not None
            else [""] * count,
            labels=[None] * count
            if known.label is None
            else labels(leaf_of(batch, known.label), known.classes, where, at),
            splits=[""] * count
            if known.split is None
            else texts(leaf_of(batch, known.split), where),
            more=list(zip(*more, strict=True)),
        )


def place_of(group: int, first: int) -> Callable[[int], str]:
    """Says where a row of a batch stands."""
    return lambda at: f"row group {group}, row {first + at}"
