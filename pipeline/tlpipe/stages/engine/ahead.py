"""Reads files before the workers need them, where they would else wait for a slow disk or network.

Off at first: files that the system holds in memory are read best by the worker that decodes them.
When the workers are seen waiting for files, threads of their own read ahead, more and more of them
until the waiting is over.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from tlpipe.stages.engine.loader import Fetched
from tlpipe.types import Item, Reject

_TOO_MUCH = 0.1  # of the workers' time, spent waiting for files
_FIRST_READERS = 4  # per worker
_MOST_READERS = 64
_MOST_BYTES = 64 << 20  # read and not used yet: what memory may cost


class ReadAhead:
    """Reads items ahead of time, as many at once as it takes.

    Parameters
    ----------
    fetch : callable
        Reads one item.
    workers : int
        Number of threads that need them.
    """

    def __init__(self, fetch: Callable[[Item], Fetched], workers: int) -> None:
        self._fetch = fetch
        self._workers = workers
        self._pools: list[ThreadPoolExecutor] = []
        self._room = threading.Condition()
        self._held = 0
        self._closed = False
        self.readers = 0

    @property
    def items(self) -> int:
        """How many items shall be known ahead of those that are worked on."""
        return 2 * self.readers

    def adapt(self, waiting: float) -> None:
        """Take more threads where the workers wait too much.

        Parameters
        ----------
        waiting : float
            Share of their time that the workers wait for files.
        """
        if waiting < _TOO_MUCH or self.readers >= _MOST_READERS:
            return
        wanted = min(_MOST_READERS, 2 * self.readers or _FIRST_READERS * self._workers)
        self._pools.append(ThreadPoolExecutor(wanted, thread_name_prefix="tlpipe-read"))
        self.readers = wanted

    def start(self, item: Item) -> Callable[[], Fetched]:
        """Begin reading an item, where that is done ahead; the result gives its content."""
        if not self._pools:
            return lambda: self._fetch(item)
        reading: Future[Fetched] = self._pools[-1].submit(self._read, item)

        def result() -> Fetched:
            fetched = reading.result()
            if not isinstance(fetched, Reject):
                with self._room:
                    self._held -= len(fetched[0])
                    self._room.notify_all()
            return fetched

        return result

    def close(self) -> None:
        """End all reading."""
        with self._room:
            self._closed = True
            self._room.notify_all()
        for pool in self._pools:
            pool.shutdown(wait=True, cancel_futures=True)

    def _read(self, item: Item) -> Fetched:
        # Items are begun in their order, and each is used as soon as those before it are: so what
        # is held is always used in the end, and there is room again.
        with self._room:
            self._room.wait_for(lambda: self._held < _MOST_BYTES or self._closed)
        fetched = self._fetch(item)
        if not isinstance(fetched, Reject):
            with self._room:
                self._held += len(fetched[0])
        return fetched
