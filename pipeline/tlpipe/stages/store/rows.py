"""Rows of a feature file, as columns: in what store, workflows and tests meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.stages.store.layout import STAT_DTYPE
from tlpipe.types import Split

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import Float32Array, Outcome


@dataclass(frozen=True)
class Rows:
    """Some rows of a feature file.

    Attributes
    ----------
    keys : list of str
    content_sha256 : uint8 array (n, 32)
    stat : structured array (n,)
        ``size_bytes`` and ``mtime_ns``.
    labels : list of str or None
    splits : int8 array (n,)
        Values of ``Split``.
    groups : int64 array (n,)
        Equal for images of one object; -1 for none.
    vectors : float32 array (n, D) or None
        None where they were not asked for.
    """

    keys: list[str]
    content_sha256: NDArray[np.uint8]
    stat: NDArray[Any]
    labels: list[str | None]
    splits: NDArray[np.int8]
    groups: NDArray[np.int64]
    vectors: Float32Array | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def part(self, start: int, stop: int) -> Rows:
        """Rows from `start` to before `stop`."""
        at = slice(start, stop)
        return replace(
            self,
            keys=self.keys[at],
            content_sha256=self.content_sha256[at],
            stat=self.stat[at],
            labels=self.labels[at],
            splits=self.splits[at],
            groups=self.groups[at],
            vectors=None if self.vectors is None else self.vectors[at],
        )

    def only(self, mask: NDArray[np.bool_]) -> Rows:
        """Rows where `mask`, bool (n,), is true."""
        at = np.flatnonzero(mask).tolist()
        return replace(
            self,
            keys=[self.keys[i] for i in at],
            content_sha256=self.content_sha256[mask],
            stat=self.stat[mask],
            labels=[self.labels[i] for i in at],
            splits=self.splits[mask],
            groups=self.groups[mask],
            vectors=None if self.vectors is None else self.vectors[mask],
        )


def rows_of(outcomes: Sequence[Outcome]) -> Rows:
    """Rows of embedded items: each outcome has content and the value "embeddings"."""
    contents = [outcome.content for outcome in outcomes if outcome.content is not None]
    digests = b"".join(content.sha256 for content in contents)
    return Rows(
        keys=[outcome.item.key for outcome in outcomes],
        content_sha256=np.frombuffer(digests, np.uint8).reshape(len(outcomes), 32),
        stat=stats_of([(c.stat.size_bytes, c.stat.mtime_ns) for c in contents]),
        labels=[outcome.item.label for outcome in outcomes],
        splits=np.array([outcome.item.split for outcome in outcomes], np.int8),
        groups=np.full(len(outcomes), -1, np.int64),
        vectors=np.stack([outcome.values["embeddings"] for outcome in outcomes]),
    )


def stats_of(stats: list[tuple[int, int]]) -> NDArray[Any]:
    """Sizes in bytes and times of change in nanoseconds as the structured array of a file."""
    return np.array(stats, STAT_DTYPE)


def no_splits(count: int) -> NDArray[np.int8]:
    """Splits of `count` rows that have none."""
    return np.full(count, Split.NONE, np.int8)
