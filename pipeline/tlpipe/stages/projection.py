"""Projection: embeddings as points of a plane, for a map.

Takes embeddings, gives points. Imports ``errors``, ``types``, NumPy and, where it is asked for,
umap-learn.

Both maps are of the embeddings brought to unit length, so that near means what a cosine says. The
principal components (Pearson 1901; Hotelling 1933) are found by subspace iteration (Halko,
Martinsson and Tropp 2011, "Finding structure with randomness", algorithm 4.4) from a fixed start:
the same embeddings give the same map, and many numbers per embedding cost little.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.errors import OptionError

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray

    from tlpipe.types import Float32Array

_EXTRA = 10  # directions that are iterated beside the two that are wanted
_ROUNDS = 12
_SEED = 0

LEAST_FOR_UMAP = 10
"""Images from which on UMAP has neighbourhoods to speak of."""


@dataclass(frozen=True)
class Plane:
    """Embeddings as points.

    Attributes
    ----------
    points : float32 array (N, 2)
        From 0 to 1 in both directions; one unit is the same length in both.
    kept : float or None
        Share of the variance that the two directions have, where they are directions.
    """

    points: Float32Array
    kept: float | None


def principal(vectors: Float32Array) -> Plane:
    """The two directions in which embeddings (N, D) differ most.

    The sign of each is such that its largest coefficient is positive.
    """
    count, dim = vectors.shape
    if count < 2:
        return Plane(_framed(np.zeros((count, 2))), None)
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    centred = vectors / np.maximum(norms, 1e-30).astype(np.float32)[:, np.newaxis]
    centred -= centred.mean(axis=0, dtype=np.float64).astype(np.float32)
    total = float(np.einsum("ij,ij->", centred, centred, dtype=np.float64))
    if total <= count * np.finfo(np.float32).eps:  # all the same: what is left is rounding
        return Plane(_framed(np.zeros((count, 2))), None)
    width = min(2 + _EXTRA, count, dim)
    basis = np.linalg.qr(np.random.default_rng(_SEED).normal(size=(dim, width)))[0]
    strengths = np.zeros(width)
    for _ in range(_ROUNDS):
        spread = centred.T @ (centred @ basis.astype(np.float32))
        basis, strengths, _ = np.linalg.svd(spread.astype(np.float64), full_matrices=False)
    axes = np.zeros((dim, 2))
    axes[:, : min(2, width)] = basis[:, :2]
    largest = np.abs(axes).argmax(axis=0)
    axes *= np.where(axes[largest, [0, 1]] < 0, -1, 1)
    kept = min(1.0, float(strengths[:2].sum()) / total)
    return Plane(_framed((centred @ axes.astype(np.float32)).astype(np.float64)), kept)


def umap(vectors: Float32Array, seed: int) -> Plane:
    """Neighbourhoods of embeddings (N, D), by umap-learn.

    McInnes, Healy and Melville 2018, "UMAP: Uniform Manifold Approximation and Projection".

    Raises
    ------
    OptionError
        umap-learn is not installed, or there are fewer than ``LEAST_FOR_UMAP`` images.
    """
    count = len(vectors)
    if count < LEAST_FOR_UMAP:
        raise OptionError(
            f"A UMAP of {count} images says nothing: there must be {LEAST_FOR_UMAP} at least.",
            hint="Leave out --map umap.",
        )
    library: Any = load_umap()
    neighbours = min(15, count - 1)
    made = library.UMAP(
        n_components=2, n_neighbors=neighbours, metric="cosine", random_state=seed, n_jobs=1
    )
    return Plane(_framed(np.asarray(made.fit_transform(vectors), np.float64)), None)


def load_umap() -> ModuleType:
    """The library, which is an extra.

    Raises
    ------
    OptionError
        It is not installed.
    """
    try:
        import umap as library
    except ImportError as exc:
        raise OptionError(
            f"A UMAP needs the package umap-learn, which cannot be loaded: {exc}.",
            hint="Install it with pip install 'tlpipe[umap]', or leave out --map umap.",
        ) from exc
    found: ModuleType = library
    return found


def _framed(points: NDArray[np.float64]) -> Float32Array:
    """Moved and scaled into the unit square, in its middle where one direction is shorter."""
    if not len(points):
        return np.zeros((0, 2), np.float32)
    low, high = points.min(axis=0), points.max(axis=0)
    longest = float((high - low).max())
    if not longest > 0:
        return np.full(points.shape, 0.5, np.float32)
    framed: NDArray[np.float64] = 0.5 + (points - (low + high) / 2) / longest
    found: Float32Array = np.clip(framed, 0, 1).astype(np.float32)
    return found
