"""Baseline: whether a classifier is better than always giving the same answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tlpipe.stages.metrics.intervals import of_gain, of_share
from tlpipe.stages.metrics.records import Majority, Metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

LITTLE = 0.1
"""A classifier beats the majority class by little where it takes away less than this share of the
mistakes that always answering that class would make."""


def compare_majority(
    labels: NDArray[Any], predicted: NDArray[Any], majority: int, classes: Sequence[str]
) -> Majority:
    """Compare answers with always answering the class `majority`, on the same images.

    Parameters
    ----------
    labels, predicted : int array (N,)
        0 to K - 1.
    majority : int
        0 to K - 1.
    classes : sequence of K str
    """
    right, same = predicted == labels, labels == majority
    more, less = int((right & ~same).sum()), int((same & ~right).sum())
    count, hits = labels.size, int(same.sum())
    return Majority(
        classes[majority],
        hits / count,
        *of_share(hits, count),
        (more - less) / count,
        *of_gain(more, less, count),
    )


def verdict(metrics: Metrics) -> str | None:
    """Whether the classifier beats the majority class by little or not at all; None where by more.

    The gain in accuracy is measured on the same images, and its 95 % interval decides; what is
    little, ``LITTLE`` says.
    """
    majority = metrics.majority
    if majority is None:
        return None
    always = f"always answering {majority.name!r}, which is right in {majority.accuracy:.1%}"
    reach = f"between {majority.gain_low:+.1%} and {majority.gain_high:+.1%}"
    if majority.gain_high < 0:
        return f"The classifier is worse than {always}: the difference is {reach}."
    if majority.gain_low <= 0:
        return (
            f"On the images judged ({metrics.count:,}) the classifier cannot be told from {always}:"
            f" the difference is {reach}."
        )
    if majority.gain < LITTLE * (1 - majority.accuracy):
        return (
            f"The classifier beats {always}, by little: it is right in {metrics.accuracy:.1%}, and"
            f" the difference is {reach}."
        )
    return None
