"""Rows of JSON Lines manifests: an object in each line."""

from __future__ import annotations

import itertools
import json
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from tlpipe.errors import SourceError
from tlpipe.files import RowLines
from tlpipe.stages.source.rows import (
    MOST_CHARACTERS,
    MOST_COLUMNS,
    Columns,
    RowBatch,
    brief,
    label_cell,
    text_of,
)
from tlpipe.stages.source.survey import BLOCK_ITEMS, Survey
from tlpipe.stages.source.text_rows import check_regular, too_long, unreadable

_FIRST_LINES = 100  # whose names are the columns
_FIRST_CHARACTERS = 4 << 20
_MUST = "It must be UTF-8 text with a JSON object in each line."

_Line = tuple[int, dict[str, Any]]


class JsonRows:
    """A JSON Lines file; see ``Rows``. Its columns are the names in its first 100 lines.

    Raises
    ------
    SourceError
        One of its first lines cannot be read.
    """

    def __init__(self, path: Path, where: str) -> None:
        self._where = where
        self._lines = _lines(path, where)
        self._blank = 0
        try:
            self._first = list(self._start())
        except BaseException:
            self.close()
            raise
        found: dict[str, None] = {}
        for number, row in self._first:
            found.update(dict.fromkeys(row))
            if len(found) > MOST_COLUMNS:
                raise _too_many(where, number, len(found))
        self.names: Sequence[str] = list(found)

    def _start(self) -> Iterator[_Line]:
        room = _FIRST_CHARACTERS
        for number, length, row in itertools.islice(self._lines, _FIRST_LINES):
            yield number, row
            room -= length
            if room < 0:
                return

    def batches(self, columns: Columns, more: Sequence[int], survey: Survey) -> Iterator[RowBatch]:
        """Rows, a block at a time; blank lines are left out."""
        rest = ((number, row) for number, _, row in self._lines)
        lines = itertools.chain(self._first, rest)
        while held := list(itertools.islice(lines, BLOCK_ITEMS)):
            yield self._batch(held, columns, more)

    def _batch(self, held: list[_Line], columns: Columns, more: Sequence[int]) -> RowBatch:
        def name(at: int | None) -> str | None:
            return None if at is None else self.names[at]

        path, label, split = name(columns.path), name(columns.label), name(columns.split)
        further = [self.names[at] for at in more]
        numbers = [number for number, _ in held]
        rows = [row for _, row in held]
        return RowBatch(
            where=lambda at: f"line {numbers[at]}",
            paths=self._texts(held, path, "path"),
            labels=[None] * len(rows) if label is None else self._labels(held, label),
            splits=[""] * len(rows) if split is None else self._texts(held, split, "split"),
            more=[tuple([text_of(row.get(name)) for name in further]) for row in rows]
            if further
            else [],
        )

    def _texts(self, held: Sequence[_Line], name: str | None, what: str) -> list[str]:
        """Values that must be texts, or missing."""
        found: list[Any] = [None if name is None else row.get(name) for _, row in held]
        if set(map(type, found)) == {str}:
            return found
        for (number, _), value in zip(held, found, strict=True):
            if value is not None and not isinstance(value, str):
                raise SourceError(
                    f"{self._where}, line {number} has the {what} {brief.repr(value)}; it must be"
                    " text."
                )
        return [value or "" for value in found]

    def _labels(self, held: Sequence[_Line], name: str) -> list[str | None]:
        values: list[Any] = [row.get(name) for _, row in held]
        if set(map(type, values)) == {str}:
            return [value.strip() or None for value in values]
        found = []
        for (number, _), value in zip(held, values, strict=True):
            try:
                found.append(label_cell(value))
            except ValueError as exc:
                raise SourceError(f"{self._where}, line {number}: {exc}.") from exc
        return found

    def close(self) -> None:
        """Close the file."""
        self._lines.close()


def _lines(path: Path, where: str) -> Generator[tuple[int, int, dict[str, Any]]]:
    """Number, length and object of each line that is not blank."""
    number = None
    decode = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_number).decode
    try:
        check_regular(path, where)
        with path.open(encoding="utf-8-sig", newline="\n") as stream:
            lines = RowLines(stream, MOST_CHARACTERS, lambda line: too_long(where, line))
            for number, line in enumerate(lines, 1):
                lines.next_row()
                if line.isspace():
                    continue
                row = decode(line)
                if not isinstance(row, dict):
                    raise SourceError(
                        f"{where}, line {number} is no JSON object, but {brief.repr(row)}.",
                        hint='For example: {"path": "cat/1.jpg", "label": "cat"}',
                    )
                if len(row) > MOST_COLUMNS:
                    raise _too_many(where, number, len(row))
                yield number, len(line), row
    except (OSError, ValueError, RecursionError) as exc:
        raise unreadable(path, where, exc, number, _MUST) from exc


def _too_many(where: str, number: int, count: int) -> SourceError:
    return SourceError(
        f"{where}, line {number}: there are {count:,} columns; at most {MOST_COLUMNS:,} are read.",
        hint="A row holds a path, and maybe a label and a split.",
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, each of whose names stands there once."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {brief.repr(twice)} stands twice in one object")
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no value of JSON")
