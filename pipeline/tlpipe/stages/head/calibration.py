"""Temperature: makes probabilities as sure as held-out rows show them to be right.

Source: Guo, Pleiss, Sun & Weinberger, "On Calibration of Modern Neural Networks", ICML 2017: the
logits are divided by the number T that minimises the log loss on rows that did not train.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.stages.head.search import log_losses

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LIMITS = (-3.0, 3.0)  # of ln T: 1/20 to 20
_DEVIATION = 0.5  # of ln T, before any row is seen
_STEPS = 60
_GOLDEN = (5**0.5 - 1) / 2


def find_temperature(
    scores: NDArray[np.float64], labels: Any, counts: NDArray[np.float32]
) -> float:
    """Temperature with the least log loss.

    Parameters
    ----------
    scores : float64 array (M, K)
        Logits of rows that did not train.
    labels : int32 array (M,), or bool array (M, K)
    counts : float32 array (M,)
        How much each row counts.

    Notes
    -----
    The log loss is convex in 1/T, so it has one minimum in ln T, which is found by golden-section
    search. A few rows that are all right would make the head absurdly sure: hence ln T is taken to
    have a normal distribution about 0 beforehand, which weighs as much as a few rows do.
    """
    weights = counts.astype(np.float64)
    columns = np.ascontiguousarray(scores.T)[np.newaxis]

    def loss(log_t: float) -> float:
        losses = log_losses(columns * np.exp(-log_t), labels)[0]
        return float((losses * weights).sum()) + 0.5 * (log_t / _DEVIATION) ** 2

    low, high = _LIMITS
    a, b = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_a, at_b = loss(a), loss(b)
    for _ in range(_STEPS):
        if high - low < 1e-4:
            break
        if at_a <= at_b:
            high, b, at_b = b, a, at_a
            a = high - _GOLDEN * (high - low)
            at_a = loss(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + _GOLDEN * (high - low)
            at_b = loss(b)
    return float(np.exp((low + high) / 2))
