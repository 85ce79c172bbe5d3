"""The votes of nearest images: from cosines to probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import Float32Array

_ROUNDING = 1e-5
"""Of a cosine in float32: sums of a thousand products, in whatever order, differ by less."""


@dataclass(frozen=True)
class Setting:
    """How many images vote, how weights fall with the cosine, and what all classes share."""

    k: int
    temperature: float
    doubt: float


def nearest_of(cosines: Float32Array, k: int) -> tuple[Float32Array, NDArray[np.intp]]:
    """Greatest cosines (B, k) of (B, M) and their places, greatest first; of equals the first."""
    count = cosines.shape[1]
    if k < count:
        places = np.argpartition(cosines, count - k, axis=1)[:, count - k :]
        least = np.take_along_axis(cosines, places, axis=1).min(axis=1, keepdims=True)
        for row in np.flatnonzero((cosines >= least).sum(axis=1) > k):  # argpartition takes any
            places[row] = np.argsort(-cosines[row], kind="stable")[:k]
        places.sort(axis=1)
    else:
        places = np.broadcast_to(np.arange(count), cosines.shape)
    found = np.take_along_axis(cosines, places, axis=1)
    order = np.argsort(-found, axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1), np.take_along_axis(places, order, axis=1)


def probabilities_from(
    cosines: Float32Array, labels: NDArray[np.int64], classes: int, setting: Setting
) -> NDArray[np.float64]:
    """Probabilities (B, K).

    Parameters
    ----------
    cosines : float32 array (B, M)
        Of the nearest images, nearest first; the first k vote.
    labels : int64 array (B, M)
        Theirs.
    classes : int
        K.
    setting : Setting
    """
    cosines, labels = cosines[:, : setting.k], labels[:, : setting.k]
    away = (cosines - cosines[:, :1]).astype(np.float64)
    votes = _by_class(np.exp(away / setting.temperature), labels, classes)
    votes /= votes.sum(axis=1, keepdims=True)
    return _with_doubt(votes, setting)


def bounds_of(
    cosines: Float32Array, labels: NDArray[np.int64], classes: int, setting: Setting
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Least and greatest probabilities (B, K), where images are nearest up to rounding only.

    Parameters
    ----------
    cosines : float32 array (B, M)
        Of all images.
    labels : int64 array (M,)
    classes : int
    setting : Setting
    """
    low, high = np.empty((len(cosines), classes)), np.empty((len(cosines), classes))
    for row, these in enumerate(cosines.astype(np.float64)):
        ranked = np.sort(these)[::-1]
        last = ranked[setting.k - 1]
        sure = these > last + _ROUNDING
        tied = np.abs(these - last) <= _ROUNDING
        weights = np.exp((these - ranked[0]) / setting.temperature)
        total = weights[np.argsort(-these, kind="stable")[: setting.k]].sum()
        votes = np.bincount(labels[sure], weights[sure], classes)
        slots = setting.k - int(sure.sum())
        of_class = np.bincount(labels[tied], minlength=classes)
        vote = np.exp((last - ranked[0]) / setting.temperature)
        fewest = np.maximum(0, slots - (int(tied.sum()) - of_class))
        low[row] = (votes + fewest * vote) / total
        high[row] = (votes + np.minimum(slots, of_class) * vote) / total
    return _with_doubt(low, setting), _with_doubt(high, setting)


def _with_doubt(votes: NDArray[np.float64], setting: Setting) -> NDArray[np.float64]:
    mixed: NDArray[np.float64] = (1 - setting.doubt) * votes + setting.doubt / votes.shape[1]
    return mixed


def _by_class(weights: NDArray[np.float64], labels: Any, classes: int) -> NDArray[np.float64]:
    """Sums (B, K) of the weights (B, k) of each class."""
    codes = labels + np.arange(len(labels))[:, np.newaxis] * classes
    sums: NDArray[Any] = np.bincount(codes.reshape(-1), weights.reshape(-1), len(labels) * classes)
    return sums.reshape(len(labels), classes)


def block_rows(count: int) -> int:
    """How many rows to compare with so many images at once: 64 MB of cosines, at most 512 rows."""
    return int(np.clip((16 << 20) // max(count, 1), 16, 512))
