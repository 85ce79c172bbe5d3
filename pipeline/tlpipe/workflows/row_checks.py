"""What is odd about the rows of a feature file, by their numbers: ``audit`` and ``report`` tell it.

Rows that are the same or nearly; and what is said of each label by a head that its image, others
of the same content, and others of its group did not train.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tlpipe.label_cells import DEFAULT_SEPARATOR
from tlpipe.stages.head import Head, probabilities_of, train
from tlpipe.stages.neighbours import Neighbours, near_pairs
from tlpipe.stages.splits import stratified_folds
from tlpipe.stages.store import Features
from tlpipe.types import Progress, ProgressCallback, Split
from tlpipe.workflows.common import trying
from tlpipe.workflows.leaks import content_numbers, shared_rows
from tlpipe.workflows.multilabel import looks_joined

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

NEAR = 0.95
"""Cosine from which on two images count as nearly the same: ``docs/reference/audit.md``."""

MOST_PAIRS = 10_000

MIN_FOLDS = 3
"""Fewest folds that must hold rows of a class, for its rows to be judged: two of them always
train. What is said of a class that one image trains rests on next to nothing."""

CHAINED = 0.5  # of all images: a larger cluster says that the threshold is too low


@dataclass(frozen=True)
class Alike:
    """Rows that are the same, or nearly.

    Attributes
    ----------
    contents : int64 array (N,)
        Equal for rows of the same content.
    near : Neighbours
        Rows of other contents whose embeddings are nearly the same; ``across`` are on two sides of
        the splits, where rows of no split count as training.
    shared : list of (int, int)
        Rows of the same content on two sides.
    notices : list of str
    """

    contents: Ints
    near: Neighbours
    shared: list[tuple[int, int]]
    notices: list[str]

    @property
    def clusters(self) -> list[Ints]:
        """Rows that chains of near pairs join, the largest first."""
        return clusters_of(self.near.clusters)


@dataclass(frozen=True)
class Checked:
    """What heads say of labelled rows that they did not train on.

    Attributes
    ----------
    rows : int array (M,)
        That were held out once, ascending.
    present : int64 array (K,)
        Numbers of the classes that occur, of which the columns below are.
    labels : int64 array (M,)
        Columns of their labels.
    probabilities : float64 array (M, K)
    head : Head
        Trained on all labelled rows, with the settings that were chosen.
    """

    rows: Ints
    present: Ints
    labels: Ints
    probabilities: NDArray[np.float64]
    head: Head


def find_alike(data: Features, near: float, progress: ProgressCallback | None) -> Alike:
    """Find rows that are the same, or whose embeddings have at least the cosine `near`."""
    count = len(data.keys)

    def done(number: int) -> None:
        if progress is not None:
            progress(Progress("near-duplicates", number, count, 0))

    heads = np.ascontiguousarray(data.content_sha256[:, :16]).view("<u8")
    contents = content_numbers(heads)
    sides = np.where(data.splits == Split.NONE, np.int8(Split.TRAIN), data.splits)
    found = near_pairs(data.vectors, near, contents, sides, most=MOST_PAIRS, progress=done)
    clusters = clusters_of(found.clusters)
    notices = []
    if clusters and count > 10 and clusters[0].size > CHAINED * count:
        notices.append(
            f"One cluster of near-duplicates holds {clusters[0].size:,} of {count:,} images: these"
            f" embeddings are all alike, and a cosine of {near:g} tells little. Raise it with"
            " --near."
        )
    return Alike(contents, found, shared_rows(contents, data.splits), notices)


def clusters_of(numbers: Ints) -> list[Ints]:
    """Rows of equal numbers, where there are several; the largest clusters first."""
    order = np.argsort(numbers, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)
    several = [part for part in parts if part.size > 1]
    return sorted(several, key=lambda part: (-part.size, int(part[0])))


def check_labels(
    data: Features, seed: int, progress: ProgressCallback | None
) -> tuple[Checked | None, list[str]]:
    """Have each labelled row judged by a head that it did not train; None where that cannot be.

    Returns
    -------
    checked : Checked or None
    notices : list of str
        Which labels were not checked, and why.
    """
    labelled = np.flatnonzero(data.labels >= 0)
    present, labels = np.unique(data.labels[labelled].astype(np.int64), return_inverse=True)
    notices = []
    if looks_joined(data.classes):
        notices.append(
            f"Names of classes hold {DEFAULT_SEPARATOR!r}. Each is taken as one class: where they"
            " are several labels of an image, what is said of wrong labels means little."
        )
    if present.size < 2:
        what = "is one class only" if present.size else "are no labels"
        return None, [*notices, f"Labels were not checked: there {what}."]
    numbers = np.full(len(data.keys), -1, np.int32)
    numbers[labelled] = labels.reshape(-1)
    folds = stratified_folds(numbers, data.groups, data.content_sha256, seed, least=MIN_FOLDS)
    none = np.empty(0, np.int64)
    left_out = np.setdiff1d(labelled, np.concatenate([none, *(held for _, held in folds)]))
    if left_out.size:
        notices.append(
            f"Labels that were not checked: {left_out.size:,}, of classes with fewer than"
            f" {MIN_FOLDS} images (or groups) that are not the same."
        )
    if not folds:
        return None, notices

    head = train(data.vectors, numbers, labelled, folds, progress=trying(progress))
    assert head.held_out is not None  # there are folds
    rows = head.held_out.rows.astype(np.int64)
    probabilities = probabilities_of(head.held_out.logits, multilabel=False)
    return Checked(rows, present, numbers[rows].astype(np.int64), probabilities, head), notices
