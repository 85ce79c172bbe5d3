"""What a user would want to know of the data that trained a head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.execution import parsed_arithmetic
from tlpipe.stages.splits import Plan
from tlpipe.types import Split
from tlpipe.workflows.multilabel import LabelTask, looks_joined
from tlpipe.workflows.training_data import Labelled

if TYPE_CHECKING:
    from numpy.typing import NDArray


def notices_of(data: Labelled, plan: Plan, task: LabelTask | None = None) -> list[str]:
    """What a user would want to know of a head that was trained.

    Parameters
    ----------
    data : Labelled
    plan : Plan
    task : LabelTask, optional
        Where an image may have several labels.
    """
    notices = _precision_notices(data.header.precision)
    if plan.unlabelled:
        notices.append(f"{plan.unlabelled} embeddings have no label and were left out.")
    loose = int(((data.splits == Split.NONE) & (data.labels >= 0)).sum())
    if loose and (data.splits != Split.NONE).any():
        notices.append(f"{loose} labelled embeddings belong to no split; they train the head.")
    kinds: NDArray[Any] = data.labels
    if task is None:
        notices += [looks_joined(data.classes)] if looks_joined(data.classes) else []
    else:
        kinds = np.unique(np.packbits(task.labels, axis=1), axis=0, return_inverse=True)[1]
    mixed = _mixed(data, kinds.reshape(-1))
    if mixed:
        where = "stand in more than one class" if task is None else "have different labels"
        notices.append(f"{mixed} images {where}, with the very same content.")
    judged_too = _shared(data, plan)
    if judged_too:
        notices.append(
            f"{judged_too} images that judge the classifier also train it, with the very same"
            " content: the numbers flatter."
        )
    if task is None:
        classes = data.classes
        judged = np.bincount(data.labels[plan.judge], minlength=len(classes))
    else:
        rows = plan.judge if plan.judge.size else plan.fit
        classes, judged = task.classes, task.labels[rows].sum(axis=0)
    missing = [classes[k] for k in np.flatnonzero(judged == 0)]
    if missing:
        notices.append(f"No image of {missing} was left to judge the classifier.")
    return notices if task is None else notices + task.notices()


def _precision_notices(precision: str) -> list[str]:
    """Where the classifier will be served by another arithmetic than it was trained with."""
    arithmetic = parsed_arithmetic(precision)
    if arithmetic is None or precision in ("fp32", "int8/onnxruntime"):
        return []
    own = "int8" if arithmetic[0] == "int8" else "fp32"
    notice = (
        f"The embeddings were made at {precision}; the classifier holds the {own} network, which"
        " ONNX Runtime runs by default. To serve it as it was trained: tlpipe classify"
        f" --precision {arithmetic[0]} --runtime {arithmetic[1]}."
    )
    return [notice]


def _mixed(data: Labelled, kinds: NDArray[Any]) -> int:
    """Number of distinct image contents whose rows are of more than one of the kinds (N,)."""
    rows = np.flatnonzero(data.labels >= 0)
    labels_of: dict[bytes, set[int]] = {}
    for row in rows:
        digest = data.content_sha256[row].tobytes()
        labels_of.setdefault(digest, set()).add(int(kinds[row]))
    return sum(len(labels) > 1 for labels in labels_of.values())


def _shared(data: Labelled, plan: Plan) -> int:
    """Number of rows that judge and whose very content also trains."""
    trained = {row.tobytes() for row in data.content_sha256[plan.fit]}
    return sum(row.tobytes() in trained for row in data.content_sha256[plan.judge])
