"""Chooses C and the scaling: on some rows where there are many, then on all of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.stages.head.rows import InMemory, Picked, Scaled, Scaling, Vectors, scaled_rows
from tlpipe.stages.head.search import STEP, TOLERANCE, Search, Task, Trial, log_losses
from tlpipe.stages.head.spectrum import measure_spectrum

_log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.stages.head.pool import Pool

    Rows = NDArray[np.intp]
    Folds = Sequence[tuple[Rows, Rows]]

SCREENED = 8192
"""Rows on which all scalings are trained first, where there are half as many more; half as many are
scored."""

_LOOSE = 3e-3  # tolerance of a search on many rows, where held-out rows tell no finer differences

_OF_FEW = 1.0
"""Decades above the usual C that suit a few rows. Measured with 1, 2 and 5 images per class of
three sets: the accuracy is the same within 0.03 from 0.1 to 100 times the usual C; with 10 times
of it the log loss is less by a tenth to a half."""

_COPY_BYTES = 96 << 20  # embeddings of less are scaled once and for all, in a copy
_IN_DOUBT = 2.0  # standard errors of the difference within which a scaling stays in the running


@dataclass(frozen=True)
class Choice:
    """The setting with the least held-out log loss.

    Attributes
    ----------
    scaled : Scaled
        The rows, scaled as was chosen.
    exponent : float
        log10 of C.
    search : Search
        Holds the solutions of the folds.
    trials : list of Trial
        All that were tried on all rows; where those were many, on some of them before.
    """

    scaled: Scaled
    exponent: float
    search: Search
    trials: list[Trial]


def choose(
    task: Task,
    folds: Folds,
    scalings: Sequence[Scaling],
    exponents: Sequence[float] | None,
    pool: Pool,
    told: Callable[[Trial], None],
) -> Choice:
    """Choose C and the scaling by held-out log loss.

    Parameters
    ----------
    task : Task
        With vectors that are not scaled.
    folds : sequence of pairs of int arrays
        Ascending row numbers to train on, and to score on.
    scalings : sequence of str
        Those to try.
    exponents : sequence of float, optional
        The values of log10 C to try; by default as many as it takes.
    pool : Pool
    told : callable
        Called with each ``Trial``.
    """
    trials: list[Trial] = []

    def tell(trial: Trial) -> None:
        trials.append(trial)
        text = "C = %.3g on %s embeddings: held-out log loss %.4f."
        _log.info(text, trial.c, trial.scaling, trial.log_loss)
        told(trial)

    contenders: list[tuple[Scaling, Sequence[float] | None, Any]]
    contenders = [(scaling, exponents, None) for scaling in scalings]
    tolerance = TOLERANCE
    if exponents is None and task.counts.size > 1.5 * SCREENED:
        contenders = _screen(task, folds[0], scalings, pool, tell)
        trials.clear()
        tolerance = _LOOSE
    found: list[tuple[float, Search, float]] = []
    for scaling, first, begin in contenders:
        search = _search(task, folds, scaling, pool, begin)
        search.tolerance = tolerance
        if exponents is None:
            search.walk(first, tell)
        else:
            search.climb(exponents, tell)
        best = search.best()
        found.append((search.tried[best].log_loss, search, best))
        for _, other, at in found:  # hold no more than is needed
            other.keep_only(at)
    _, search, exponent = min(found, key=lambda entry: entry[0])
    return Choice(search.scaled, exponent, search, trials)


def usual_choice(
    task: Task, folds: Folds, scaling: Scaling, exponents: Sequence[float] | None, pool: Pool
) -> Choice:
    """Take the setting that suits most embeddings, where rows are too few to choose one."""
    search = _search(task, folds, scaling, pool, None)
    exponent = exponents[0] if exponents else search.usual + _OF_FEW
    if folds:
        search.try_all([exponent], lambda _: None)
    return Choice(search.scaled, exponent, search, [])


def _search(
    task: Task,
    folds: Folds,
    scaling: Scaling,
    pool: Pool,
    begin: Any,
    most_bytes: int | None = None,
) -> Search:
    scaled = scaled_rows(task.vectors, scaling)
    count, dim = scaled.shape
    most_bytes = _COPY_BYTES if most_bytes is None else most_bytes
    vectors: Vectors = scaled.in_memory() if count * dim * 4 <= most_bytes else scaled
    spectrum = measure_spectrum(vectors)
    return Search(replace(task, vectors=vectors), scaled, spectrum, folds, pool, begin=begin)


def _screen(
    task: Task,
    fold: tuple[Rows, Rows],
    scalings: Sequence[Scaling],
    pool: Pool,
    told: Callable[[Trial], None],
) -> list[tuple[Scaling, Sequence[float] | None, Any]]:
    """Try all scalings on some rows; give those that may be best, with values of C to try."""
    rng = np.random.default_rng(0)
    train, held = (
        np.sort(rng.permutation(rows)[:most])
        for rows, most in zip(fold, (SCREENED, SCREENED // 2), strict=True)
    )
    rows = np.sort(np.concatenate([train, held]))
    held_in_memory = isinstance(task.vectors, InMemory)
    vectors = Picked(task.vectors, rows) if held_in_memory else InMemory(task.vectors.take(rows))
    some = Task(vectors, task.labels[rows], task.classes, task.counts[rows])
    folds = [(np.searchsorted(rows, train), np.searchsorted(rows, held))]
    tried: list[tuple[Search, float, NDArray[np.float64]]] = []
    for scaling in scalings:
        search = _search(some, folds, scaling, pool, None, most_bytes=0)
        search.walk(None, told)
        best = search.best()
        at, scores = search.held_out(best)
        losses = log_losses(np.ascontiguousarray(scores.T)[np.newaxis], some.labels[at])[0]
        tried.append((search, best, losses * some.counts[at]))
        search.keep_only(best)
    least = min(tried, key=lambda entry: float(entry[2].mean()))[2]
    chosen: list[tuple[Scaling, Sequence[float] | None, Any]] = []
    for search, best, losses in tried:
        away = losses - least
        error = float(away.std()) / away.size**0.5
        if float(away.mean()) <= _IN_DOUBT * error:
            around = [best + k * STEP for k in (-1, 0, 1)]
            chosen.append((search.scaled.scaling, around, search.start(best)))
    return chosen
