"""Predictions: writes what a classifier says, one row per input, in order.

Takes outcomes, gives a CSV or JSON Lines file that is whole or not there, in constant memory.
Imports ``types``, ``files`` and NumPy.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from tlpipe.files import whole_file

if TYPE_CHECKING:
    from tlpipe.types import Outcome

_DIGITS = 6  # of a probability, after the point


@dataclass
class PredictionSummary:
    """What was written.

    Attributes
    ----------
    classes : Counter of str
        Rows by most probable class.
    rejects : Counter of str
        Rows without one, by reason.
    unknown : int
        Rows of images that are of none of the classes, where that was asked for.
    """

    classes: Counter[str] = field(default_factory=Counter)
    rejects: Counter[str] = field(default_factory=Counter)
    unknown: int = 0


@dataclass(frozen=True)
class Columns:
    """What a row says.

    Attributes
    ----------
    top_k : int
        How many classes it names, the most probable first; at most K.
    unknown : bool
        Whether it tells if the image is of none of the classes. Outcomes have the values "unknown"
        and "unknown_score", bool and float.
    sets : bool
        Whether it lists the classes that the image may be of. Outcomes have a value
        "prediction_set", bool (K,).
    """

    top_k: int = 1
    unknown: bool = False
    sets: bool = False


def write_predictions(
    path: Path, classes: Sequence[str], columns: Columns, outcomes: Iterable[Outcome]
) -> PredictionSummary:
    """Write predictions; the file appears whole or not at all.

    Parameters
    ----------
    path : pathlib.Path
        ".csv" or ".jsonl".
    classes : sequence of K str
    columns : Columns
    outcomes : iterable of Outcome
        Each has a value "probabilities", float (K,), and those that `columns` need, or a reject.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    summary = PredictionSummary()
    with whole_file(path) as temporary, _WRITERS[path.suffix.lower()](temporary, columns) as write:
        for outcome in outcomes:
            if outcome.reject is not None:
                summary.rejects[outcome.reject.reason] += 1
                write(outcome, None)
                continue
            said = _said(outcome.values, classes, columns)
            summary.classes[said.top[0][0]] += 1
            summary.unknown += said.unknown is not None and said.unknown[0]
            write(outcome, said)
    return summary


@dataclass(frozen=True)
class _Said:
    """What a classifier says of an image."""

    top: list[tuple[str, float]]
    unknown: tuple[bool, float] | None
    possible: list[str] | None


def _said(values: Mapping[str, Any], classes: Sequence[str], columns: Columns) -> _Said:
    probabilities = values["probabilities"]
    # Sorted by probability; equal ones keep the order of the classes.
    order = np.argsort(-probabilities, kind="stable")
    top = [(classes[k], round(float(probabilities[k]), _DIGITS)) for k in order[: columns.top_k]]
    unknown, possible = None, None
    if columns.unknown:
        unknown = bool(values["unknown"]), round(float(values["unknown_score"]), _DIGITS)
    if columns.sets:
        possible = [classes[k] for k in order if values["prediction_set"][k]]
    return _Said(top, unknown, possible)


Write = Callable[["Outcome", _Said | None], None]


def _header(columns: Columns) -> list[str]:
    """Header of a CSV file of predictions."""
    more = [n for k in range(2, columns.top_k + 1) for n in (f"class_{k}", f"probability_{k}")]
    if columns.unknown:
        more += ["unknown", "unknown_score"]
    if columns.sets:
        more.append("set")
    return ["key", "status", "class", "probability", *more, "reason", "detail"]


def joined(names: Iterable[str]) -> str:
    r"""Names with "|" between them; one within a name becomes "\|", and "\" becomes "\\"."""
    return "|".join(name.replace("\\", "\\\\").replace("|", "\\|") for name in names)


@contextmanager
def _csv(path: Path, columns: Columns) -> Iterator[Write]:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        header = _header(columns)
        writer.writerow(header)

        def write(outcome: Outcome, said: _Said | None) -> None:
            reject = outcome.reject
            if reject is not None:
                blank = [""] * (len(header) - 4)
                row = [outcome.item.key, "rejected", *blank, reject.reason, reject.detail]
            elif said is not None:
                row = [outcome.item.key, "ok"]
                row += [cell for name, p in said.top for cell in (name, f"{p:.{_DIGITS}f}")]
                if said.unknown is not None:
                    row += [str(said.unknown[0]).lower(), f"{said.unknown[1]:.{_DIGITS}f}"]
                if said.possible is not None:
                    row.append(joined(said.possible))
                row += ["", ""]
            writer.writerow(row)

        yield write


@contextmanager
def _jsonl(path: Path, columns: Columns) -> Iterator[Write]:
    stream: IO[str]
    with path.open("w", encoding="utf-8") as stream:

        def write(outcome: Outcome, said: _Said | None) -> None:
            row: dict[str, Any] = {"key": outcome.item.key}
            if outcome.reject is not None:
                row |= {"status": "rejected", "reason": outcome.reject.reason}
                row["detail"] = outcome.reject.detail
            elif said is not None:
                row |= {"status": "ok", "class": said.top[0][0], "probability": said.top[0][1]}
                if columns.top_k > 1:
                    row["top"] = [{"class": name, "probability": p} for name, p in said.top]
                if said.unknown is not None:
                    row["unknown"], row["unknown_score"] = said.unknown
                if said.possible is not None:
                    row["set"] = said.possible
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")

        yield write


_WRITERS = {".csv": _csv, ".jsonl": _jsonl}
FORMATS = tuple(_WRITERS)
