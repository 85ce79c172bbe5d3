"""Runs a network over a stream of items: see ``run``."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from tlpipe.seams import Network
from tlpipe.stages.engine.ahead import ReadAhead
from tlpipe.stages.engine.line import Line
from tlpipe.stages.engine.loader import Loader
from tlpipe.stages.engine.sizes import BatchSizes
from tlpipe.stages.engine.watch import Listener, Span, Watch
from tlpipe.stages.engine.work import Settle, Worker
from tlpipe.types import Item, Outcome

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """How the engine runs.

    Attributes
    ----------
    workers : int
        Number of threads.
    settle : callable, optional
        See ``Settle``.
    listener : callable, optional
        Is given what each thread spends its time on; see ``Listener``.
    busy : callable, optional
        Called now and then with the shares of the workers' time; see ``Watch.shares``.
    """

    workers: int
    settle: Settle = lambda digest, result: None
    listener: Listener | None = None
    busy: Callable[[dict[str, float]], None] = lambda shares: None


@contextlib.contextmanager
def _interrupting(interrupt: Callable[[], None]) -> Iterator[None]:
    """Interrupt reading until the context is left: some may begin just after the first time."""
    left = threading.Event()

    def again() -> None:
        while not left.wait(0.05):
            interrupt()

    thread = threading.Thread(target=again, name="tlpipe-interrupt", daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()


def run(
    items: Iterable[Item | T], loader: Loader, network: Network, plan: Plan
) -> Generator[Outcome | T, None, None]:
    """Load and infer every item; what is no item passes through, and keeps its place in the order.

    Parameters
    ----------
    items : iterable of Item, and of anything else
    loader : Loader
    network : Network
        Called from several threads.
    plan : Plan

    Yields
    ------
    Outcome, or what is no item
        One per item, in the order of `items`.

    Raises
    ------
    BackboneError
        From the network.
    """
    watch = Watch(plan.workers, plan.listener)
    sizes = BatchSizes(network.batch_sizes)
    worker = Worker(loader, network, plan.settle, watch, sizes)
    ahead = ReadAhead(loader.fetch, plan.workers)
    pool = ThreadPoolExecutor(plan.workers, thread_name_prefix="tlpipe")
    line: Line[T] = Line(plan.workers, lambda tasks: pool.submit(worker, tasks), sizes, ahead)

    def handed(given: Outcome | T) -> Generator[Outcome | T, None, None]:
        start = time.perf_counter()
        yield given
        watch.add([Span("write", start, time.perf_counter(), threading.get_ident())])

    try:
        for item in items:
            line.add(item)
            # What is done is given at once: whoever keeps it shall not lose it to a crash.
            while line.gives:
                yield from handed(line.take())
            shares = watch.shares()
            if shares is not None:
                ahead.adapt(shares["read"])
                plan.busy(shares)
        line.finish()
        while line:
            yield from handed(line.take())
    finally:
        worker.stop()
        with _interrupting(loader.interrupt):
            ahead.close()
            pool.shutdown(wait=True, cancel_futures=True)
