"""95 % intervals of proportions, of means of proportions and of means.

Sources: Wilson 1927, "Probable inference, the law of succession, and statistical inference"; Efron
1987, "Better bootstrap confidence intervals" (BCa); Bonett and Price 2012, "Adjusted Wald
confidence interval for a difference of binomial proportions based on paired data".
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.stages.metrics.records import Interval

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

LEVEL = 0.95
_NORMAL = NormalDist()
Z = _NORMAL.inv_cdf((1 + LEVEL) / 2)

_RESAMPLES = 1000
_MOST_RESAMPLED = 10_000  # rows: of more, a mean is as good as normal
_BLOCK = 2_000_000  # numbers held at once


def wilson(hits: Any, count: Any) -> tuple[Any, Any]:
    """Wilson's interval of a proportion, element by element; 0 and 1 where `count` is 0."""
    hits, count = np.asarray(hits, np.float64), np.asarray(count, np.float64)
    total = count + Z * Z
    middle = (hits + Z * Z / 2) / total
    half = Z / total * np.sqrt(hits * (count - hits) / np.maximum(count, 1) + Z * Z / 4)
    low = np.where(hits == 0, 0.0, middle - half)  # exactly: the formula leaves a rounding error
    high = np.where(hits == count, 1.0, middle + half)
    return np.clip(low, 0, 1), np.clip(high, 0, 1)


def of_share(hits: float, count: float) -> Interval:
    """Wilson's interval of one proportion."""
    low, high = wilson(hits, count)
    return float(low), float(high)


def of_mean_share(hits: NDArray[Any], counts: NDArray[Any]) -> Interval:
    """Interval of the mean of independent proportions, each of `counts` > 0 images.

    Wilson's, of as many images as would give one proportion the variance of the mean (as surveys
    do: Korn and Graubard 1998, "Confidence intervals for proportions with small expected number of
    positive counts estimated from survey data"). In the variance each proportion is drawn towards
    the mean, as if it had two images more of the mean's kind: a class of which all of a few images
    were right is not certain to be right for ever.
    """
    mean = float((hits / counts).mean())
    effective = counts.size**2 / float((1 / counts).sum())
    drawn = (hits + 2 * mean) / (counts + 2)
    variance = float((drawn * (1 - drawn) / counts).sum()) / counts.size**2
    if variance > 0 and 0 < mean < 1:
        effective = mean * (1 - mean) / variance
    return of_share(mean * effective, effective)


def of_gain(more: int, less: int, count: int) -> Interval:
    """Interval of a difference of two accuracies on the same images, by Bonett and Price.

    `more` images only the first has right, `less` only the second; of `count` in all.
    """
    p, q = (more + 1) / (count + 2), (less + 1) / (count + 2)
    half = Z * math.sqrt((p + q - (p - q) ** 2) / (count + 2))
    return max(-1.0, p - q - half), min(1.0, p - q + half)


def of_mean(
    values: NDArray[np.float64], rng: np.random.Generator, most: float = math.inf
) -> Interval:
    """Interval of the mean of a loss, between 0 and `most`, by BCa bootstrap over images.

    The distances from the mean are widened as Student's t asks for at so few images (Hesterberg
    2015, "What teachers should know about the bootstrap"). Of more than 10,000 images the normal
    approximation, which then is as good.

    Parameters
    ----------
    values : float64 array (N,)
        N is at least 2.
    rng : numpy.random.Generator
    most : float
        The greatest value that a loss can have.
    """
    count, mean = values.size, float(values.mean())
    residuals = values - mean
    variance = float((residuals**2).mean())
    if variance <= (1e-12 * (abs(mean) + 1e-300)) ** 2:
        return mean, mean
    if count > _MOST_RESAMPLED:
        half = Z * math.sqrt(variance / (count - 1))
        return max(0.0, mean - half), min(most, mean + half)

    def draw(times: int) -> NDArray[np.float64]:
        rows: NDArray[np.float64] = values[rng.integers(0, count, (times, count))].mean(axis=1)
        return rows

    skewness = float((residuals**3).mean()) / variance**1.5
    low, high = _bca(resampled(draw, count), mean, skewness / (6 * math.sqrt(count)))
    wider = _students(count - 1) / Z * math.sqrt(count / (count - 1))
    return max(0.0, mean - wider * (mean - low)), min(most, mean + wider * (high - mean))


def _students(freedom: int) -> float:
    """Quantile of Student's t, to three terms (Abramowitz and Stegun 1964, 26.7.5)."""
    cubic, quintic = (Z**3 + Z) / 4, (5 * Z**5 + 16 * Z**3 + 3 * Z) / 96
    return Z + cubic / freedom + quintic / freedom**2


def resampled(
    draw: Callable[[int], NDArray[np.float64]], width: int, most: int = _RESAMPLES
) -> NDArray[np.float64]:
    """`most` values of a statistic, drawn some at a time so that memory stays small.

    Parameters
    ----------
    draw : callable
        From a number T gives T values, from T times `width` numbers.
    """
    step = max(1, min(most, _BLOCK // max(width, 1)))
    return np.concatenate([draw(min(step, most - done)) for done in range(0, most, step)])


def _bca(drawn: NDArray[np.float64], value: float, acceleration: float) -> Interval:
    """Bias-corrected, accelerated percentiles (Efron 1987, section 4)."""
    below = (float((drawn < value).sum()) + float((drawn == value).sum()) / 2) / drawn.size
    edge = 1 / (2 * drawn.size)
    shift = _NORMAL.inv_cdf(min(max(below, edge), 1 - edge))
    levels = []
    for z in (-Z, Z):
        moved = shift + z
        levels.append(_NORMAL.cdf(shift + moved / max(1 - acceleration * moved, 0.1)))
    low, high = np.quantile(drawn, levels)
    return min(float(low), value), max(float(high), value)
