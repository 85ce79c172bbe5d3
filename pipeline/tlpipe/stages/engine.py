"""Engine: runs a network over a stream of items, in order, with every core busy.

Owns the threads. One thread per core, each of which loads a few images and infers them on the
shared session: no queue between decoding and inference can run empty or full, whatever their
ratio. Results come out in the order of the items, and the number of items under way is bounded, so
that memory does not grow with their number.

Takes items, a loader and a ``Network``; gives outcomes. Imports ``types`` and NumPy.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.types import Content, Item, Network, Outcome, Reason, Reject, Stage

if TYPE_CHECKING:
    from tlpipe.types import UInt8Array

CPU_BATCH_SIZE = 4
"""Best on CPUs: larger batches fall out of the caches (FP32, 224 px: 237 images/s at 4, 198 at
32), smaller ones pay more calls."""

GPU_BATCH_SIZE = 64

_BATCHES_AHEAD = 4  # per worker; covers the wait for one slow image at the head of the line

Loader = Callable[[Item], "tuple[UInt8Array, Content] | Reject"]


def usable_cores() -> int:
    """Number of cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run(
    items: Iterable[Item],
    load: Loader,
    network: Network,
    *,
    batch_size: int | None = None,
    workers: int | None = None,
) -> Iterator[Outcome]:
    """Load and infer every item.

    Parameters
    ----------
    items : iterable of Item
    load : callable
        Gives an item's pixels, uint8 (H, W, 3), or a reject; called from several threads.
    network : Network
        Called from several threads.
    batch_size : int, optional
        B, images per call of the network; by default what suits the network's provider.
    workers : int, optional
        Number of threads; by default one per usable core.

    Yields
    ------
    Outcome
        One per item, in the order of `items`.

    Raises
    ------
    BackboneError
        From the network.
    """
    workers = workers or usable_cores()
    size = batch_size or (CPU_BATCH_SIZE if network.provider.startswith("CPU") else GPU_BATCH_SIZE)
    pending: deque[Future[list[Outcome]]] = deque()
    stop = threading.Event()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="tlpipe")
    try:
        for batch in _batches(items, size):
            pending.append(pool.submit(_infer, batch, load, network, stop))
            if len(pending) >= workers * _BATCHES_AHEAD:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    finally:
        stop.set()  # nobody wants what is under way any more
        pool.shutdown(wait=True, cancel_futures=True)


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    stream = iter(items)
    while batch := list(islice(stream, size)):
        yield batch


def _infer(
    items: list[Item], load: Loader, network: Network, stop: threading.Event
) -> list[Outcome]:
    """Load a batch and run the network on those of it that could be loaded."""
    loaded = []
    for item in items:
        if stop.is_set():
            return []
        loaded.append(load(item))
    images = [result[0] for result in loaded if not isinstance(result, Reject)]
    values = network.run(np.stack(images)) if images else {}
    row = 0
    outcomes: list[Outcome] = []
    for item, result in zip(items, loaded, strict=True):
        if isinstance(result, Reject):
            outcomes.append(Outcome(item, reject=result))
            continue
        outcomes.append(_outcome(item, result[1], {name: v[row] for name, v in values.items()}))
        row += 1
    return outcomes


def _outcome(item: Item, content: Content, values: dict[str, Any]) -> Outcome:
    broken = [name for name, value in values.items() if not np.isfinite(value).all()]
    if broken:
        detail = f"The network gave NaN or infinity in {broken}."
        return Outcome(item, reject=Reject(Stage.BACKBONE, Reason.NON_FINITE, detail, content.stat))
    return Outcome(item, content, values)
