"""Judges a classifier of several labels per image, by its head on the stored embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.errors import TrainingDataError
from tlpipe.label_cells import DEFAULT_SEPARATOR, names_in
from tlpipe.stages.head import probabilities_of, train
from tlpipe.stages.metrics import measure_multilabel
from tlpipe.stages.store import Features
from tlpipe.types import ProgressCallback
from tlpipe.workflows.common import some_of, trying
from tlpipe.workflows.multilabel import LabelTask, plan_labels
from tlpipe.workflows.report.by_classifier import (
    Given,
    age_notices,
    figure_notices,
    judged_by_it,
)
from tlpipe.workflows.report.by_heads import probabilities_by
from tlpipe.workflows.report.judgement import Judgement, labelled_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import Float32Array

    Bools = NDArray[np.bool_]
    Ints = NDArray[np.int64]


@dataclass(frozen=True)
class _Judges:
    """Rows that judge, and probabilities of them (M, K); in words what they are."""

    rows: Ints
    probabilities: NDArray[Any]
    words: str


def judged_by_labels(
    given: Given, data: Features, progress: ProgressCallback | None = None
) -> Judgement:
    """Judge a classifier on the rows that were kept for that when it was trained.

    Where there are none, heads are trained for the report in the same way, and what they say of
    rows that did not train them is judged.
    """
    info = given.info
    classes = list(info.classes)
    thresholds = np.array(info.thresholds)
    labels, notices = _labels(given, data)
    probabilities = probabilities_by(given.answer, data, np.arange(len(data.keys)))
    guesses = probabilities >= thresholds
    task, why = _planned(given, data)
    notices += why
    trains = np.zeros(len(data.keys), np.bool_)
    judges = None
    if task is not None:
        trains[task.plan.fit] = True
        judges = _judges(given, data, task, probabilities, progress)
    if judges is None:
        rows, metrics, words = np.empty(0, np.int64), None, ""
        notices.append(
            "There is no image to judge the classifier on: how good it is, nobody knows."
        )
    else:
        rows, words = judges.rows, judges.words
        probabilities[rows] = judges.probabilities
        guesses[rows] = judges.probabilities >= thresholds
        metrics = measure_multilabel(judges.probabilities, labels[rows], thresholds, classes)
        if task is not None and task.plan.judge.size:
            notices += figure_notices(given, metrics)
    judged = np.zeros(len(data.keys), np.bool_)
    judged[rows] = True
    return Judgement(
        classes=classes,
        labels=labels,
        guesses=guesses,
        confidences=_extreme(probabilities, guesses, np.max),
        own=_extreme(probabilities, labels, np.min),
        trains=trains,
        judged=judged,
        judged_on=words,
        metrics=metrics,
        mistakes=_mistakes(rows, probabilities, labels, guesses),
        notices=[*notices, *age_notices(given, data)],
    )


def _labels(given: Given, data: Features) -> tuple[Bools, list[str]]:
    """Which classes each row has (N, K), and what is to be told of labels that are none."""
    number = {name: k for k, name in enumerate(given.info.classes)}
    table = np.zeros((len(data.classes) + 1, len(number)), np.bool_)  # the last: no label
    unknown: set[str] = set()
    for row, cell in enumerate(data.classes):
        for name in names_in(cell, _separator(given)):
            if name in number:
                table[row, number[name]] = True
            else:
                unknown.add(name)
    if not unknown:
        return table[data.labels], []
    notice = (
        f"{len(unknown)} labels are none that the classifier learned, and are not judged:"
        f" {some_of(sorted(unknown))}."
    )
    return table[data.labels], [notice]


def _separator(given: Given) -> str:
    return str(given.info.training.get("label_separator") or DEFAULT_SEPARATOR)


def _planned(given: Given, data: Features) -> tuple[LabelTask | None, list[str]]:
    try:
        return plan_labels(labelled_of(data), _separator(given), given.seed), []
    except TrainingDataError as exc:
        return None, [exc.message]


def _judges(
    given: Given,
    data: Features,
    task: LabelTask,
    probabilities: NDArray[Any],
    progress: ProgressCallback | None,
) -> _Judges | None:
    plan = task.plan
    if plan.judge.size:
        return _Judges(plan.judge, probabilities[plan.judge], judged_by_it(plan.judge.size, plan))
    if not plan.folds or task.classes != list(given.info.classes):
        return None

    head = train(data.vectors, task.labels, plan.fit, plan.folds, progress=trying(progress))
    if head.held_out is None:
        return None
    return _Judges(
        head.held_out.rows,
        probabilities_of(head.held_out.logits, multilabel=True).astype(np.float32),
        f"{head.held_out.rows.size:,} of {plan.fit.size:,} training images, each by a head that was"
        " trained for this report without it (cross-validation), at the classifier's thresholds",
    )


def _extreme(probabilities: NDArray[Any], which: Bools, of: Any) -> Float32Array:
    """The greatest or least probability of the classes that each row has; NaN for none."""
    outside = -np.inf if of is np.max else np.inf
    found = of(np.where(which, probabilities, outside), axis=1).astype(np.float32)
    return np.where(which.any(axis=1), found, np.float32(np.nan))


def _mistakes(rows: Ints, probabilities: NDArray[Any], labels: Bools, guesses: Bools) -> Ints:
    """Rows with a wrong answer, by how sure the worst of theirs is."""
    wrong = labels[rows] != guesses[rows]
    sure = np.where(guesses[rows], probabilities[rows], 1 - probabilities[rows])
    worst = np.where(wrong, sure, -1).max(axis=1, initial=-1)
    order = np.argsort(-worst, kind="stable")
    found: Ints = rows[order[worst[order] >= 0]]
    return found
