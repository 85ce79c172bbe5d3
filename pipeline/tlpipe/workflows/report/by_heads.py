"""Judges labels by heads that are trained for the report, in cross-validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.stages.store import Features
from tlpipe.workflows.report.judgement import (
    Answers,
    Judgement,
    curves_of,
    measured,
    renumbered,
)
from tlpipe.workflows.row_checks import Checked

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import Float32Array

    Ints = NDArray[np.int64]

    Answer = Callable[[Float32Array], NDArray[Any]]
    """Probabilities (B, K) of embeddings (B, D)."""

_ROWS = 1024  # embeddings that are answered at once

_CHOSEN_TOO = (
    "The settings and the temperature of the heads that were trained for this report were chosen on"
    " the images that judge them, which flatters the figures a little."
)


def unjudged(classes: Sequence[str], answers: Answers) -> Judgement:
    """Labels and guesses alone: nothing can be judged."""
    return Judgement(
        classes=list(classes),
        labels=answers.labels,
        guesses=answers.guesses,
        confidences=answers.confidences,
        own=answers.own,
        trains=answers.labels >= 0,
        judged=np.zeros(answers.labels.size, np.bool_),
        judged_on="",
        metrics=None,
        mistakes=np.empty(0, np.int64),
    )


def judged_by_heads(
    data: Features,
    checked: Checked,
    classes: Sequence[str],
    numbers: Ints,
    unlabelled: Answer | None = None,
) -> Judgement:
    """Judge all labelled rows that were held out.

    Parameters
    ----------
    data : Features
    checked : Checked
    classes : sequence of K str
        Of the report.
    numbers : int64 array (J,)
        Of the file's classes among these.
    unlabelled : callable, optional
        What guesses the rows without a label; by default the head that all labelled rows train.
    """
    labels = renumbered(data.labels, numbers)
    answers = Answers.none(labels)
    columns = numbers[checked.present]
    probabilities = _widened(checked.probabilities, columns, len(classes))
    rows = checked.rows
    answers.put(rows, probabilities)

    def by_head(vectors: Float32Array) -> NDArray[Any]:
        return _widened(checked.head.probabilities(vectors), columns, len(classes))

    answer_all(data, np.flatnonzero(labels < 0), unlabelled or by_head, answers)
    judged = np.zeros(labels.size, np.bool_)
    judged[rows] = True
    majority = int(np.bincount(labels[labels >= 0]).argmax())
    return Judgement(
        classes=list(classes),
        labels=labels,
        guesses=answers.guesses,
        confidences=answers.confidences,
        own=answers.own,
        trains=labels >= 0,
        judged=judged,
        judged_on=_words(rows.size, int((labels >= 0).sum())),
        metrics=measured(probabilities, labels[rows], classes, majority),
        mistakes=answers.wrong(rows),
        curves=curves_of(checked.probabilities, checked.labels, checked.head.temperature),
        notices=[_CHOSEN_TOO],
    )


def _words(judged: int, labelled: int) -> str:
    which = "all" if judged == labelled else f"{judged:,} of {labelled:,}"
    return (
        f"{which} labelled images, each by a head that was trained for this report without it"
        " (cross-validation)"
    )


def answer_all(data: Features, rows: Ints, answer: Answer, answers: Answers) -> None:
    """Take what is said of some rows."""
    for some, found in _answered(data, rows, answer):
        answers.put(some, found)


def probabilities_by(answer: Answer, data: Features, rows: Ints) -> NDArray[Any]:
    """Probabilities (M, K) of M rows, at least one."""
    return np.concatenate([found for _, found in _answered(data, rows, answer)])


def _answered(data: Features, rows: Ints, answer: Answer) -> Iterator[tuple[Ints, NDArray[Any]]]:
    """Rows and what is said of them, block by block."""
    for start in range(0, rows.size, _ROWS):
        some = rows[start : start + _ROWS]
        yield some, answer(data.vectors[some])


def _widened(probabilities: NDArray[Any], columns: Ints, count: int) -> NDArray[np.float64]:
    """Probabilities of some classes as those of all; the others get 0."""
    whole = np.zeros((len(probabilities), count))
    whole[:, columns] = probabilities
    return whole
