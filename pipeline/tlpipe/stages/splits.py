"""Splits: which embeddings train a head, which choose its settings, which judge it.

Takes labels, splits and content hashes; gives row numbers. Imports ``errors``, ``types`` and NumPy.

Where the source has splits, they are kept. Where it has none for judging, a part of each class is
held out by the hash of an image's *content*: an image is held out when its hash, taken as a number
between 0 and 1, is below the hold-out fraction. So an image's side depends on nothing but itself
and the seed: adding, renaming or removing other images moves none, and identical images of a class
are on one side. The fraction is met on average, not exactly. The one exception are classes of a
few images: each class keeps at least one image on the judging side and ``MIN_TRAIN`` on the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.errors import TrainingDataError
from tlpipe.types import Split

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.intp]

MIN_TRAIN = 3
"""Fewest distinct images of a class to train with: one to hold back while choosing the settings,
and two that are not the same."""

HOLD_OUT = 0.2
"""Fraction of each class that is held out, on average."""

FOLDS = 5


@dataclass(frozen=True)
class Plan:
    """Row numbers of a feature file by their use, and how they were chosen.

    Attributes
    ----------
    fit : array of int
        Rows that train the final head.
    judge : array of int
        Rows that judge it, and are used for nothing else.
    folds : list of pairs of arrays of int
        To choose the settings: train on the first, score on the second. One pair where the source
        has a validation split, else ``FOLDS``.
    judged_on, chosen_on : str
        The same in words.
    unlabelled : int
        Rows left out for want of a label.
    """

    fit: Rows
    judge: Rows
    folds: list[tuple[Rows, Rows]]
    judged_on: str
    chosen_on: str
    unlabelled: int


def plan_splits(
    labels: NDArray[np.int32],
    splits: NDArray[np.int8],
    content_sha256: NDArray[np.uint8],
    classes: Sequence[str],
    seed: int,
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

    Raises
    ------
    TrainingDataError
        There are no labels, one class only, or a class with too few images.
    """
    labelled = labels >= 0
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
    unit = _hashes(content_sha256, seed)
    train = labelled & np.isin(splits, (Split.NONE, Split.TRAIN))
    validation = labelled & (splits == Split.VALIDATION)
    test = labelled & (splits == Split.TEST)

    if test.any():
        judge, judged_on = test, "the source's test split"
    elif validation.any():
        judge, judged_on = validation, "the source's validation split"
        validation = np.zeros_like(validation)
    else:
        judge = _hold_out(labels, train, unit, classes)
        judged_on = "about a fifth of each class, held out of training"
    train = train & ~judge
    _check_classes(labels, train, unit, classes)
    if validation.any():
        folds = [(np.flatnonzero(train), np.flatnonzero(validation))]
        chosen_on = "the source's validation split"
    else:
        folds = _stratified_folds(labels, train, unit)
        chosen_on = f"{FOLDS}-fold cross-validation of the training images"
    return Plan(
        fit=np.flatnonzero(train | validation),
        judge=np.flatnonzero(judge),
        folds=folds,
        judged_on=judged_on,
        chosen_on=chosen_on,
        unlabelled=int((~labelled).sum()),
    )


def _hashes(content_sha256: NDArray[np.uint8], seed: int) -> NDArray[np.float64]:
    """Number in [0, 1) for each row, the same for the same content and seed."""
    salt = f"tlpipe-split:{seed}:".encode()
    numbers = [
        int.from_bytes(hashlib.sha256(salt + row.tobytes()).digest()[:8], "big")
        for row in content_sha256
    ]
    return np.array(numbers, np.float64) / 2.0**64


def _hold_out(
    labels: NDArray[np.int32],
    among: NDArray[np.bool_],
    unit: NDArray[np.float64],
    classes: Sequence[str],
) -> NDArray[np.bool_]:
    """Mask of the rows held out for judging."""
    held = np.zeros(labels.shape, np.bool_)
    few: dict[str, int] = {}
    for label, name in enumerate(classes):
        rows = among & (labels == label)
        values = np.unique(unit[rows])  # distinct images, in the order of their hashes
        if values.size <= MIN_TRAIN:
            few[name] = values.size
            continue
        count = int(np.clip((values < HOLD_OUT).sum(), 1, values.size - MIN_TRAIN))
        held |= rows & (unit <= values[count - 1])
    if few:
        raise _too_few(few, MIN_TRAIN + 1, "one of them is held out to judge the classifier")
    return held


def _check_classes(
    labels: NDArray[np.int32],
    train: NDArray[np.bool_],
    unit: NDArray[np.float64],
    classes: Sequence[str],
) -> None:
    distinct = {
        name: np.unique(unit[train & (labels == label)]).size for label, name in enumerate(classes)
    }
    few = {name: count for name, count in distinct.items() if count < MIN_TRAIN}
    if few:
        raise _too_few(few, MIN_TRAIN, "in the training split")


def _too_few(few: dict[str, int], least: int, why: str) -> TrainingDataError:
    listed = ", ".join(f"{name!r} has {count}" for name, count in sorted(few.items())[:10])
    return TrainingDataError(
        f"{len(few)} classes have too few distinct images: {listed}; at least {least} are needed"
        f" ({why}).",
        hint="Add images of them, or take them out of the source.",
    )


def _stratified_folds(
    labels: NDArray[np.int32], train: NDArray[np.bool_], unit: NDArray[np.float64]
) -> list[tuple[Rows, Rows]]:
    """Folds in which each class is spread evenly, and identical images stay together."""
    fold = np.full(labels.shape, -1)
    for label in np.unique(labels[train]):
        rows = train & (labels == label)
        rank: Any = np.unique(unit[rows], return_inverse=True)[1]
        fold[rows] = rank % FOLDS
    present = np.unique(fold[train])
    return [(np.flatnonzero(train & (fold != k)), np.flatnonzero(fold == k)) for k in present]
