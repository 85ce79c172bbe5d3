"""Says in what two feature files differ that determines their vectors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tlpipe.stages.store import FeatureHeader


def backbone_name(header: FeatureHeader) -> str:
    """What made the vectors, in short."""
    table = _table(header)
    return str(table.get("name", table.get("declared", "?")))


def _table(header: FeatureHeader) -> dict[str, Any]:
    """What a header says of its backbone; nothing where that is no JSON table."""
    try:
        table = json.loads(header.backbone)
    except (RecursionError, ValueError):
        return {}
    return table if isinstance(table, dict) else {}


def differences(old: FeatureHeader, new: FeatureHeader) -> list[str]:
    """What determines vectors and is not the same in two headers, each as "name: old -> new"."""
    if old.declared is not None or new.declared is not None:
        return [f"backbone: {backbone_name(old)!r} -> {backbone_name(new)!r}"]
    found = []
    before, after = (dict(_flat(_table(header), "")) for header in (old, new))
    for name in sorted(before.keys() | after.keys()):
        if name.split(".")[0] in ("golden", "licence", "origin", "paper", "schema"):
            continue  # they do not change a vector
        a, b = before.get(name, "nothing"), after.get(name, "nothing")
        if a != b:
            found.append(f"{name}: {_short(a)} -> {_short(b)}")
    for name in ("precision", "decoder"):
        a, b = getattr(old, name), getattr(new, name)
        if a != b:
            found.append(f"{name}: {a!r} -> {b!r}")
    if old.precision == new.precision and old.calibration != new.calibration:
        found.append("calibration: other ranges")
    return found


def _short(value: Any) -> str:
    """A value in words; of a digest the first twelve digits."""
    text = repr(value)
    return f"{text[1:13]}..." if re.fullmatch("'[0-9a-f]{64}'", text) else text


def _flat(table: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
