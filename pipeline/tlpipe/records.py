"""Makes frozen dataclasses of plain tables (TOML, JSON), strictly: nothing missing, nothing else.

Takes a dataclass and a mapping, gives an instance. Imports nothing of tlpipe's.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


class RecordError(ValueError):
    """A table is not what a record needs; callers turn it into an error of theirs."""


def build(kind: type[T], table: object, where: str) -> T:
    """Make the dataclass `kind` of a table that has exactly its fields, with their types.

    Fields may be of type str, int, float, bool, dict, a Literal of strings, a tuple of one of
    these, another dataclass, or one of these or None; an int is taken for a float, a list for a
    tuple.

    Parameters
    ----------
    kind : type
    table : object
        What a parser of TOML or JSON gave.
    where : str
        What messages call the table.

    Raises
    ------
    RecordError
        A field is missing, unknown, or of another type.
    """
    if not isinstance(table, Mapping):
        raise RecordError(f"{where} is {table!r}; it must be a table.")
    hints = get_type_hints(kind)
    missing = [name for name in hints if name not in table]
    unknown = [name for name in table if name not in hints]
    if missing or unknown:
        parts = [f"lacks {missing}"] if missing else []
        parts += [f"has the unknown fields {unknown}"] if unknown else []
        raise RecordError(f"{where} {' and '.join(parts)}.")
    values = {name: _value(hint, table[name], f"{where}, {name!r}") for name, hint in hints.items()}
    return kind(**values)


def _value(hint: Any, value: Any, where: str) -> Any:
    """`value`, checked against the type of its field."""
    if isinstance(hint, types.UnionType):  # a type or None
        if value is None:
            return None
        (hint,) = (choice for choice in get_args(hint) if choice is not type(None))
    arguments = get_args(hint)
    origin = get_origin(hint) or hint
    if is_dataclass(hint) and isinstance(hint, type):
        return build(hint, value, where)
    if arguments and all(isinstance(choice, str) for choice in arguments):  # a Literal
        if value not in arguments:
            raise RecordError(f"{where} is {value!r}; it must be one of {list(arguments)}.")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise RecordError(f"{where} is {value!r}; it must be a list.")
        if arguments[-1] is not Ellipsis and len(value) != len(arguments):
            raise RecordError(f"{where} is {value!r}; it must have {len(arguments)} values.")
        return tuple(_value(arguments[0], item, where) for item in value)
    if origin is float and type(value) is int:
        return float(value)
    if type(value) is not origin:
        raise RecordError(f"{where} is {value!r}; it must be of type {origin.__name__}.")
    return value
