"""The least value of the head's objective, in float64, with a proof of how near it is.

The objective is ``0.5 * s * ||W||^2 + C * sum(cross-entropy)``, the bias free. `s` is 1; with two
classes 2, which is scikit-learn's objective there: it has one vector w, of which the columns of W
are -w/2 and w/2, so that ``0.5 * ||w||^2 = 0.5 * 2 * ||W||^2``.

Newton's method; each step's linear system is solved by conjugate gradients, with products of the
Hessian and a vector only (Boyd and Vandenberghe, Convex Optimization, 2004, section 9.5; Nocedal
and Wright, Numerical Optimization, 2006, section 7.1). It may start anywhere: what it found is
judged by the gradient alone. With the bias at its best for W, the objective as a function of W
alone is convex by at least s (a partial minimum of the convex rest stays convex), so it lies at
most ``||gradient||^2 / (2 s)`` above its least value (ibid., 9.9). Needs NumPy and SciPy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax

STEPS = 60
INNER = 400  # products with the Hessian for one step, at the most
ENOUGH = 1e-9
"""Relative to the value: a proof this sharp ends the search."""


@dataclass(frozen=True)
class Reference:
    """The value found, and at most how far above the least it is, both absolute."""

    value: float
    uncertain: float
    steps: int


def penalty(classes: int) -> float:
    """`s` of the objective."""
    return 2.0 if classes == 2 else 1.0


def value(
    x: np.ndarray, y: np.ndarray, c: float, weights: np.ndarray, bias: np.ndarray, s: float
) -> float:
    """The objective at (D, K) weights and a (K,) bias, for float64 `x` (N, D)."""
    chosen = log_softmax(x @ weights + bias, axis=1)[np.arange(y.size), y]
    return float(0.5 * s * (weights**2).sum() - c * chosen.sum())


def reference(
    x: np.ndarray, y: np.ndarray, c: float, weights: np.ndarray, bias: np.ndarray, s: float
) -> Reference:
    """Go from given weights to the optimum.

    Raises
    ------
    ArithmeticError
        It is not reached to ``ENOUGH``: the figure would tell nothing.
    """
    problem = _Problem(x, y, c, s)
    point = np.vstack([weights, bias]).astype(np.float64)
    for step in range(STEPS):
        point = problem.best_bias(point)
        state = problem.at(point)
        uncertain = float((state.gradient[:-1] ** 2).sum()) / (2 * s)
        if uncertain <= ENOUGH * state.value:
            return Reference(state.value, uncertain, step)
        direction = _solve(lambda v, at=state: problem.product(at, v), state.gradient)
        point = problem.walk(point, state, direction)
    raise ArithmeticError(f"the reference is {uncertain:.3g} from the optimum after {STEPS} steps")


@dataclass(frozen=True)
class _State:
    value: float
    gradient: np.ndarray  # (D + 1, K), the bias last
    probabilities: np.ndarray  # (N, K)


class _Problem:
    """The objective, its gradient, and products with its Hessian."""

    def __init__(self, x: np.ndarray, y: np.ndarray, c: float, s: float) -> None:
        self._x, self._y, self._c, self._s = x, y, c, s

    def at(self, point: np.ndarray) -> _State:
        logs = log_softmax(self._x @ point[:-1] + point[-1], axis=1)
        rows = np.arange(self._y.size)
        found = 0.5 * self._s * (point[:-1] ** 2).sum() - self._c * logs[rows, self._y].sum()
        probabilities = np.exp(logs)
        rest = self._c * probabilities
        rest[rows, self._y] -= self._c
        return _State(float(found), self._back(rest, point), probabilities)

    def product(self, state: _State, v: np.ndarray) -> np.ndarray:
        """Hessian times `v`, both (D + 1, K)."""
        p = state.probabilities
        logits = self._x @ v[:-1] + v[-1]
        return self._back(self._c * p * (logits - (p * logits).sum(axis=1, keepdims=True)), v)

    def best_bias(self, point: np.ndarray) -> np.ndarray:
        """The same weights with the bias that is best for them: Newton's method in K numbers."""
        point = point.copy()
        logits = self._x @ point[:-1]
        counts = np.bincount(self._y, minlength=point.shape[1])
        for _ in range(50):
            p = np.exp(log_softmax(logits + point[-1], axis=1))
            gradient = p.sum(axis=0) - counts
            if np.abs(gradient).max() < 1e-9:
                break
            hessian = np.diag(p.sum(axis=0)) - p.T @ p
            point[-1] -= np.linalg.lstsq(hessian, gradient, rcond=1e-12)[0]
        return point

    def walk(self, point: np.ndarray, state: _State, direction: np.ndarray) -> np.ndarray:
        """Along the direction, halving until the value falls as it should (Armijo)."""
        slope, length = float((state.gradient * direction).sum()), 1.0
        while length > 1e-6:
            ahead = point + length * direction
            if self.at(ahead).value <= state.value + 1e-4 * length * slope:
                return ahead
            length /= 2
        return point + direction  # so near that rounding hides the fall: the gradient will tell

    def _back(self, rest: np.ndarray, point: np.ndarray) -> np.ndarray:
        """(N, K) of the logits to (D + 1, K), with the penalty's part at `point`."""
        return np.vstack([self._x.T @ rest + self._s * point[:-1], rest.sum(axis=0)])


def _solve(product: Callable[[np.ndarray], np.ndarray], gradient: np.ndarray) -> np.ndarray:
    """Conjugate gradients for ``H d = -gradient``, to a residue that shrinks as the gradient does.

    A shift of all biases alike changes nothing: the Hessian has no curvature there, and the
    gradient no part, so the directions stay clear of it.
    """
    size = float(np.linalg.norm(gradient))
    goal = min(0.1, size**0.5) * size
    d, residue = np.zeros_like(gradient), -gradient
    v, square = residue, size**2
    for _ in range(INNER):
        h = product(v)
        length = square / float((v * h).sum())
        d, residue = d + length * v, residue - length * h
        before, square = square, float((residue**2).sum())
        if square**0.5 <= goal:
            break
        v = residue + square / before * v
    return d
