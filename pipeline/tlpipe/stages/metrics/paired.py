"""Paired: how two classifiers differ that were judged on the same images.

Most images are easy or hard for both. A difference taken image by image leaves that out, so it is
known far better than the two numbers are: two intervals may overlap though the difference is sure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.stages.metrics.calibration import LEAST_PROBABILITY
from tlpipe.stages.metrics.intervals import LEVEL, of_gain, of_mean_difference

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class PerImage:
    """What a classifier makes of each image.

    Attributes
    ----------
    right : bool array (N,)
        Whether the most probable class is the true one.
    losses : float64 array (N,)
        -ln(probability of the true class), in nats.
    """

    right: NDArray[np.bool_]
    losses: NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """A number of one classifier less that of another on the same images, and its interval."""

    value: float
    low: float
    high: float

    @property
    def distinguishable(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def judge_each(probabilities: NDArray[Any], labels: NDArray[Any]) -> PerImage:
    """Judge predictions image by image.

    Parameters
    ----------
    probabilities : float array (N, K)
        Of equal probabilities the first class counts as the more probable.
    labels : int array (N,)
        0 to K - 1.
    """
    true = probabilities[np.arange(labels.size), labels].astype(np.float64)
    losses = -np.log(np.maximum(true, LEAST_PROBABILITY))
    return PerImage(probabilities.argmax(axis=1) == labels, losses)


def joint_level(count: int) -> float:
    """Level of each interval at which those of all pairs of `count` classifiers hold together.

    ``LEVEL`` is that of all of them at once (Bonferroni). Which classifier comes out best is
    chance, too, so a comparison with it may be one of any pair.
    """
    pairs = max(1, count * (count - 1) // 2)
    return 1 - (1 - LEVEL) / pairs


def paired(one: PerImage, other: PerImage, level: float) -> tuple[Difference, Difference]:
    """Accuracy and log loss of one classifier less those of another.

    The first interval is by Bonett and Price, the second by Student; N is at least 2.

    Parameters
    ----------
    one, other : PerImage
        Of the same N images in the same order.
    level : float
        Of each interval, between 0 and 1.
    """
    more = int((one.right & ~other.right).sum())
    less = int((other.right & ~one.right).sum())
    count = one.right.size
    accuracy = Difference((more - less) / count, *of_gain(more, less, count, level))
    differences = one.losses - other.losses
    loss = Difference(float(differences.mean()), *of_mean_difference(differences, level))
    return accuracy, loss
