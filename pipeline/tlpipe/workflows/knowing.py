"""What a classifier knows of what it does not know, set on rows held out of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlpipe.errors import ExportError
from tlpipe.last_layer import Novelty, SetsFacts, UnknownFacts
from tlpipe.stages import conformal, novelty
from tlpipe.stages.head import HeldOut
from tlpipe.workflows.common import TRAIN_AGAIN
from tlpipe.workflows.training_data import Training

PARITY = 1e-3
"""Largest relative difference of a distance between the written file (float32) and NumPy (float64)
to accept."""


@dataclass(frozen=True)
class Knowing:
    """A model of the unknown and prediction sets, each with what is said of it, or without both.

    Attributes
    ----------
    novelty : Novelty or None
    unknown : UnknownFacts or None
    sets : SetsFacts or None
    notices : list of str
        Why something is missing.
    """

    novelty: Novelty | None
    unknown: UnknownFacts | None
    sets: SetsFacts | None
    notices: list[str]

    @property
    def set_threshold(self) -> float | None:
        """The least probability of a class in a set."""
        return None if self.sets is None else self.sets.threshold

    def check(self, said: Mapping[str, Any]) -> None:
        """Compare what a classifier file says of some images with what NumPy says.

        Parameters
        ----------
        said : mapping of str to array (B, ...)
            Its outputs.

        Raises
        ------
        ExportError
            They differ.
        """
        if self.novelty is not None:
            expected = novelty.scores(self.novelty, said["embeddings"])
            if not np.allclose(said["unknown_score"], expected, rtol=PARITY, atol=PARITY):
                raise ExportError(
                    f"The classifier's distances are {said['unknown_score']}, not {expected}; it"
                    " was not written.",
                    hint=TRAIN_AGAIN,
                )
        if self.sets is not None:
            sets = conformal.sets(said["probabilities"], np.float32(self.sets.threshold))
            if not np.array_equal(said["prediction_set"], sets):
                raise ExportError(
                    "The classifier's sets are not as its probabilities say; it was not written.",
                    hint=TRAIN_AGAIN,
                )


def novelty_of(training: Training, false_alarms: float) -> tuple[Novelty, UnknownFacts] | str:
    """Model of the unknown, with a threshold from rows held out in cross-validation.

    Where an image may have several labels, it has one centre for all.
    """
    labels = training.labels
    if labels.ndim == 2:
        labels = np.zeros(len(labels), np.int32)
    return novelty.fit(training.vectors, labels, training.rows, training.folds, false_alarms)


def knowing_of(
    found: tuple[Novelty, UnknownFacts] | str,
    training: Training,
    held: HeldOut | None,
    coverage: float | None,
) -> Knowing:
    """Add prediction sets, which there are none of where an image may have several labels."""
    model, unknown = (None, None) if isinstance(found, str) else found
    notices = [found] if isinstance(found, str) else []
    sets: SetsFacts | str | None = None
    if training.labels.ndim == 1:
        logits = np.zeros((0, 2)) if held is None else held.logits
        rows = np.zeros(0, np.intp) if held is None else held.rows
        sets = conformal.fit(logits, training.labels[rows], coverage)
    if isinstance(sets, str):
        notices.append(sets)
        sets = None
    return Knowing(model, unknown, sets, notices)
