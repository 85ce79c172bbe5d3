"""What the threads spend their time on: for the progress, for reading ahead, and for a trace."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["read", "decode", "infer", "write"]
KINDS: tuple[Kind, ...] = ("read", "decode", "infer", "write")
"""Reading a file, or waiting for it; from its bytes to pixels; the network; and, in the thread that
takes the outcomes, what is done with them."""

_WINDOW_S = 1.0  # over which shares are taken


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time that a thread spent on one thing.

    Attributes
    ----------
    kind : str
    start_s, stop_s : float
        By ``time.perf_counter``.
    thread : int
        Its identifier.
    images : int
    """

    kind: Kind
    start_s: float
    stop_s: float
    thread: int
    images: int = 1


Listener = Callable[[Sequence[Span]], None]
"""Is given all spans, from several threads."""


class Watch:
    """Adds up what the workers spend their time on.

    Parameters
    ----------
    workers : int
    listener : callable, optional
    """

    def __init__(self, workers: int, listener: Listener | None = None) -> None:
        self._workers = workers
        self._listener = listener
        self._lock = threading.Lock()
        self._sums: dict[Kind, float] = dict.fromkeys(KINDS, 0.0)
        self._since = time.perf_counter()

    def add(self, spans: Sequence[Span]) -> None:
        """Take note of spans."""
        with self._lock:
            for span in spans:
                self._sums[span.kind] += span.stop_s - span.start_s
        if self._listener is not None:
            self._listener(spans)

    def shares(self) -> dict[str, float] | None:
        """Shares of the workers' time since this was last told, from 0 to 1, by kind.

        "wait" is what is left: they had nothing to do. That of "write" is of the one thread that
        writes. None until a second has passed.
        """
        now = time.perf_counter()
        passed = now - self._since
        if passed < _WINDOW_S:
            return None
        with self._lock:
            sums, self._sums = self._sums, dict.fromkeys(KINDS, 0.0)
        self._since = now
        write = min(1.0, sums.pop("write") / passed)
        shares: dict[str, float] = {}
        for kind, spent in sums.items():
            shares[kind] = spent / (passed * self._workers)
        shares["wait"] = max(0.0, 1.0 - sum(shares.values()))
        return {**shares, "write": write}
