"""Confusion: accuracy, precision, recall and F1 from who was taken for whom.

Only the pairs of classes that occur are kept: of thousands of classes the full matrix would be
mostly noughts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.stages.metrics.intervals import LEVEL, of_mean_share, of_share, resampled, wilson
from tlpipe.stages.metrics.records import ClassMetrics, Interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MOST_DENSE = 100
"""Classes of which the whole confusion matrix is written."""

MOST_CONFUSED = 1000
"""Mistakes that are written instead where there are more classes."""

_MOST_DRAWN = 2_000_000  # numbers, for the interval of macro-F1
_FEWEST_RESAMPLES = 400


@dataclass(frozen=True)
class Confusion:
    """Pairs of classes that occur; U of them, for N images of K classes.

    Attributes
    ----------
    true, predicted : int array (U,)
        Sorted by true class, then predicted class.
    images : int array (U,)
        How many; never 0.
    """

    classes: int
    true: NDArray[np.int64]
    predicted: NDArray[np.int64]
    images: NDArray[np.int64]

    @classmethod
    def of(cls, labels: NDArray[Any], predicted: NDArray[Any], classes: int) -> Confusion:
        """From labels (N,) and predictions (N,), both 0 to `classes` - 1."""
        codes, images = np.unique(
            labels.astype(np.int64) * classes + predicted.astype(np.int64), return_counts=True
        )
        return cls(classes, codes // classes, codes % classes, images)

    @property
    def count(self) -> int:
        """Images in all, N."""
        return int(self.images.sum())

    @property
    def hits(self) -> NDArray[np.float64]:
        """Images of each class that were recognised, (K,)."""
        return self._by(self.true, self.images * (self.true == self.predicted))

    @property
    def support(self) -> NDArray[np.float64]:
        """Images of each class, (K,)."""
        return self._by(self.true, self.images)

    @property
    def guesses(self) -> NDArray[np.float64]:
        """Images that were taken for each class, (K,)."""
        return self._by(self.predicted, self.images)

    def accuracy(self) -> tuple[float, Interval]:
        """Share of the images that were recognised."""
        hits = float(self.hits.sum())
        return hits / self.count, of_share(hits, self.count)

    def balanced_accuracy(self) -> tuple[float, Interval]:
        """Mean recall over the classes that occur among the labels."""
        hits, support = self.hits, self.support
        occurs = support > 0
        value = float((hits[occurs] / support[occurs]).mean())
        return value, of_mean_share(hits[occurs], support[occurs])

    def macro_f1(self, rng: np.random.Generator) -> tuple[float, Interval]:
        """Mean F1 over the classes that occur among the labels.

        The interval is by bootstrap: tables of N images are drawn from the observed one. Two
        images are added to each class beforehand, as many of them right as there are on the whole,
        but half a mistake at least (the following class is answered): a class of which all of a
        few images were right is not certain to be right for ever, and without it nothing would
        vary. The tables' mean is then moved to the observed value: both this and drawing
        from a small table lower it.
        """
        occurs = np.flatnonzero(self.support)
        value = float(self._f1()[occurs].mean())
        padded = self._padded(occurs)
        share = padded.images / padded.images.sum()
        width = share.size
        times = max(_FEWEST_RESAMPLES, min(1000, _MOST_DRAWN // width))
        by_guess = np.argsort(padded.predicted, kind="stable")
        answered = np.unique(padded.predicted)
        true_starts = np.searchsorted(padded.true, occurs)
        guess_starts = np.searchsorted(padded.predicted[by_guess], answered)
        right = np.flatnonzero(padded.true == padded.predicted)
        right_at = np.searchsorted(occurs, padded.true[right])
        guess_at = np.searchsorted(occurs, answered)
        kept = (guess_at < occurs.size) & (
            occurs[np.minimum(guess_at, occurs.size - 1)] == answered
        )

        def draw(some: int) -> NDArray[np.float64]:
            tables = rng.multinomial(self.count, share, size=some)
            support = np.add.reduceat(tables, true_starts, axis=1)
            guesses = np.zeros((some, occurs.size))
            guesses[:, guess_at[kept]] = np.add.reduceat(tables[:, by_guess], guess_starts, axis=1)[
                :, kept
            ]
            hits = np.zeros((some, occurs.size))
            hits[:, right_at] = tables[:, right]
            seen = support > 0
            f1 = 2 * hits / np.maximum(support + guesses, 1)
            return np.asarray((f1 * seen).sum(axis=1) / seen.sum(axis=1))

        drawn = resampled(draw, width, times)
        drawn -= drawn.mean()
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return value, (
            float(np.clip(value + low, 0, value)),
            float(np.clip(value + high, value, 1)),
        )

    def rows(self, names: Sequence[str]) -> list[ClassMetrics]:
        """The table by class."""
        hits, support, guesses = self.hits, self.support, self.guesses
        low, high = wilson(hits, support)
        columns = zip(
            names,
            (hits / np.maximum(guesses, 1)).tolist(),
            (hits / np.maximum(support, 1)).tolist(),
            self._f1().tolist(),
            support.astype(np.int64).tolist(),
            low.tolist(),
            high.tolist(),
            strict=True,
        )
        return [ClassMetrics(*column) for column in columns]

    def dense(self) -> list[list[int]] | None:
        """The matrix, true class by predicted class; None where that would be too large."""
        if self.classes > MOST_DENSE:
            return None
        matrix = np.zeros((self.classes, self.classes), np.int64)
        matrix[self.true, self.predicted] = self.images
        found: list[list[int]] = matrix.tolist()
        return found

    def mistakes(self) -> list[tuple[int, int, int]] | None:
        """The most frequent mistakes: true class, predicted class, images; None beside `dense`."""
        if self.classes <= MOST_DENSE:
            return None
        wrong = np.flatnonzero(self.true != self.predicted)
        order = wrong[np.argsort(-self.images[wrong], kind="stable")][:MOST_CONFUSED]
        columns = (self.true, self.predicted, self.images)
        return list(zip(*(column[order].tolist() for column in columns), strict=True))

    def _f1(self) -> NDArray[np.float64]:
        return np.asarray(2 * self.hits / np.maximum(self.support + self.guesses, 1e-300))

    def _padded(self, occurs: NDArray[np.intp]) -> Confusion:
        """With two images of the average kind more in each class that occurs."""
        share = float(self.hits.sum()) / self.count
        missed = max(2 * (1 - share), 0.5)
        true = np.concatenate([self.true, occurs, occurs])
        predicted = np.concatenate([self.predicted, occurs, (occurs + 1) % self.classes])
        padding = np.repeat([2 - missed, missed], occurs.size)
        images = np.concatenate([self.images.astype(np.float64), padding])
        codes, where = np.unique(true * self.classes + predicted, return_inverse=True)
        merged = np.bincount(where, images)
        return Confusion(self.classes, codes // self.classes, codes % self.classes, merged)

    def _by(self, which: NDArray[np.int64], images: NDArray[Any]) -> NDArray[np.float64]:
        return np.bincount(which, images, self.classes).astype(np.float64)
