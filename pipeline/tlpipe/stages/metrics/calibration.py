"""Calibration: how far a classifier's confidence is from how often it is right.

The expected calibration error (Naeini et al. 2015, "Obtaining well calibrated probabilities using
Bayesian binning"; Guo et al. 2017, "On calibration of modern neural networks") sorts the images by
confidence, the probability of the predicted class, and takes the mean over bins, weighted with
their images, of |accuracy - mean confidence|. Bins here hold equally many images, as in Nguyen and
O'Connor 2015: 15 of them, or fewer so that each has at least 20 images; equal confidences are
never parted.

On few images this number is too great: chance alone puts every bin's accuracy off. A perfectly
calibrated classifier of 372 images gets about 0.05 instead of 0. Hence the corrected one: it is
assumed that every bin's gap is the same multiple t of c (1 - c), c the confidence (which is what a
common shift of the log odds does), and t is chosen such that the plain error that is expected,
chance included, is the one that was observed. A bin's gap then is normal, with mean t c (1 - c)
and the variance of n_b binomial draws, its absolute value is folded normal, and mean and variance
of the sum are known in closed form. Where chance alone explains the plain error, the corrected one
is 0. The interval holds those t for which the observed plain error lies between the 2.5th and the
97.5th percentile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.stages.metrics.intervals import Z, of_share
from tlpipe.stages.metrics.records import Estimate, ReliabilityBin, Temperature

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

MOST_BINS = 15
LEAST_PER_BIN = 20
LEAST_PROBABILITY = float(np.finfo(np.float32).tiny)  # 0 would make the log loss infinite


@dataclass(frozen=True)
class CalibrationError:
    """Expected calibration error: corrected for chance, and plain."""

    corrected: Estimate
    plain: float
    bins: int


@dataclass(frozen=True)
class _Bins:
    """Share of the images, gap and its variance by chance, of each bin; all (B,)."""

    share: NDArray[np.float64]
    gap: NDArray[np.float64]
    variance: NDArray[np.float64]
    shape: NDArray[np.float64]

    def expected(self, t: float) -> tuple[float, float]:
        """Mean and deviation of the plain error where the gaps are ``t * shape``."""
        mean, deviation = t * self.shape, np.sqrt(np.maximum(self.variance, 1e-30))
        z = np.minimum(mean / deviation, 40.0)
        folded = deviation * math.sqrt(2 / math.pi) * np.exp(-z * z / 2)
        folded += mean * np.array([math.erf(v) for v in z / math.sqrt(2)])
        spread = np.maximum(mean**2 + self.variance - folded**2, 0)
        return float(self.share @ folded), math.sqrt(float(self.share**2 @ spread))


def calibration_error(
    confidence: NDArray[np.float64], right: NDArray[np.bool_]
) -> CalibrationError:
    """Expected calibration error of answers.

    Parameters
    ----------
    confidence : float64 array (N,)
        Probability of the class that was answered.
    right : bool array (N,)
        Whether the answer was right.
    """
    bins = _bins(confidence, right)
    plain = float(bins.share @ np.abs(bins.gap))
    spread = float(bins.share @ bins.shape)

    def matched(deviations: float) -> float:
        """The error whose expected plain one, and so many deviations, is the plain one."""

        def excess(t: float) -> float:
            mean, deviation = bins.expected(t)
            return mean + deviations * deviation - plain

        return _root(excess, 1 / max(spread, 1e-12)) * spread

    # An error of calibration is at least the gap between accuracy and confidence over all images.
    limits = of_share(float(right.sum()), right.size)
    overall = max(abs(limit - float(confidence.mean())) for limit in limits)
    value = matched(0)
    corrected = Estimate(value, min(matched(Z), value), min(1.0, max(matched(-Z), overall, value)))
    return CalibrationError(corrected, plain, bins.share.size)


def measure_calibration(
    logits: NDArray[Any], labels: NDArray[Any], temperature: float
) -> Temperature:
    """What dividing logits by a temperature does to calibration and log loss.

    Parameters
    ----------
    logits : float array (N, K)
        Before the division; of rows that neither trained the head nor set the temperature.
    labels : int array (N,)
        0 to K - 1.
    temperature : float
        Above 0.
    """
    found = []
    for divisor in (1.0, temperature):
        scaled = np.asarray(logits, np.float64) / divisor
        scaled -= scaled.max(axis=1, keepdims=True)
        logs = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
        answers = logs.argmax(axis=1)
        rows = np.arange(labels.size)
        error = calibration_error(np.exp(logs[rows, answers]), answers == labels)
        floor = math.log(LEAST_PROBABILITY)
        found.append((error, float(-np.maximum(logs[rows, labels], floor).mean())))
    (before, loss_before), (after, loss_after) = found
    return Temperature(
        temperature=float(temperature),
        before=before.corrected,
        after=after.corrected,
        before_plain=before.plain,
        after_plain=after.plain,
        log_loss_before=loss_before,
        log_loss_after=loss_after,
    )


def reliability(
    confidence: NDArray[np.float64], right: NDArray[np.bool_]
) -> tuple[list[ReliabilityBin], Estimate]:
    """The bins behind the expected calibration error, by rising confidence; and that, corrected.

    The parameters are those of ``calibration_error``.
    """
    order, starts, sizes = _parts(confidence)
    means = np.add.reduceat(confidence[order], starts) / sizes
    hits = np.add.reduceat(right[order].astype(np.int64), starts)
    found = [
        ReliabilityBin(count, mean, hit / count, *of_share(hit, count))
        for count, mean, hit in zip(sizes.tolist(), means.tolist(), hits.tolist(), strict=True)
    ]
    return found, calibration_error(confidence, right).corrected


def _parts(
    confidence: NDArray[np.float64],
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Order by confidence, and where each bin starts in it, and its size."""
    order = np.argsort(confidence, kind="stable")
    sure = confidence[order]
    number = min(MOST_BINS, max(1, sure.size // LEAST_PER_BIN))
    edges = np.linspace(0, sure.size, number + 1).round().astype(np.intp)[:-1]
    starts = np.unique(np.searchsorted(sure, sure[edges]))  # equal confidences stay together
    return order, starts, np.diff(np.append(starts, sure.size))


def _bins(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> _Bins:
    count = confidence.size
    order, starts, sizes = _parts(confidence)
    sure = confidence[order]
    residual = right[order] - sure

    def mean(values: Any) -> NDArray[np.float64]:
        return np.asarray(np.add.reduceat(values, starts) / sizes)

    gap = mean(residual)
    # By the confidence where that is true, and by what is seen where it is much too sure.
    scatter = np.maximum(mean(sure * (1 - sure)), mean(residual**2) - gap**2)
    return _Bins(sizes / count, gap, scatter / sizes, scatter)


def _root(function: Callable[[float], float], high: float) -> float:
    """Where a rising function crosses 0 between 0 and `high`; the nearer end where it does not."""
    if function(0.0) >= 0:
        return 0.0
    low = 0.0
    for _ in range(50):
        middle = (low + high) / 2
        if function(middle) >= 0:
            high = middle
        else:
            low = middle
    return high
