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

_RANKS = (64, 256)  # for less, and for more than so many rows:
_MANY_ROWS = 20_000
_LEAST_STRENGTH = 1e-2  # of the mean: adding a constant to all logits changes nothing
_SAMPLE_ROWS = 3072
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

    def metric(self, strength: NDArray[np.float64]) -> Metric:
        """Approximate inverse of the Hessian, for C times the rows times their curvature."""
        values, classes = strength, None
        if strength.ndim == 2:
            values, classes = np.linalg.eigh(strength)
        least = max(_LEAST_STRENGTH * float(values.mean()), 1e-9)
        return Metric(self, np.maximum(values, least), classes)


@dataclass(frozen=True)
class Metric:
    """Approximate inverse of a Hessian.

    The Hessian is taken for ``I + A (x) covariance``, the Kronecker product of the mean curvature A
    by the logits (K, K) and the embeddings' covariance (D, D), of which the main directions are
    known; as Martens & Grosse, "Optimizing Neural Networks with Kronecker-factored Approximate
    Curvature", ICML 2015, do for whole networks. That of the bias is taken for A.

    Attributes
    ----------
    spectrum : Spectrum
    values : float64 array (K,)
        Eigenvalues of A.
    classes : float64 array (K, K) or None
        Its eigenvectors; None where A is diagonal.
    """

    spectrum: Spectrum
    values: NDArray[np.float64]
    classes: NDArray[np.float64] | None

    def times(self, gradient: NDArray[Any]) -> NDArray[Any]:
        """Multiply a gradient (K, D + 1) with the inverse."""
        dtype = gradient.dtype
        turned = gradient
        turn = None if self.classes is None else self.classes.astype(dtype)
        if turn is not None:
            turned = turn.T @ gradient
        strength = self.values
        inner = 1 / (1 + strength * self.spectrum.rest)
        along = 1 / (1 + strength[:, np.newaxis] * self.spectrum.variances) - inner[:, np.newaxis]
        directions = self.spectrum.directions.astype(dtype, copy=False)
        found = np.empty_like(gradient)
        weights = turned[:, :-1]
        found[:, :-1] = ((weights @ directions) * along.astype(dtype)) @ directions.T
        found[:, :-1] += weights * inner[:, np.newaxis].astype(dtype)
        found[:, -1] = turned[:, -1] / strength.astype(dtype)
        return found if turn is None else turn @ found


def measure_spectrum(scaled: Vectors) -> Spectrum:
    """Find the main directions of scaled rows (N, D), on a regular sample of them."""
    count, dim = scaled.shape
    rows = np.unique(np.linspace(0, count - 1, min(count, _SAMPLE_ROWS)).astype(np.intp))
    sample = scaled.take(rows)
    trace = float(np.einsum("nd,nd->", sample, sample, dtype=np.float64)) / rows.size
    rank = min(_RANKS[count >= _MANY_ROWS], dim, rows.size)
    basis = np.random.default_rng(0).standard_normal((dim, rank), np.float32)
    for _ in range(_ITERATIONS):
        basis, _ = np.linalg.qr(sample.T @ (sample @ basis))
    projected = sample @ basis
    values, vectors = np.linalg.eigh((projected.T @ projected).astype(np.float64) / rows.size)
    values = np.maximum(values, 0)
    others = dim - rank
    rest = max(trace - float(values.sum()), 0.0) / others if others else 0.0
    return Spectrum((basis @ vectors).astype(np.float32), values, rest, trace)
