"""Fitting: how a ``LinearProbe`` has its head trained.

The one place that knows what the stage ``head`` offers. What the stage chooses by itself is left to
it; a C, a scaling or class weights that the user gives go through scikit-learn's
LogisticRegression, with the same objective, scalings and folds. Takes embeddings, labels and folds,
gives weights for raw embeddings, with the temperature in them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from tlpipe.stages.head import train

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import Float32Array

    Float64Array = NDArray[np.float64]
    Folds = Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]

Scaling = Literal["raw", "standardised"]
SCALINGS: tuple[Scaling, ...] = get_args(Scaling)

WITHOUT_FOLDS: tuple[Scaling, float] = ("raw", 0.1)
"""Scaling and C where nothing can be held out to choose them: the middle of the stage's search."""

NEGLIGIBLE = 1e-3
"""Nats of log loss: a smaller gain does not justify a greater C. The stage's measure."""

_MAX_ITERATIONS = 2000
_TOLERANCE = 1e-6
_HARDLY = 1e-6  # of the greatest deviation: a dimension that varies less keeps its scale
_WIDEST = 3.0  # of the natural logarithm of a temperature: from 1/20 to 20
_STEPS = 60  # of the golden section: 0.62 ^ 60 of the width


@dataclass(frozen=True)
class Wanted:
    """What the user decides of a head; None is left open.

    Attributes
    ----------
    c : float or None
    scaling : str or None
    class_weights : float64 array (K,) or None
    """

    c: float | None = None
    scaling: Scaling | None = None
    class_weights: Float64Array | None = None

    @property
    def nothing(self) -> bool:
        """Whether all is left open."""
        return self.c is None and self.scaling is None and self.class_weights is None


@dataclass(frozen=True)
class Fitted:
    """A trained head: ``softmax(x @ weights + bias)``.

    Attributes
    ----------
    weights : float64 array (D, K)
    bias : float64 array (K,)
    normalise : bool
        Whether x is the embedding brought to unit length, or as it is.
    scaling : str
    c : float
        The settings that were chosen or given.
    temperature : float
        What weights and bias have been divided by, so that the probabilities are calibrated.
    """

    weights: Float64Array
    bias: Float64Array
    normalise: bool
    scaling: str
    c: float
    temperature: float


def fit_head(
    vectors: Float32Array, labels: NDArray[np.int32], folds: Folds, wanted: Wanted
) -> Fitted:
    """Train a head.

    Parameters
    ----------
    vectors : float32 array (N, D)
    labels : int32 array (N,)
        0 to K - 1.
    folds : sequence of pairs of int arrays
        Rows to train on, with all classes among them, and rows to score on; may be empty.
    wanted : Wanted
    """
    if folds and wanted.nothing:
        return _by_stage(vectors, labels, folds)
    return _as_wanted(vectors, labels, folds, wanted)


def _by_stage(vectors: Float32Array, labels: NDArray[np.int32], folds: Folds) -> Fitted:
    """All is chosen by the stage, as ``tlpipe train-head`` does."""
    head = train(vectors, labels, np.arange(labels.size), folds)
    if not head.converged:
        warnings.warn("The head's solver did not converge.", ConvergenceWarning, stacklevel=4)
    heat = temperature(head.held_out.logits, labels[head.held_out.rows])
    normalise = bool(getattr(head, "normalise", False))  # by stages that know unit length
    weights, bias = head.weights / heat, head.bias / heat
    return Fitted(weights, bias, normalise, head.scaling, head.c, heat)


def _as_wanted(
    vectors: Float32Array, labels: NDArray[np.int32], folds: Folds, wanted: Wanted
) -> Fitted:
    count = int(labels.max()) + 1
    weights = np.ones(count) if wanted.class_weights is None else wanted.class_weights
    settings = _settings(vectors, labels, folds, wanted)
    logits: list[Float64Array] = []
    truth = labels[np.concatenate([held for _, held in folds])] if folds else labels[:0]
    for scaling, c in settings:
        found = [
            _scores(vectors[held], _solved(vectors[rows], labels[rows], scaling, c, weights))
            for rows, held in folds
        ]
        logits.append(np.concatenate(found) if found else np.empty((0, count)))
    best = int(np.argmin([_loss(found, truth, weights) for found in logits]))
    scaling, c = settings[best]
    final, bias = _solved(vectors, labels, scaling, c, weights)
    heat = temperature(logits[best], truth)
    return Fitted(final / heat, bias / heat, False, scaling, c, heat)


def _settings(
    vectors: Float32Array, labels: NDArray[np.int32], folds: Folds, wanted: Wanted
) -> list[tuple[Scaling, float]]:
    """Settings to choose from: one for each scaling that may be."""
    if not folds:
        scaling, c = WITHOUT_FOLDS
        return [(wanted.scaling or scaling, c if wanted.c is None else wanted.c)]
    scalings = SCALINGS if wanted.scaling is None else (wanted.scaling,)
    if wanted.c is not None:
        return [(scaling, wanted.c) for scaling in scalings]
    tried = train(vectors, labels, np.arange(labels.size), folds).trials
    losses = {
        s: {trial.c: trial.log_loss for trial in tried if trial.scaling == s} for s in scalings
    }
    return [(scaling, _best_c(found)) for scaling, found in losses.items()]


def _best_c(losses: dict[float, float]) -> float:
    """The least C of those that are as good as the best; `losses` are by C."""
    least = min(losses.values())
    return min(c for c, loss in losses.items() if loss <= least + NEGLIGIBLE)


def _solved(
    vectors: Float32Array, labels: Any, scaling: Scaling, c: float, class_weights: Float64Array
) -> tuple[Float64Array, Float64Array]:
    """Weights (D, K) and bias (K,) for raw vectors."""
    x = vectors.astype(np.float64)
    mean, scale = np.zeros(x.shape[1]), np.ones(x.shape[1])
    if scaling == "standardised":
        mean, scale = x.mean(axis=0), x.std(axis=0)
        scale[scale < _HARDLY * max(float(scale.max()), 1e-30)] = 1.0
    model = LogisticRegression(C=c, tol=_TOLERANCE, max_iter=_MAX_ITERATIONS)
    with threadpool_limits(1, "blas"):  # NumPy's and SciPy's pools of threads fight else
        model.fit((x - mean) / scale, labels, sample_weight=class_weights[labels])
    coefficients, bias = model.coef_, model.intercept_
    if len(coefficients) == 1:  # half of it on either side of zero: the same probabilities
        coefficients = np.vstack([-coefficients, coefficients]) / 2
        bias = np.concatenate([-bias, bias]) / 2
    weights = coefficients.T / scale[:, np.newaxis]
    return weights, bias - mean @ weights


def _scores(vectors: Float32Array, layer: tuple[Float64Array, Float64Array]) -> Float64Array:
    weights, bias = layer
    return np.asarray(vectors @ weights + bias)


def log_softmax(logits: Float64Array) -> Float64Array:
    """Logarithms of the probabilities (N, K)."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _loss(logits: Float64Array, labels: Any, class_weights: Float64Array) -> float:
    """Mean log loss, weighted by class."""
    if not labels.size:
        return 0.0
    chosen = log_softmax(logits)[np.arange(labels.size), labels]
    weights = class_weights[labels]
    return float(-(weights @ chosen) / max(weights.sum(), np.finfo(float).tiny))


def temperature(logits: Float64Array, labels: NDArray[np.int32]) -> float:
    """What logits are to be divided by so that the log loss is the least; 1 without any.

    Sources: Guo et al., "On calibration of modern neural networks" (2017), for the method; Platt,
    "Probabilistic outputs for support vector machines" (1999), section 2.2, for taking the right
    class as (M + 1) / (M + 2) likely and not as certain: a few rows that are all classified
    rightly prove no certainty.

    Parameters
    ----------
    logits : float64 array (M, K)
        Of rows that did not train.
    labels : int32 array (M,)
    """
    count, classes = logits.shape
    if not count:
        return 1.0
    target = np.full((count, classes), 1 / (count + 2) / (classes - 1))
    target[np.arange(count), labels] = (count + 1) / (count + 2)

    def loss(exponent: float) -> float:
        return float(-(target * log_softmax(logits / np.exp(exponent))).sum())

    low, high = -_WIDEST, _WIDEST
    ratio = (np.sqrt(5) - 1) / 2
    for _ in range(_STEPS):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if loss(left) <= loss(right) else (left, high)
    return float(np.exp((low + high) / 2))
