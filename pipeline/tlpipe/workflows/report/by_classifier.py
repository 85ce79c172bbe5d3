"""Judges a classifier of one label per image, by its head on the stored embeddings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from tlpipe.errors import ClassifierError, TrainingDataError
from tlpipe.files import is_file, sha256_file
from tlpipe.graph import EMBEDDINGS
from tlpipe.near import no_file
from tlpipe.quantities import counted
from tlpipe.stages.classifier import ClassifierInfo, read_metadata
from tlpipe.stages.metrics import LearningPoint, Metrics, MultilabelMetrics
from tlpipe.stages.session import properties_of
from tlpipe.stages.splits import Plan
from tlpipe.stages.store import Features
from tlpipe.types import DEFAULT_SEED
from tlpipe.workflows.classify_features import check_made_alike, opened_head
from tlpipe.workflows.common import some_of
from tlpipe.workflows.multilabel import plan_classes
from tlpipe.workflows.report.by_heads import (
    answer_all,
    judged_by_heads,
    probabilities_by,
    unjudged,
)
from tlpipe.workflows.report.judgement import (
    Answers,
    Judgement,
    curves_of,
    labelled_of,
    measured,
    renumbered,
)
from tlpipe.workflows.row_checks import Checked

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.seams import RunGraph
    from tlpipe.types import Float32Array

    Ints = NDArray[np.int64]

_ALIKE = 1e-3  # of log losses, as a part: heads are trained in float64 and run in float32


@dataclass(frozen=True)
class Given:
    """A classifier that is to be reported on.

    Attributes
    ----------
    path : pathlib.Path
    info : ClassifierInfo
    sha256 : str
    head : RunGraph
    """

    path: Path
    info: ClassifierInfo
    sha256: str
    head: RunGraph

    @property
    def seed(self) -> int:
        """That the rows were parted with."""
        found = self.info.training.get("seed", DEFAULT_SEED)
        return found if isinstance(found, int) else DEFAULT_SEED

    @property
    def temperature(self) -> float | None:
        """What the logits were divided by; None where that is not known."""
        found = self.info.training.get("temperature")
        return float(found) if _is_number(found) and found > 0 else None

    def answer(self, vectors: Float32Array) -> NDArray[Any]:
        """Probabilities (B, K) of embeddings (B, D)."""
        (found,) = self.head({EMBEDDINGS: vectors}, ["probabilities"])
        return np.asarray(found)


def given_classifier(path: Path, data: Features, features: Path) -> Given:
    """Read a classifier whose embeddings are made as those of the file were.

    Raises
    ------
    ClassifierError
        It is missing, or no classifier, or has no head of its own.
    StaleFeaturesError
        The embeddings were made in another way.
    """
    if not is_file(path):
        message, hint = no_file(path, "The classifier")
        raise ClassifierError(message, hint=hint)
    info = read_metadata(properties_of(path), repr(str(path)))
    check_made_alike(data.header, features, info, path)
    return Given(path, info, sha256_file(path), opened_head(path, ["probabilities"]))


def judged_by_classifier(given: Given, data: Features, checked: Checked | None) -> Judgement:
    """Judge a classifier on the rows that were kept for that when it was trained.

    Where there are none, the judgement is that of ``checked``, unless there are labels that the
    classifier does not know: then nothing is judged.
    """
    info = given.info
    occurring = {data.classes[k] for k in np.unique(data.labels[data.labels >= 0]).tolist()}
    unknown = [name for name in data.classes if name in occurring and name not in info.classes]
    classes = [*info.classes, *unknown]
    number = {name: k for k, name in enumerate(classes)}
    numbers = np.array([number.get(name, -1) for name in data.classes], np.int64)
    labels = renumbered(data.labels, numbers)
    plan, notices = _planned(data, given.seed)
    notices += _unknown_notices(unknown, labels, len(info.classes))
    known = (labels >= 0) & (labels < len(info.classes))
    rows = np.empty(0, np.int64) if plan is None else plan.judge[known[plan.judge]]
    if plan is None or not rows.size:
        # Other heads learn all labels: they would say nothing of a classifier that knows but some.
        heads = None if unknown else checked
        return _without_judges(given, data, heads, (classes, numbers), notices)
    answers = Answers.none(labels)
    probabilities = probabilities_by(given.answer, data, rows)
    answers.put(rows, probabilities)
    answer_all(data, np.setdiff1d(np.arange(labels.size), rows), given.answer, answers)
    fit = plan.fit[known[plan.fit]]  # a label that it does not know has trained nothing
    majority = np.bincount(labels[fit], minlength=len(classes)).argmax()
    metrics = measured(probabilities, labels[rows], classes, int(majority))
    trains, judged = np.zeros((2, labels.size), np.bool_)
    trains[fit] = judged[rows] = True
    return Judgement(
        classes=classes,
        labels=labels,
        guesses=answers.guesses,
        confidences=answers.confidences,
        own=answers.own,
        trains=trains,
        judged=judged,
        judged_on=judged_by_it(rows.size, plan),
        metrics=metrics,
        mistakes=answers.wrong(rows),
        curves=curves_of(probabilities, labels[rows], given.temperature),
        learning=stored_curve(info.metrics),
        notices=[*notices, *age_notices(given, data), *figure_notices(given, metrics)],
    )


def _planned(data: Features, seed: int) -> tuple[Plan | None, list[str]]:
    """Which rows trained and which judge; None, and why, where none could train."""
    try:
        return plan_classes(labelled_of(data), seed), []
    except TrainingDataError as exc:
        return None, [exc.message]


def _without_judges(
    given: Given,
    data: Features,
    checked: Checked | None,
    named: tuple[list[str], Ints],
    notices: Sequence[str],
) -> Judgement:
    """By heads that are trained for the report; by none where that cannot be."""
    classes, numbers = named
    if checked is None:
        answers = Answers.none(renumbered(data.labels, numbers))
        answer_all(data, np.arange(len(data.keys)), given.answer, answers)
        found = unjudged(classes, answers)
        found = replace(found, trains=found.trains & (found.labels < len(given.info.classes)))
        said = "There is no image to judge the classifier on: how good it is, nobody knows."
    else:
        found = judged_by_heads(data, checked, classes, numbers, given.answer)
        said = (
            "No image was kept apart to judge the classifier on. The figures are of other heads,"
            " trained for this report on the same embeddings, each without the images it judges."
        )
    return replace(found, notices=[*notices, said, *found.notices, *age_notices(given, data)])


def _unknown_notices(unknown: Sequence[str], labels: Ints, known: int) -> list[str]:
    if not unknown:
        return []
    count = int((labels >= known).sum())
    notice = (
        f"{count:,} images have labels that are no classes of the classifier, and are not judged:"
        f" {some_of(unknown)}."
    )
    return [notice]


def judged_by_it(count: int, plan: Plan) -> str:
    """On which images, and how many, a classifier was judged; in words."""
    return f"{counted(count, 'image')}: {plan.judged_on}, by the classifier"


def age_notices(given: Given, data: Features) -> list[str]:
    """What to tell where the classifier was trained on another state of the features."""
    before = given.info.training.get("features_created_at")
    if before == data.header.created_at:
        return []
    notice = (
        "The classifier was trained on other features, or on these before they were updated"
        f" (made at {before}, not {data.header.created_at}). Images that judge it here may have"
        " trained it, and then the figures flatter."
    )
    return [notice]


def figure_notices(given: Given, metrics: Metrics | MultilabelMetrics) -> list[str]:
    """What to tell where the figures are not those that the classifier states."""
    stored: Mapping[str, Any] = given.info.metrics
    names = ("accuracy", "log_loss") if isinstance(metrics, Metrics) else ("micro_f1",)
    count = stored.get("count")
    if not isinstance(count, int):
        return []
    differing = (
        [] if count == metrics.count else [f"images judged {metrics.count:,}, not {count:,}"]
    )
    for name in names:
        here, there = getattr(metrics, name), stored.get(name)
        if _is_number(there) and abs(here - there) > _ALIKE * max(abs(there), 0.1):
            differing.append(f"{name.replace('_', ' ')} {here:.4f}, not {there:.4f}")
    if not differing:
        return []
    notice = (
        "The figures here are not those that the classifier states of itself:"
        f" {'; '.join(differing)}. Labels, splits or images have changed since it was trained."
    )
    return [notice]


def stored_curve(metrics: Mapping[str, Any]) -> list[LearningPoint]:
    """The learning curve that a classifier states; empty where there is none that makes sense."""
    points = metrics.get("learning_curve")
    names = [field.name for field in fields(LearningPoint)]
    if not isinstance(points, list):
        return []
    for point in points:
        if not isinstance(point, dict) or sorted(point) != sorted(names):
            return []
        if not all(map(_is_number, point.values())) or point["count"] < 1:
            return []
    return [LearningPoint(**point) for point in points]


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)
