"""What held-out data say of a trained head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.stages.head import AnyHead, probabilities_of
from tlpipe.stages.metrics import (
    LearningPoint,
    Metrics,
    MultilabelMetrics,
    learning_point,
    measure,
    measure_calibration,
    measure_multilabel,
)
from tlpipe.workflows.training_data import Judging, Training

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import Float32Array


def judge(
    head: AnyHead,
    training: Training,
    judging: Judging,
    classes: Sequence[str],
    thresholds: Float32Array | None,
) -> Metrics | MultilabelMetrics | None:
    """Judge a head on rows that were used for nothing else.

    Where there are none, on those held out in cross-validation, on which its settings were chosen
    too; where there are none of these either, there is nothing to judge it on: None.

    Parameters
    ----------
    head : AnyHead
    training : Training
    judging : Judging
    classes : sequence of K str
    thresholds : float32 array (K,), or None
        Where an image may have several labels.
    """
    apart = len(judging.vectors) > 0
    if apart:
        logits, labels = head.logits(judging.vectors), judging.labels
    elif head.held_out is not None and head.held_out.rows.size:
        logits, labels = head.held_out.logits, training.labels[head.held_out.rows]
    else:
        return None
    probabilities = probabilities_of(logits, multilabel=head.multilabel)
    if thresholds is not None:
        return measure_multilabel(probabilities, labels, thresholds, classes)
    majority = int(np.bincount(training.labels, minlength=len(classes)).argmax())
    metrics = measure(probabilities, labels, classes, majority=majority)
    if not apart:
        return metrics
    return replace(
        metrics,
        temperature=None
        if head.temperature is None
        else measure_calibration(logits * head.temperature, labels, head.temperature),
        learning_curve=_curve(head, training, judging, probabilities),
    )


def _curve(
    head: AnyHead, training: Training, judging: Judging, probabilities: NDArray[Any]
) -> list[LearningPoint]:
    points = [
        learning_point(other.probabilities(judging.vectors), judging.labels, count)
        for count, other in head.fewer
    ]
    if points:
        points.append(learning_point(probabilities, judging.labels, len(training.labels)))
    return points
