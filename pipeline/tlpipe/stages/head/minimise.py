"""Minimises many objectives at once: L-BFGS, each with its own step and memory.

All problems that are not done are evaluated together, each at the point it wants to try next; so
none waits for the line search of another.

Sources: Nocedal & Wright, "Numerical Optimization", 2nd edition, algorithms 7.4 and 7.5 (L-BFGS)
and section 3.5 (interpolation in a line search); the acceptance of steps whose gain is lost in
rounding follows Hager & Zhang, SIAM J. Optim. 16 (2005), section 2 (approximate Wolfe conditions).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.stages.head.objective import Problems, evaluate
from tlpipe.stages.head.spectrum import Metric, Spectrum

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.stages.head.pool import Pool

MEMORY = 6
"""Pairs of steps and changes of the gradient that each of many problems remembers."""

LONG_MEMORY = 30
"""The same of one problem that must come near to its optimum."""

_MEMORY_BYTES = 64 << 20  # of one problem's pairs

_ARMIJO = 1e-4
_ROUNDING = {4: 1e-6, 8: 1e-12}  # relative error of a value, by the bytes of a number


@dataclass
class Solution:
    """Where one problem ended.

    Attributes
    ----------
    theta : array (K, D + 1)
        Weights, and last the bias.
    value : float
    gap : float
        Estimate of how far the value lies above the least, as a fraction of it.
    evaluations : int
    converged : bool
    """

    theta: NDArray[Any]
    value: float
    gap: float
    evaluations: int
    converged: bool


class _Descent:
    """One problem on its way."""

    def __init__(
        self, theta: NDArray[Any], strength: float, spectrum: Spectrum, memory: int
    ) -> None:
        self.theta, self._strength, self._spectrum = theta, strength, spectrum
        self.value, self.evaluations, self.stalled = np.inf, 0, False
        self.gradient = np.zeros_like(theta)
        self.trial = theta
        self.expected = np.inf  # half of the squared Newton decrement, relative: the gap's estimate
        self._direction = np.zeros_like(theta)
        self._slope, self._step = 0.0, 1.0
        self._pairs: deque[tuple[Any, Any, float]] = deque(maxlen=memory)
        self._noise = _ROUNDING[theta.dtype.itemsize]

    def take(self, value: float, gradient: NDArray[Any], curvature: NDArray[np.float64]) -> None:
        """Take the evaluation of the trial point, and choose the next."""
        self.evaluations += 1
        first = not np.isfinite(self.value)
        slack = self._noise * abs(self.value) if not first else 0.0
        if first or value <= self.value + _ARMIJO * self._step * self._slope + slack:
            self._accept(value, gradient, curvature, first)
        else:
            rise = value - self.value - self._slope * self._step
            best = -self._slope * self._step**2 / (2 * rise) if np.isfinite(rise) else 0.0
            self._step = float(np.clip(best, 0.1 * self._step, 0.5 * self._step))
            if self._step < 1e-8:
                if self._pairs:
                    self._pairs.clear()
                    self._turn(curvature)
                else:
                    self.stalled = True
        self.trial = self.theta + np.asarray(self._step, self.theta.dtype) * self._direction

    def _accept(
        self, value: float, gradient: NDArray[Any], curvature: NDArray[np.float64], first: bool
    ) -> None:
        if not first:
            step, change = self.trial - self.theta, gradient - self.gradient
            product = _dot(step, change)
            if product > 0:
                self._pairs.append((step, change, 1 / product))
        self.theta, self.value, self.gradient = self.trial, value, gradient
        self._turn(curvature)

    def _turn(self, curvature: NDArray[np.float64]) -> None:
        metric = self._spectrum.metric(self._strength * curvature)
        away = metric.times(self.gradient)
        self.expected = 0.5 * _dot(self.gradient, away) / max(self.value, 1e-300)
        self._direction = -self._times_inverse(metric)
        self._slope = _dot(self.gradient, self._direction)
        if not self._slope < 0:
            self._pairs.clear()
            self._direction = -away
            self._slope = _dot(self.gradient, self._direction)
            self.stalled = not self._slope < 0
        self._step = 1.0

    def _times_inverse(self, metric: Metric) -> NDArray[Any]:
        """Two-loop recursion."""
        found = self.gradient.copy()
        factors = []
        for step, change, rho in reversed(self._pairs):
            factor = rho * _dot(step, found)
            found -= np.asarray(factor, found.dtype) * change
            factors.append(factor)
        found = metric.times(found)
        if self._pairs:
            step, change, rho = self._pairs[-1]
            scaled = metric.times(change)
            found *= np.asarray(1 / (rho * _dot(change, scaled)), found.dtype)
        for (step, change, rho), factor in zip(self._pairs, reversed(factors), strict=True):
            found += np.asarray(factor - rho * _dot(change, found), found.dtype) * step
        return found


def minimise(
    problems: Problems,
    starts: Sequence[NDArray[Any]],
    spectrum: Spectrum,
    pool: Pool,
    done: Callable[[_Descent], bool],
    most: int,
    memory: int = MEMORY,
) -> list[Solution]:
    """Minimise all problems together.

    Parameters
    ----------
    problems : Problems
        P of them.
    starts : sequence of P arrays (K, D + 1)
        float32 or float64: the type of the arithmetic.
    spectrum : Spectrum
        Of the rows.
    pool : Pool
    done : callable
        Whether a problem is near enough to its optimum.
    most : int
        Evaluations of a problem at most.
    memory : int
        Pairs that each problem remembers; fewer where they are large.
    """
    total = problems.total
    memory = max(MEMORY, min(memory, _MEMORY_BYTES // (2 * starts[0].nbytes)))
    ways = [
        _Descent(start, float(problems.c[p] * total[p]), spectrum, memory)
        for p, start in enumerate(starts)
    ]
    active = np.arange(len(ways))
    while active.size:
        theta = np.stack([ways[p].trial for p in active])
        found = evaluate(problems, active, theta, pool)

        def move(at: int, found: Any = found, active: Any = active) -> bool:
            way = ways[active[at]]
            way.take(float(found.value[at]), found.gradient[at], found.curvature[at])
            return not (done(way) or way.stalled or way.evaluations >= most)

        going = pool.map(move, range(active.size))
        active = active[np.array(going)]
    return [
        Solution(way.theta, way.value, way.expected, way.evaluations, done(way)) for way in ways
    ]


def _dot(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(np.dot(a.reshape(-1), b.reshape(-1)))
