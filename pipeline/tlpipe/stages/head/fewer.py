"""Subsets of the rows that train, for a learning curve: each holds the smaller ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.intp]

_PARTS = (16, 8, 4, 2)
_LEAST_ROWS = 20


def nested(labels: Any, seed: int) -> Rows:
    """Rows in an order whose beginnings have the classes in the same shares as the whole.

    Parameters
    ----------
    labels : int32 array (N,), or bool array (N, K)
        Several labels of a row are left out of account.
    seed : int
    """
    rng = np.random.default_rng(seed)
    if labels.ndim == 2:
        return rng.permutation(len(labels))
    place = rng.random(labels.size)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        place[rows] = (rng.permutation(rows.size) + place[rows]) / rows.size
    return np.argsort(place, kind="stable")


def sizes(count: int, classes: int) -> list[int]:
    """How many of so many rows are worth a point of the curve, ascending."""
    return [count // part for part in _PARTS if count // part >= max(_LEAST_ROWS, 2 * classes)]
