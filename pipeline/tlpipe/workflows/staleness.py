"""Whether stored embeddings were made as new ones would be, and how they differ where not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tlpipe.errors import StaleFeaturesError
from tlpipe.stages.store import FeatureFile, FeatureHeader


def check_fresh(file: FeatureFile, header: FeatureHeader, where: str) -> None:
    """Refuse rows that were not made as those of `header` would be."""
    old = file.header
    if old.fingerprint == header.fingerprint:
        return
    differing = "; ".join(differences(old, header)) or "how tlpipe prepares networks"
    raise StaleFeaturesError(
        f"{where} holds embeddings of {_backbone_name(old)!r} (fingerprint"
        f" {old.fingerprint[:12]}...), not of {_backbone_name(header)!r}"
        f" ({header.fingerprint[:12]}...). They differ in: {differing}.",
        hint="Choose another feature file, embed as before, or start anew with --overwrite of"
        " 'tlpipe embed'.",
    )


def _backbone_name(header: FeatureHeader) -> str:
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
        return [f"backbone: {_backbone_name(old)!r} -> {_backbone_name(new)!r}"]
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
