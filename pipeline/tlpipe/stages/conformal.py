"""Conformal: prediction sets that hold the true class as often as they state.

Takes what a head says of held-out rows, gives a threshold. Imports ``last_layer`` and NumPy.

A set has every class whose probability reaches the threshold ("least ambiguous sets": Sadinle, Lei
& Wasserman, "Least Ambiguous Set-Valued Classifiers with Bounded Error Levels", 2019), and the most
probable class in any case. This is in the rule that is calibrated: an image whose most probable
class is the true one is covered at any threshold, so that the coverage is the stated one and not
more (by the theorem on nested sets: Gupta, Kuchibhotla & Ramdas, "Nested Conformal Prediction and
Quantile Out-of-Bag Ensemble Methods", 2022).

Sets of the most probable class alone cover as much as the head is right, and none can cover less.
So the coverage that is stated, where nobody asks for one, is the least of some levels that is
greater than the accuracy.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tlpipe.last_layer import SetsFacts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

COVERAGE = 0.9
"""Least coverage that is stated."""

LEVELS = (COVERAGE, 0.95, 0.98, 0.99, 0.995, 0.999)
"""Coverages that may be stated where nobody asks for one."""

METHOD = "conformal: classes above a probability, and the most probable one"


def fit(
    logits: Floats, labels: NDArray[np.int32], coverage: float | None = None
) -> SetsFacts | str:
    """Threshold of the sets, set on rows held out in cross-validation.

    It is such that at least the ceil((n + 1) * coverage)-th of n held-out rows, the surest first,
    are covered: a new image is covered with a probability of at least `coverage`, and at most
    1 / (n + 1) more where the accuracy is less and no two probabilities are the same (Vovk,
    Gammerman & Shafer, 2005; exact for a head that does not change with the fold).

    Parameters
    ----------
    logits : float array (n, K)
        Of rows that did not train the head, softmax of which gives its probabilities.
    labels : int array (n,)
    coverage : float, optional
        More than 0, less than 1. By default the least of ``LEVELS`` that is greater than the
        accuracy, or the greatest that so many rows can tell.

    Returns
    -------
    SetsFacts or str
        Or why there are no sets, in words: too few rows are held out for the coverage.
    """
    needs = needed_probability(logits, labels)
    count = needs.size
    told = [level for level in LEVELS if _rank(level, count) <= count] or [COVERAGE]
    if coverage is None:
        accuracy = float((needs > 1).mean()) if count else 0.0
        coverage = next((level for level in told if level > accuracy), told[-1])
    rank = _rank(coverage, count)
    if rank > count:
        return (
            f"Too few images were held out ({count}) for prediction sets that cover"
            f" {coverage:.4g} of them: the classifier cannot answer --sets."
        )
    threshold = float(np.sort(needs)[::-1][rank - 1])
    return SetsFacts(METHOD, coverage, min(threshold, 1.0), count)


def _rank(coverage: float, count: int) -> int:
    """How many of `count` held-out rows must be covered; the last term is for rounding."""
    return math.ceil((count + 1) * coverage - 1e-9)


def needed_probability(logits: Floats, labels: NDArray[np.int32]) -> Floats:
    """The greatest threshold at which each row's set has its true class, (n,).

    2, more than any probability, where the true class is the most probable one.
    """
    probabilities = softmax(logits)
    rows = np.arange(labels.size)
    top = probabilities.argmax(axis=1) == labels
    return np.where(top, 2.0, probabilities[rows, labels])


def softmax(logits: Floats) -> Floats:
    """Probabilities (n, K) of logits (n, K), in float64."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    np.exp(shifted, out=shifted)
    shifted /= shifted.sum(axis=1, keepdims=True)
    return shifted


def sets(probabilities: NDArray[np.floating], threshold: float | np.float32) -> NDArray[np.bool_]:
    """Which classes are in the set of each row, (n, K)."""
    chosen: NDArray[np.bool_] = probabilities >= threshold
    chosen[np.arange(len(chosen)), probabilities.argmax(axis=1)] = True
    return chosen
