"""What a user would want to know of the data that trained a head."""

from __future__ import annotations

import numpy as np

from tlpipe.execution import parsed_arithmetic
from tlpipe.stages.splits import Plan
from tlpipe.stages.store import Features
from tlpipe.types import Split


def notices_of(data: Features, plan: Plan) -> list[str]:
    """What a user would want to know of a head that was trained."""
    notices = _precision_notices(data.header.precision)
    if plan.unlabelled:
        notices.append(f"{plan.unlabelled} embeddings have no label and were left out.")
    loose = int(((data.splits == Split.NONE) & (data.labels >= 0)).sum())
    if loose and (data.splits != Split.NONE).any():
        notices.append(f"{loose} labelled embeddings belong to no split; they train the head.")
    mixed = _mixed(data)
    if mixed:
        notices.append(f"{mixed} images stand in more than one class, with the very same content.")
    judged_too = _shared(data, plan)
    if judged_too:
        notices.append(
            f"{judged_too} images that judge the classifier also train it, with the very same"
            " content: the numbers flatter."
        )
    judged = np.bincount(data.labels[plan.judge], minlength=len(data.classes))
    missing = [data.classes[k] for k in np.flatnonzero(judged == 0)]
    if missing:
        notices.append(f"No image of {missing} was left to judge the classifier.")
    return notices


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


def _mixed(data: Features) -> int:
    """Number of distinct image contents that have more than one label."""
    rows = np.flatnonzero(data.labels >= 0)
    labels_of: dict[bytes, set[int]] = {}
    for row in rows:
        digest = data.content_sha256[row].tobytes()
        labels_of.setdefault(digest, set()).add(int(data.labels[row]))
    return sum(len(labels) > 1 for labels in labels_of.values())


def _shared(data: Features, plan: Plan) -> int:
    """Number of rows that judge and whose very content also trains."""
    trained = {row.tobytes() for row in data.content_sha256[plan.fit]}
    return sum(row.tobytes() in trained for row in data.content_sha256[plan.judge])
