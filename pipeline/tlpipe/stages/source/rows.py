"""What the rows of a manifest are, whatever format it has: columns, their names, and cells."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tlpipe.errors import SourceError
from tlpipe.files import is_utf8
from tlpipe.label_cells import DEFAULT_SEPARATOR
from tlpipe.stages.source.survey import Survey

PATH_NAMES = ("path", "file_name", "filename", "file_path", "image_path", "url", "image_url")
"""Names of the column that says where an image lies; of several, the first of these is it."""

LABEL_NAMES = ("label", "labels")

SPLIT_NAME = "split"

MOST_CHARACTERS = 1 << 20
"""Of a row, or of one of its values, which are in memory whole."""

MOST_COLUMNS = 10_000

_CORRECT = "Correct it, or make the file again."

brief = reprlib.Repr()
brief.maxlist, brief.maxstring, brief.maxother = 20, 200, 200


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a table say what.

    Attributes
    ----------
    path, label, split : int or None
        Positions; None where there is no such column.
    more : tuple of int
        Positions of all others.
    """

    path: int | None
    label: int | None
    split: int | None
    more: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Consecutive rows of a manifest, as columns of text as it stands there.

    Attributes
    ----------
    where : callable
        Says where a row stands, by its number in the batch: "line 3".
    paths : list of str
    labels : list of (str or None)
    splits : list of str
    more : list of tuple of str
        Values of the further columns that were asked for; empty where none were.
    """

    where: Callable[[int], str]
    paths: list[str]
    labels: list[str | None]
    splits: list[str]
    more: list[tuple[str, ...]]


class Rows(Protocol):
    """A manifest that is open, before its first row."""

    @property
    def names(self) -> Sequence[str]:
        """Names of its columns, as they are written."""

    def batches(self, columns: Columns, more: Sequence[int], survey: Survey) -> Iterator[RowBatch]:
        """All its rows, once; `more` are positions of further columns.

        Raises
        ------
        SourceError
        """

    def close(self) -> None:
        """Close the file."""


def find_columns(names: Sequence[str], where: str) -> Columns:
    """Understand the names of columns; blanks around them and upper case do not matter.

    Raises
    ------
    SourceError
        A name stands there twice.
    """
    plain = [name.strip() for name in names]
    lower = [name.lower() for name in plain]

    def position(wanted: Sequence[str]) -> int | None:
        return next((lower.index(name) for name in wanted if name in lower), None)

    found = Columns(position(PATH_NAMES), position(LABEL_NAMES), position([SPLIT_NAME]), ())
    known = {at for at in (found.path, found.label, found.split) if at is not None}
    twice = {lower[at] for at in known if lower.count(lower[at]) > 1}
    if len(set(plain)) < len(plain):
        twice |= {name for name in plain if name and plain.count(name) > 1}
    if twice:
        raise SourceError(
            f"{where} names the columns {brief.repr(sorted(twice))} more than once.",
            hint="Give each column a name of its own.",
        )
    more = tuple(at for at, name in enumerate(plain) if at not in known and name)
    return Columns(found.path, found.label, found.split, more)


def text_of(value: Any) -> str:
    """A value as text: that of JSON, but for texts, which stand as they are, and nothing."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def label_cell(value: Any) -> str | None:
    """A label as a cell of text; several labels are joined by "|".

    Whole numbers have no decimals, since a number beside a missing one is often written with some.

    Raises
    ------
    ValueError
        It is neither text nor a number, nor a list of these; says what is wrong.
    """
    if isinstance(value, str):
        return value.strip() or None
    if value is None:
        return None
    if isinstance(value, list):
        names = [label_cell(name) if not isinstance(name, list) else None for name in value]
        for name in names:
            if name is None:
                raise ValueError("the labels of a list must be texts or numbers")
            if DEFAULT_SEPARATOR in name:
                raise ValueError(
                    f"the label {brief.repr(name)} of a list holds {DEFAULT_SEPARATOR!r}, which"
                    " stands between labels"
                )
        # A separator alone is an image with none of the labels (see ``label_cells``).
        return DEFAULT_SEPARATOR.join(map(str, names)) or DEFAULT_SEPARATOR
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, bool | int):
        return json.dumps(value)
    raise ValueError(f"a label must be text or a number, not {brief.repr(value)}")


def check_text(batch: RowBatch, where: str) -> None:
    """Refuse what no text may hold: NUL, and halves of characters.

    Raises
    ------
    SourceError
    """
    columns: list[Sequence[str | None]] = [batch.paths, batch.labels, batch.splits]
    columns += map(list, zip(*batch.more, strict=True))
    for column in columns:
        together = "".join(filter(None, column))
        if "\0" not in together and is_utf8(together):
            continue
        for row, value in enumerate(column):
            if value and "\0" in value:
                raise SourceError(
                    f"{where}, {batch.where(row)} holds a NUL character.",
                    hint=_CORRECT,
                )
            if value and not is_utf8(value):
                raise SourceError(
                    f"{where}, {batch.where(row)} holds half a character (a lone surrogate):"
                    f" {brief.repr(value)}.",
                    hint=_CORRECT,
                )
