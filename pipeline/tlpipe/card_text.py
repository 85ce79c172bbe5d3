"""Writes a card as TOML. The standard library only reads it; a card needs little of it.

Takes a ``Card``, gives text. Imports ``card``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from tlpipe.card import Card


def card_text(card: Card) -> str:
    """The card as the TOML that ``catalogue.read_card`` reads back."""
    table = card.to_dict()
    tables = {name: value for name, value in table.items() if isinstance(value, Mapping)}
    lines = [f"{name} = {_value(value)}" for name, value in table.items() if name not in tables]
    for name, fields in tables.items():
        lines += ["", f"[{name}]"]
        lines += [f"{key} = {_value(value)}" for key, value in fields.items()]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, int):
        return str(value)
    # JSON's escapes are TOML's, but for the one control character that JSON leaves alone.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007F")
