"""What is said of each row of a feature file, and the figures that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.stages.metrics import (
    LearningPoint,
    Metrics,
    MultilabelMetrics,
    measure,
    reliability,
)
from tlpipe.stages.page import Bin, Reliability
from tlpipe.stages.store import Features
from tlpipe.workflows.training_data import Labelled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import Float32Array

    Ints = NDArray[np.int64]

_LEAST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Judgement:
    """Labels, guesses and figures.

    Attributes
    ----------
    classes : list of K str
    labels, guesses : int64 arrays (N,), or bool arrays (N, K) where an image may have several
        -1 for none.
    confidences, own : float32 arrays (N,)
        Probability of the guess, and of the label; NaN for none. Where an image may have several
        labels: the greatest of those that are given, and the least of those it has.
    trains, judged : bool arrays (N,)
    judged_on : str
        In words; empty where nothing was judged.
    metrics : Metrics, MultilabelMetrics or None
    mistakes : int64 array
        Judged rows that the guess is wrong about, the most confident first.
    curves : list of Reliability
    learning : list of LearningPoint
    notices : list of str
    """

    classes: list[str]
    labels: NDArray[Any]
    guesses: NDArray[Any]
    confidences: Float32Array
    own: Float32Array
    trains: NDArray[np.bool_]
    judged: NDArray[np.bool_]
    judged_on: str
    metrics: Metrics | MultilabelMetrics | None
    mistakes: Ints
    curves: list[Reliability] = field(default_factory=list)
    learning: list[LearningPoint] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    @property
    def multilabel(self) -> bool:
        """Whether an image may have several labels."""
        return self.labels.ndim == 2


@dataclass
class Answers:
    """Guesses of rows, filled block by block: probabilities of all rows need not be in memory.

    Attributes
    ----------
    labels : int64 array (N,)
    guesses, confidences, own
        As of ``Judgement``.
    """

    labels: Ints
    guesses: Ints
    confidences: Float32Array
    own: Float32Array

    @classmethod
    def none(cls, labels: Ints) -> Answers:
        """No guess of any row."""
        count = labels.size
        nothing = np.full(count, np.nan, np.float32)
        return cls(labels, np.full(count, -1, np.int64), nothing, nothing.copy())

    def put(self, rows: Ints, probabilities: NDArray[Any]) -> None:
        """Take what is said of some rows; labels beyond the columns get no probability."""
        at = np.arange(rows.size)
        self.guesses[rows] = probabilities.argmax(axis=1)
        self.confidences[rows] = probabilities[at, self.guesses[rows]]
        labels = self.labels[rows]
        known = (labels >= 0) & (labels < probabilities.shape[1])
        self.own[rows[known]] = probabilities[at[known], labels[known]]

    def wrong(self, rows: Ints) -> Ints:
        """Those of some rows that the guess is wrong about, the most confident first."""
        wrong = rows[self.guesses[rows] != self.labels[rows]]
        found: Ints = wrong[np.argsort(-self.confidences[wrong], kind="stable")]
        return found


def labelled_of(data: Features) -> Labelled:
    """All that is known of the rows but for keys and embeddings."""
    return Labelled(
        data.header,
        data.vectors.shape[1],
        data.classes,
        data.labels,
        data.splits,
        data.groups,
        data.content_sha256,
    )


def renumbered(labels: NDArray[np.int32], numbers: Ints) -> Ints:
    """Labels (N,), -1 for none, as numbers of other classes."""
    found: Ints = np.append(numbers, -1)[labels]  # -1 finds the last
    return found


def measured(
    probabilities: NDArray[Any], labels: Ints, classes: Sequence[str], majority: int | None
) -> Metrics:
    """Figures of probabilities (N, J) of the first J of the classes against labels (N,)."""
    more = len(classes) - probabilities.shape[1]
    whole = np.pad(probabilities, ((0, 0), (0, more))) if more else probabilities
    return measure(whole, labels.astype(np.int32), classes, majority=majority)


def curves_of(
    probabilities: NDArray[Any], labels: Ints, temperature: float | None
) -> list[Reliability]:
    """Reliability of probabilities (N, K) as they are, and before the logits were divided.

    Dividing logits by T takes probabilities p to softmax(log p / T); so the logits before are
    T log p, but for a constant.
    """
    if temperature is None:
        return [_curve("probabilities", probabilities, labels)]
    logs = temperature * np.log(np.maximum(probabilities.astype(np.float64), _LEAST))
    e = np.exp(logs - logs.max(axis=1, keepdims=True))
    before = e / e.sum(axis=1, keepdims=True)
    return [
        _curve("before calibration", before, labels),
        _curve("after calibration", probabilities, labels),
    ]


def _curve(name: str, probabilities: NDArray[Any], labels: Ints) -> Reliability:
    confidence = np.clip(probabilities.max(axis=1).astype(np.float64), 0, 1)
    found, error = reliability(confidence, probabilities.argmax(axis=1) == labels)
    bins = [Bin(b.count, b.confidence, b.accuracy, b.low, b.high) for b in found]
    return Reliability(name, bins, error.value)
