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
_MOST_BYTES = 64 << 20  # read and not used yet: what memory it may cost
_USUAL_BYTES = 1 << 20  # of a file, before the first ones are known


class ReadAhead:
    """Reads items ahead of time, as many at once as it takes.

    Items are begun in their order. Those before an item are always used in the end, whatever
    becomes of it, so that there is room for it at last: nothing waits for ever.

    Parameters
    ----------
    fetch : callable
        Reads one item.
    workers : int
        Number of threads that need them.

    Attributes
    ----------
    readers : int
        How many items may be read at once; 0 where nothing is read ahead.
    """

    def __init__(self, fetch: Callable[[Item], Fetched], workers: int) -> None:
        self._fetch = fetch
        self._workers = workers
        self._pool: ThreadPoolExecutor | None = None
        self._room = threading.Condition()
        self._started = self._admitted = 0  # numbers of the next items
        self._active = self._held = 0  # items being read; bytes, also of these
        self._usual = float(_USUAL_BYTES)
        self._closed = False
        self.readers = 0

    @property
    def items(self) -> int:
        """How many items shall be known ahead of those that are worked on."""
        return 2 * self.readers

    def adapt(self, waiting: float) -> None:
        """Read more at once where the workers wait too much.

        Parameters
        ----------
        waiting : float
            Share of their time that the workers wait for files.
        """
        if waiting < _TOO_MUCH or self.readers == _MOST_READERS:
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_MOST_READERS, thread_name_prefix="tlpipe-read")
        with self._room:
            wanted = 2 * self.readers or _FIRST_READERS * self._workers
            self.readers = min(_MOST_READERS, wanted)
            self._room.notify_all()

    def start(self, item: Item) -> Callable[[], Fetched]:
        """Begin reading an item, where that is done ahead; the result gives its content."""
        if self._pool is None:
            return lambda: self._fetch(item)
        reading: Future[Fetched] = self._pool.submit(self._read, item, self._started)
        self._started += 1

        def result() -> Fetched:
            fetched = reading.result()
            self._release(0 if isinstance(fetched, Reject) else len(fetched[0]))
            return fetched

        return result

    def close(self) -> None:
        """End all reading."""
        with self._room:
            self._closed = True
            self._room.notify_all()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _read(self, item: Item, number: int) -> Fetched:
        with self._room:
            self._room.wait_for(lambda: self._closed or self._admits(number))
            if self._closed:
                raise RuntimeError("the run has ended: nobody asks for this any more")
            expected = int(self._usual)
            self._admitted += 1
            self._active += 1
            self._held += expected
            self._room.notify_all()
        size = 0
        try:
            fetched = self._fetch(item)
            size = 0 if isinstance(fetched, Reject) else len(fetched[0])
            return fetched
        finally:
            with self._room:
                self._active -= 1
                self._usual += (size - self._usual) / 8
            self._release(expected - size)

    def _admits(self, number: int) -> bool:
        """Whether reading an item may begin."""
        if number != self._admitted:
            return False
        fits = self._held + self._usual <= _MOST_BYTES
        return self._held == 0 or (self._active < self.readers and fits)

    def _release(self, size: int) -> None:
        with self._room:
            self._held -= size
            self._room.notify_all()
