"""What a classifier knows of what it does not know, set on rows held out of training."""

from __future__ import annotations

from dataclasses import dataclass

from tlpipe.last_layer import Novelty, SetsFacts, UnknownFacts
from tlpipe.stages import conformal, novelty
from tlpipe.stages.head import Head
from tlpipe.stages.splits import Plan
from tlpipe.stages.store import Features


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

    @classmethod
    def nothing(cls) -> Knowing:
        """Without both, where an image may have several labels, or none."""
        return cls(None, None, None, [])

    @property
    def set_threshold(self) -> float | None:
        """The least probability of a class in a set."""
        return None if self.sets is None else self.sets.threshold


def knowing_of(data: Features, plan: Plan, head: Head) -> Knowing:
    """Fit both on the rows that train, with thresholds from rows held out in cross-validation."""
    notices = []
    fitted = novelty.fit(data.vectors, data.labels, plan.fit, plan.folds)
    if isinstance(fitted, str):
        notices.append(fitted)
        model, unknown = None, None
    else:
        model, unknown = fitted
    if head.held_out is None:
        return Knowing(model, unknown, None, notices)
    sets = conformal.fit(head.held_out.logits, data.labels[head.held_out.rows])
    if isinstance(sets, str):
        return Knowing(model, unknown, None, [*notices, sets])
    return Knowing(model, unknown, sets, notices)
