"""A sample of a source, as a source of its own; and what the times of its images tell.

Takes a source, gives items at equal distances from its first to its last, read as they would be
read there. Takes the moments at which images were done, gives a rate with its uncertainty.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tlpipe.stages.source import Source, Survey
from tlpipe.stages.source.survey import Asked
from tlpipe.types import Block, Progress, Split

_STRETCHES = 8
_T = 2.365
"""Student's t of 7 degrees of freedom at 97.5 %, for the mean of eight stretches. Source:
NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2."""

_LEAST = 4 * _STRETCHES  # images, for stretches to mean something
_WARMING = 5  # the first fifth is left out: threads start, the size of batch is sought

Wanted = Callable[[str | None, Split], bool]
"""Whether an item of this label and split is one that the job works on."""


def sampled(source: Source, count: int, most: int, wanted: Wanted) -> Source:
    """Up to `most` of the `count` wanted items of a source, at equal distances.

    The source is listed once, here.
    """
    most = min(most, count)
    at = iter([(2 * i + 1) * count // (2 * most) for i in range(most)])
    chosen = _chosen(source, at, wanted)

    def blocks(survey: Survey, asked: Asked) -> Iterator[Block]:
        survey.layout = f"a sample of {source.name}"
        for label, split in zip(chosen.labels, chosen.splits, strict=True):
            survey.labels[split, label] += 1
        columns = [source.columns.index(name) for name in asked.columns]
        yield Block(
            keys=chosen.keys,
            places=chosen.places,
            labels=chosen.labels,
            splits=chosen.splits,
            stats=chosen.stats if asked.stats else [],
            more=[tuple(row[i] for i in columns) for row in chosen.more] if columns else [],
        )

    return Source(
        source.name,
        blocks,
        reader=source.reader,
        paths=source.paths,
        walked=source.walked,
        columns=source.columns,
    )


def _chosen(source: Source, numbers: Iterator[int], wanted: Wanted) -> Block:
    """The wanted items with these numbers, which rise."""
    chosen, number, at = Block(), 0, next(numbers, None)
    for block in source.scan(stats=True, columns=source.columns):
        for index, (label, split) in enumerate(zip(block.labels, block.splits, strict=True)):
            if not wanted(label, split):
                continue
            if number == at:
                item = block.item(index)
                chosen.keys.append(item.key)
                chosen.places.append(item.place)
                chosen.labels.append(label)
                chosen.splits.append(split)
                chosen.stats.append(block.stats[index])
                chosen.more.append(item.more)
                at = next(numbers, None)
            number += 1
    return chosen


@dataclass(frozen=True)
class Pace:
    """How long an image takes.

    Attributes
    ----------
    seconds : float
        Per image, once everything is under way.
    low, high : float or None
        95 % interval of that, as far as a sample of the source tells; None where it is too small.
    """

    seconds: float
    low: float | None
    high: float | None


class Stopwatch:
    """Notes when images are done; a progress callback.

    Parameters
    ----------
    stage : str
        The stage of the progress that counts; others are preparations.
    """

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._begun = time.perf_counter()
        self._moments: list[float] = []

    def __call__(self, at: Progress) -> None:
        """Note that an image is done."""
        if at.stage == self._stage:
            self._moments.append(time.perf_counter())

    @property
    def start_s(self) -> float:
        """Seconds until the first image was done, all of which a run spends once."""
        return self._moments[0] - self._begun if self._moments else 0.0

    def pace(self) -> Pace:
        """How long an image takes."""
        return pace_of(self._moments)


def pace_of(moments: Sequence[float]) -> Pace:
    """How long an image takes, from the moments in s at which images were done, in order.

    The interval is that of the mean over eight stretches of the sample, by Student's t: since the
    sample lies in the source's order, what differs between parts of the source widens it.
    """
    steady = moments[len(moments) // _WARMING :]
    if len(steady) < 2:
        return Pace(0.0, None, None)
    seconds = (steady[-1] - steady[0]) / (len(steady) - 1)
    if len(steady) < _LEAST:
        return Pace(seconds, None, None)
    edges = [i * (len(steady) - 1) // _STRETCHES for i in range(_STRETCHES + 1)]
    means = [
        (steady[stop] - steady[start]) / (stop - start) for start, stop in itertools.pairwise(edges)
    ]
    half = _T * statistics.stdev(means) / math.sqrt(_STRETCHES)
    return Pace(seconds, max(0.0, seconds - half), seconds + half)
