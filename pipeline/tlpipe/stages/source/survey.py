"""A source, and what is known of it before any work is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tlpipe.types import Item, Split

SPLIT_NAMES = {
    "train": Split.TRAIN,
    "training": Split.TRAIN,
    "validation": Split.VALIDATION,
    "valid": Split.VALIDATION,
    "val": Split.VALIDATION,
    "dev": Split.VALIDATION,
    "test": Split.TEST,
    "testing": Split.TEST,
}


@dataclass
class Survey:
    """What a source holds, counted before any work is done.

    Attributes
    ----------
    layout : str
        How the source was understood, in words.
    labels : Counter of (Split, str or None)
        Items by split and label.
    skipped : Counter of str
        Entries that are no items, by the reason in words.
    notices : list of str
        What a user would want to know.
    """

    layout: str
    labels: Counter[tuple[Split, str | None]] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    notices: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Number of items, N."""
        return self.labels.total()

    @property
    def classes(self) -> list[str]:
        """Distinct labels, sorted."""
        return sorted({label for _, label in self.labels if label is not None})

    def by_split(self) -> dict[Split, int]:
        """Number of items per split."""
        counts: Counter[Split] = Counter()
        for (split, _), count in self.labels.items():
            counts[split] += count
        return {split: counts[split] for split in Split if counts[split]}


@dataclass(frozen=True)
class Source:
    """Images that can be listed any number of times, always in the same order.

    Attributes
    ----------
    path : pathlib.Path
        As the user gave it.
    items : callable
        Gives a new stream of all items.
    survey : Survey
    """

    path: Path
    items: Callable[[], Iterator[Item]]
    survey: Survey


def printable(name: str) -> str:
    r"""`name` as valid UTF-8: bytes that are none become ``\xNN``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
