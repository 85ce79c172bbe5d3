"""Learning: what accuracy against the number of training images says of more images.

Errors of a classifier fall about as a power of the number of training images, ``a * n ** -b``
(Hestness et al. 2017, "Deep learning scaling is predictable, empirically"). The exponent is fitted
to the logarithms by weighted least squares; ``1 - 2 ** -b`` is the share of the remaining mistakes
that twice as many images would take away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.stages.metrics.calibration import LEAST_PROBABILITY
from tlpipe.stages.metrics.intervals import Z, of_share
from tlpipe.stages.metrics.records import LearningPoint

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORTH = 0.1
"""More images help where twice as many take away at least this share of the mistakes."""

_LEAST_POINTS = 3
_LEAST_RANGE = 2.0  # of the greatest count over the least, for a fit to mean something
_LEAST_ERROR = 1e-9
_LOSS_STILL_FALLS = 0.05  # share of the log loss


def learning_point(probabilities: NDArray[Any], labels: NDArray[Any], count: int) -> LearningPoint:
    """What a head trained on `count` images reaches.

    Parameters
    ----------
    probabilities : float array (N, K)
        Of rows that did not train it; the same ones for all points of a curve.
    labels : int array (N,)
        0 to K - 1.
    count : int
        Images that trained it.
    """
    hits = int((probabilities.argmax(axis=1) == labels).sum())
    true = probabilities[np.arange(labels.size), labels].astype(np.float64)
    loss = float(-np.log(np.maximum(true, LEAST_PROBABILITY)).mean())
    return LearningPoint(count, hits / labels.size, *of_share(hits, labels.size), loss)


def reading(curve: Sequence[LearningPoint]) -> str:
    """Say in words whether more images of the same kind would help.

    Four answers, by the share of the mistakes that twice the images would take away and its 95 %
    interval, against ``WORTH``: they would help (the interval lies above 0, the share is at least
    ``WORTH``), they would hardly help (the whole interval lies below ``WORTH``), they may help or
    they may not (the share is at least ``WORTH``, or less), which the images judged are too few
    to tell. The interval is of the exponent: it takes the points for independent, though all are
    judged on the same images (so it is rather too wide), and does not know that other training
    images would give another curve.
    """
    points = sorted(curve, key=lambda point: point.count)
    if len(points) < _LEAST_POINTS or points[-1].count < _LEAST_RANGE * points[0].count:
        return "The learning curve has too few points to say whether more images would help."
    last = points[-1]
    if last.accuracy >= 1 - _LEAST_ERROR:
        return (
            f"With {last.count:,} images no mistake is left among those judged: only harder images"
            " to judge on could show whether more would help."
        )
    slope, deviation = _slope(points)
    share, low, high = (1 - 2.0**-b for b in (slope, slope - Z * deviation, slope + Z * deviation))
    error = 1 - last.accuracy
    twice = f"twice as many ({2 * last.count:,})"
    gain = f"{error * share:+.1%} accuracy (now {last.accuracy:.1%})"
    reach = f"(95 % interval {error * low:+.1%} to {error * high:+.1%})"
    if share >= WORTH and low > 0:
        return f"More images would help: {twice} are likely to bring {gain} {reach}."
    if high < WORTH:
        still = _loss_still_falls(points)
        return (
            f"More images of the same kind would hardly help: {twice} would bring {gain} {reach}."
            + (" The probabilities still get better, though: the log loss falls." if still else "")
        )
    if share >= WORTH:
        return (
            f"More images may help: {twice} would bring {gain}, but too few images judge to be"
            f" sure {reach}."
        )
    return (
        f"More images may hardly help: {twice} would bring {gain}, but too few images judge to be"
        f" sure {reach}."
    )


def _slope(points: Sequence[LearningPoint]) -> tuple[float, float]:
    """The exponent b of error = a * n ** -b, and its standard deviation."""
    x = np.log([point.count for point in points])
    error = np.array([1 - point.accuracy for point in points])
    half = np.array([point.high - point.low for point in points]) / (2 * Z)
    # Of no mistake the logarithm would be infinite: half the way to the upper limit stands for it.
    error = np.where(error > _LEAST_ERROR, error, [(1 - point.low) / 2 for point in points])
    weight = (error / np.maximum(half, _LEAST_ERROR)) ** 2
    middle = float((weight * x).sum() / weight.sum())
    spread = float((weight * (x - middle) ** 2).sum())
    slope = -float((weight * (x - middle) * np.log(error)).sum()) / spread
    return slope, 1 / math.sqrt(spread)


def _loss_still_falls(points: Sequence[LearningPoint]) -> bool:
    last = points[-1]
    before = max(
        (point for point in points if point.count <= 0.75 * last.count),
        key=lambda point: point.count,
    )
    return last.log_loss < (1 - _LOSS_STILL_FALLS) * before.log_loss
