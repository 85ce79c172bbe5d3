"""Which embeddings train a head, which choose its settings, which judge it.

Takes labels, splits, groups and content hashes; gives row numbers.

Where the source has splits, they are kept. Where it has none for judging, a part of each class is
held out by the hash of an image's *content*: an image is held out when its hash, taken as a number
between 0 and 1, is below the hold-out fraction. So an image's side depends on nothing but itself
and the seed: adding, renaming or removing other images moves none. The fraction is met on average,
not exactly. Images of one group, and identical images, are one unit: they have the least of their
hashes, and one side. The one exception are classes of a few units: each keeps ``MIN_TRAIN`` for
training, and of those that have more at least one judges.

Where no class has so many, none is held out: such a head is judged in cross-validation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tlpipe.errors import TrainingDataError
from tlpipe.stages.splits.units import units_of
from tlpipe.types import Split

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.intp]

MIN_TRAIN = 3
"""Units that a class keeps for training before one is held out: one to hold back while choosing the
settings, and two that are not the same."""

HOLD_OUT = 0.2
"""Fraction of each class that is held out, on average."""

FOLDS = 5

MANY = 20_000
"""Rows from which on one fold is enough to choose the settings: 4,000 and more are scored."""


@dataclass(frozen=True)
class Plan:
    """Row numbers of a feature file by their use, and how they were chosen.

    Attributes
    ----------
    fit : array of int
        Rows that train the final head.
    judge : array of int
        Rows that judge it, and are used for nothing else; none where there are too few images.
    folds : list of pairs of arrays of int
        To choose the settings: train on the first, score on the second. One pair where the source
        has a validation split or there are ``MANY`` rows, else up to ``FOLDS``; none where each
        class has one image.
    judged_on, chosen_on : str
        The same in words.
    unlabelled : int
        Rows left out for want of a label.
    grouped : bool
        Whether rows belong to groups.
    """

    fit: Rows
    judge: Rows
    folds: list[tuple[Rows, Rows]]
    judged_on: str
    chosen_on: str
    unlabelled: int
    grouped: bool = False


def plan_splits(
    labels: NDArray[np.int32],
    splits: NDArray[np.int8],
    content_sha256: NDArray[np.uint8],
    classes: Sequence[str],
    seed: int,
    groups: NDArray[np.int64] | None = None,
) -> Plan:
    """Decide what each row is for.

    Parameters
    ----------
    labels : int32 array (N,)
        Index into `classes`, -1 for none.
    splits : int8 array (N,)
        Values of ``Split``; rows of no split train where others have one.
    content_sha256 : uint8 array (N, 32)
    classes : sequence of str
    seed : int
        Another seed holds out other images.
    groups : int64 array (N,), optional
        Equal for images of one object, which stay together; -1 for none.

    Raises
    ------
    TrainingDataError
        There are no labels, one class only, or a class without an image to train with.
    """
    labelled = labels >= 0
    _check_labels(labels, labelled, classes)
    groups = np.full(labels.size, -1, np.int64) if groups is None else groups
    units = _Units(labels, groups, content_sha256, seed)
    train = labelled & np.isin(splits, (Split.NONE, Split.TRAIN))
    validation = labelled & (splits == Split.VALIDATION)
    test = labelled & (splits == Split.TEST)

    if test.any():
        judge, judged_on = test, "the source's test split"
    elif validation.any():
        judge, judged_on = validation, "the source's validation split"
        validation = np.zeros_like(validation)
    else:
        judge = units.hold_out(train, len(classes))
        judged_on = "about a fifth of each class, held out of training"
    if not judge.any():
        judged_on = "training images held out in cross-validation"
    train = train & ~judge
    fit = train | validation
    _check_classes(labels, fit, classes)
    if validation.any() and train.any():
        folds = [(np.flatnonzero(train), np.flatnonzero(validation))]
        chosen_on = "the source's validation split"
    else:
        folds = units.folds(fit)
        chosen_on = f"{len(folds)}-fold cross-validation of the training images"
        if len(folds) > 1 and int(fit.sum()) >= MANY:
            folds = folds[:1]
            chosen_on = "a fifth of the training images"
    return Plan(
        fit=np.flatnonzero(fit),
        judge=np.flatnonzero(judge),
        folds=folds,
        judged_on=judged_on,
        chosen_on=chosen_on if folds else "nothing: each class has one image",
        unlabelled=int((~labelled).sum()),
        grouped=bool((groups[labelled] >= 0).any()),
    )


def stratified_folds(
    labels: NDArray[np.int32],
    groups: NDArray[np.int64],
    content_sha256: NDArray[np.uint8],
    seed: int,
    *,
    least: int = 2,
) -> list[tuple[Rows, Rows]]:
    """Folds of all labelled rows: each row is held out once, and trains in the others.

    Parameters
    ----------
    labels : int32 array (N,)
        -1 for none: such rows are in no fold.
    groups : int64 array (N,)
        Equal for rows that stay together; -1 for none. Rows of the same content do, too.
    content_sha256 : uint8 array (N, 32)
    seed : int
        Another seed makes other folds.
    least : int
        Rows of a class that would be held out in fewer folds than this train in all of them.

    Returns
    -------
    list of pairs of arrays of int
        Rows that train, with all classes among them, and rows held out; up to ``FOLDS``.
    """
    return _Units(labels, groups, content_sha256, seed).folds(labels >= 0, least)


class _Units:
    """Rows that stay together, each with a number in [0, 1) that tells its side."""

    def __init__(
        self,
        labels: NDArray[np.int32],
        groups: NDArray[np.int64],
        content_sha256: NDArray[np.uint8],
        seed: int,
    ) -> None:
        self._labels = labels
        whole = np.ascontiguousarray(content_sha256).view("V32").reshape(-1)
        contents = np.unique(whole, return_inverse=True)[1].reshape(-1).astype(np.int64)
        _, self._unit = units_of(groups, contents)
        self._value = np.ones(int(self._unit.max()) + 1)
        np.minimum.at(self._value, self._unit, _hashes(groups, content_sha256, seed))

    def hold_out(self, among: NDArray[np.bool_], classes: int) -> NDArray[np.bool_]:
        """Mask of the rows held out for judging."""
        held_units = self._value < HOLD_OUT
        for label in range(classes):
            units = np.unique(self._unit[among & (self._labels == label)])
            units = units[np.argsort(self._value[units], kind="stable")]
            held = held_units[units]
            if units.size > MIN_TRAIN and not held.any():
                held_units[units[0]] = True
        for label in range(classes):  # last, so that what a class needs to train with stays
            units = np.unique(self._unit[among & (self._labels == label)])
            units = units[np.argsort(self._value[units], kind="stable")]
            most = max(0, units.size - MIN_TRAIN)
            held_units[units[held_units[units]][most:]] = False
        return among & held_units[self._unit]

    def folds(self, train: NDArray[np.bool_], least: int = 2) -> list[tuple[Rows, Rows]]:
        """Folds in which each class is spread evenly.

        A unit counts for the class of its first row. The only unit of a class is never held back,
        nor are the rows of a class that fewer than `least` folds would hold.
        """
        rows = np.flatnonzero(train)
        units, first = np.unique(self._unit[rows], return_index=True)
        labels = self._labels[rows[first]]
        fold_of = np.full(self._value.size, -1)
        for label in np.unique(labels):
            mine = units[labels == label]
            mine = mine[np.argsort(self._value[mine], kind="stable")]
            if mine.size > 1:
                fold_of[mine] = np.arange(mine.size) % FOLDS
        fold = fold_of[self._unit]
        classes = int(self._labels[rows].max(initial=-1)) + 1
        holds = np.zeros((classes, FOLDS), np.bool_)
        back = rows[fold[rows] >= 0]
        holds[self._labels[back], fold[back]] = True
        scarce = rows[holds.sum(axis=1)[self._labels[rows]] < least]
        fold_of[self._unit[scarce]] = -1
        fold = fold_of[self._unit]
        present = np.unique(fold[train & (fold >= 0)])
        return [
            (np.flatnonzero(train & (fold != k)), np.flatnonzero(train & (fold == k)))
            for k in present
        ]


def _hashes(
    groups: NDArray[np.int64], content_sha256: NDArray[np.uint8], seed: int
) -> NDArray[np.float64]:
    """Number in [0, 1) for each row, the same for the same group or content and seed."""
    salt = f"tlpipe-split:{seed}:".encode()
    numbers = [
        int.from_bytes(
            hashlib.sha256(
                salt + (row.tobytes() if group < 0 else f"group:{group}".encode())
            ).digest()[:8],
            "big",
        )
        for group, row in zip(groups.tolist(), content_sha256, strict=True)
    ]
    return np.array(numbers, np.float64) / 2.0**64


def _check_labels(
    labels: NDArray[np.int32], labelled: NDArray[np.bool_], classes: Sequence[str]
) -> None:
    if not labelled.any():
        raise TrainingDataError(
            f"None of the {labels.size} embeddings has a label.",
            hint="Sort the images into one folder per class, or embed a CSV with a label column.",
        )
    if len(classes) < 2:
        raise TrainingDataError(
            f"All labelled embeddings are of the one class {classes[0]!r}.",
            hint="A classifier needs at least two classes: one folder for each.",
        )


def _check_classes(
    labels: NDArray[np.int32], fit: NDArray[np.bool_], classes: Sequence[str]
) -> None:
    counts = np.bincount(labels[fit], minlength=len(classes))
    missing = [classes[k] for k in np.flatnonzero(counts == 0).tolist()]
    if missing:
        raise TrainingDataError(
            f"{len(missing)} classes have no image to train with: {missing[:10]}"
            f"{' and more' if len(missing) > 10 else ''}; their images are all in the split that"
            " judges.",
            hint="Put some of them into the training split, or take the classes out.",
        )
