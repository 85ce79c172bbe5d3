"""Chooses how many images vote, and how, on rows that do not vote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tlpipe.stages.head.pool import Pool
from tlpipe.stages.head.rows import chunks
from tlpipe.stages.head.voting import Setting, block_rows, nearest_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import Float32Array

    Rows = NDArray[np.intp]

MOST_HELD = 4096
"""Held-out rows that are scored, drawn at random where there are more: each is compared with all
images."""

NEIGHBOURS = (1, 2, 5, 10, 20, 50, 100, 200)
TEMPERATURES = (0.01, 0.02, 0.04, 0.07, 0.15)
_LEAST_HELD = 30


@dataclass(frozen=True)
class NearestTrial:
    """One setting that was tried, and its log loss on held-out rows, in nats."""

    k: int
    temperature: float
    doubt: float
    log_loss: float


@dataclass(frozen=True)
class Scored:
    """The nearest images of rows held out: rows (M,), cosines and places (M, k), nearest first."""

    rows: Rows
    cosines: Float32Array
    places: Rows


def score(
    images: Float32Array, folds: Sequence[tuple[Rows, Rows]], seed: int, pool: Pool
) -> Scored:
    """Find the nearest images, among those of its fold, of each row that is held out."""
    rng = np.random.default_rng(seed)
    total = sum(held.size for _, held in folds)
    share = min(1.0, MOST_HELD / total)
    most = min(NEIGHBOURS[-1], *(rows.size for rows, _ in folds))
    found: list[tuple[Rows, Float32Array, Rows]] = []
    for rows, held in folds:
        some = np.sort(rng.permutation(held)[: max(1, int(held.size * share))])
        absent = np.ones(len(images), np.bool_)
        absent[rows] = False

        def block(
            part: tuple[int, int], some: Rows = some, absent: NDArray[np.bool_] = absent
        ) -> tuple[Rows, Float32Array, Rows]:
            taken = some[slice(*part)]
            cosines = images[taken] @ images.T
            cosines[:, absent] = -np.inf
            return taken, *nearest_of(cosines, most)

        found += pool.map(block, chunks(0, some.size, block_rows(len(images))))
    return Scored(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def choose_setting(
    scored: Scored,
    labels: NDArray[np.int64],
    classes: int,
    prior: Setting,
    progress: Callable[[int], None] | None,
) -> tuple[Setting, list[NearestTrial]]:
    """Try all settings; each k and temperature with the doubt that suits them best."""
    most = scored.cosines.shape[1]
    if scored.rows.size < _LEAST_HELD:
        return replace(prior, k=min(prior.k, most)), []
    trials: list[NearestTrial] = []
    right = labels[scored.places] == labels[scored.rows][:, np.newaxis]
    for k in [k for k in NEIGHBOURS if k <= most]:
        for temperature in TEMPERATURES[: 1 if k == 1 else None]:  # one vote weighs 1 at any
            votes = _votes_of_true(scored.cosines[:, :k], right[:, :k], temperature)
            doubt, loss = _best_doubt(votes, classes)
            trials.append(NearestTrial(k, temperature, doubt, loss))
            if progress is not None:
                progress(len(trials))
    best = min(trials, key=lambda trial: trial.log_loss)
    return Setting(best.k, best.temperature, best.doubt), trials


def _votes_of_true(
    cosines: Float32Array, right: NDArray[np.bool_], temperature: float
) -> NDArray[np.float64]:
    """Share (M,) of the votes that the true class has."""
    weights = np.exp((cosines - cosines[:, :1]).astype(np.float64) / temperature)
    found: NDArray[np.float64] = (weights * right).sum(axis=1) / weights.sum(axis=1)
    return found


def _best_doubt(votes: NDArray[np.float64], classes: int) -> tuple[float, float]:
    """The doubt with the least log loss, and that.

    As if one row more had been scored, without any vote: it keeps the doubt above 0. The sum is
    concave in the doubt, whose best value is found by expectation-maximisation: it is the mean
    probability that a row's class came from the doubt.
    """
    doubt = 0.1
    for _ in range(200):
        of_doubt = doubt / classes
        share = of_doubt / ((1 - doubt) * votes + of_doubt)
        found = float((share.sum() + 1) / (votes.size + 1))
        found = min(max(found, 1e-4), 0.999)
        if abs(found - doubt) < 1e-6:
            break
        doubt = found
    doubt = float(np.float32(found))
    losses = -np.log((1 - doubt) * votes + doubt / classes)
    return doubt, float(losses.mean())
