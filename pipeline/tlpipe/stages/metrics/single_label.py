"""Metrics of a classifier with one label per image.

Definitions as in scikit-learn's ``accuracy_score``, ``balanced_accuracy_score``,
``precision_recall_fscore_support``, ``log_loss``, ``brier_score_loss`` (not halved),
``top_k_accuracy_score`` and ``confusion_matrix``: a test compares them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.stages.metrics.baseline import compare_majority
from tlpipe.stages.metrics.calibration import LEAST_PROBABILITY, calibration_error
from tlpipe.stages.metrics.confusion import Confusion
from tlpipe.stages.metrics.intervals import of_mean, of_share
from tlpipe.stages.metrics.records import Metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOP = 5
LEAST_CLASSES_FOR_TOP = 10
"""Of fewer classes, being among the first five says little."""

_MOST_BRIER = 2.0
_BLOCK = 2_000_000  # probabilities looked at together


def measure(
    probabilities: NDArray[Any],
    labels: NDArray[Any],
    classes: Sequence[str],
    *,
    seed: int = 0,
    majority: int | None = None,
) -> Metrics:
    """Judge predictions.

    Parameters
    ----------
    probabilities : float array (N, K)
        Rows sum to 1. Of equal probabilities the first class counts as the more probable.
    labels : int array (N,)
        0 to K - 1; N is at least 1.
    classes : sequence of K str
    seed : int
        Of the resampling that gives the intervals of macro-F1, log loss and Brier score.
    majority : int, optional
        The class that most training images have, to compare with.
    """
    true, confidence, squares = _per_row(probabilities, labels)
    predicted = probabilities.argmax(axis=1)
    table = Confusion.of(labels, predicted, len(classes))
    losses = -np.log(np.maximum(true, LEAST_PROBABILITY))
    briers = np.clip(squares - 2 * true + 1, 0, _MOST_BRIER)
    calibration = calibration_error(confidence, predicted == labels)
    rng = np.random.default_rng(seed)
    accuracy, accuracy_interval = table.accuracy()
    balanced, balanced_interval = table.balanced_accuracy()
    f1, f1_interval = table.macro_f1(rng)
    intervals = {
        "accuracy": accuracy_interval,
        "balanced_accuracy": balanced_interval,
        "macro_f1": f1_interval,
        "calibration_error": (calibration.corrected.low, calibration.corrected.high),
    }
    if labels.size > 1:
        intervals["log_loss"] = of_mean(losses, rng)
        intervals["brier"] = of_mean(briers, rng, _MOST_BRIER)
    top = None
    if len(classes) >= LEAST_CLASSES_FOR_TOP:
        among = int((_ranks(probabilities, labels, true) < TOP).sum())
        top = among / labels.size
        intervals["top_5_accuracy"] = of_share(among, labels.size)
    return Metrics(
        count=int(labels.size),
        accuracy=accuracy,
        balanced_accuracy=balanced,
        macro_f1=f1,
        top_5_accuracy=top,
        log_loss=float(losses.mean()),
        brier=float(briers.mean()),
        calibration_error=calibration.corrected.value,
        calibration_error_plain=calibration.plain,
        calibration_bins=calibration.bins,
        intervals=intervals,
        per_class=table.rows(classes),
        confusion=table.dense(),
        confused=table.mistakes(),
        majority=(
            None if majority is None else compare_majority(labels, predicted, majority, classes)
        ),
    )


def _blocks(probabilities: NDArray[Any]) -> list[slice]:
    step = max(1, _BLOCK // probabilities.shape[1])
    return [slice(at, at + step) for at in range(0, probabilities.shape[0], step)]


def _per_row(
    probabilities: NDArray[Any], labels: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Probability of the true class, the greatest one, and the sum of their squares; (N,) each."""
    true = probabilities[np.arange(labels.size), labels].astype(np.float64)
    confidence = np.clip(probabilities.max(axis=1).astype(np.float64), 0, 1)
    squares = np.empty(labels.size)
    for rows in _blocks(probabilities):
        block = probabilities[rows].astype(np.float64)
        squares[rows] = np.einsum("nk,nk->n", block, block)
    return true, confidence, squares


def _ranks(
    probabilities: NDArray[Any], labels: NDArray[Any], true: NDArray[np.float64]
) -> NDArray[np.int64]:
    """How many classes stand before the true one, (N,)."""
    ranks = np.empty(labels.size, np.int64)
    columns = np.arange(probabilities.shape[1])
    for rows in _blocks(probabilities):
        block, own = probabilities[rows], true[rows, np.newaxis]
        before = (block == own) & (columns < labels[rows, np.newaxis])
        ranks[rows] = (block > own).sum(axis=1) + before.sum(axis=1)
    return ranks
