"""Lists the items of Parquet tables that hold images, without reading the images."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from tlpipe.errors import SourceError
from tlpipe.stages.source.manifest import as_splits, open_manifest
from tlpipe.stages.source.parquet.file import TableFile, errors, leaf_of
from tlpipe.stages.source.parquet.reader import TableReader
from tlpipe.stages.source.parquet.rows import ParquetRows, table_rows
from tlpipe.stages.source.parquet.values import texts
from tlpipe.stages.source.rows import MOST_COLUMNS, RowBatch, brief, check_text
from tlpipe.stages.source.survey import Asked, Source, Survey
from tlpipe.stages.source.table_files import TablePath, split_of_name
from tlpipe.types import Block, Split

_MOST_HASHED = 1 << 24  # rows whose paths are compared with each other, in 8 bytes each
NO_IMAGES = "Parquet file without a column of images"


def open_parquet_file(path: Path, allowed: Sequence[str]) -> Source:
    """Take a Parquet file as a table of images where it has a column of them, else as a manifest.

    Parameters
    ----------
    path : pathlib.Path
    allowed : sequence of str
        Real paths of folders outside its own that its paths may lead into.

    Raises
    ------
    SourceError
    """
    table = TablePath(path, path.name, split_of_name(path.name))
    with closing(TableFile(path, f"The table {str(path)!r}")) as file:
        if file.columns.image is None:
            return open_manifest(path, allowed, ParquetRows)
        more = file.columns.more
    return _source(str(path), path, [table], allowed, more)


def open_tables(folder: Path, tables: Sequence[TablePath], allowed: Sequence[str]) -> Source | None:
    """Take the Parquet files of a folder as one table of images; None where none holds images.

    Parameters
    ----------
    folder : pathlib.Path
    tables : sequence of TablePath
        In their order.
    allowed : sequence of str

    Raises
    ------
    SourceError
    """
    kept: list[TablePath] = []
    more: dict[str, None] = {}
    for table in tables:
        with closing(TableFile(table.path, f"The table {str(table.path)!r}")) as file:
            if file.columns.image is not None:
                kept.append(table)
                more.update(dict.fromkeys(file.columns.more))
    if not kept:
        return None
    return _source(str(folder), folder, kept, allowed, list(more), len(tables) - len(kept))


def _source(
    name: str,
    root: Path,
    tables: Sequence[TablePath],
    allowed: Sequence[str],
    columns: Sequence[str],
    others: int = 0,
) -> Source:
    reader = TableReader([str(table.path) for table in tables], allowed)
    listing = _Listing(tables, reader)

    def blocks(survey: Survey, asked: Asked) -> Iterator[Block]:
        survey.layout = "a Parquet table" if len(tables) == 1 else f"{len(tables)} Parquet tables"
        survey.layout += " of images"
        if others:
            survey.skipped[NO_IMAGES] += others
        unused = asked.unused(columns)
        if unused:
            survey.notices.append(f"Columns of the table that are not used: {brief.repr(unused)}.")
        for block in listing.blocks(asked):
            survey.labels.update(zip(block.splits, block.labels, strict=True))
            yield block

    return Source(name, blocks, reader=reader, paths=[root], columns=columns[:MOST_COLUMNS])


class _Listing:
    """Makes blocks of the rows of tables.

    Keys are the paths of the rows where each row has one and no two have the same, and else the
    table's name with the row's number: a decision for all rows, made once.
    """

    def __init__(self, tables: Sequence[TablePath], reader: TableReader) -> None:
        self._tables, self._reader = tables, reader
        self._by_path: bool | None = None

    def blocks(self, asked: Asked) -> Iterator[Block]:
        """All items."""
        if self._by_path is None:
            self._by_path = self._paths_tell()
        for number, table in enumerate(self._tables):
            with closing(TableFile(table.path, f"The table {str(table.path)!r}")) as file:
                self._reader.listed[number] = file.stat
                yield from self._of_file(number, table, file, asked)

    def _of_file(
        self, number: int, table: TablePath, file: TableFile, asked: Asked
    ) -> Iterator[Block]:
        known = file.columns
        missing = [name for name in asked.columns if name not in known.more]
        if missing or known.image is None:
            raise SourceError(
                f"{file.where} has no columns {brief.repr(missing or ['image'])}, which others"
                " beside it have.",
                hint="The tables of a folder must have the same columns.",
            )
        path = [known.path] if self._by_path and known.path is not None else []
        leaves = [*path, *(name for name in (known.label, known.split) if name is not None)]
        splits: dict[str, Split] = {}
        base = group_before = 0
        for group, first, batch in file.batches([*leaves, *asked.columns]):
            if group != group_before:
                base += sum(file.rows[group_before:group])
                group_before = group
            if batch is None:
                rows = min(4096, file.rows[group] - first)
                found = _no_cells(rows)
            else:
                rows = batch.num_rows
                found = table_rows(file, group, first, batch, asked.columns, paths=bool(path))
            check_text(found, file.where)
            start = base + first
            yield Block(
                keys=found.paths
                if self._by_path
                else [f"{table.name}/{row}" for row in range(start, start + rows)],
                places=[(number, group, row) for row in range(first, first + rows)],
                labels=found.labels,
                splits=[
                    table.split if split is Split.NONE else split
                    for split in as_splits(found, splits, file.where)
                ],
                stats=[file.stat] * rows if asked.stats else [],
                more=found.more,
            )

    def _paths_tell(self) -> bool:
        """Whether each row has a path, and no two have the same."""
        digests = array("Q")
        for table in self._tables:
            with closing(TableFile(table.path, f"The table {str(table.path)!r}")) as file:
                leaf = file.columns.path
                if leaf is None or len(digests) + sum(file.rows) > _MOST_HASHED:
                    return False
                for group, _, batch in file.batches([leaf]):
                    with errors(f"{file.where}, row group {group}"):
                        paths = texts(leaf_of(batch, leaf), file.where)
                    if not all(paths) or "\0" in "".join(paths):
                        return False
                    digests.frombytes(b"".join(map(_digest, paths)))
        found: Any = np.frombuffer(digests, np.uint64)
        found.sort()
        return not bool((found[1:] == found[:-1]).any())


def _digest(path: str) -> bytes:
    return hashlib.blake2b(path.encode(), digest_size=8).digest()


def _no_cells(count: int) -> RowBatch:
    return RowBatch(lambda at: "", [""] * count, [None] * count, [""] * count, [])
