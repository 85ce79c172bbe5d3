"""Metrics: how good predictions are, against known labels.

Takes probabilities and labels, gives a plain record that can be written as JSON. Imports NumPy.

Definitions as in scikit-learn's ``accuracy_score``, ``precision_recall_fscore_support``,
``log_loss`` and ``confusion_matrix`` (a test compares them); the macro mean is over the classes
that occur among the labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LEAST = float(np.finfo(np.float32).tiny)  # a probability of 0 would make the log loss infinite


@dataclass(frozen=True)
class ClassMetrics:
    """One class's row; a ratio whose denominator is 0 is 0."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Metrics:
    """What held-out data say of a classifier.

    Attributes
    ----------
    count : int
        Number of labelled rows judged, N.
    accuracy, macro_f1 : float
    log_loss : float
        Mean of -ln(probability of the true class), in nats.
    per_class : list of ClassMetrics
    confusion : list of lists of int
        Rows: true class, columns: predicted class.
    """

    count: int
    accuracy: float
    macro_f1: float
    log_loss: float
    per_class: list[ClassMetrics]
    confusion: list[list[int]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def measure(
    probabilities: NDArray[Any], labels: NDArray[np.int32], classes: Sequence[str]
) -> Metrics:
    """Judge predictions.

    Parameters
    ----------
    probabilities : float array (N, K)
        Rows sum to 1.
    labels : int array (N,)
        0 to K - 1.
    classes : sequence of K str
    """
    count = labels.size
    predicted = probabilities.argmax(axis=1)
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    hits = np.diag(confusion).astype(np.float64)
    support, guesses = confusion.sum(axis=1), confusion.sum(axis=0)
    recall = hits / np.maximum(support, 1)
    precision = hits / np.maximum(guesses, 1)
    f1 = 2 * hits / np.maximum(support + guesses, 1)
    true = probabilities[np.arange(count), labels].astype(np.float64)
    return Metrics(
        count=count,
        accuracy=float(hits.sum() / count),
        macro_f1=float(f1[support > 0].mean()),
        log_loss=float(-np.log(np.maximum(true, _LEAST)).mean()),
        per_class=[
            ClassMetrics(name, float(precision[k]), float(recall[k]), float(f1[k]), int(n))
            for k, (name, n) in enumerate(zip(classes, support, strict=True))
        ],
        confusion=confusion.tolist(),
    )
