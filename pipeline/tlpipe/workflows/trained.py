"""A trained head with all that a classifier file says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tlpipe.workflows.knowing import Knowing

if TYPE_CHECKING:
    from tlpipe.last_layer import LastLayer, NearestImages
    from tlpipe.stages.head import AnyHead


@dataclass(frozen=True)
class Trained:
    """What stands behind the backbone, and what is said of it.

    Attributes
    ----------
    classes : list of K str
    head : AnyHead
    layer : LastLayer or NearestImages
        The head as it is exported.
    knowing : Knowing
    training, metrics : dict
    """

    classes: list[str]
    head: AnyHead
    layer: LastLayer | NearestImages
    knowing: Knowing
    training: dict[str, Any]
    metrics: dict[str, Any]
