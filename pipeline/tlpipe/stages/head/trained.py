"""A trained head, and what it says of embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tlpipe.last_layer import LastLayer, NearestImages
from tlpipe.stages.head.rows import InMemory, Scaling, Vectors, chunks, unit_length
from tlpipe.stages.head.search import Trial

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import Float32Array


@dataclass(frozen=True)
class HeldOut:
    """What the chosen setting says of rows that did not train it, in cross-validation.

    Attributes
    ----------
    rows : array (M,) of int
        Row numbers, ascending.
    logits : float64 array (M, K)
        Divided by the temperature.
    """

    rows: NDArray[np.intp]
    logits: NDArray[np.float64]


class AnyHead(Protocol):
    """What a trained head of any kind can do.

    Attributes
    ----------
    multilabel : bool
        Whether a row may have several labels.
    temperature : float or None
        What its logits were divided by, once it was trained; None where it has no such step.
    held_out : HeldOut or None
        What its setting says of rows that did not train it.
    fewer : sequence of (int, AnyHead)
        Heads of so many of the rows.
    trials : sequence of dataclasses
        Settings that were tried.
    """

    @property
    def multilabel(self) -> bool: ...  # noqa: D102
    @property
    def temperature(self) -> float | None: ...  # noqa: D102
    @property
    def held_out(self) -> HeldOut | None: ...  # noqa: D102
    @property
    def fewer(self) -> Sequence[tuple[int, AnyHead]]: ...  # noqa: D102
    @property
    def trials(self) -> Sequence[Any]: ...  # noqa: D102

    def logits(self, vectors: Float32Array | Vectors) -> NDArray[np.float64]:
        """Logits (N, K) of embeddings (N, D)."""

    def probabilities(self, vectors: Float32Array | Vectors) -> NDArray[np.float64]:
        """Probabilities (N, K) for embeddings (N, D)."""

    def bounds(self, vectors: Float32Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Least and greatest probabilities (N, K) that rounding in float32 may make of them."""

    def layer(self) -> LastLayer | NearestImages:
        """The same as it is exported."""

    def facts(self) -> dict[str, Any]:
        """Method and settings, as a classifier states them."""

    def notices(self) -> list[str]:
        """What a user would want to know of it."""


@dataclass(frozen=True)
class Head:
    """A trained last layer: ``activation(x @ weights + bias)``.

    Attributes
    ----------
    weights : float64 array (D, K)
    bias : float64 array (K,)
        The standardisation and the temperature are in both.
    normalise : bool
        Whether `x` is the embedding brought to unit length; else it is the embedding as it is.
    multilabel : bool
        Whether a row may have several labels: the activation is a sigmoid, else a softmax.
    scaling, c
        The settings that were chosen.
    temperature : float
    trials : list of Trial
        Settings that were tried, in their order; none where there were too few rows to choose.
    gap : float
        Estimate of how far the objective lies above the least, as a fraction of it.
    held_out : HeldOut or None
        For whatever must be set on rows that did not train; None where every row trains.
    fewer : list of (int, Head)
        Heads of so many of the rows, for a learning curve, where they were asked for.
    """

    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    normalise: bool
    multilabel: bool
    scaling: Scaling
    c: float
    temperature: float
    trials: list[Trial]
    gap: float
    held_out: HeldOut | None
    fewer: list[tuple[int, Head]] = field(default_factory=list)

    def logits(self, vectors: Float32Array | Vectors) -> NDArray[np.float64]:
        """Logits (N, K) of embeddings (N, D)."""
        return linear_logits(vectors, self.weights, self.bias, normalise=self.normalise)

    def probabilities(self, vectors: Float32Array | Vectors) -> NDArray[np.float64]:
        """Probabilities (N, K) for embeddings (N, D)."""
        return probabilities_of(self.logits(vectors), multilabel=self.multilabel)

    def bounds(self, vectors: Float32Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Its probabilities, twice: they depend on the embeddings without a jump."""
        found = self.probabilities(vectors)
        return found, found

    def facts(self) -> dict[str, Any]:
        """Method and settings, as a classifier states them."""
        return {
            "method": "linear probe: multinomial logistic regression on frozen embeddings",
            "scaling": self.scaling,
            "C": self.c,
            "temperature": self.temperature,
            "gap": self.gap,
            "trials": [asdict(trial) for trial in self.trials],
        }

    def notices(self) -> list[str]:
        """What a user would want to know of it."""
        if self.trials:
            return []
        notice = (
            "There are too few images to choose settings with: the head has those that suit most"
            " embeddings, with a strong penalty."
        )
        return [notice]

    def layer(self) -> LastLayer:
        """The same as it is exported."""
        return LastLayer(
            weights=self.weights.astype(np.float32),
            bias=self.bias.astype(np.float32),
            normalise=self.normalise,
            activation="sigmoid" if self.multilabel else "softmax",
        )


def linear_logits(
    vectors: Float32Array | Vectors,
    weights: NDArray[np.float64],
    bias: NDArray[np.float64],
    *,
    normalise: bool,
) -> NDArray[np.float64]:
    """``x @ weights + bias`` (N, K) of embeddings (N, D), or of those brought to unit length."""
    rows = InMemory(vectors) if isinstance(vectors, np.ndarray) else vectors
    found = np.empty((rows.shape[0], bias.size))
    for start, stop in chunks(0, rows.shape[0]):
        block = rows.read(start, stop)
        block = unit_length(block) if normalise else block
        found[start:stop] = block.astype(np.float64) @ weights + bias
    return found


def probabilities_of(scores: NDArray[np.float64], *, multilabel: bool) -> NDArray[np.float64]:
    """Probabilities (N, K) of logits (N, K): by softmax, or each by a sigmoid."""
    if multilabel:
        e = np.exp(-np.abs(scores))
        sigmoid: NDArray[np.float64] = np.where(scores >= 0, 1.0, e) / (1 + e)
        return sigmoid
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    softmax: NDArray[np.float64] = e / e.sum(axis=1, keepdims=True)
    return softmax
