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
from tlpipe.label_cells import joined

if TYPE_CHECKING:
    from tlpipe.types import Outcome

_DIGITS = 6  # of a probability, after the point


@dataclass
class PredictionSummary:
    """What was written.

    Attributes
    ----------
    images : int
        Rows of images that could be read.
    classes : Counter of str
        These by most probable class; or by label, where an image may have several.
    without : int
        Those of them that have none of the labels.
    rejects : Counter of str
        Rows of the others, by reason.
    unknown : int
        Rows of images that are of none of the classes, where that was asked for.
    """

    images: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    without: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    unknown: int = 0


@dataclass(frozen=True)
class Columns:
    """What a row says.

    Attributes
    ----------
    top_k : int, optional
        How many classes it names with their probabilities, the most probable first; at most K. By
        default one; none where an image may have several labels.
    unknown : bool
        Whether it tells if the image is of none of the classes. Outcomes have the values "unknown"
        and "unknown_score", bool and float.
    sets : bool
        Whether it lists the classes that the image may be of. Outcomes have a value
        "prediction_set", bool (K,).
    """

    top_k: int | None = None
    unknown: bool = False
    sets: bool = False


def write_predictions(
    path: Path,
    classes: Sequence[str],
    columns: Columns,
    outcomes: Iterable[Outcome],
    *,
    multilabel: bool = False,
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
    multilabel : bool
        Whether rows list the labels of an image. Outcomes have a value "labels", bool (K,).

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    summary = PredictionSummary()
    form = _Form(columns.top_k or (0 if multilabel else 1), multilabel, columns)
    with whole_file(path) as temporary, _WRITERS[path.suffix.lower()](temporary, form) as write:
        for outcome in outcomes:
            if outcome.reject is not None:
                summary.rejects[outcome.reject.reason] += 1
                write(outcome, None)
                continue
            said = _said(outcome.values, classes, form)
            summary.images += 1
            summary.classes.update([said.top[0][0]] if said.labels is None else said.labels)
            summary.without += said.labels == []
            summary.unknown += said.unknown is not None and said.unknown[0]
            write(outcome, said)
    return summary


@dataclass(frozen=True)
class _Form:
    """Of a row: number of classes with probabilities, whether it lists labels, and what else."""

    top_k: int
    labels: bool
    columns: Columns


@dataclass(frozen=True)
class _Said:
    """What a classifier says of an image."""

    labels: list[str] | None
    top: list[tuple[str, float]]
    unknown: tuple[bool, float] | None
    possible: list[str] | None


def _said(values: Mapping[str, Any], classes: Sequence[str], form: _Form) -> _Said:
    columns, probabilities = form.columns, values["probabilities"]
    # Sorted by probability; equal ones keep the order of the classes.
    order = np.argsort(-probabilities, kind="stable")
    top = [(classes[k], round(float(probabilities[k]), _DIGITS)) for k in order[: form.top_k]]
    unknown, possible = None, None
    labels = [classes[k] for k in order if values["labels"][k]] if form.labels else None
    if columns.unknown:
        unknown = bool(values["unknown"]), round(float(values["unknown_score"]), _DIGITS)
    if columns.sets:
        possible = [classes[k] for k in order if values["prediction_set"][k]]
    return _Said(labels, top, unknown, possible)


Write = Callable[["Outcome", _Said | None], None]


def _header(form: _Form) -> list[str]:
    """Header of a CSV file of predictions."""
    columns = form.columns
    more = ["labels"] if form.labels else []
    more += ["class", "probability"] if form.top_k else []
    more += [n for k in range(2, form.top_k + 1) for n in (f"class_{k}", f"probability_{k}")]
    if columns.unknown:
        more += ["unknown", "unknown_score"]
    if columns.sets:
        more.append("set")
    return ["key", "status", *more, "reason", "detail"]


@contextmanager
def _csv(path: Path, form: _Form) -> Iterator[Write]:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        header = _header(form)
        writer.writerow(header)

        def write(outcome: Outcome, said: _Said | None) -> None:
            reject = outcome.reject
            if reject is not None:
                blank = [""] * (len(header) - 4)
                row = [outcome.item.key, "rejected", *blank, reject.reason, reject.detail]
            elif said is not None:
                row = [outcome.item.key, "ok"]
                if said.labels is not None:
                    row.append(joined(said.labels))
                row += [cell for name, p in said.top for cell in (name, f"{p:.{_DIGITS}f}")]
                if said.unknown is not None:
                    row += [str(said.unknown[0]).lower(), f"{said.unknown[1]:.{_DIGITS}f}"]
                if said.possible is not None:
                    row.append(joined(said.possible))
                row += ["", ""]
            writer.writerow(row)

        yield write


@contextmanager
def _jsonl(path: Path, form: _Form) -> Iterator[Write]:
    stream: IO[str]
    with path.open("w", encoding="utf-8") as stream:

        def write(outcome: Outcome, said: _Said | None) -> None:
            row: dict[str, Any] = {"key": outcome.item.key}
            if outcome.reject is not None:
                row |= {"status": "rejected", "reason": outcome.reject.reason}
                row["detail"] = outcome.reject.detail
            elif said is not None:
                row["status"] = "ok"
                if said.labels is None:
                    row |= {"class": said.top[0][0], "probability": said.top[0][1]}
                else:
                    row["labels"] = said.labels
                if form.top_k > (0 if form.labels else 1):
                    row["top"] = [{"class": name, "probability": p} for name, p in said.top]
                if said.unknown is not None:
                    row["unknown"], row["unknown_score"] = said.unknown
                if said.possible is not None:
                    row["set"] = said.possible
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")

        yield write


_WRITERS = {".csv": _csv, ".jsonl": _jsonl}
FORMATS = tuple(_WRITERS)
