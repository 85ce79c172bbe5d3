"""Cells of Arrow arrays as text.

A file may name one long text for each of many rows: a text's length is seen before it is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tlpipe.errors import SourceError
from tlpipe.stages.source.parquet.columns import is_list, is_text
from tlpipe.stages.source.rows import MOST_CHARACTERS, label_cell, text_of

_MOST_IN_LISTS = 256 << 20  # bytes of the labels of some rows, if each were the longest
_MOST_COPIED = 64 << 20  # bytes of texts that are copied for each row


def texts(array: Any, where: str) -> list[str]:
    """Values as text; "" for none.

    Raises
    ------
    SourceError
        A text is too long.
    """
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _of_dictionary(array, where)
    if pa.types.is_null(kind):
        return [""] * len(array)
    if is_text(kind):
        _check_lengths(array, where)
    elif not pa.types.is_floating(kind):
        array = array.cast(pa.string())  # numbers, dates, true and false
    return [text_of(value) for value in array.to_pylist()]


def labels(
    array: Any, classes: Sequence[str], where: str, at: Callable[[int], str]
) -> list[str | None]:
    """Values as cells of labels.

    Parameters
    ----------
    array : pyarrow.Array
    classes : sequence of str
        Names that numbers stand for; empty where they stand for themselves.
    where : str
        What errors call the file.
    at : callable
        Says where a row stands, by its number in the array.

    Raises
    ------
    SourceError
    """
    if is_text(array.type):
        return [text.strip() or None for text in texts(array, where)]
    if is_list(array.type):
        flat = array.flatten()
        if _check_lengths(flat, where) * len(flat) > _MOST_IN_LISTS:
            raise SourceError(
                f"{where}, {at(0)}, and rows behind it have too long labels.", hint="Shorten them."
            )
    numbers = is_list(array.type) and not is_text(array.type.value_type)
    known: dict[Any, str | None] = {}
    found: list[str | None] = []
    for row, value in enumerate(array.to_pylist()):
        kept = value if not isinstance(value, list) else tuple(value)
        if kept not in known:
            try:
                named = _named(value, classes) if classes and not _is_text_value(value) else value
                known[kept] = label_cell(named)
            except ValueError as exc:
                raise SourceError(f"{where}, {at(row)}: {exc}.") from exc
            if numbers and len(known) > 100_000:
                known = {kept: known[kept]}
        found.append(known[kept])
    return found


def _is_text_value(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and any(isinstance(one, str) for one in value)
    )


def _named(value: Any, classes: Sequence[str]) -> Any:
    """Names of the classes that numbers stand for; -1 is no class, as in ``datasets``."""
    if isinstance(value, list):
        return [_named(one, classes) for one in value]
    if value is None or value == -1 or value != value:  # NaN: a missing number beside others
        return None
    if value != int(value) or not 0 <= value < len(classes):
        raise ValueError(f"the label {value!r} is none of the {len(classes):,} classes")
    return classes[int(value)]


def _check_lengths(array: Any, where: str) -> int:
    """Refuse texts that are too long; the length of the longest."""
    values = array.dictionary if pa.types.is_dictionary(array.type) else array
    if not is_text(values.type) or not len(values):
        return 0
    longest = int(pc.max(pc.binary_length(values)).as_py() or 0)
    if longest > MOST_CHARACTERS:
        raise SourceError(
            f"{where} has a text of {longest:,} bytes; at most {MOST_CHARACTERS:,} are read.",
            hint="Shorten it, or leave the column out.",
        )
    return longest


def _of_dictionary(array: Any, where: str) -> list[str]:
    if _check_lengths(array, where) * len(array) <= _MOST_COPIED:
        return [value or "" for value in array.dictionary_decode().to_pylist()]
    few = array.dictionary.to_pylist()
    return ["" if at is None else few[at] or "" for at in array.indices.to_pylist()]
