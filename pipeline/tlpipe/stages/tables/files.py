"""Opens and writes a table of any of the formats, by its extension."""

from __future__ import annotations

from pathlib import Path

from tlpipe.errors import TableError
from tlpipe.files import is_file
from tlpipe.near import similar_file
from tlpipe.stages.tables.block import Table, TableSource
from tlpipe.stages.tables.checks import foreign_errors
from tlpipe.stages.tables.csv_file import CsvTable, write_csv
from tlpipe.stages.tables.npz import NpzTable
from tlpipe.stages.tables.npz_write import write_npz

FORMATS = (".parquet", ".npz", ".csv")


def open_table(path: Path) -> Table:
    """Open a table, and look at what it holds.

    Raises
    ------
    TableError
        It is missing, is none, or lacks a column.
    """
    if not is_file(path):
        raise TableError(
            f"The table {str(path)!r} does not exist, or is no regular file.",
            hint=similar_file(path),
        )
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise TableError(
            f"The table {str(path)!r} must end in {' or '.join(FORMATS)}.",
            hint="The extension says how it is read.",
        )
    with foreign_errors(f"The table {str(path)!r}"):
        if suffix == ".npz":
            return NpzTable(path)
        if suffix == ".csv":
            return CsvTable(path)
        from tlpipe.stages.tables.parquet import ParquetTable

        return ParquetTable(path)


def write_table(path: Path, suffix: str, source: TableSource) -> None:
    """Write a table in the format that a suffix names.

    Raises
    ------
    OSError
        It cannot be written.
    """
    if suffix == ".npz":
        write_npz(path, source)
    elif suffix == ".csv":
        write_csv(path, source)
    else:
        from tlpipe.stages.tables.parquet import write_parquet

        write_parquet(path, source)
