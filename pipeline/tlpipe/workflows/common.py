"""What the workflows have in common: sources, the time, names in a sentence.

Imports ``stages`` and what they import.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tlpipe.stages.source import Source, Survey, open_source
from tlpipe.types import Item, Progress, ProgressCallback

PRECISION = "fp32"
"""Of the arithmetic inside a network that was prepared and not reduced."""


Surveyed = Callable[[Survey], None]
"""Called once with what a source holds, before the work begins."""

TRAIN_AGAIN = "Train again; if it comes up again, report it with this message."


def opened(source: Source | str | Path) -> Source:
    """Open a path as a source, without looking at all it holds; an opened one stays as it is."""
    return source if isinstance(source, Source) else open_source(source)


def as_source(source: Source | str | Path, surveyed: Surveyed | None = None) -> Source:
    """Open a path as a source, survey it, and tell what it holds."""
    found = opened(source)
    survey = found.survey
    if surveyed is not None:
        surveyed(survey)
    return found


def spread(source: Source, most: int) -> Iterator[Item]:
    """Up to `most` items at equal distances from the first to the last of a source."""
    count = source.survey.count
    most = min(most, count)
    wanted = iter([(2 * i + 1) * count // (2 * most) for i in range(most)])
    at = next(wanted, None)
    start = 0
    for block in source.scan(stats=False):
        while at is not None and at < start + len(block):
            yield block.item(at - start)
            at = next(wanted, None)
        start += len(block)


def trying(progress: ProgressCallback | None) -> Callable[[int], None]:
    """What a head's training calls with the number of settings tried so far."""

    def tried(count: int) -> None:
        if progress is not None:
            progress(Progress("train-head", count, None, 0))

    return tried


def some_of(names: Sequence[str]) -> str:
    """The first ten of some names, as a sentence lists them."""
    return f"{list(names[:10])}{' and more' if len(names) > 10 else ''}"


def now() -> str:
    """Current time, UTC, in ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
