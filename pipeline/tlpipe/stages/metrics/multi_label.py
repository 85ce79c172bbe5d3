"""Metrics of a classifier with several labels per image.

Definitions as in scikit-learn's ``average_precision_score``, ``f1_score``, ``hamming_loss`` and
``accuracy_score`` (a test compares them), but for classes that no judged image has: they are left
out of the means.

The deviation of each number comes from the infinitesimal jackknife (Jaeckel 1972; Efron 1982, "The
jackknife, the bootstrap and other resampling plans"): the square root of the sum over images of
the squared derivative of the number by the weight of the image. Nothing is drawn, and labels of
one image need not be independent. The interval is Wilson's, of as many images as would give a
share of images that deviation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.stages.metrics.intervals import of_share
from tlpipe.stages.metrics.records import Interval, LabelMetrics, MultilabelMetrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]
    Floats = NDArray[np.float64]

_BLOCK = 2_000_000  # answers looked at together


def measure_multilabel(
    probabilities: NDArray[Any],
    truth: NDArray[Any],
    thresholds: NDArray[Any],
    classes: Sequence[str],
) -> MultilabelMetrics:
    """Judge predictions of several labels per image.

    Parameters
    ----------
    probabilities : float array (N, K)
        Of each class by itself; rows need not sum to 1.
    truth : bool array (N, K)
        Which labels the images have; an image may have none. N is at least 1.
    thresholds : float array (K,)
        A label is given from its threshold on.
    classes : sequence of K str
    """
    truth = np.asarray(truth, np.bool_)
    thresholds = np.asarray(thresholds, np.float64)
    given = probabilities >= thresholds
    count = truth.shape[0]
    hits = (truth & given).sum(axis=0).astype(np.float64)
    support, guesses = truth.sum(axis=0).astype(np.float64), given.sum(axis=0).astype(np.float64)
    both = support + guesses
    f1 = 2 * hits / np.maximum(both, 1)
    occurs = support > 0
    number = max(int(occurs.sum()), 1)

    micro = float(2 * hits.sum() / max(both.sum(), 1))
    macro = float(f1[occurs].sum() / number)
    wrong = truth != given
    hamming = float(wrong.mean())
    subset = int((~wrong.any(axis=1)).sum())
    precisions, mean_precision, influence = _average_precisions(probabilities, truth, occurs)
    all_rates = np.full(both.size, 1 / max(float(both.sum()), 1))
    intervals = {
        "micro_f1": _interval(micro, _f1_influence(truth, given, micro, all_rates)),
        "hamming_loss": _interval(hamming, (wrong.mean(axis=1) - hamming) / count),
        "subset_accuracy": of_share(subset, count),
    }
    if occurs.any():
        rates = np.where(occurs, 1 / np.maximum(both, 1) / number, 0.0)
        intervals["macro_f1"] = _interval(macro, _f1_influence(truth, given, f1, rates))
        intervals["mean_average_precision"] = _interval(mean_precision, influence)
    columns = zip(
        classes,
        [float(v) if o else None for v, o in zip(precisions, occurs, strict=True)],
        (hits / np.maximum(guesses, 1)).tolist(),
        (hits / np.maximum(support, 1)).tolist(),
        f1.tolist(),
        support.astype(np.int64).tolist(),
        thresholds.tolist(),
        strict=True,
    )
    return MultilabelMetrics(
        count=count,
        micro_f1=micro,
        macro_f1=macro if occurs.any() else None,
        mean_average_precision=mean_precision if occurs.any() else None,
        hamming_loss=hamming,
        subset_accuracy=subset / count,
        intervals=intervals,
        per_class=[LabelMetrics(*column) for column in columns],
    )


def _average_precisions(
    probabilities: NDArray[Any], truth: Bools, occurs: Bools
) -> tuple[Floats, float, Floats]:
    """Average precision of each class (K,), 0 where no image has it; their mean; its influence.

    ``sum((recall[i] - recall[i - 1]) * precision[i])`` over the distinct probabilities, from the
    greatest down: no interpolation. The influence (N,) is the mean's derivative by the weight of
    each image.
    """
    found = np.zeros(occurs.size)
    influence = np.zeros(truth.shape[0])
    for k in np.flatnonzero(occurs):
        order = np.argsort(-probabilities[:, k], kind="stable")
        score, labelled = probabilities[order, k], truth[order, k].astype(np.float64)
        ends = np.append(np.flatnonzero(np.diff(score)), score.size - 1)
        positive = np.cumsum(labelled)[ends]
        given = ends + 1.0
        precision = positive / given
        gained = np.diff(positive, prepend=0)
        found[k] = (gained @ precision) / positive[-1]
        # A further image at or above a probability changes the precision there and below.
        hit = np.cumsum((gained / given)[::-1])[::-1]
        missed = np.cumsum((gained * precision / given)[::-1])[::-1]
        group = np.repeat(np.arange(ends.size), np.diff(ends, prepend=-1))
        change = labelled * (precision - found[k] + hit)[group] - missed[group]
        influence[order] += change / positive[-1]
    number = max(int(occurs.sum()), 1)
    return found, float(found.sum() / number), influence / number


def _f1_influence(truth: Bools, given: Bools, f1: Any, rates: Floats) -> Floats:
    """Derivative of ``sum(rates * F1 * (labels + answers))`` by the weight of each image, (N,)."""
    found = np.empty(truth.shape[0])
    factor = f1 * rates
    for rows in _blocks(truth):
        labelled, answered = truth[rows], given[rows]
        found[rows] = 2 * ((labelled & answered) @ rates) - labelled @ factor - answered @ factor
    return found


def _blocks(truth: Bools) -> Iterator[slice]:
    step = max(1, _BLOCK // max(truth.shape[1], 1))
    return (slice(at, at + step) for at in range(0, truth.shape[0], step))


def _interval(value: float, influence: Floats) -> Interval:
    """95 % interval of a number between 0 and 1, from the influence of each image."""
    variance = float(influence @ influence)
    if variance <= 1e-20 or not 0 < value < 1:  # no image makes a difference: as for a share
        return of_share(min(max(value, 0.0), 1.0) * influence.size, influence.size)
    effective = value * (1 - value) / variance
    return of_share(value * effective, effective)
