"""What shape the embeddings have: their main directions, for a preconditioner.

Source: Halko, Martinsson & Tropp, "Finding structure with randomness", SIAM Review 53 (2011),
algorithm 4.4 (randomized subspace iteration).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.stages.head.rows import Vectors

if TYPE_CHECKING:
    from numpy.typing import NDArray

RANK = 256
_SAMPLE_ROWS = 8192
_ITERATIONS = 2


@dataclass(frozen=True)
class Spectrum:
    """Main directions of centred embeddings, and their variances.

    Attributes
    ----------
    directions : float32 array (D, R)
        Orthonormal.
    variances : float64 array (R,)
        Along each.
    rest : float
        Mean variance along all other directions.
    trace : float
        Sum of all variances: mean squared length.
    """

    directions: NDArray[np.float32]
    variances: NDArray[np.float64]
    rest: float
    trace: float

    def precondition(self, gradient: NDArray[Any], strength: NDArray[np.float64]) -> NDArray[Any]:
        """Multiply with an approximate inverse of the Hessian, (K, D + 1).

        The Hessian of class k is taken for ``I + strength[k] * covariance``; that of its bias for
        ``strength[k]``.

        Parameters
        ----------
        gradient : array (K, D + 1)
        strength : float64 array (K,)
            C times the number of rows times their mean curvature.
        """
        dtype = gradient.dtype
        inner = 1 / (1 + strength * self.rest)
        along = 1 / (1 + strength[:, np.newaxis] * self.variances) - inner[:, np.newaxis]
        directions = self.directions.astype(dtype, copy=False)
        found = np.empty_like(gradient)
        weights = gradient[:, :-1]
        found[:, :-1] = ((weights @ directions) * along.astype(dtype)) @ directions.T
        found[:, :-1] += weights * inner[:, np.newaxis].astype(dtype)
        found[:, -1] = gradient[:, -1] / np.maximum(strength, 1e-30).astype(dtype)
        return found


def measure_spectrum(scaled: Vectors, rank: int = RANK) -> Spectrum:
    """Find the main directions of scaled rows (N, D), on a regular sample of them."""
    count, dim = scaled.shape
    rows = np.unique(np.linspace(0, count - 1, min(count, _SAMPLE_ROWS)).astype(np.intp))
    sample = scaled.take(rows)
    trace = float(np.einsum("nd,nd->", sample, sample, dtype=np.float64)) / rows.size
    rank = min(rank, dim, rows.size)
    basis = np.random.default_rng(0).standard_normal((dim, rank), np.float32)
    for _ in range(_ITERATIONS):
        basis, _ = np.linalg.qr(sample.T @ (sample @ basis))
    projected = sample @ basis
    values, vectors = np.linalg.eigh((projected.T @ projected).astype(np.float64) / rows.size)
    values = np.maximum(values, 0)
    others = dim - rank
    rest = max(trace - float(values.sum()), 0.0) / others if others else 0.0
    return Spectrum((basis @ vectors).astype(np.float32), values, rest, trace)
