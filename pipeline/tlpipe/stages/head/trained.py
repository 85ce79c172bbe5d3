"""A trained head, and what it says of embeddings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tlpipe.last_layer import LastLayer
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
        rows = InMemory(vectors) if isinstance(vectors, np.ndarray) else vectors
        found = np.empty((rows.shape[0], self.bias.size))
        for start, stop in chunks(0, rows.shape[0]):
            block = rows.read(start, stop)
            block = unit_length(block) if self.normalise else block
            found[start:stop] = block.astype(np.float64) @ self.weights + self.bias
        return found

    def probabilities(self, vectors: Float32Array | Vectors) -> NDArray[np.float64]:
        """Probabilities (N, K) for embeddings (N, D)."""
        return probabilities_of(self.logits(vectors), multilabel=self.multilabel)

    def layer(self) -> LastLayer:
        """The same as it is exported."""
        return LastLayer(
            weights=self.weights.astype(np.float32),
            bias=self.bias.astype(np.float32),
            normalise=self.normalise,
            activation="sigmoid" if self.multilabel else "softmax",
        )


def probabilities_of(scores: NDArray[np.float64], *, multilabel: bool) -> NDArray[np.float64]:
    """Probabilities (N, K) of logits (N, K): by softmax, or each by a sigmoid."""
    if multilabel:
        e = np.exp(-np.abs(scores))
        sigmoid: NDArray[np.float64] = np.where(scores >= 0, 1.0, e) / (1 + e)
        return sigmoid
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    softmax: NDArray[np.float64] = e / e.sum(axis=1, keepdims=True)
    return softmax
