"""Assign: gives the rows of a feature file their splits, by class, and whole groups at a time.

Takes labels, contents and groups as arrays; gives splits. Imports ``types`` and NumPy.

What must stay together is a unit (``units``). Units are taken in the order of a hash of the seed
and their name, so the order of rows does not matter. Each goes to the split that lacks most of its
classes. Rows that have a split keep it, and draw new rows of their unit after them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from tlpipe.stages.splits.units import units_of
from tlpipe.types import Split

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

SPLITS = (Split.TRAIN, Split.VALIDATION, Split.TEST)

_Parts = list[tuple[int, int]]  # classes of a unit, and how many of its rows are of each


def group_number(name: str) -> int:
    """Number of a group in a feature file: the first 63 bits of the SHA-256 of its name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def assign_splits(
    splits: NDArray[np.int8],
    labels: NDArray[np.int32],
    groups: Ints,
    contents: Ints,
    heads: NDArray[np.uint64],
    fractions: Mapping[Split, float],
    seed: int,
) -> NDArray[np.int8]:
    """Splits of all rows.

    Parameters
    ----------
    splits : int8 array (N,)
        Values of ``Split``; rows of none are assigned, others stay as they are.
    labels : int32 array (N,)
        -1 for none: such rows count as a class of their own.
    groups : int64 array (N,)
        -1 for none.
    contents : int64 array (N,)
        From 0 on; equal for rows of the same content.
    heads : uint64 array (N, 2)
        What names a content.
    fractions : mapping of Split to float
        Of train, validation and test; their sum is 1.
    seed : int

    Returns
    -------
    int8 array (N,)
    """
    names, units = units_of(groups, contents)
    found = splits.copy()
    group_ids = np.unique(groups, return_inverse=True)[1].reshape(-1)
    for ids, among in ((group_ids, groups >= 0), (contents, None), (units, None)):
        found = _followed(found, ids, among)
    free = np.flatnonzero(found == Split.NONE)
    if not free.size:
        return found
    order = _order(names[free], units[free], groups[free], heads[free], seed)
    parts = _parts(units[free], labels[free])
    chosen = _Shares(found, labels, fractions, parts).distribute(order)
    given = np.full(int(units.max()) + 1, Split.NONE, np.int8)
    given[order] = chosen
    found[free] = given[units[free]]
    return found


def _followed(
    splits: NDArray[np.int8], ids: Ints, among: NDArray[np.bool_] | None
) -> NDArray[np.int8]:
    """Splits, where rows of none take that of most rows of the same id that have one."""
    has = splits != Split.NONE
    counts = np.zeros((int(ids.max()) + 1, len(SPLITS)), np.int64)
    np.add.at(counts, (ids[has], splits[has]), 1)
    most = counts.argmax(axis=1).astype(np.int8)
    most[counts.sum(axis=1) == 0] = Split.NONE
    follows = ~has if among is None else ~has & among
    return np.where(follows, most[ids], splits)


def _order(names: Ints, units: Ints, groups: Ints, heads: NDArray[np.uint64], seed: int) -> Ints:
    """Units in the order of the least hash of what names their rows."""
    _, rows = np.unique(names, return_index=True)
    salt = f"tlpipe-split:{seed}:".encode()
    hashes = []
    for group, head in zip(groups[rows].tolist(), heads[rows].tolist(), strict=True):
        name = f"group:{group}" if group >= 0 else f"content:{head[0]:016x}{head[1]:016x}"
        hashes.append(hashlib.sha256(salt + name.encode()).digest()[:8])
    values = np.frombuffer(b"".join(hashes), ">u8").astype(np.uint64)
    least = np.full(int(units.max()) + 1, np.iinfo(np.uint64).max)
    np.minimum.at(least, units[rows], values)
    present = np.unique(units)
    ordered: Ints = present[np.argsort(least[present], kind="stable")]
    return ordered


def _parts(units: Ints, labels: NDArray[np.int32]) -> dict[int, _Parts]:
    """Classes of each unit, with their numbers of rows."""
    pairs, counts = np.unique(np.column_stack([units, labels]), axis=0, return_counts=True)
    found: dict[int, _Parts] = {}
    for (unit, label), count in zip(pairs.tolist(), counts.tolist(), strict=True):
        found.setdefault(unit, []).append((label, count))
    return found


class _Shares:
    """What each split has of each class, and should have."""

    def __init__(
        self,
        splits: NDArray[np.int8],
        labels: NDArray[np.int32],
        fractions: Mapping[Split, float],
        parts: dict[int, _Parts],
    ) -> None:
        self._parts = parts
        self._wanted = [split for split in SPLITS if fractions[split] > 0]
        self._total: dict[int, int] = {}
        self._lacks: dict[int, list[float]] = {}  # by class and split: rows that are missing
        self._empty: dict[int, list[Split]] = {}  # splits that have nothing of a class
        self._left: dict[int, int] = {}  # units still to come
        for label in np.unique(labels).tolist():
            mine = splits[labels == label]
            have = [int((mine == split).sum()) for split in SPLITS]
            self._total[label] = mine.size
            self._lacks[label] = [
                fractions[split] * mine.size - n for split, n in zip(SPLITS, have, strict=True)
            ]
            self._empty[label] = [split for split in self._wanted if not have[split]]
        for unit in parts.values():
            for label, _ in unit:
                self._left[label] = self._left.get(label, 0) + 1

    def distribute(self, order: Ints) -> NDArray[np.int8]:
        """Splits of units, in their order."""
        return np.array([self._give(self._parts[unit]) for unit in order.tolist()], np.int8)

    def _give(self, unit: _Parts) -> Split:
        """Choose a split for a unit: the one that lacks most of its classes, each by its size."""
        choice = self._wanted
        for label, _ in unit:
            # The last units of a class go where there is none of it yet.
            if self._empty[label] and self._left[label] <= len(self._empty[label]):
                choice = self._empty[label]
                break

        def lacking(split: Split) -> float:
            return sum(n * self._lacks[label][split] / self._total[label] for label, n in unit)

        chosen = max(choice, key=lacking)
        for label, n in unit:
            self._lacks[label][chosen] -= n
            self._left[label] -= 1
            if chosen in self._empty[label]:
                self._empty[label].remove(chosen)
        return chosen
