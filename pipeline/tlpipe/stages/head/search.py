"""Chooses C and the scaling on rows that do not train.

C is tried on a grid of half decades. Its first values lie about the one that suits most embeddings
(``USUAL``), and the grid grows at whichever end the least log loss lies, until it is bracketed. All
values and folds of a step are solved together; later ones start from their neighbours' solutions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.stages.head.minimise import minimise
from tlpipe.stages.head.objective import Problems, logits
from tlpipe.stages.head.rows import Scaled, Scaling, Vectors, chunks
from tlpipe.stages.head.spectrum import Spectrum

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.stages.head.pool import Pool

    Rows = NDArray[np.intp]

USUAL = 1.0
"""log10 of C times the embeddings' mean squared distance from their mean. Measured: on three sets
of photos the best values are 0.9 to 1.9 for each scaling."""

TOLERANCE = 1e-3
"""Of a search: the expected gap to the optimum, as a fraction of the objective. It moves the
held-out log loss by less than the next value of C does (measured: by 0.004 of 0.39)."""

LIMIT = 6.0
"""Decades of C to either side of the usual value that are tried at most."""

STEP = 0.5
"""Of log10 C."""
_FIRST = (-2, -1, 0, 1)  # steps from the usual value
_TOGETHER = 2  # of values of C that are given
_CLEARLY, _FARTHER = 1.1, 10.0  # greater log losses, and tolerances there
_MOST_EVALUATIONS = 3000
_GROUP_BYTES = 48 << 20  # of weights that are worked on together
_COPIES = 18  # of its weights that a problem needs: its memory, gradients, trials


@dataclass(frozen=True)
class Task:
    """What is to be learned from some rows.

    Attributes
    ----------
    vectors : Vectors
        (N, D), scaled.
    labels : int32 array (N,), or bool array (N, K)
    classes : int
        K.
    counts : float32 array (N,)
        How much each row counts.
    """

    vectors: Vectors
    labels: Any
    classes: int
    counts: NDArray[np.float32]


@dataclass(frozen=True)
class Trial:
    """One setting that was tried, and its log loss on held-out rows, in nats."""

    scaling: Scaling
    c: float
    log_loss: float


@dataclass
class _Tried:
    """Solutions of one C, by fold, and the held-out log loss."""

    thetas: list[NDArray[Any]]
    log_loss: float


@dataclass
class Search:
    """The search for one scaling.

    Attributes
    ----------
    task : Task
    scaled : Scaled
    spectrum : Spectrum
    folds : sequence of pairs of int arrays
        Rows to train on, and rows to score on.
    pool : Pool
    tolerance : float
    begin : float32 array (K, D + 1), optional
        Where the first problems start from.
    """

    task: Task
    scaled: Scaled
    spectrum: Spectrum
    folds: Sequence[tuple[Rows, Rows]]
    pool: Pool
    tolerance: float = TOLERANCE
    begin: NDArray[Any] | None = None
    tried: dict[float, _Tried] = field(default_factory=dict)  # by log10 C

    @property
    def usual(self) -> float:
        """log10 of the C that suits most embeddings, on the grid."""
        exponent = USUAL - np.log10(max(self.spectrum.trace, 1e-30))
        return float(round(exponent / STEP) * STEP)

    def walk(self, first: Sequence[float] | None, told: Callable[[Trial], None]) -> None:
        """Try values of C until the least log loss is bracketed."""
        middle = self.usual
        low, high = middle - LIMIT, middle + LIMIT
        wanted = [middle + k * STEP for k in _FIRST] if first is None else list(first)
        while wanted:
            self.try_all(wanted, told)
            best = self.best()
            beside = (best - STEP, best + STEP)
            wanted = [e for e in beside if e not in self.tried and low <= e <= high]

    def best(self) -> float:
        """The least log10 of C whose log loss is as good as the least.

        On images that a plane separates, the log loss falls for ever as C grows, by next to
        nothing, while the probabilities become absurdly sure.
        """
        least = min(tried.log_loss for tried in self.tried.values())
        good = 1.01 * least + 1e-4
        return min(e for e, tried in self.tried.items() if tried.log_loss <= good)

    def climb(self, exponents: Sequence[float], told: Callable[[Trial], None]) -> None:
        """Try given values of C, from the least on: each few start where those before ended.

        Beyond one whose log loss is clearly greater than the least, the optimum need not be so
        near.
        """
        ascending = sorted(exponents)
        near = self.tolerance
        for at in range(0, len(ascending), _TOGETHER):
            self.try_all(ascending[at : at + _TOGETHER], told)
            losses = [tried.log_loss for tried in self.tried.values()]
            self.tolerance = near * (_FARTHER if losses[-1] > _CLEARLY * min(losses) else 1)
        self.tolerance = near

    def try_all(self, exponents: Sequence[float], told: Callable[[Trial], None]) -> None:
        """Solve all folds for these values of C."""
        pairs = [(e, fold) for e in exponents for fold in range(len(self.folds))]
        size = self.task.classes * (self.task.vectors.shape[1] + 1) * 4 * _COPIES
        most = max(1, _GROUP_BYTES // size)
        thetas: list[NDArray[Any]] = []
        for at in range(0, len(pairs), most):
            thetas += self._solve(pairs[at : at + most])
        folds = len(self.folds)
        losses = self._losses(thetas, pairs)
        for k, e in enumerate(exponents):
            self.tried[e] = _Tried(thetas[k * folds : (k + 1) * folds], losses[k])
            told(Trial(self.scaled.scaling, 10.0**e, losses[k]))
        self._forget()

    def held_out(self, exponent: float) -> tuple[Rows, NDArray[np.float64]]:
        """Row numbers (M,), ascending, and logits (M, K) of the rows that were held out."""
        rows = np.concatenate([held for _, held in self.folds])
        found = np.empty((rows.size, self.task.classes))
        at = 0
        for theta, (_, held) in zip(self.tried[exponent].thetas, self.folds, strict=True):
            for start, stop in chunks(0, held.size):
                block = self.task.vectors.take(held[start:stop])
                found[at : at + len(block)] = logits(theta[np.newaxis], block)[0].T
                at += len(block)
        order = np.argsort(rows, kind="stable")
        return rows[order], found[order]

    def keep_only(self, exponent: float) -> None:
        """Forget the weights of all other values of C."""
        for other, tried in self.tried.items():
            if other != exponent:
                tried.thetas = []

    def start(self, exponent: float) -> NDArray[Any]:
        """Mean of the folds' solutions: near that of all rows; zeros where there are no folds."""
        if exponent not in self.tried:
            return self._near(exponent, 0)
        mean: NDArray[Any] = np.mean(self.tried[exponent].thetas, axis=0)
        return mean

    def _solve(self, pairs: Sequence[tuple[float, int]]) -> list[NDArray[Any]]:
        task = self.task
        used = sorted({fold for _, fold in pairs})
        counts = np.zeros((len(used), task.counts.size), np.float32)
        for at, fold in enumerate(used):
            rows = self.folds[fold][0]
            counts[at, rows] = task.counts[rows]
        problems = Problems(
            vectors=task.vectors,
            labels=task.labels,
            classes=task.classes,
            c=np.array([10.0**e for e, _ in pairs]),
            counts=counts,
            group=np.array([used.index(fold) for _, fold in pairs], np.intp),
        )
        starts = [self._near(e, fold) for e, fold in pairs]
        tolerance = self.tolerance
        solutions = minimise(
            problems,
            starts,
            self.spectrum,
            self.pool,
            lambda way: way.expected <= tolerance,
            _MOST_EVALUATIONS,
        )
        return [solution.theta for solution in solutions]

    def _near(self, exponent: float, fold: int) -> NDArray[Any]:
        """Where to start from: what the next smaller C, or the nearest, came to."""
        known = [e for e, tried in self.tried.items() if tried.thetas]
        if not known and self.begin is not None:
            return self.begin
        if not known:
            return np.zeros((self.task.classes, self.task.vectors.shape[1] + 1), np.float32)
        nearest = min(known, key=lambda e: abs(e - exponent))
        return self.tried[nearest].thetas[fold]

    def _losses(
        self, thetas: Sequence[NDArray[Any]], pairs: Sequence[tuple[float, int]]
    ) -> list[float]:
        """Held-out log loss of each value of C."""
        totals = {e: 0.0 for e, _ in pairs}
        counted = 0.0
        for fold, (_, held) in enumerate(self.folds):
            mine = [k for k, (_, f) in enumerate(pairs) if f == fold]
            stacked = np.stack([thetas[k] for k in mine])
            counted += float(self.task.counts[held].sum(dtype=np.float64))
            for start, stop in chunks(0, held.size):
                rows = held[start:stop]
                losses = log_losses(
                    logits(stacked, self.task.vectors.take(rows)), self.task.labels[rows]
                )
                sums = losses @ self.task.counts[rows].astype(np.float64)
                for k, total in zip(mine, sums.tolist(), strict=True):
                    totals[pairs[k][0]] += total
        return [totals[e] / counted for e in totals]

    def _forget(self) -> None:
        """Keep the weights of the best C, of those beside it, and of the last alone."""
        best, last = self.best(), next(reversed(self.tried))
        for exponent, tried in self.tried.items():
            if abs(exponent - best) > 2 * STEP + 1e-9 and exponent != last:
                tried.thetas = []


def log_losses(scores: NDArray[Any], labels: Any) -> NDArray[np.float64]:
    """Log loss of each row, (A, B), in nats, of logits (A, K, B); of labels summed over classes."""
    scores = scores.astype(np.float64)
    if labels.ndim == 2:
        losses: NDArray[np.float64] = (np.logaddexp(0, scores) - scores * labels.T).sum(axis=1)
        return losses
    scores -= scores.max(axis=1, keepdims=True)
    true = scores[:, labels, np.arange(labels.size)]
    found: NDArray[np.float64] = np.log(np.exp(scores).sum(axis=1)) - true
    return found
