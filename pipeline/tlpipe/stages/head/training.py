"""Trains a head: chooses its settings, finds the optimum for them, calibrates it.

The head is multinomial logistic regression with an L2 penalty (a linear probe). Its objective is
scikit-learn's: ``0.5 * ||W||^2 + C * sum(cross-entropy)``, the bias not penalised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tlpipe.errors import ConvergenceError
from tlpipe.stages.head.calibration import find_temperature
from tlpipe.stages.head.choose import Choice, choose, usual_choice
from tlpipe.stages.head.minimise import LONG_MEMORY, minimise
from tlpipe.stages.head.objective import Problems
from tlpipe.stages.head.pool import Pool, open_pool
from tlpipe.stages.head.rows import (
    SCALINGS,
    InMemory,
    Picked,
    Scaling,
    Vectors,
)
from tlpipe.stages.head.search import Search, Task, Trial
from tlpipe.stages.head.trained import Head, HeldOut

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import Float32Array

    Rows = NDArray[np.intp]

ClassWeight = Literal["none", "balanced"]

GAP = 3e-8
"""Of a trained head: estimate of how far its objective lies above the least, as a fraction of it.

Half of the squared Newton decrement, which is the gap of a quadratic objective (Boyd &
Vandenberghe, "Convex Optimization", section 9.5.1), the preconditioner being the inverse Hessian.
Measured against optima in float64: the gap is 2 to 10 times the estimate.
"""

_MOST_EVALUATIONS = 10_000
_LEAST_HELD = 30  # held-out rows with which settings can be chosen
_PRIOR_SCALING: Scaling = "unit"


@dataclass(frozen=True)
class HeadOptions:
    """How a head is trained.

    Attributes
    ----------
    scalings : tuple of {"raw", "standardised", "unit"}
        Those to choose from.
    c : tuple of float
        Values of C to choose from; none means as many as it takes.
    class_weight : {"none", "balanced"} or tuple of K floats
        How much a row of each class counts. "balanced": so much that each class counts the same,
        however many rows it has.
    calibrate : bool
        Whether to set the temperature.
    threads : int, optional
        By default one for each usable core.
    """

    scalings: tuple[Scaling, ...] = SCALINGS
    c: tuple[float, ...] = ()
    class_weight: ClassWeight | tuple[float, ...] = "none"
    calibrate: bool = True
    threads: int | None = None


def train(
    vectors: Vectors | Float32Array,
    labels: Any,
    fit: Rows,
    folds: Sequence[tuple[Rows, Rows]],
    options: HeadOptions | None = None,
    progress: Callable[[int], None] | None = None,
) -> Head:
    """Choose scaling and C on held-out rows, then train on all rows given for it.

    Parameters
    ----------
    vectors : float32 array (N, D), or Vectors
    labels : int32 array (N,), or bool array (N, K)
        0 to K - 1 in the rows used; or which of K labels each row has.
    fit : array of int
        Rows that train the final head; every class is among them.
    folds : sequence of pairs of arrays of int
        Rows to train on and rows to score on, while choosing: all are among `fit`. With no folds,
        or too few rows to score on, the settings are those that suit most embeddings.
    options : HeadOptions, optional
    progress : callable, optional
        Called with the number of settings tried so far.

    Raises
    ------
    ConvergenceError
        The optimum could not be found.
    """
    options = options or HeadOptions()
    source = InMemory(vectors) if isinstance(vectors, np.ndarray) else vectors
    fit = np.sort(fit)
    whole = fit.size == source.shape[0]
    task = _task(source if whole else Picked(source, fit), labels[fit], options)
    local = [
        (np.sort(np.searchsorted(fit, rows)), np.sort(np.searchsorted(fit, held)))
        for rows, held in folds
    ]
    count = 0

    def told(_: Trial) -> None:
        nonlocal count
        count += 1
        if progress is not None:
            progress(count)

    with open_pool(options.threads) as pool:
        choice = _choose(task, local, options, pool, told)
        held_out, temperature = _held_out(choice, task, options) if local else (None, 1.0)
        theta, gap = _optimum(choice, task, pool)
    c = 10.0**choice.exponent
    weights, bias = choice.scaled.unscaled(theta[:, :-1], theta[:, -1])
    multilabel = labels.ndim == 2
    if not multilabel and task.classes == 1:
        weights, bias = _both(weights[0]).T, _both(bias)[0]
    return Head(
        weights=weights.T / temperature,
        bias=bias / temperature,
        normalise=choice.scaled.scaling == "unit",
        multilabel=multilabel,
        scaling=choice.scaled.scaling,
        c=min(options.c or [c], key=lambda given: abs(np.log10(given / c))),
        temperature=temperature,
        trials=choice.trials,
        gap=gap,
        held_out=None if held_out is None else _renumbered(held_out, fit, multilabel=multilabel),
    )


def _renumbered(held_out: HeldOut, fit: Rows, *, multilabel: bool) -> HeldOut:
    logits = held_out.logits
    if logits.shape[1] == 1 and not multilabel:
        logits = _both(logits[:, 0])
    return HeldOut(fit[held_out.rows], logits)


def _both(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logits of two classes from that of the second against the first.

    Half of it on either side of zero gives the same probabilities by a softmax over two.
    """
    return np.stack([-scores, scores], axis=-1) / 2


def _task(vectors: Vectors, labels: Any, options: HeadOptions) -> Task:
    """Two classes are one question with a sigmoid, as in scikit-learn, and half of the work."""
    classes = labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1
    counts = np.ones(len(labels))
    if labels.ndim == 1 and options.class_weight != "none":
        counts = _class_weights(labels, classes, options)[labels]
    if labels.ndim == 1 and classes == 2:
        labels, classes = (labels == 1)[:, np.newaxis], 1
    return Task(vectors, labels, classes, counts.astype(np.float32))


def _class_weights(
    labels: NDArray[np.int32], classes: int, options: HeadOptions
) -> NDArray[np.float64]:
    """How much a row of each class counts, (K,)."""
    if options.class_weight == "balanced":
        sizes = np.bincount(labels, minlength=classes)
        balanced: NDArray[np.float64] = len(labels) / ((sizes > 0).sum() * np.maximum(sizes, 1.0))
        return balanced
    return np.asarray(options.class_weight, np.float64)


def _choose(
    task: Task,
    folds: Sequence[tuple[Rows, Rows]],
    options: HeadOptions,
    pool: Pool,
    told: Callable[[Trial], None],
) -> Choice:
    exponents = [float(np.log10(c)) for c in options.c] or None
    scalings = options.scalings
    held = sum(rows.size for _, rows in folds)
    settled = len(scalings) == 1 and len(options.c) == 1
    if held >= _LEAST_HELD or (settled and folds):
        return choose(task, folds, scalings, exponents, pool, told)
    scaling = _PRIOR_SCALING if _PRIOR_SCALING in scalings else scalings[0]
    return usual_choice(task, folds, scaling, exponents, pool)


def _held_out(choice: Choice, task: Task, options: HeadOptions) -> tuple[HeldOut, float]:
    rows, scores = choice.search.held_out(choice.exponent)
    temperature = 1.0
    if options.calibrate:
        temperature = find_temperature(scores, task.labels[rows], task.counts[rows])
    return HeldOut(rows, scores / temperature), temperature


def _optimum(choice: Choice, task: Task, pool: Pool) -> tuple[NDArray[np.float64], float]:
    """Weights and bias (K, D + 1) for scaled rows, and the estimate of their gap.

    Most of the way is gone in float32; where rounding ends it too early, the rest in float64.
    """
    search: Search = choice.search
    problems = Problems(
        vectors=search.task.vectors,
        labels=task.labels,
        classes=task.classes,
        c=np.array([10.0**choice.exponent]),
        counts=task.counts[np.newaxis],
        group=np.zeros(1, np.intp),
    )
    theta: NDArray[Any] = search.start(choice.exponent)
    for dtype, most in ((np.float32, 1000), (np.float64, _MOST_EVALUATIONS)):
        (solution,) = minimise(
            problems,
            [theta.astype(dtype)],
            search.spectrum,
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
    return solution.theta, solution.gap
