"""Nearest class mean: a quick baseline, as a linear layer.

An embedding x of unit length is nearest to the mean mu that has the greatest
``x . mu - |mu|^2 / 2``. Probabilities are the softmax of this times a scale, which is what a
Gaussian about each mean with the same variance in all directions gives (Hastie, Tibshirani &
Friedman, "The Elements of Statistical Learning", 2nd edition, section 4.3); as the directions are
not alike, the scale is set on rows that did not train the means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tlpipe.last_layer import LastLayer
from tlpipe.stages.head.calibration import find_temperature
from tlpipe.stages.head.fewer import nested, sizes
from tlpipe.stages.head.rows import InMemory, Picked, Vectors, chunks, unit_length
from tlpipe.stages.head.trained import HeldOut, linear_logits, probabilities_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import Float32Array

    Rows = NDArray[np.intp]
    Means = NDArray[np.float64]

_MARGIN = 4.0
"""Nats by which the nearest class leads the mean of all classes, before any row is scored."""


@dataclass(frozen=True)
class CentroidHead:
    """Means of the classes.

    Attributes
    ----------
    means : float64 array (K, D)
        Of embeddings of unit length.
    scale : float
    held_out : HeldOut or None
    fewer : list of (int, CentroidHead)
    """

    means: Means
    scale: float
    held_out: HeldOut | None
    fewer: list[tuple[int, CentroidHead]] = field(default_factory=list)

    multilabel: ClassVar[bool] = False
    temperature: ClassVar[None] = None

    @property
    def trials(self) -> list[Any]:
        """None: the scale is found, not tried."""
        return []

    def logits(self, vectors: Float32Array | Vectors) -> NDArray[np.float64]:
        """Logits (N, K) of embeddings (N, D)."""
        return linear_logits(vectors, *_linear(self.means, self.scale), normalise=True)

    def probabilities(self, vectors: Float32Array | Vectors) -> NDArray[np.float64]:
        """Probabilities (N, K) for embeddings (N, D)."""
        return probabilities_of(self.logits(vectors), multilabel=False)

    def bounds(self, vectors: Float32Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Its probabilities, twice: they depend on the embeddings without a jump."""
        found = self.probabilities(vectors)
        return found, found

    def layer(self) -> LastLayer:
        """The same as it is exported."""
        weights, bias = _linear(self.means, self.scale)
        return LastLayer(weights.astype(np.float32), bias.astype(np.float32), normalise=True)

    def facts(self) -> dict[str, Any]:
        """Method and settings, as a classifier states them."""
        return {
            "method": "nearest class mean of frozen embeddings of unit length",
            "scaling": "unit",
            "scale": self.scale,
            "trials": [],
        }

    def notices(self) -> list[str]:
        """What a user would want to know of it."""
        if self.held_out is not None:
            return []
        notice = (
            "No image was held out to set how sure the head is: its probabilities rank the classes,"
            " and mean little more."
        )
        return [notice]


def train_centroid(
    vectors: Vectors | Float32Array,
    labels: NDArray[np.int32],
    folds: Sequence[tuple[Rows, Rows]],
    seed: int = 0,
) -> CentroidHead:
    """Take the mean of each class; set the scale on rows held out.

    Parameters
    ----------
    vectors : float32 array (N, D), or Vectors
        Read in blocks, three times.
    labels : int32 array (N,)
        0 to K - 1; every class is among them.
    folds : sequence of pairs of int arrays
        Ascending row numbers to take means of, and to score on. With none, the scale is one that
        makes the nearest class lead by a few nats.
    seed : int
        Which rows the heads of fewer have.
    """
    source = InMemory(vectors) if isinstance(vectors, np.ndarray) else vectors
    means, *of_folds = class_means(
        source, labels, [np.arange(labels.size), *(rows for rows, _ in folds)]
    )
    if folds:
        held = np.sort(np.concatenate([rows for _, rows in folds]))
        scores = np.empty((held.size, len(means)))
        for (_, rows), found in zip(folds, of_folds, strict=True):
            rows = np.sort(rows)
            scores[np.searchsorted(held, rows)] = _scores(Picked(source, rows), found)
    else:
        held, scores = np.arange(labels.size), _scores(source, means)
    lead = float((scores.max(axis=1) - scores.mean(axis=1)).mean())
    scale = _MARGIN / max(lead, 1e-6)
    if folds:
        ones = np.ones(held.size, np.float32)
        scale /= find_temperature(scores * scale, labels[held], ones)
    held_out = HeldOut(held, scores * scale) if folds else None
    return CentroidHead(means, scale, held_out, _fewer(source, labels, scale, seed))


def _fewer(
    vectors: Vectors, labels: NDArray[np.int32], scale: float, seed: int
) -> list[tuple[int, CentroidHead]]:
    """Heads of fewer rows, where these are of every class."""
    order, counts = nested(labels, seed), sizes(labels.size, int(labels.max()) + 1)
    means = class_means(vectors, labels, [order[:count] for count in counts])
    return [
        (count, CentroidHead(found, scale, None))
        for count, found in zip(counts, means, strict=True)
        if np.isfinite(found).all()
    ]


def _linear(means: Means, scale: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights (D, K) and bias (K,)."""
    return means.T * scale, (means**2).sum(axis=1) * (-scale / 2)


def _scores(vectors: Vectors, means: Means) -> NDArray[np.float64]:
    """Logits at a scale of 1; a class without a mean is last."""
    known = np.isfinite(means[:, 0])
    scores = np.empty((vectors.shape[0], len(means)))
    scores[:, known] = linear_logits(vectors, *_linear(means[known], 1.0), normalise=True)
    scores[:, ~known] = scores[:, known].min(axis=1, keepdims=True)
    return scores


def class_means(
    vectors: Vectors, labels: NDArray[np.int32], members: Sequence[Rows]
) -> list[Means]:
    """Means of the classes (K, D) among each list of rows, in one pass; not a number without any.

    Rows that are members of the same lists are added up together.
    """
    count, dim = vectors.shape
    if not members:
        return []
    classes = int(labels.max()) + 1
    table = np.zeros((count, len(members)), np.bool_)
    for place, rows in enumerate(members):
        table[rows, place] = True
    kinds, kind = np.unique(table, axis=0, return_inverse=True)
    codes = kind.reshape(-1) * classes + labels
    sums = np.zeros((len(kinds) * classes, dim))
    numbers = np.bincount(codes, minlength=len(sums)).reshape(len(kinds), classes)
    for start, stop in chunks(0, count):
        order = np.argsort(codes[start:stop], kind="stable")
        block = unit_length(vectors.read(start, stop))[order].astype(np.float64)
        present, first = np.unique(codes[start:stop][order], return_index=True)
        sums[present] += np.add.reduceat(block, first, axis=0)
    by_kind = sums.reshape(len(kinds), classes, dim)
    found = []
    for of in kinds.T:
        with np.errstate(invalid="ignore"):
            found.append(by_kind[of].sum(axis=0) / numbers[of].sum(axis=0)[:, np.newaxis])
    return found
