"""One label per image, or several: what a head is to learn, and what is settled once it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.errors import ExportError, TrainingDataError
from tlpipe.label_cells import DEFAULT_SEPARATOR
from tlpipe.stages.head import AnyHead, HeldOut
from tlpipe.stages.label_sets import as_strata, labels_of, learnable, rarest_labels, table_of
from tlpipe.stages.splits import Plan, plan_splits
from tlpipe.stages.thresholds import tune
from tlpipe.types import Split
from tlpipe.workflows.common import TRAIN_AGAIN
from tlpipe.workflows.training_data import Labelled, Training

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import Float32Array

METHOD = "linear probe: a logistic regression for each label on frozen embeddings"


@dataclass(frozen=True)
class LabelTask:
    """What a head is to learn, where an image may have several labels.

    Attributes
    ----------
    classes : list of K str
        The labels that can be learned, sorted.
    labels : bool array (N, K)
        Which of them each row has; rows without a label are in no part of the plan.
    plan : Plan
    separator : str
        What stands between the labels of a cell.
    left_out : dict of str to int
        Labels that cannot be learned, with the number of images that have them.
    joined : bool
        Whether any image has more than one label.
    """

    classes: list[str]
    labels: NDArray[np.bool_]
    plan: Plan
    separator: str
    left_out: dict[str, int]
    joined: bool

    def facts(self, head: AnyHead) -> dict[str, Any]:
        """What the classifier says of its training, beside what every classifier says."""
        counts = self.labels[self.plan.fit].sum(axis=0).tolist()
        held = 0 if head.held_out is None else head.held_out.rows.size
        return {
            "method": METHOD,
            "count_by_class": dict(zip(self.classes, counts, strict=True)),
            "label_separator": self.separator,
            "labels_left_out": self.left_out,
            "thresholds_set_on": held,
        }

    def thresholds(self, held: HeldOut | None, training: Training) -> Float32Array:
        """From which probability on an image is given each label (K,), from rows held out."""
        if held is None:
            return np.full(len(self.classes), 0.5, np.float32)
        return tune(held.logits, training.labels[held.rows])

    def notices(self) -> list[str]:
        """What a user would want to know of it."""
        found = []
        if not self.joined:
            found.append(
                f"No image has more than one label: none holds the separator {self.separator!r}."
                " Where another one joins them, name it with --label-separator."
            )
        if self.left_out:
            some = [f"{name!r} ({n:,})" for name, n in list(self.left_out.items())[:10]]
            more = " and more" if len(self.left_out) > 10 else ""
            found.append(
                f"Left out {len(self.left_out)} labels that cannot be learned, since too few"
                f" training images have them, or lack them: {', '.join(some)}{more}. Their images"
                " train and judge the other labels."
            )
        if not self.plan.folds:
            found.append("No image was held out to set the thresholds: all are 0.5.")
        elif not self.plan.judge.size:
            found.append(
                "The images that judge the classifier set its thresholds: the F1 flatters."
            )
        return found


def plan_classes(data: Labelled, seed: int) -> Plan:
    """Decide what each row is for, where an image is of one class.

    Raises
    ------
    TrainingDataError
        No head can be trained; if labels look like several in one, the hint says so.
    """
    try:
        return plan_splits(
            data.labels, data.splits, data.content_sha256, data.classes, seed, data.groups
        )
    except TrainingDataError as exc:
        hint = looks_joined(data.classes)
        if not hint:
            raise
        raise TrainingDataError(str(exc.args[0]), hint=hint) from exc


def looks_joined(classes: Sequence[str]) -> str:
    """What to tell where names of classes look like several labels; nothing where they do not."""
    found = [name for name in classes if DEFAULT_SEPARATOR in name]
    if not found:
        return ""
    return (
        f"{len(found)} classes hold {DEFAULT_SEPARATOR!r} in their names, such as {found[0]!r}. If"
        " they are several labels of an image each, train with --multi-label."
    )


def plan_labels(data: Labelled, separator: str, seed: int) -> LabelTask:
    """Read what the stored labels name, and decide what each row is for.

    Labels are left out that the rows which train cannot teach: in each set of rows that a head is
    trained on, the final one's and each fold's, some must have the label, and some must not. Such
    labels are usual where there are many, and unlike a class that is left out, a label that is
    changes nothing for the others.

    Raises
    ------
    TrainingDataError
        There are no labels, or none can be learned.
    """
    table = table_of(data.classes, separator)
    labels = labels_of(table, data.labels)
    if data.classes and not table.names:
        raise TrainingDataError(
            f"The labels {data.classes[:10]} name nothing: there is only {separator!r} in them.",
            hint="Name the labels in the source's label column, joined by the separator.",
        )
    labelled = data.labels >= 0
    judging = Split.TEST if (labelled & (data.splits == Split.TEST)).any() else Split.VALIDATION
    among = labelled & (data.splits != judging)
    strata, meant = as_strata(rarest_labels(labels, labelled), among)
    if labelled.any() and len(meant) < 2:
        raise TrainingDataError(
            "The labelled images that may train all have the same labels: there is nothing to tell"
            " apart.",
            hint="Add images without them; one with none of the labels has the separator alone,"
            f" {separator!r}, as its label.",
        )
    names = [*table.names, "none of the labels"]
    plan = plan_splits(
        np.where(labelled, strata, -1).astype(np.int32),
        data.splits,
        data.content_sha256,
        [names[k] for k in meant],
        seed,
        data.groups,
    )
    taught = learnable(labels, [plan.fit, *(rows for rows, _ in plan.folds)])
    counts = labels.sum(axis=0)
    if not taught.any():
        raise TrainingDataError(
            f"None of the {len(table.names)} labels can be learned: too few training images have"
            " them, or lack them.",
            hint="Of those that train, one image must have a label, and another must lack it.",
        )
    return LabelTask(
        classes=[table.names[k] for k in np.flatnonzero(taught)],
        labels=labels[:, taught],
        plan=plan,
        separator=separator,
        left_out={table.names[k]: int(counts[k]) for k in np.flatnonzero(~taught)},
        joined=bool((table.holds.sum(axis=1) > 1).any()),
    )


def check_labels(outputs: Mapping[str, NDArray[Any]], thresholds: Float32Array) -> None:
    """Hold the labels that a classifier gives against its probabilities.

    Raises
    ------
    ExportError
        They are not those that reach their thresholds.
    """
    if not np.array_equal(outputs["labels"], outputs["probabilities"] >= thresholds):
        raise ExportError(
            "The classifier's labels are not those whose probabilities reach their thresholds; it"
            " was not written.",
            hint=TRAIN_AGAIN,
        )
