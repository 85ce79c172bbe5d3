"""The objective of many heads at once, and its gradient, in one pass over the rows.

Problems share rows and labels, and differ in C and in how much each row counts. Their columns are
multiplied with a chunk of rows in one product, which costs little more than for one problem.

Of each problem, with weights W (K, D), bias b (K,) and rows that count w_i:
``0.5 * ||W||^2 + C * sum_i w_i * loss_i``. The loss is the cross-entropy of a softmax, or of a
sigmoid for each class where a row may have several labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.stages.head.rows import CHUNK_ROWS, Vectors, chunks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.stages.head.pool import Pool

_CHUNK_BYTES = 2 << 20  # of the logits of a chunk: they are gone over several times
_CURVATURE_STEP = 8  # of many rows each eighth tells the curvature well enough
_MANY_ROWS = 8192
_MOST_COUPLED = 64  # classes whose curvature is taken together: the matrix is decomposed often

Labels = Any
"""int32 array (N,) for a softmax, or bool array (N, K) for sigmoids."""


@dataclass(frozen=True)
class Problems:
    """P problems on N rows.

    Attributes
    ----------
    vectors : Vectors
        (N, D).
    labels : int32 array (N,), or bool array (N, K)
    classes : int
        K.
    c : float64 array (P,)
    counts : float32 array (G, N)
        How much each row counts, for each group of problems.
    group : int array (P,)
        Which row of `counts` is each problem's.
    """

    vectors: Vectors
    labels: Labels
    classes: int
    c: NDArray[np.float64]
    counts: NDArray[np.float32]
    group: NDArray[np.intp]

    @property
    def total(self) -> NDArray[np.float64]:
        """How many rows count in each problem, (P,)."""
        sums: NDArray[np.float64] = self.counts.sum(axis=1, dtype=np.float64)
        return sums[self.group]


@dataclass
class Evaluation:
    """Of some problems, A of them.

    Attributes
    ----------
    value : float64 array (A,)
    gradient : array (A, K, D + 1)
        Of the weights, and last of the bias.
    curvature : float64 array (A, K, K), or (A, K)
        Mean over the rows of the loss's second derivatives by the logits; of many classes, and of
        sigmoids, its diagonal alone.
    """

    value: NDArray[np.float64]
    gradient: NDArray[Any]
    curvature: NDArray[np.float64]


def evaluate(
    problems: Problems, which: NDArray[np.intp], theta: NDArray[Any], pool: Pool
) -> Evaluation:
    """Evaluate objective and gradient of some of the problems.

    Parameters
    ----------
    problems : Problems
    which : int array (A,)
    theta : float32 or float64 array (A, K, D + 1)
        Weights and bias of each; its type is that of the arithmetic.
    pool : Pool
    """
    count = problems.vectors.shape[0]
    parts = pool.map(lambda at: _part(problems, which, theta, *at), pool.slices(count))
    loss = np.sum([part[0] for part in parts], axis=0)
    gradient = parts[0][1]
    for part in parts[1:]:  # in their order, so that the sum is always the same
        gradient += part[1]
    curvature = np.sum([part[2] for part in parts], axis=0)
    c = problems.c[which]
    gradient *= c[:, np.newaxis, np.newaxis].astype(theta.dtype)
    weights = theta[:, :, :-1]
    gradient[:, :, :-1] += weights
    squares = np.einsum("akd,akd->a", weights, weights, dtype=np.float64)
    return Evaluation(
        value=0.5 * squares + c * loss,
        gradient=gradient,
        curvature=curvature * _step(count) / _column(problems.total[which], curvature.ndim),
    )


def _step(count: int) -> int:
    return _CURVATURE_STEP if count >= _MANY_ROWS else 1


def _column(values: NDArray[np.float64], ndim: int) -> NDArray[np.float64]:
    return values.reshape(-1, *[1] * (ndim - 1))


def logits(theta: NDArray[Any], block: NDArray[Any]) -> NDArray[Any]:
    """Logits (A, K, B) of a block of rows (B, D)."""
    problems, classes, width = theta.shape
    flat = theta.reshape(problems * classes, width)
    found: NDArray[Any] = flat[:, :-1] @ block.T
    found += flat[:, -1:]
    return found.reshape(problems, classes, len(block))


def _part(
    problems: Problems, which: NDArray[np.intp], theta: NDArray[Any], start: int, stop: int
) -> tuple[NDArray[np.float64], NDArray[Any], NDArray[np.float64]]:
    """Loss (A,), its gradient and curvature over a range of rows."""
    count, classes, width = theta.shape
    coupled = problems.labels.ndim == 1 and classes <= _MOST_COUPLED
    loss = np.zeros(count)
    curvature = np.zeros((count, classes, classes) if coupled else (count, classes))
    gradient = np.zeros_like(theta)
    flat = gradient.reshape(count * classes, width)
    group = problems.group[which]
    residuals = _softmax if problems.labels.ndim == 1 else _sigmoid
    step = _step(problems.vectors.shape[0])
    size = min(max(_CHUNK_BYTES // (4 * count * classes), 64), CHUNK_ROWS)
    for at, end in chunks(start, stop, size):
        block = problems.vectors.read(at, end).astype(theta.dtype, copy=False)
        counts = problems.counts[:, at:end][group]
        scores = logits(theta, block)
        loss += residuals(scores, problems.labels[at:end], counts, curvature, step)
        rows = scores.reshape(count * classes, end - at)
        flat[:, :-1] += rows @ block
        flat[:, -1] += rows.sum(axis=1)
    return loss, gradient, curvature


def _softmax(
    scores: NDArray[Any],
    labels: NDArray[np.int32],
    counts: NDArray[np.float32],
    curvature: NDArray[np.float64],
    step: int,
) -> NDArray[np.float64]:
    """Turn logits (A, K, B) into weighted residuals in place; give the loss (A,)."""
    rows = np.arange(scores.shape[2])
    scores -= scores.max(axis=1, keepdims=True)
    true = scores[:, labels, rows]
    np.exp(scores, out=scores)
    total = scores.sum(axis=1)
    loss: NDArray[np.float64] = np.einsum(
        "ab,ab->a", np.log(total) - true, counts, dtype=np.float64
    )
    scores /= total[:, np.newaxis]
    _add_curvature(scores, counts, curvature, step)
    scores[:, labels, rows] -= 1
    scores *= counts[:, np.newaxis]
    return loss


def _sigmoid(
    scores: NDArray[Any],
    labels: NDArray[np.bool_],
    counts: NDArray[np.float32],
    curvature: NDArray[np.float64],
    step: int,
) -> NDArray[np.float64]:
    """As ``_softmax``, with a loss for each class: ``log(1 + exp(s)) - s * y``."""
    truth = labels.T
    losses = np.logaddexp(0, scores) - scores * truth
    loss: NDArray[np.float64] = np.einsum("akb,ab->a", losses, counts, dtype=np.float64)
    np.negative(np.abs(scores), out=losses)
    np.exp(losses, out=losses)  # at most 1: no overflow
    np.divide(np.where(scores >= 0, 1, losses), 1 + losses, out=scores)
    _add_curvature(scores, counts, curvature, step)
    scores -= truth
    scores *= counts[:, np.newaxis]
    return loss


def _add_curvature(
    probabilities: NDArray[Any],
    counts: NDArray[np.float32],
    curvature: NDArray[np.float64],
    step: int,
) -> None:
    some = probabilities[:, :, ::step]
    weighted = some * counts[:, np.newaxis, ::step]
    if curvature.ndim == 2:
        curvature += np.einsum("akb,akb->ak", weighted, 1 - some)
        return
    curvature -= weighted @ some.transpose(0, 2, 1)  # of a softmax: diag(p) - p p'
    each = np.arange(curvature.shape[1])
    curvature[:, each, each] += weighted.sum(axis=2)
