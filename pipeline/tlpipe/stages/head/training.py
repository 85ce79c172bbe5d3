"""Trains a head: chooses its settings, finds the optimum for them, calibrates it.

The head is multinomial logistic regression with an L2 penalty (a linear probe). Its objective is
scikit-learn's: ``0.5 * ||W||^2 + C * sum(cross-entropy)``, the bias not penalised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.last_layer import ClassWeight
from tlpipe.stages.head.calibration import find_temperature
from tlpipe.stages.head.choose import Choice, choose, usual_choice
from tlpipe.stages.head.fewer import nested
from tlpipe.stages.head.optimum import find_optimum, heads_of_fewer, scaled_in_place
from tlpipe.stages.head.pool import Pool, open_pool
from tlpipe.stages.head.rows import (
    SCALINGS,
    InMemory,
    Picked,
    Scaled,
    Scaling,
    Vectors,
)
from tlpipe.stages.head.search import Task, Trial
from tlpipe.stages.head.trained import Head, HeldOut

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import Float32Array

    Rows = NDArray[np.intp]

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
    fewer : bool
        Whether to train heads of fewer rows, too, for a learning curve.
    consume : bool
        Whether an array of embeddings may be overwritten, which saves a copy.
    seed : int
        Which rows the heads of fewer have.
    threads : int, optional
        By default one for each usable core.
    """

    scalings: tuple[Scaling, ...] = SCALINGS
    c: tuple[float, ...] = ()
    class_weight: ClassWeight | tuple[float, ...] = "none"
    calibrate: bool = True
    fewer: bool = False
    consume: bool = False
    seed: int = 0
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
    if not all(np.isin(np.concatenate(pair), fit).all() for pair in folds):
        raise ValueError("A row of a fold is none of those that train.")
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
        ready: Vectors = choice.search.task.vectors
        if options.consume and isinstance(ready, Scaled) and isinstance(task.vectors, InMemory):
            ready = scaled_in_place(ready, task.vectors.array, pool)
        theta, gap = find_optimum(choice, ready, pool)
        fewer: list[tuple[int, Any]] = []
        if options.fewer:
            fewer = heads_of_fewer(choice, ready, nested(labels[fit], options.seed), pool)

    def exported(theta: NDArray[np.float64]) -> tuple[Any, Any]:
        weights, bias = choice.scaled.unscaled(theta[:, :-1], theta[:, -1])
        if labels.ndim == 1 and task.classes == 1:
            weights, bias = _both(weights[0]).T, _both(bias)[0]
        return weights.T / temperature, bias / temperature

    c = 10.0**choice.exponent
    weights, bias = exported(theta)
    head = Head(
        weights=weights,
        bias=bias,
        normalise=choice.scaled.scaling == "unit",
        multilabel=labels.ndim == 2,
        scaling=choice.scaled.scaling,
        c=min(options.c or [c], key=lambda given: abs(np.log10(given / c))),
        temperature=temperature,
        trials=choice.trials,
        gap=gap,
        held_out=_renumbered(held_out, fit, multilabel=labels.ndim == 2),
    )
    of_fewer = [(count, *exported(other)) for count, other in fewer]
    return replace(
        head, fewer=[(n, replace(head, weights=w, bias=b, held_out=None)) for n, w, b in of_fewer]
    )


def _renumbered(held_out: HeldOut | None, fit: Rows, *, multilabel: bool) -> HeldOut | None:
    if held_out is None:
        return None
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
