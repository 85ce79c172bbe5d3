"""What a report of several feature files shows: plain records, filled by ``workflows.report``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tlpipe.stages.page.figures import Figure


@dataclass(frozen=True)
class Contender:
    """A feature file beside others; costs that were not measured are None.

    Attributes
    ----------
    name, backbone, precision : str
    accuracy, log_loss : Figure
    difference : Figure or None
        Accuracy less that of the best, with its simultaneous interval; None of the best.
    dim : int
    stored_bytes, head_s : float
        Per image; seconds to train a head.
    network_bytes : int or None
    inference_s : float or None
        Seconds per image.
    device : str or None
    recommended : bool
    """

    name: str
    backbone: str
    precision: str
    accuracy: Figure
    log_loss: Figure
    difference: Figure | None
    dim: int
    stored_bytes: float
    head_s: float
    network_bytes: int | None
    inference_s: float | None
    device: str | None
    recommended: bool


@dataclass(frozen=True)
class Comparison:
    """What a report of several feature files shows.

    Attributes
    ----------
    title, made_at : str
    judged_on : str
        On which images, in words.
    recommendation : str
    contenders : list of Contender
    rows : list of (class, list of float)
        Recall of each contender in each class.
    provenance, notices
        As of ``Report``.
    """

    title: str
    made_at: str
    judged_on: str
    recommendation: str
    contenders: list[Contender]
    rows: list[tuple[str, list[float]]]
    provenance: Sequence[tuple[str, list[tuple[str, str]]]]
    notices: list[str]
