"""Fitting: how a ``LinearProbe`` has its head trained, by the stage ``head`` alone.

Takes embeddings, labels and folds; gives weights with scaling and temperature in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tlpipe.stages.head import SCALINGS, Head, HeadOptions, Scaling, train

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import Float32Array

    Float64Array = NDArray[np.float64]
    Folds = Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]


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


def fit_head(
    vectors: Float32Array, labels: NDArray[np.int32], folds: Folds, wanted: Wanted
) -> Head:
    """Train a head.

    Parameters
    ----------
    vectors : float32 array (N, D)
    labels : int32 array (N,)
        0 to K - 1.
    folds : sequence of pairs of int arrays
        Rows to train on, with all classes among them, and rows to score on; may be empty.
    wanted : Wanted

    Raises
    ------
    ConvergenceError
        The optimum could not be found.
    """
    weights = wanted.class_weights
    options = HeadOptions(
        scalings=SCALINGS if wanted.scaling is None else (wanted.scaling,),
        c=() if wanted.c is None else (wanted.c,),
        class_weight="none" if weights is None else tuple(weights.tolist()),
    )
    return train(vectors, labels, np.arange(labels.size), folds, options)


def log_softmax(logits: Float64Array) -> Float64Array:
    """Logarithms of the probabilities (N, K)."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
