"""Folds: how the rows given to a ``LinearProbe`` are parted to choose its settings.

Takes labels and what the user says of folds and groups, gives pairs of row numbers. In each pair
every class is among the rows that train, and no group is on both sides.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, check_cv
from sklearn.utils import check_random_state

from tlpipe.errors import OptionError, TrainingDataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.intp]


def plan_folds(
    vectors: Any, labels: NDArray[np.int32], groups: Any, cv: Any, random_state: Any
) -> list[tuple[Rows, Rows]]:
    """Rows to train on, and rows to score on.

    Parameters
    ----------
    vectors : array (N, D)
        For splitters that look at them.
    labels : int32 array (N,)
        0 to K - 1.
    groups : array (N,) or None
        Rows of one group stay together.
    cv : int, splitter or iterable of pairs
        A number of folds that is greater than the rows (or the groups) allow becomes smaller: each
        class is spread evenly, those of a single row always train.
    random_state : int, RandomState or None

    Returns
    -------
    list of pairs of int arrays
        Empty where nothing can be held out: each class has but one row, or one group.

    Raises
    ------
    OptionError
        `cv` is none of these.
    TrainingDataError
        It gives rows that are not there.
    """
    if isinstance(cv, (int, np.integer)) and not isinstance(cv, bool):
        if cv < 2:
            raise OptionError(f"cv is {cv}; it must be at least 2, the number of folds.")
        parted: Iterable[Any] = (
            _by_class(labels, int(cv), random_state)
            if groups is None
            else _by_group(labels, groups, int(cv), random_state)
        )
    else:
        try:
            parted = check_cv(cv, labels, classifier=True).split(vectors, labels, groups)
        except ValueError as exc:
            raise OptionError(
                f"cv cannot be used: {exc}",
                hint="Give a number of folds, a splitter of scikit-learn's, or pairs of rows.",
            ) from exc
    together = np.arange(labels.size) if groups is None else groups
    pairs = [_sound(labels, together, train, held) for train, held in parted]
    return [(train, held) for train, held in pairs if held.size]


def _by_class(labels: NDArray[np.int32], most: int, random_state: Any) -> Iterable[Any]:
    """Folds in which each class is spread evenly; the next class goes on where one ended."""
    counts = np.bincount(labels)
    number = min(most, int(counts.max()))
    if number < 2:
        return []
    shuffled = check_random_state(random_state).permutation(labels.size)
    fold = np.empty(labels.size, np.intp)
    fold[shuffled[np.argsort(labels[shuffled], kind="stable")]] = np.arange(labels.size) % number
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(number)]


def _by_group(
    labels: NDArray[np.int32], groups: Any, most: int, random_state: Any
) -> Iterable[Any]:
    number = min(most, int(np.bincount(labels).max()), np.unique(groups).size)
    if number < 2:
        return []
    splitter = StratifiedGroupKFold(number, shuffle=True, random_state=random_state)
    with warnings.catch_warnings():
        # Of classes with fewer rows than folds: what that does to a fold is mended below.
        warnings.filterwarnings("ignore", message="The least populated class")
        return list(splitter.split(labels, labels, groups))


def _sound(labels: NDArray[np.int32], groups: Any, train: Any, held: Any) -> tuple[Rows, Rows]:
    """The same fold, with the groups moved to the training rows whose classes are only held out."""
    trains, holds = np.zeros(labels.size, bool), np.zeros(labels.size, bool)
    try:
        trains[train], holds[held] = True, True
    except IndexError as exc:
        raise TrainingDataError(
            f"cv names rows that are not among the {labels.size}.",
            hint="Rows go by their numbers in X, from 0 on.",
        ) from exc
    holds &= ~trains
    lacking = np.setdiff1d(np.unique(labels), labels[trains])
    moved = np.isin(groups, groups[np.isin(labels, lacking)])
    trains |= moved
    return np.flatnonzero(trains), np.flatnonzero(holds & ~moved)
