"""How many images go into a call of the network, and how many a thread takes at once: measured."""

from __future__ import annotations

import itertools
import logging
import statistics
import threading
from collections.abc import Sequence

_log = logging.getLogger(__name__)

_TRIALS = 6  # per size, the first left out
_WORTH = 0.98  # of the time of a likelier size, to be preferred to it


_GROUP = 8
"""Items that a thread takes at once, at most, if not more go into a call: it decodes them all and
then infers them all, since changing between the two costs cache (187 images/s became 193)."""

_GROUP_S = 0.1  # that is not worth it where images take long: threads would end far apart


class BatchSizes:
    """Tries several sizes in turn, and then stays with the one whose images took least time.

    Parameters
    ----------
    candidates : sequence of int
        The likeliest first.
    """

    def __init__(self, candidates: Sequence[int]) -> None:
        self._candidates = list(candidates)
        self._image_s: float | None = None
        self._lock = threading.Lock()
        self._times: dict[int, list[float]] = {size: [] for size in candidates}
        self._turns = itertools.cycle(candidates)
        self.chosen: int | None = candidates[0] if len(candidates) == 1 else None

    @property
    def group(self) -> int:
        """Number of items that a thread shall take at once."""
        batch = self.chosen or self._candidates[0]
        if self._image_s is None:  # the first result shall not be long in coming
            return batch
        return max(batch, min(_GROUP, round(_GROUP_S / self._image_s)))

    def group_took(self, count: int, elapsed_s: float) -> None:
        """Say how long the work on some items took in all."""
        self._image_s = max(elapsed_s / count, 1e-6)

    def next(self) -> int:
        """Size of the next batch."""
        if self.chosen is not None:
            return self.chosen
        with self._lock:
            return next(self._turns)

    def took(self, size: int, elapsed_s: float) -> None:
        """Say how long the call for a whole batch took."""
        if self.chosen is not None or size not in self._times:
            return
        with self._lock:
            self._times[size].append(elapsed_s / size)
            if all(len(times) > _TRIALS for times in self._times.values()):
                self.chosen = self._best()
                _log.info("%d images per call of the network are fastest.", self.chosen)

    def _best(self) -> int:
        best, least = 0, float("inf")
        for size in self._candidates:
            usual = statistics.median(self._times[size][1:])
            if usual < least * _WORTH:
                best, least = size, usual
        return best
