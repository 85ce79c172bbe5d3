"""Head: trains the new last layer on cached embeddings.

The only module that uses scikit-learn's estimators. Takes embeddings and labels, gives weights and
a bias that work on raw embeddings: the standardisation, where it was chosen, is folded into them.
Imports ``types``, NumPy, scikit-learn and threadpoolctl.

The head is multinomial logistic regression with an L2 penalty (a linear probe). Its objective is
scikit-learn's: ``0.5 * ||W||^2 + C * sum(cross-entropy)``, the bias not penalised. C and the
scaling (raw or standardised: neither always wins) are those with the least log loss on held-out
rows; of values of C that are as good as equal, the smallest. C is searched on a grid of half
decades, from a middle value downhill in log loss until the least is bracketed, so that no best
value lies on an edge unseen.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import ThreadpoolController

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import Float32Array

Scaling = Literal["raw", "standardised"]

STEP = 0.5  # of log10 C
NEGLIGIBLE = 1e-3  # nats of log loss: a smaller gain does not justify a greater C
_START: dict[Scaling, float] = {"raw": -1.0, "standardised": -2.0}  # of log10 C
_LIMITS = (-6.0, 5.0)
_MAX_ITERATIONS = 2000


@dataclass(frozen=True)
class Trial:
    """One setting that was tried, and its log loss on held-out rows."""

    scaling: Scaling
    c: float
    log_loss: float


@dataclass(frozen=True)
class HeldOut:
    """What the chosen setting says of rows that did not train it, in cross-validation.

    Attributes
    ----------
    rows : array (M,) of int
        Row numbers; each row that was held out once.
    logits : float64 array (M, K)
    """

    rows: NDArray[np.intp]
    logits: NDArray[np.float64]


@dataclass(frozen=True)
class Head:
    """A trained last layer: ``softmax(vectors @ weights + bias)``.

    Attributes
    ----------
    weights : float64 array (D, K)
    bias : float64 array (K,)
    scaling, c
        The settings that were chosen.
    trials : list of Trial
        All that were tried.
    converged : bool
        Whether the solver reached its tolerance.
    probabilities : callable
        scikit-learn's own probabilities (N, K) for raw embeddings (N, D): what an exported head is
        compared with.
    held_out : HeldOut
        Of the chosen setting: for whatever must be set on rows that did not train.
    """

    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    scaling: Scaling
    c: float
    trials: list[Trial]
    converged: bool
    probabilities: Callable[[Float32Array], NDArray[np.float64]]
    held_out: HeldOut


def train(
    vectors: Float32Array,
    labels: NDArray[np.int32],
    fit: NDArray[np.intp],
    folds: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]],
    progress: Callable[[int], None] | None = None,
) -> Head:
    """Choose scaling and C on held-out rows, then train on all rows given for it.

    Parameters
    ----------
    vectors : float32 array (N, D)
    labels : int32 array (N,)
        0 to K - 1 in the rows used.
    fit : array of int
        Rows that train the final head; every class is among them.
    folds : sequence of pairs of arrays of int
        Rows to train on and rows to score on, while choosing; every class is among the former.
    progress : callable, optional
        Called with the number of settings tried so far.
    """
    with _one_pool():
        trials: list[Trial] = []
        candidates: list[Trial] = []
        held_out: dict[Scaling, HeldOut] = {}
        for scaling in _START:
            search = _Search(vectors, labels, folds, scaling)
            for trial in search.run():
                trials.append(trial)
                if progress is not None:
                    progress(len(trials))
            exponent = search.best()
            candidates.append(Trial(scaling, 10.0**exponent, search.losses[exponent]))
            held_out[scaling] = search.held_out(exponent)
        best = min(candidates, key=lambda trial: trial.log_loss)
        return _final(vectors[fit], labels[fit], best, trials, held_out[best.scaling])


@dataclass
class _Search:
    """Walks along C for one scaling until the least log loss is bracketed."""

    vectors: Float32Array
    labels: NDArray[np.int32]
    folds: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]
    scaling: Scaling
    losses: dict[float, float] = field(default_factory=dict)  # log10 C: log loss
    _logits: dict[float, list[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._scaled = []
        for rows, held in self.folds:
            mean, scale = _scale(self.vectors[rows], self.scaling)
            self._scaled.append(
                ((self.vectors[rows] - mean) / scale, (self.vectors[held] - mean) / scale)
            )

    def best(self) -> float:
        """The least exponent whose log loss is as good as the least.

        On images that a line separates, the log loss falls for ever as C grows, by next to
        nothing, while the probabilities become absurdly sure.
        """
        least = min(self.losses.values())
        return min(e for e, loss in self.losses.items() if loss <= least + NEGLIGIBLE)

    def held_out(self, exponent: float) -> HeldOut:
        rows = np.concatenate([held for _, held in self.folds])
        return HeldOut(rows, np.concatenate(self._logits[exponent]))

    def run(self) -> Iterator[Trial]:
        exponent = _START[self.scaling]
        yield self._try(exponent)
        while True:
            best = self.best()
            beside = (best - STEP, best + STEP)
            todo = [e for e in beside if e not in self.losses and _LIMITS[0] <= e <= _LIMITS[1]]
            if not todo:
                return
            yield self._try(todo[0])

    def _try(self, exponent: float) -> Trial:
        total, count = 0.0, 0
        for (rows, held), (train_x, held_x) in zip(self.folds, self._scaled, strict=True):
            model = _solver(10.0**exponent)
            _quietly(model, train_x, self.labels[rows])
            probabilities = model.predict_proba(held_x)
            logits = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
            self._logits.setdefault(exponent, []).append(logits)
            chosen = probabilities[np.arange(held.size), self.labels[held]]
            total -= float(np.log(np.maximum(chosen, np.finfo(np.float64).tiny)).sum())
            count += held.size
        self.losses[exponent] = total / count
        return Trial(self.scaling, 10.0**exponent, total / count)


def _scale(vectors: Any, scaling: Scaling) -> tuple[Any, Any]:
    """Mean and deviation of each dimension, (D,) each; 0 and 1 for raw.

    A dimension that hardly varies is left at its scale: dividing by almost nothing would make one
    odd image count for everything.
    """
    dim = vectors.shape[1]
    if scaling == "raw":
        return np.zeros(dim, vectors.dtype), np.ones(dim, vectors.dtype)
    mean = vectors.mean(axis=0, dtype=np.float64)
    std = vectors.std(axis=0, dtype=np.float64)
    std[std < 1e-6 * max(float(std.max()), 1e-30)] = 1.0
    return mean.astype(vectors.dtype), std.astype(vectors.dtype)


def _solver(c: float) -> LogisticRegression:
    return LogisticRegression(C=c, solver="lbfgs", max_iter=_MAX_ITERATIONS)


def _quietly(model: LogisticRegression, x: Any, y: Any) -> bool:
    """Fit, and return whether the solver converged."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(x, y)
    return not any(issubclass(w.category, ConvergenceWarning) for w in caught)


def _final(
    vectors: Float32Array, labels: Any, best: Trial, trials: list[Trial], held_out: HeldOut
) -> Head:
    """Train in float64, and fold the scaling into weights and bias."""
    exact = vectors.astype(np.float64)
    mean, scale = _scale(exact, best.scaling)
    exact -= mean
    exact /= scale
    model = _solver(best.c)
    converged = _quietly(model, exact, labels)
    coefficients, intercept = model.coef_, model.intercept_
    if coefficients.shape[0] == 1:
        # Two classes: scikit-learn keeps w and b of sigmoid(w x + b); half of each on either side
        # of zero gives the same probabilities from a softmax over two outputs.
        coefficients = np.vstack([-coefficients, coefficients]) / 2
        intercept = np.concatenate([-intercept, intercept]) / 2
    weights = coefficients.T / scale[:, np.newaxis]
    return Head(
        weights=weights,
        bias=intercept - mean @ weights,
        scaling=best.scaling,
        c=best.c,
        trials=trials,
        converged=converged,
        probabilities=lambda raw: model.predict_proba((raw.astype(np.float64) - mean) / scale),
        held_out=held_out,
    )


@contextlib.contextmanager
def _one_pool() -> Iterator[None]:
    """Give the BLAS threads to NumPy alone.

    The wheels of NumPy and SciPy each bring an OpenBLAS with a pool of threads of its own; during
    a fit both are busy and spin against each other (measured: 3.3 s instead of 0.5 s).
    """
    controller = ThreadpoolController()
    paths = [lib["filepath"] for lib in controller.info() if "scipy.libs" in lib["filepath"]]
    with controller.select(filepath=paths).limit(limits=1):
        yield
