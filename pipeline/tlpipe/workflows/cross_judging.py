"""On which images backbones are compared, and what a head on each says of them.

By default all labelled images but those of the test split are judged, in cross-validation: each by
a head that was trained, and whose settings were chosen, without it. To choose a backbone is to
choose, and what chooses must not be what judges in the end: so the test split stays untouched, and
many more images than it has tell the backbones apart. Where there are so many that a part of them
is enough, there is one head, and the validation split, or a fifth, is judged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from tlpipe.errors import OptionError, TrainingDataError
from tlpipe.stages.head import train
from tlpipe.stages.splits import Plan, plan_splits
from tlpipe.types import Split
from tlpipe.workflows.matching import Common

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import Float32Array

    Rows = NDArray[np.intp]

JudgeOn = Literal["training", "test"]
JUDGE_ON: tuple[JudgeOn, ...] = ("training", "test")

MANY = 20_000
"""Images from which on one head is trained, and those held out for it are judged: 4,000 and more,
which tell a difference of a point in accuracy."""


@dataclass(frozen=True)
class JudgingPlan:
    """Which rows judge, and the heads that are trained for it; the same for every backbone.

    Attributes
    ----------
    plans : list of Plan
        One for each head. No row is judged by two of them.
    rows : int array (N,)
        All that are judged, ascending; N is at least 2.
    judged_on : str
        The same in words.
    notices : list of str
    """

    plans: list[Plan]
    rows: Rows
    judged_on: str
    notices: list[str]


@dataclass(frozen=True)
class Judged:
    """What the heads say.

    Attributes
    ----------
    probabilities : float64 array (N, K)
        In the order of ``JudgingPlan.rows``.
    head_s : float
        Mean seconds to train a head, its search for settings included.
    """

    probabilities: NDArray[np.float64]
    head_s: float


def plan_judging(common: Common, judge_on: JudgeOn, seed: int) -> JudgingPlan:
    """Decide which rows judge.

    Raises
    ------
    OptionError
        The test split is asked for, and there is none.
    TrainingDataError
        There are no labels, one class only, or too few images to judge.
    """
    if judge_on not in JUDGE_ON:
        raise OptionError(
            f"What judges is {judge_on!r}, which is unknown.", hint=f"Use one of {list(JUDGE_ON)}."
        )
    plans = _on_test(common, seed) if judge_on == "test" else _on_training(common, seed)
    rows = np.sort(np.concatenate([plan.judge for plan in plans]))
    if rows.size < 2:
        raise TrainingDataError(
            f"{rows.size} common images can be judged; there must be two at least.",
            hint="Compare on more images: some for each class.",
        )
    judged_on = plans[0].judged_on
    if len(plans) > 1:
        judged_on = f"all training images, in {len(plans)}-fold cross-validation"
        if (common.splits == Split.TEST).any():
            judged_on += " (the test split is not used)"
    return JudgingPlan(plans, rows, judged_on, _notices(common, plans, rows))


def judge(
    vectors: Float32Array, common: Common, judging: JudgingPlan, told: Callable[[], None]
) -> Judged:
    """Train the heads on the embeddings (M, D) of the common images, and judge.

    `told` is called after each head.

    Raises
    ------
    ConvergenceError
        A head's optimum was not found.
    """
    probabilities = np.empty((judging.rows.size, len(common.classes)))
    seconds = []
    for plan in judging.plans:
        start = time.perf_counter()
        head = train(vectors, common.labels, plan.fit, plan.folds)
        seconds.append(time.perf_counter() - start)
        at = np.searchsorted(judging.rows, plan.judge)
        probabilities[at] = head.probabilities(vectors[plan.judge])
        told()
    return Judged(probabilities, float(np.mean(seconds)))


def _planned(
    common: Common, labels: NDArray[np.int32], splits: NDArray[np.int8], seed: int
) -> Plan:
    return plan_splits(labels, splits, common.content_sha256, common.classes, seed, common.groups)


def _on_test(common: Common, seed: int) -> list[Plan]:
    if not ((common.splits == Split.TEST) & (common.labels >= 0)).any():
        raise OptionError(
            "The common images have no labelled test split to judge on.",
            hint="Judge on the training images; or assign splits: tlpipe split.",
        )
    return [_planned(common, common.labels, common.splits, seed)]


def _on_training(common: Common, seed: int) -> list[Plan]:
    labels = np.where(common.splits == Split.TEST, -1, common.labels).astype(np.int32)
    if int((labels >= 0).sum()) >= MANY:
        return [_planned(common, labels, common.splits, seed)]
    whole = _planned(common, labels, np.full(labels.size, Split.NONE, np.int8), seed)
    sides = [whole.judge, *(held for _, held in whole.folds)]
    plans = []
    for held in sides:
        splits = np.full(labels.size, Split.TRAIN, np.int8)
        splits[held] = Split.TEST
        trained = np.unique(labels[(labels >= 0) & (splits == Split.TRAIN)])
        if held.size and trained.size == len(common.classes):
            plans.append(_planned(common, labels, splits, seed))
    if not plans:
        raise TrainingDataError(
            "No class has two images that differ: none is left to judge a head.",
            hint="Compare on more images: some for each class.",
        )
    return plans


def _notices(common: Common, plans: Sequence[Plan], rows: Rows) -> list[str]:
    notices = []
    unlabelled = int((common.labels < 0).sum())
    if unlabelled:
        notices.append(f"{unlabelled:,} common images have no label and are left out.")
    judged = np.bincount(common.labels[rows], minlength=len(common.classes))
    missing = [common.classes[k] for k in np.flatnonzero(judged == 0)]
    if missing:
        notices.append(f"No image of {missing} was left to judge the backbones.")
    if any(plan.grouped for plan in plans):
        notices.append(
            "Images of a group stay together, but each counts as one in the intervals: where they"
            " resemble each other, the intervals are too narrow."
        )
    return notices
