"""Novelty: a model of where the embeddings of the classes lie, to tell "none of these".

Takes embeddings and labels, gives a ``last_layer.Novelty``. Imports ``last_layer``, ``machine``,
NumPy and threadpoolctl.

The distance is Mahalanobis' with one covariance for all classes (Lee, Lee, Lee & Shin, "A Simple
Unified Framework for Detecting Out-of-Distribution Samples", 2018), whose covariance has few
directions and the same variance in all others, as in probabilistic principal components (Tipping &
Bishop, "Probabilistic Principal Component Analysis", 1999, section 3.2). What strange images have
more of than others is what lies in those other directions; ``docs/explanation/unknown.md`` has the
figures.

The model needs the count and the sum of each class, and the sum of all outer products: what one
pass over the embeddings gives, in blocks, and what is subtracted for a fold.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from tlpipe.last_layer import TINY, Novelty, UnknownFacts
from tlpipe.machine import usable_cores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.intp]
    Floats = NDArray[np.float64]

FALSE_ALARMS = 0.05
"""Share of images of the classes that may be called "none of these"."""

RANK = 64
"""Directions with a variance of their own. On real embeddings of 1,280 numbers 16 to 256 differ by
less than 0.002 of AUROC; the model holds D x RANK numbers."""

METHOD = "Mahalanobis distance of unit embeddings, shared covariance of few directions and noise"

_LEAST_NOISE = 1e-4  # standard deviation; rounding to float32 is 1e-7 of the length, 1
_LEAST_THRESHOLD = 0.01  # rounding makes a score of 0 less than this
_BLOCK = 256  # rows
_NUMBERS = 1 << 24  # of a covariance, in all threads: 128 MB, and about three times that at work
_MANY = 4096  # rows that are worth a thread
_EXTRA, _TURNS, _PRODUCTS = 16, 2, 3  # of subspace iteration


@dataclass(frozen=True)
class Moments:
    """What the model needs to know of some unit embeddings.

    Attributes
    ----------
    counts : float64 array (K,)
    sums : float64 array (K, D)
    products : float64 array (D, D)
        Sum of outer products.
    """

    counts: Floats
    sums: Floats
    products: Floats

    def __add__(self, part: Moments) -> Moments:
        return Moments(
            self.counts + part.counts, self.sums + part.sums, self.products + part.products
        )

    def __sub__(self, part: Moments) -> Moments:
        return Moments(
            self.counts - part.counts, self.sums - part.sums, self.products - part.products
        )


def fit(
    vectors: Any,
    labels: NDArray[np.int32],
    rows: Rows,
    folds: Sequence[tuple[Rows, Rows]],
    false_alarms: float = FALSE_ALARMS,
) -> tuple[Novelty, UnknownFacts] | str:
    """Model of the rows given, with a threshold set on rows held out in cross-validation.

    The threshold is the ceil((n + 1) * (1 - false_alarms))-th smallest of n held-out scores: a new
    image of the classes exceeds it with a probability of at most `false_alarms` (Vovk, Gammerman &
    Shafer, "Algorithmic Learning in a Random World", 2005, section 2.2; exact for a model that
    does not change with the fold).

    Parameters
    ----------
    vectors : float32 array (N, D)
        Or whatever gives rows as one does, and has a length and a shape.
    labels : int32 array (N,)
        0 to K - 1 in the rows used.
    rows : array of int
        Rows that make the model, ascending; every class is among them.
    folds : sequence of pairs of arrays of int
        Rows that make a model, and rows that it has not seen.
    false_alarms : float
        More than 0, less than 1.

    Returns
    -------
    tuple of Novelty and UnknownFacts, or str
        Or why there is none, in words: too few rows are held out for the rate.
    """
    held = sum(fold.size for _, fold in folds)
    rank = math.ceil((held + 1) * (1 - false_alarms) - 1e-9)
    if rank > held:
        return (
            f"Too few images were held out ({held}) to tell what belongs to no class with"
            f" {false_alarms:.0%} false alarms: the classifier cannot answer --unknown."
        )
    # Decompositions of small matrices are no faster with BLAS on several threads, and twenty times
    # slower where other processes use the cores: a thread for each fold uses them better.
    with threadpool_limits(limits=1, user_api="blas"):
        whole = _parallel_moments(vectors, labels, rows, int(labels[rows].max()) + 1)
        known = np.zeros(len(vectors), np.bool_)
        known[rows] = True

        def held_scores(fold: tuple[Rows, Rows]) -> Floats:
            seen = _subtracted(whole, known, vectors, labels, fold)
            made, held = model(seen), fold[1]
            blocks = range(0, max(held.size, 1), _BLOCK)
            return np.concatenate([scores(made, vectors[held[at : at + _BLOCK]]) for at in blocks])

        workers = min(usable_cores(), len(folds), max(1, _NUMBERS // vectors.shape[1] ** 2))
        with ThreadPoolExecutor(workers, thread_name_prefix="novelty") as pool:
            found = np.sort(np.concatenate(list(pool.map(held_scores, folds))))
        threshold = max(float(found[rank - 1]), _LEAST_THRESHOLD)
        return model(whole, threshold), UnknownFacts(METHOD, false_alarms, threshold, held)


def _parallel_moments(vectors: Any, labels: NDArray[np.int32], rows: Rows, classes: int) -> Moments:
    """Moments of many rows, a part on each core; added in order: they are always the same."""
    workers = max(1, min(usable_cores(), _NUMBERS // vectors.shape[1] ** 2, rows.size // _MANY))
    parts = np.array_split(rows, workers)
    with ThreadPoolExecutor(workers, thread_name_prefix="novelty") as pool:
        found = pool.map(lambda part: moments(vectors, labels, part, classes), parts)
        return functools.reduce(Moments.__add__, found)


def _subtracted(
    whole: Moments,
    known: NDArray[np.bool_],
    vectors: Any,
    labels: NDArray[np.int32],
    fold: tuple[Rows, Rows],
) -> Moments:
    """Moments of the rows that train in a fold: of all without the others, where that is it."""
    train, test = fold
    classes = len(whole.counts)
    rest = known.copy()
    rest[test] = False
    if known[test].all() and np.array_equal(np.flatnonzero(rest), np.sort(train)):
        return whole - moments(vectors, labels, test, classes)
    return moments(vectors, labels, train, classes)


def unit_length(vectors: NDArray[np.floating]) -> Floats:
    """Each row divided by its length, float64; zeros stay zeros."""
    exact = vectors.astype(np.float64)
    length: Floats = np.sqrt(np.einsum("nd,nd->n", exact, exact))
    exact /= (length + TINY)[:, np.newaxis]
    return exact


def moments(vectors: Any, labels: NDArray[np.int32], rows: Rows, classes: int) -> Moments:
    """Moments of some rows, brought to unit length, block by block."""
    dim = vectors.shape[1]
    counts = np.bincount(labels[rows], minlength=classes).astype(np.float64)
    sums, products = np.zeros((classes, dim)), np.zeros((dim, dim))
    for start in range(0, rows.size, _BLOCK):
        block = rows[start : start + _BLOCK]
        unit = unit_length(vectors[block])
        order = np.argsort(labels[block], kind="stable")
        present, first = np.unique(labels[block][order], return_index=True)
        sums[present] += np.add.reduceat(unit[order], first, axis=0)
        single = unit.astype(np.float32)
        products += single.T @ single
    return Moments(counts, sums, products)


def model(seen: Moments, threshold: float = math.inf) -> Novelty:
    """Model of embeddings with these moments.

    A class without any has the mean of all as its centre.
    """
    count, dim = seen.counts.sum(), seen.products.shape[0]
    mean = seen.sums.sum(axis=0) / count
    centres = np.where(
        seen.counts[:, np.newaxis] > 0,
        seen.sums / np.maximum(seen.counts, 1)[:, np.newaxis],
        mean,
    )
    total = seen.products / count - np.outer(mean, mean)
    variance = max(float(np.trace(total)), 0.0)
    basis = _main_directions(total, max(1, min(RANK, dim - 1, int(count) - 1)))
    offsets = (centres - mean) @ basis
    inside = basis.T @ total @ basis
    rest = (variance - float(np.trace(inside))) / max(dim - basis.shape[1], 1)
    noise = max(math.sqrt(max(rest, 0.0)), _LEAST_NOISE)
    within = inside - (offsets.T * (seen.counts / count)) @ offsets
    values, turn = np.linalg.eigh((within + within.T) / 2)
    whiten = turn / np.sqrt(np.maximum(values, noise**2))
    return Novelty(
        mean=mean.astype(np.float32),
        basis=basis.astype(np.float32),
        whiten=whiten.astype(np.float32),
        centres=(offsets @ whiten).astype(np.float32),
        noise=noise,
        threshold=threshold,
    )


def _main_directions(covariance: Floats, rank: int) -> Floats:
    """Orthonormal directions (D, rank) of about the most variance, by subspace iteration.

    Source: Halko, Martinsson & Tropp, "Finding Structure with Randomness", 2011, algorithm 4.4.
    The same covariance gives the same directions; that they are not quite the very best ones does
    not matter: the variance of the others is computed from what they are.
    """
    dim = covariance.shape[0]
    directions = np.random.default_rng(0).normal(size=(dim, min(dim, rank + _EXTRA)))
    for _ in range(_TURNS):
        for _ in range(_PRODUCTS):  # three at once lose few digits and save decompositions
            directions = covariance @ directions
        directions = np.linalg.qr(directions)[0]
    _, turn = np.linalg.eigh(directions.T @ (covariance @ directions))
    main: Floats = directions @ turn[:, ::-1][:, :rank]
    return main


def scores(novelty: Novelty, vectors: NDArray[np.floating]) -> Floats:
    """Scores (N,) of embeddings (N, D), in float64; 1 is about what an image of the classes has."""
    basis, whiten, centres = (
        array.astype(np.float64) for array in (novelty.basis, novelty.whiten, novelty.centres)
    )
    found = np.empty(len(vectors))
    for start in range(0, len(vectors), _BLOCK):
        offset = unit_length(vectors[start : start + _BLOCK]) - novelty.mean
        inside = offset @ basis
        offset -= inside @ basis.T
        rest = np.einsum("nd,nd->n", offset, offset) / novelty.noise**2
        place = inside @ whiten
        # |p - c|^2 = |p|^2 - 2 (p c - |c|^2 / 2) chooses the class; the distance itself is not
        # computed that way, in which digits are lost.
        nearest = (place @ centres.T - (centres**2).sum(axis=1) / 2).argmax(axis=1)
        gap = place - centres[nearest]
        found[start : start + _BLOCK] = rest + np.einsum("nr,nr->n", gap, gap)
    score: Floats = np.sqrt(found / vectors.shape[1])
    return score
