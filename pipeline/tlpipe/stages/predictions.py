"""Predictions: writes what a classifier says, one row per input, in order.

Takes outcomes, gives a CSV or JSON Lines file that is whole or not there, in constant memory.
Imports ``types``, ``files`` and NumPy.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
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
    """

    classes: Counter[str] = field(default_factory=Counter)
    rejects: Counter[str] = field(default_factory=Counter)


def write_predictions(
    path: Path, classes: Sequence[str], top_k: int, outcomes: Iterable[Outcome]
) -> PredictionSummary:
    """Write predictions; the file appears whole or not at all.

    Parameters
    ----------
    path : pathlib.Path
        ".csv" or ".jsonl".
    classes : sequence of K str
    top_k : int
        How many classes a row names, the most probable first; at most K.
    outcomes : iterable of Outcome
        Each has a value "probabilities", float (K,), or a reject.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    summary = PredictionSummary()
    with whole_file(path) as temporary, _WRITERS[path.suffix.lower()](temporary, top_k) as write:
        for outcome in outcomes:
            if outcome.reject is not None:
                summary.rejects[outcome.reject.reason] += 1
                write(outcome, [])
                continue
            probabilities = outcome.values["probabilities"]
            # Sorted by probability; equal ones keep the order of the classes.
            order = np.argsort(-probabilities, kind="stable")[:top_k]
            top = [(classes[k], round(float(probabilities[k]), _DIGITS)) for k in order]
            summary.classes[top[0][0]] += 1
            write(outcome, top)
    return summary


Top = list[tuple[str, float]]
Write = Callable[["Outcome", Top], None]


def _columns(top_k: int) -> list[str]:
    """Header of a CSV file of predictions."""
    more = [name for k in range(2, top_k + 1) for name in (f"class_{k}", f"probability_{k}")]
    return ["key", "status", "class", "probability", *more, "reason", "detail"]


@contextmanager
def _csv(path: Path, top_k: int) -> Iterator[Write]:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(_columns(top_k))

        def write(outcome: Outcome, top: Top) -> None:
            reject = outcome.reject
            if reject is not None:
                blank = [""] * (2 * top_k)
                row = [outcome.item.key, "rejected", *blank, reject.reason, reject.detail]
            else:
                cells = [cell for name, p in top for cell in (name, f"{p:.{_DIGITS}f}")]
                row = [outcome.item.key, "ok", *cells, "", ""]
            writer.writerow(row)

        yield write


@contextmanager
def _jsonl(path: Path, top_k: int) -> Iterator[Write]:
    stream: IO[str]
    with path.open("w", encoding="utf-8") as stream:

        def write(outcome: Outcome, top: Top) -> None:
            row: dict[str, Any] = {"key": outcome.item.key}
            if outcome.reject is not None:
                row |= {"status": "rejected", "reason": outcome.reject.reason}
                row["detail"] = outcome.reject.detail
            else:
                row |= {"status": "ok", "class": top[0][0], "probability": top[0][1]}
                if top_k > 1:
                    row["top"] = [{"class": name, "probability": p} for name, p in top]
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")

        yield write


_WRITERS = {".csv": _csv, ".jsonl": _jsonl}
FORMATS = tuple(_WRITERS)
