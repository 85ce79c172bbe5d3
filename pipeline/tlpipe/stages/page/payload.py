"""What the page's own scripts read: columns of the images, and the pictures, as text."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tlpipe.stages.page.content import Images, Report

_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}
"""Characters that could end a script element, or a line of a script."""

_FINEST = 65535
"""Steps of a coordinate of the map; a screen has a few thousand."""


@dataclass(frozen=True)
class Payload:
    """Texts for the data elements at the end of the page.

    Attributes
    ----------
    images, larger : str
        JSON, fit to stand in a script element.
    sheets : list of str
        Base64.
    """

    images: str
    larger: str
    sheets: list[str]


def payload_of(report: Report, highlighted: Sequence[int]) -> Payload:
    """Pack the images of a report; the map shows the classes `highlighted` in colour at first."""
    images = report.images
    columns = {
        "count": len(images.keys),
        "classes": report.classes,
        "highlighted": list(highlighted),
        "keys": images.keys,
        "labels": _lists(images.labels),
        "guesses": _lists(images.guesses),
        "splits": _named(images.splits),
        "judged": _column(images.judged, "u1"),
        "confidences": _column(images.confidences, "f4"),
        "own": _column(images.own, "f4"),
        "neighbours": _numbers(images.neighbours) | {"each": _width(images.neighbours)},
        "tiles": _numbers(images.tiles),
        "sheets": [
            {"type": s.media_type, "px": s.tile_px, "columns": s.columns, "count": s.count}
            for s in images.sheets
        ],
        "projections": [{"points": _places(p.points), "note": p.note} for p in report.projections],
    }
    return Payload(json_text(columns), _larger(images), [_base64(s.data) for s in images.sheets])


def json_text(value: object) -> str:
    """Compact JSON that can stand in a script element: nothing in it ends that element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.translate(_ESCAPES)


def _larger(images: Images) -> str:
    return json_text({str(number): _base64(data) for number, data in images.larger.items()})


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _column(values: object, dtype: str) -> str:
    """Numbers, little-endian, in base64."""
    return _base64(np.ascontiguousarray(values, dtype=f"<{dtype}").tobytes())


def _width(values: np.ndarray) -> int:
    return int(values.shape[1]) if values.ndim == 2 else 0


def _numbers(values: object) -> dict[str, object]:
    """Whole numbers, in two bytes each where they fit."""
    array = np.asarray(values, dtype=np.int64).reshape(-1)
    fits = array.size == 0 or int(array.max()) < 2**15
    dtype = "i2" if fits else "i4"
    return {"type": dtype, "data": _column(array, dtype)}


def _lists(values: Sequence[tuple[int, ...]]) -> dict[str, object]:
    """Lists of whole numbers: all of them, and how many each has."""
    flat = [number for of_one in values for number in of_one]
    return {"of": _numbers(flat), "lengths": _numbers([len(of_one) for of_one in values])}


def _named(values: Sequence[str]) -> dict[str, object]:
    """Few names, many times: the names, and a number for each."""
    names = sorted(set(values))
    numbers = {name: number for number, name in enumerate(names)}
    return {"names": names, "of": _numbers([numbers[value] for value in values])}


def _places(points: np.ndarray) -> str:
    steps = np.rint(np.clip(np.nan_to_num(points), 0, 1) * _FINEST)
    return _column(steps.reshape(-1), "u2")
