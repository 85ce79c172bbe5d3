"""Tables as CSV: a row of text per vector, its numbers in the columns e0, e1 ..."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tlpipe.errors import TableError
from tlpipe.files import RowLines
from tlpipe.near import did_you_mean
from tlpipe.stages.tables.block import SPLIT_TEXTS, Table, TableBlock, TableSource
from tlpipe.stages.tables.checks import (
    ALIASES,
    MOST_DIM,
    block_rows,
    brief,
    checked_dim,
    digests_of,
    find_columns,
    float32,
    foreign_errors,
    need_columns,
    split_numbers,
    unknown_stat,
)
from tlpipe.types import Split

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_CHARACTERS = 4 << 20
"""Of a row, which is in memory whole: 100,000 numbers of 9 digits are 1.6 million characters."""

MOST_COLUMNS = MOST_DIM + 100

COLUMNS = ["key", "label", "split", "group", "content_sha256", "size_bytes", "mtime_ns"]


def _too_long(where: str, line: int) -> TableError:
    return TableError(
        f"{where}, line {line}: the row has more than {MOST_CHARACTERS:,} characters.",
        hint="Write it with fewer; a quote that is not closed makes one row of many.",
    )


def _rows(path: Path, where: str) -> Generator[tuple[int, list[str]], None, None]:
    """Number of the last line of each row, and its values; rows without any are left out."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        lines = RowLines(stream, MOST_CHARACTERS, lambda line: _too_long(where, line))
        rows = csv.reader(lines, strict=True)
        while True:
            with foreign_errors(where):
                try:
                    row = next(rows)
                except StopIteration:
                    return
                except csv.Error as exc:
                    raise TableError(
                        f"{where}, line {rows.line_num}: {exc}.",
                        hint="Write the table as CSV in UTF-8.",
                    ) from exc
            if len(row) > MOST_COLUMNS:
                raise TableError(
                    f"{where}, line {rows.line_num}, has {len(row):,} columns; at most"
                    f" {MOST_COLUMNS:,} are read.",
                    hint="Write it with fewer.",
                )
            if row:
                yield rows.line_num, row
            lines.next_row()


def read_pairs(path: Path, column: str) -> Iterator[tuple[str, str]]:
    """Key of each row of a CSV file, and what stands in one of its columns.

    Raises
    ------
    TableError
        The file cannot be read, or lacks the column, or one of keys.
    """
    where = f"The table {str(path)!r}"
    with foreign_errors(where), closing(_rows(path, where)) as rows:
        names = [name.strip() for name in next(rows, (1, []))[1]]
        key = find_columns([n for n in names if n.lower() in ALIASES["keys"]], where)
        need_columns(key, ["keys"], names, where)
        if names.count(column) != 1:
            raise TableError(
                f"{where} has {names.count(column) or 'no'} columns {column!r}; its columns are"
                f" {brief.repr(names)}.",
                hint=did_you_mean(column, [name for name in names if name != column]),
            )
        at = names.index(key["keys"]), names.index(column)
        for line, row in rows:
            if len(row) != len(names):
                raise _uneven(where, line, row, len(names))
            yield row[at[0]], row[at[1]].strip()


def _uneven(where: str, line: int, row: list[str], count: int) -> TableError:
    return TableError(
        f"{where}, line {line}, has {len(row):,} values; the first line names {count:,}"
        f" columns: {brief.repr(row)}.",
        hint="Give each row as many; quote values that hold a comma.",
    )


class CsvTable(Table):
    """A CSV file of vectors."""

    def __init__(self, path: Path) -> None:
        self._path, self.where = path, f"The table {str(path)!r}"
        with closing(_rows(path, self.where)) as rows:
            names = next(rows, (1, []))[1]
        numbers = [(int(n[1:]), at) for at, n in enumerate(names) if re.fullmatch("e[0-9]{1,6}", n)]
        self._found = find_columns(names, self.where)
        need_columns(self._found, ["keys"], names, self.where)
        if not numbers or sorted(n for n, _ in numbers) != list(range(len(numbers))):
            raise TableError(
                f"{self.where} must have the numbers of its vectors in the columns e0, e1 ..., each"
                f" once; its columns are {brief.repr(names)}."
            )
        self.dim = checked_dim(len(numbers), self.where)
        self._width = len(names)
        self._at = {holds: names.index(name) for holds, name in self._found.items()}
        self._numbers = [at for _, at in sorted(numbers)]

    def blocks(self) -> Iterator[TableBlock]:
        """Rows, a block at a time."""
        most, first = block_rows(64 * self.dim), 0
        held: list[list[str]] = []
        with closing(_rows(self._path, self.where)) as rows:
            next(rows)
            for line, row in rows:
                if len(row) != self._width:
                    raise _uneven(self.where, line, row, self._width)
                held.append(row)
                if len(held) == most:
                    yield self._block(held, first)
                    first, held = first + most, []
        if held:
            yield self._block(held, first)

    def _block(self, rows: list[list[str]], first: int) -> TableBlock:
        with foreign_errors(f"{self.where}, rows {first:,} to {first + len(rows) - 1:,},"):
            text = {holds: [row[at] for row in rows] for holds, at in self._at.items()}
            none = [""] * len(rows)
            digests = text.get("content_sha256")
            numbers = [[float(row[at]) for at in self._numbers] for row in rows]
            stat = unknown_stat(len(rows))
            for column, name in enumerate(("size_bytes", "mtime_ns")):
                if name in text:
                    stat[:, column] = _integers(text[name])
            return TableBlock(
                keys=text["keys"],
                vectors=float32(np.array(numbers, np.float64), first, self.where),
                labels=[label or None for label in text.get("labels", none)],
                splits=split_numbers(text.get("splits", none), self.where),
                groups=_integers(text.get("groups", none)),
                content_sha256=None if digests is None else digests_of(digests, self.where),
                stat=stat,
            )

    def close(self) -> None:
        """Do nothing: the file is open only while it is read."""


def _integers(texts: list[str]) -> NDArray[np.int64]:
    """Integers of their digits; -1 of no text."""
    return np.array([int(text) if text else -1 for text in texts], np.int64)


def write_csv(path: Path, source: TableSource) -> None:
    """Write a CSV file. The numbers have 9 digits, which give back every float32 exactly."""
    # 9 significant decimal digits tell any two float32 apart (IEEE 754-2019, 5.12.2).
    numbers = ",".join(["%.9g"] * source.dim)
    head = io.StringIO()
    writer = csv.writer(head, lineterminator="")
    with path.open("w", encoding="utf-8", newline="") as stream:
        stream.write(",".join([*COLUMNS, *(f"e{n}" for n in range(source.dim))]) + "\n")
        for block in source.blocks(True):
            assert block.vectors is not None
            assert block.content_sha256 is not None
            for row, key in enumerate(block.keys):
                group = int(block.groups[row])
                head.seek(0)
                head.truncate()
                writer.writerow(
                    [
                        key,
                        block.labels[row] or "",
                        SPLIT_TEXTS[Split(int(block.splits[row]))],
                        "" if group < 0 else group,
                        block.content_sha256[row].tobytes().hex(),
                        *block.stat[row].tolist(),
                    ]
                )
                stream.write(f"{head.getvalue()},{numbers % tuple(block.vectors[row].tolist())}\n")
