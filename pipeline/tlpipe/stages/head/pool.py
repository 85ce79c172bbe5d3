"""Threads for the solver: one for each core, with BLAS on one thread in each.

The wheels of NumPy and SciPy each bring an OpenBLAS with a pool of threads of its own, and the two
spin against each other. Splitting the rows over our own threads uses the cores also for what is no
product of matrices, and gives the same sums whatever the timing.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

from tlpipe.machine import usable_cores

T = TypeVar("T")
R = TypeVar("R")


class Pool:
    """A fixed number of threads."""

    def __init__(self, executor: ThreadPoolExecutor | None, threads: int) -> None:
        self._executor = executor
        self.threads = threads

    def map(self, task: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Results in the order of `items`."""
        if self._executor is None or len(items) < 2:
            return [task(item) for item in items]
        return list(self._executor.map(task, items))

    def slices(self, count: int) -> list[tuple[int, int]]:
        """Ranges of rows, one for each thread."""
        edges = [count * k // self.threads for k in range(self.threads + 1)]
        found = [(a, b) for a, b in itertools.pairwise(edges) if b > a]
        return found or [(0, 0)]


@contextlib.contextmanager
def open_pool(threads: int | None = None) -> Iterator[Pool]:
    """Threads for the time of a ``with`` block; by default one for each usable core."""
    threads = threads or usable_cores()
    with threadpool_limits(limits=1, user_api="blas"):
        if threads == 1:
            yield Pool(None, 1)
            return
        with ThreadPoolExecutor(threads, thread_name_prefix="head") as executor:
            yield Pool(executor, threads)
