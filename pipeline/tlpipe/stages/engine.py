"""Engine: runs a network over a stream of items, in order, with every core busy.

Owns the threads. One thread per core, each of which loads a few images and infers them on the
shared session: no queue between decoding and inference can run empty or full, whatever their
ratio. Results come out in the order of the items, and what is under way is bounded, so that memory
does not grow with their number.

Takes items, a loader and a ``Network``; gives outcomes. Imports ``types`` and NumPy.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tlpipe.seams import Network
from tlpipe.types import Content, Item, Outcome, Reason, Reject, Stage, Twin

if TYPE_CHECKING:
    from tlpipe.types import UInt8Array

_BATCHES_AHEAD = 4  # per worker; covers the wait for one slow image at the head of the line
_PASSING = 8  # per worker, of what is no item: it may be large

Loader = Callable[[Item], "tuple[UInt8Array | Twin, Content] | Reject"]

Settle = Callable[[bytes, "Outcome | BaseException"], None]
"""Told what became of each content that was decoded, by its SHA-256; called from any thread."""

T = TypeVar("T")


def usable_cores() -> int:
    """Number of cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run(
    items: Iterable[Item | T],
    load: Loader,
    network: Network,
    *,
    batch_size: int | None = None,
    workers: int | None = None,
    settle: Settle | None = None,
) -> Generator[Outcome | T, None, None]:
    """Load and infer every item; what is no item passes through, and keeps its place in the order.

    Parameters
    ----------
    items : iterable of Item, and of anything else
    load : callable
        Gives an item's pixels, uint8 (H, W, 3), or the twin it takes its vector from, or a reject;
        called from several threads.
    network : Network
        Called from several threads.
    batch_size : int, optional
        B, images per call of the network; by default what suits the network.
    workers : int, optional
        Number of threads; by default one per usable core.
    settle : callable, optional
        See ``Settle``.

    Yields
    ------
    Outcome, or what is no item
        One per item, in the order of `items`.

    Raises
    ------
    BackboneError
        From the network.
    """
    workers = workers or usable_cores()
    size = batch_size or network.batch_sizes[0]
    stop = threading.Event()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="tlpipe")

    def infer(batch: list[Item]) -> list[Outcome]:
        return _infer(batch, load, network, stop, settle or (lambda digest, result: None))

    line: deque[_Batch | T] = deque()  # a batch stands in it once for each of its items
    most = workers * _BATCHES_AHEAD * size
    passing = 0
    batch = _Batch(size)
    try:
        for item in items:
            if isinstance(item, Item):
                line.append(batch)
                if batch.add(item):
                    batch.submit(pool, infer)
                    batch = _Batch(size)
            else:
                line.append(item)
                passing += 1
            # What is done is given at once: whoever keeps it shall not lose it to a crash.
            while line and (
                len(line) - passing >= most or passing >= workers * _PASSING or _is_done(line[0])
            ):
                if line[0] is batch:  # it waits for items that do not come: let it go as it is
                    batch.submit(pool, infer)
                    batch = _Batch(size)
                first = line.popleft()
                passing -= not isinstance(first, _Batch)
                yield first.next() if isinstance(first, _Batch) else first
        batch.submit(pool, infer)
        for entry in line:
            yield entry.next() if isinstance(entry, _Batch) else entry
    finally:
        stop.set()  # nobody wants what is under way any more
        pool.shutdown(wait=True, cancel_futures=True)


def _is_done(entry: object) -> bool:
    return not isinstance(entry, _Batch) or entry.done


class _Batch:
    """Items that are inferred together, and later their outcomes, one by one."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: list[Item] = []
        self._result: Future[list[Outcome]] | None = None
        self._given = 0

    def add(self, item: Item) -> bool:
        """Add an item; whether the batch is full now."""
        self._items.append(item)
        return len(self._items) == self._size

    def submit(self, pool: ThreadPoolExecutor, infer: Callable[[list[Item]], Any]) -> None:
        """Have the items inferred."""
        if self._items:
            self._result = pool.submit(infer, self._items)

    @property
    def done(self) -> bool:
        """Whether its outcomes are there."""
        return self._result is not None and self._result.done()

    def next(self) -> Outcome:
        """Outcome of the next item."""
        assert self._result is not None, "a batch is submitted before its outcomes are asked for"
        self._given += 1
        return self._result.result()[self._given - 1]


def _infer(
    items: list[Item], load: Loader, network: Network, stop: threading.Event, settle: Settle
) -> list[Outcome]:
    """Load a batch and run the network on those of it that could be loaded."""
    loaded = []
    try:
        for item in items:
            if stop.is_set():
                return []
            loaded.append(load(item))
        pixels = [r[0] for r in loaded if not isinstance(r, Reject) and not isinstance(r[0], Twin)]
        values = network.run(np.stack(pixels)) if pixels else {}
    except BaseException as exc:
        for result in loaded:
            if not isinstance(result, Reject):
                settle(result[1].sha256, exc)
        raise
    row = 0
    outcomes: list[Outcome] = []
    for item, result in zip(items, loaded, strict=True):
        if isinstance(result, Reject):
            outcomes.append(Outcome(item, reject=result))
        elif isinstance(result[0], Twin):
            outcomes.append(Outcome(item, result[1], twin=result[0]))
        else:
            outcome = _outcome(item, result[1], {name: v[row] for name, v in values.items()})
            row += 1
            settle(result[1].sha256, outcome)
            outcomes.append(outcome)
    return outcomes


def _outcome(item: Item, content: Content, values: dict[str, Any]) -> Outcome:
    broken = [name for name, value in values.items() if not np.isfinite(value).all()]
    if broken:
        detail = f"The network gave NaN or infinity in {broken}."
        return Outcome(item, reject=Reject(Stage.BACKBONE, Reason.NON_FINITE, detail, content.stat))
    return Outcome(item, content, values)
