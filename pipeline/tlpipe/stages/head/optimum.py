"""Finds the optimum for the setting that was chosen, and heads of fewer rows beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.errors import ConvergenceError
from tlpipe.stages.head.choose import Choice
from tlpipe.stages.head.fewer import sizes
from tlpipe.stages.head.minimise import LONG_MEMORY, minimise
from tlpipe.stages.head.objective import Problems
from tlpipe.stages.head.pool import Pool
from tlpipe.stages.head.rows import InMemory, Picked, Scaled, Vectors, chunks
from tlpipe.stages.head.search import TOLERANCE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.intp]
    Float64Array = NDArray[np.float64]

GAP = 1e-8
"""Of a trained head: estimate of how far its objective lies above the least, as a fraction of it.

Half of the squared Newton decrement, which is the gap of a quadratic objective (Boyd &
Vandenberghe, "Convex Optimization", section 9.5.1), the preconditioner being the inverse Hessian.
Measured against optima in float64: the gap is 2 to 10 times the estimate, and up to 100 times
where C is a thousand times the best.
"""

_MOST_EVALUATIONS = 10_000


def find_optimum(choice: Choice, vectors: Vectors, pool: Pool) -> tuple[Float64Array, float]:
    """Weights and bias (K, D + 1) for scaled rows, and the estimate of their gap.

    Most of the way is gone in float32; where rounding ends it too early, the rest in float64.

    Raises
    ------
    ConvergenceError
    """
    theta: NDArray[Any] = choice.search.start(choice.exponent)
    problem = _problem(choice, vectors, np.arange(vectors.shape[0]))
    for dtype, most in ((np.float32, 1000), (np.float64, _MOST_EVALUATIONS)):
        (solution,) = minimise(
            problem,
            [theta.astype(dtype)],
            choice.search.spectrum,
            pool,
            lambda way: way.expected <= GAP,
            most,
            LONG_MEMORY,
        )
        theta = solution.theta
    if not solution.converged:
        raise ConvergenceError(
            f"The head's optimum was not found: after {solution.evaluations:,} evaluations in"
            f" float64 its objective may lie {solution.gap:.1g} of itself above the least;"
            f" {GAP:g} is asked for (C = {10.0**choice.exponent:g}, {choice.scaled.scaling}).",
            hint="Look for embeddings of absurd size: tlpipe audit lists outliers.",
        )
    return theta, solution.gap


def heads_of_fewer(
    choice: Choice, vectors: Vectors, order: Rows, pool: Pool
) -> list[tuple[int, Float64Array]]:
    """Heads of the first rows of an order: their number, and weights and bias (K, D + 1).

    Each has the setting that was chosen with all rows.
    """
    found = []
    theta = np.zeros_like(choice.search.start(choice.exponent), np.float32)
    for size in sizes(order.size, choice.search.task.classes):
        rows = np.sort(order[:size])
        (solution,) = minimise(
            _problem(choice, Picked(vectors, rows), rows),
            [theta],
            choice.search.spectrum,
            pool,
            lambda way: way.expected <= TOLERANCE,
            _MOST_EVALUATIONS,
        )
        theta = solution.theta
        found.append((rows.size, theta.astype(np.float64)))
    return found


def scaled_in_place(scaled: Scaled, array: NDArray[np.float32], pool: Pool) -> InMemory:
    """Scale an array of embeddings once and for all, in the memory that it has."""

    def scale(part: tuple[int, int]) -> None:
        for start, stop in chunks(*part):
            array[start:stop] = scaled.read(start, stop)

    pool.map(scale, pool.slices(len(array)))
    return InMemory(array)


def _problem(choice: Choice, vectors: Vectors, rows: Rows) -> Problems:
    task = choice.search.task
    return Problems(
        vectors=vectors,
        labels=task.labels[rows],
        classes=task.classes,
        c=np.array([10.0**choice.exponent]),
        counts=task.counts[np.newaxis, rows],
        group=np.zeros(1, np.intp),
    )
