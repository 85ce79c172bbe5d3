"""Folds: parts of the rows, each to be held out once while the others train.

Takes labels and units, gives a fold for each row. Imports NumPy.

A unit is what must stay together: rows of the same content or of one group. The classes are spread
evenly over the folds, whole units at a time. A class of too few units always trains: what would be
said of its rows, held out, rests on next to nothing, and without it no head knows the class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

FOLDS = 5

MIN_UNITS = 3
"""Fewest folds that must hold rows of a class, for its rows to be held out: two of them always
train."""

ALWAYS_TRAINS = -1


def grouped_folds(labels: Ints, units: Ints, seed: int, folds: int = FOLDS) -> Ints:
    """Give each row a fold; rows of one unit are in the same.

    Parameters
    ----------
    labels : int64 array (N,)
        0 to K - 1.
    units : int64 array (N,)
        Numbers from 0 on; equal for rows that stay together.
    seed : int
        Another seed makes other folds.
    folds : int

    Returns
    -------
    int64 array (N,)
        0 to `folds` - 1; -1 for rows that always train. Every class has rows outside each fold.
    """
    classes = int(labels.max()) + 1
    rng = np.random.default_rng(seed)
    sizes = np.bincount(units)
    have = np.zeros((classes, folds), np.int64)
    found = np.full(labels.shape, ALWAYS_TRAINS, np.int64)
    alone = sizes[units] == 1
    _place_units(found, have, labels, units, np.flatnonzero(~alone), rng)
    singles = np.flatnonzero(alone)
    singles = singles[np.argsort(labels[singles], kind="stable")]
    ends = np.searchsorted(labels[singles], np.arange(classes + 1))
    for label in range(classes):
        mine = rng.permutation(singles[ends[label] : ends[label + 1]])
        found[mine] = _levelled(have[label], mine.size, label)
    # Which folds hold a class, and classes that too few of them hold.
    holds = np.zeros((classes, folds), np.bool_)
    holds[labels, found] = True
    scarce = holds.sum(axis=1) < MIN_UNITS
    stays = np.zeros(sizes.size, np.bool_)
    stays[units[scarce[labels]]] = True
    found[stays[units]] = ALWAYS_TRAINS
    return found


def _place_units(
    found: Ints, have: Ints, labels: Ints, units: Ints, rows: Ints, rng: np.random.Generator
) -> None:
    """Place units of several rows, the largest first: each where there is least of its classes."""
    if not rows.size:
        return
    rows = rows[np.argsort(units[rows], kind="stable")]
    parts = np.split(rows, np.flatnonzero(np.diff(units[rows])) + 1)
    totals = np.bincount(labels, minlength=have.shape[0])
    for index in sorted(rng.permutation(len(parts)).tolist(), key=lambda i: -parts[i].size):
        mine, counts = np.unique(labels[parts[index]], return_counts=True)
        crowd = (counts / totals[mine]) @ have[mine]
        fold = int(np.lexsort((_turn(int(mine[0]), have.shape[1]), np.round(crowd, 9)))[0])
        have[mine, fold] += counts
        found[parts[index]] = fold


def _levelled(have: Ints, count: int, label: int) -> Ints:
    """Folds of `count` single rows of a class, so that all folds hold as many of it."""
    slots = have[np.newaxis, :] + np.arange(count)[:, np.newaxis]
    keys = slots * have.size + _turn(label, have.size)
    folds: Ints = np.argsort(keys, axis=None, kind="stable")[:count] % have.size
    return folds


def _turn(label: int, folds: int) -> Ints:
    """Order of the folds among equals: each class begins at another one."""
    turned: Ints = (np.arange(folds) + label) % folds
    return turned
