"""Rows of CSV and TSV manifests."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from tlpipe.errors import SourceError
from tlpipe.files import RowLines, is_file
from tlpipe.stages.source.rows import MOST_CHARACTERS, MOST_COLUMNS, Columns, RowBatch, brief
from tlpipe.stages.source.survey import BLOCK_ITEMS, Survey

DELIMITERS = {".csv": ",", ".tsv": "\t"}

_HINT = "A row holds a path, and maybe a label and a split."


class TextRows:
    """A CSV or TSV file with a header; see ``Rows``.

    Raises
    ------
    SourceError
        Its header cannot be read.
    """

    def __init__(self, path: Path, where: str) -> None:
        self._where = where
        self._rows = _rows(path, where)
        try:
            self.names: Sequence[str] = next(self._rows, (1, []))[1]
        except BaseException:
            self.close()
            raise

    def batches(self, columns: Columns, more: Sequence[int], survey: Survey) -> Iterator[RowBatch]:
        """Rows, a block at a time; lines without any value are left out and counted."""
        numbers: list[int] = []
        held: list[list[str]] = []
        for number, row in self._rows:
            if not row or row == [""]:
                survey.skipped["blank line"] += 1
                continue
            numbers.append(number)
            held.append(row)
            if len(held) == BLOCK_ITEMS:
                yield self._batch(numbers, held, columns, more)
                numbers, held = [], []
        if held:
            yield self._batch(numbers, held, columns, more)

    def _batch(
        self, numbers: list[int], rows: list[list[str]], columns: Columns, more: Sequence[int]
    ) -> RowBatch:
        path, label, split = columns.path, columns.label, columns.split
        assert path is not None, "it was looked for"
        last = max(path, label or 0, split or 0, *more)
        if min(map(len, rows)) <= last:
            at = next(at for at, row in enumerate(rows) if len(row) <= last)
            raise SourceError(
                f"{self._where}, line {numbers[at]} has only {len(rows[at])} values:"
                f" {brief.repr(rows[at])}.",
                hint="Give each row a value for each column that the first line names.",
            )
        labels: list[str | None] = [None] * len(rows)
        if label is not None:
            labels = [row[label].strip() or None for row in rows]
        return RowBatch(
            where=lambda at: f"line {numbers[at]}",
            paths=[row[path] for row in rows],
            labels=labels,
            splits=[""] * len(rows) if split is None else [row[split] for row in rows],
            more=[tuple([row[at] for at in more]) for row in rows] if more else [],
        )

    def close(self) -> None:
        """Close the file."""
        self._rows.close()


def too_long(where: str, line: int) -> SourceError:
    """Error for a row without end."""
    return SourceError(
        f"{where}, line {line}: the row has more than {MOST_CHARACTERS:,} characters.", hint=_HINT
    )


def check_regular(path: Path, where: str) -> None:
    """Look at a file before it is opened: opening a named pipe would wait for a writer.

    Raises
    ------
    SourceError
    """
    if not is_file(path):
        raise SourceError(
            f"{where} is no regular file any more.",
            hint="Bring the file back, and run the same command again.",
        )


def unreadable(path: Path, where: str, exc: Exception, line: int | None, must: str) -> SourceError:
    """Error for a text file that cannot be read, with the line where that is known."""
    if isinstance(exc, UnicodeDecodeError):
        line = _first_bad_line(path)
    at = "" if line is None else f", line {line}"
    return SourceError(f"{where}{at} cannot be read: {exc}.", hint=must)


def _rows(path: Path, where: str) -> Generator[tuple[int, list[str]]]:
    """Number of the last line of each row, and its values; the header is the first."""
    line = None
    try:
        check_regular(path, where)
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = RowLines(stream, MOST_CHARACTERS, lambda line: too_long(where, line))
            rows = csv.reader(lines, delimiter=DELIMITERS[path.suffix.lower()], strict=True)
            try:
                next_row = lines.next_row
                for row in rows:
                    if len(row) > MOST_COLUMNS:
                        raise SourceError(
                            f"{where}, line {rows.line_num}, has {len(row):,} columns; at most"
                            f" {MOST_COLUMNS:,} are read.",
                            hint=_HINT,
                        )
                    yield rows.line_num, row
                    next_row()
            except csv.Error:
                line = rows.line_num
                raise
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        must = "It must be UTF-8 text with a header line."
        raise unreadable(path, where, exc, line, must) from exc


def _first_bad_line(path: Path) -> int | None:
    """Number of the first line that is no UTF-8; None where it is not found again."""
    line, rest = 1, b""
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(MOST_CHARACTERS):
                data = rest + chunk
                try:
                    used = codecs.utf_8_decode(data, "strict", False)[1]
                except UnicodeDecodeError as exc:
                    return line + data.count(b"\n", 0, exc.start)
                line += data.count(b"\n", 0, used)
                rest = data[used:]
    except OSError:
        return None
    return line if rest else None
