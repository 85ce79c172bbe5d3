"""The rows a head is trained on: scaled embeddings in chunks, from memory or from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from tlpipe.errors import TrainingDataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import Float32Array

Scaling = Literal["raw", "standardised", "unit"]
SCALINGS: tuple[Scaling, ...] = ("raw", "standardised", "unit")
"""Embeddings as they are; each dimension brought to mean 0 and deviation 1; each embedding brought
to length 1. No one of them is best for all data."""

CHUNK_ROWS = 512
"""Rows that are worked on at once: with 1,280 dimensions 2.6 MB, which a core's cache holds."""

_LEAST_NORM = 1e-12  # of an embedding: one of zeros stays zero
_GREATEST = 1e15  # of its numbers: squares of these, summed over dimensions and rows, are in range


class Vectors(Protocol):
    """Embeddings (N, D), read in pieces: the seam between the solver and where they lie.

    Pieces may be read from several threads at once.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """N and D."""

    def read(self, start: int, stop: int, /) -> Float32Array:
        """Rows from `start` to before `stop`, float32; not to be written to."""

    def take(self, rows: NDArray[np.intp], /) -> Float32Array:
        """Rows by ascending number, float32."""


@dataclass(frozen=True)
class InMemory:
    """Embeddings in an array (N, D)."""

    array: Float32Array

    @property
    def shape(self) -> tuple[int, int]:
        """N and D."""
        count, dim = self.array.shape
        return count, dim

    def read(self, start: int, stop: int, /) -> Float32Array:
        """Rows, not copied."""
        return self.array[start:stop]

    def take(self, rows: NDArray[np.intp], /) -> Float32Array:
        """Copies of rows."""
        return self.array[rows]


@dataclass(frozen=True)
class Picked:
    """Some rows of others, by number."""

    vectors: Vectors
    rows: NDArray[np.intp]  # ascending

    @property
    def shape(self) -> tuple[int, int]:
        """N and D."""
        return self.rows.size, self.vectors.shape[1]

    def read(self, start: int, stop: int, /) -> Float32Array:
        """Rows from `start` to before `stop` of those picked."""
        return self.vectors.take(self.rows[start:stop])

    def take(self, rows: NDArray[np.intp], /) -> Float32Array:
        """Rows by their number among those picked."""
        return self.vectors.take(self.rows[rows])


@dataclass(frozen=True)
class Scaled:
    """Embeddings as the solver sees them: ``(x * (1 / |x| if unit else 1) - mean) / scale``.

    Attributes
    ----------
    vectors : Vectors
        (N, D).
    scaling : {"raw", "standardised", "unit"}
    mean, scale : float64 arrays (D,)
        The mean is always taken off: with a bias that is not penalised the problem stays the same,
        and becomes better conditioned.
    """

    vectors: Vectors
    scaling: Scaling
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]

    @property
    def shape(self) -> tuple[int, int]:
        """N and D."""
        return self.vectors.shape

    def read(self, start: int, stop: int, /) -> Float32Array:
        """Scaled rows."""
        block = self.vectors.read(start, stop)
        return apply_scaling(block, self.scaling, self.mean, self.scale)

    def take(self, rows: NDArray[np.intp], /) -> Float32Array:
        """Scaled rows by ascending number."""
        return apply_scaling(self.vectors.take(rows), self.scaling, self.mean, self.scale)

    def in_memory(self) -> InMemory:
        """All rows, scaled once and for all."""
        count, dim = self.shape
        whole = np.empty((count, dim), np.float32)
        for start, stop in chunks(0, count):
            whole[start:stop] = self.read(start, stop)
        return InMemory(whole)

    def unscaled(
        self, weights: NDArray[np.float64], bias: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weights (K, D) and bias (K,) for embeddings that are not scaled, but for their length."""
        weights = weights / self.scale
        return weights, bias - weights @ self.mean


def apply_scaling(
    block: Float32Array,
    scaling: Scaling,
    mean: NDArray[np.float64],
    scale: NDArray[np.float64],
) -> Float32Array:
    """Scale a block of embeddings (B, D); a new array."""
    if scaling == "unit":
        scaled = unit_length(block)
        scaled -= mean.astype(np.float32)
        return scaled
    scaled = block - mean.astype(np.float32)
    if scaling == "standardised":
        scaled *= (1 / scale).astype(np.float32)
    return scaled


def unit_length(block: Float32Array) -> Float32Array:
    """Embeddings (B, D) brought to length 1; those of zeros stay so."""
    norms = np.sqrt(np.einsum("bd,bd->b", block, block))
    unit: Float32Array = block / np.maximum(norms, _LEAST_NORM)[:, np.newaxis]
    return unit


def _check_size(block: Float32Array) -> None:
    greatest = max(float(block.max()), -float(block.min()))
    if greatest > _GREATEST:
        raise TrainingDataError(
            f"An embedding holds a number of size {greatest:.3g}; a head can be trained on"
            f" embeddings up to {_GREATEST:g}.",
            hint="Divide all embeddings by the same number, or leave out the image, if it is one.",
        )


def scaled_rows(vectors: Vectors, scaling: Scaling) -> Scaled:
    """Measure mean and deviation of each dimension.

    A dimension that hardly varies is left at its scale: dividing by almost nothing would make one
    odd image count for everything.

    Raises
    ------
    TrainingDataError
        A number is so great that its square, summed over images, is beyond float32.
    """
    count, dim = vectors.shape
    total, squares = np.zeros(dim), np.zeros(dim)
    shift = np.zeros(dim)
    for start, stop in chunks(0, count):
        block = vectors.read(start, stop)
        _check_size(block)
        block = unit_length(block) if scaling == "unit" else block
        if start == 0:  # sums about a value near the mean do not cancel
            shift = block.mean(axis=0, dtype=np.float64)
        away = block - shift
        total += away.sum(axis=0)
        if scaling == "standardised":
            squares += np.einsum("bd,bd->d", away, away)
    mean = total / count
    scale = np.ones(dim)
    if scaling == "standardised":
        std = np.sqrt(np.maximum(squares / count - mean**2, 0))
        varies = std >= 1e-6 * max(float(std.max()), 1e-30)
        scale[varies] = std[varies]
    return Scaled(vectors, scaling, mean + shift, scale)


def chunks(start: int, stop: int, size: int = CHUNK_ROWS) -> list[tuple[int, int]]:
    """Pieces of a range of rows."""
    return [(at, min(at + size, stop)) for at in range(start, stop, size)]
