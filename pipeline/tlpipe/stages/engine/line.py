"""What is under way, and the order in which it comes out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from tlpipe.stages.engine.ahead import ReadAhead
from tlpipe.stages.engine.sizes import BatchSizes
from tlpipe.stages.engine.work import Task
from tlpipe.types import Item, Outcome

_BATCHES_AHEAD = 4  # per worker; covers the wait for one slow image at the head of the line
_PASSING = 8  # per worker, of what is no item: it may be large

T = TypeVar("T")

Submit = Callable[[list[Task]], "Future[list[Outcome]]"]


class _Batch:
    """Items that are inferred together, and later their outcomes, one by one."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.tasks: list[Task] = []
        self.result: Future[list[Outcome]] | None = None
        self._given = 0

    @property
    def done(self) -> bool:
        """Whether its outcomes are there."""
        return self.result is not None and self.result.done()

    def next(self) -> Outcome:
        """Outcome of the next item."""
        assert self.result is not None, "a batch is submitted before its outcomes are asked for"
        self._given += 1
        return self.result.result()[self._given - 1]


class Line(Generic[T]):
    """Items under way, in batches, and between them what passes through.

    Parameters
    ----------
    workers : int
    submit : callable
        Has a batch worked on.
    sizes : BatchSizes
    ahead : ReadAhead
    """

    def __init__(self, workers: int, submit: Submit, sizes: BatchSizes, ahead: ReadAhead) -> None:
        self._workers, self._submit, self._sizes, self._ahead = workers, submit, sizes, ahead
        self._line: deque[_Batch | T] = deque()  # a batch stands in it once for each of its items
        self._passing = 0  # how much of it is no item
        self._batch = _Batch(sizes.next())

    def __len__(self) -> int:
        return len(self._line)

    def add(self, item: Item | T) -> None:
        """Take the next item, or what is none."""
        if not isinstance(item, Item):
            self._line.append(item)
            self._passing += 1
            return
        self._line.append(self._batch)
        self._batch.tasks.append((item, self._ahead.start(item)))
        if len(self._batch.tasks) == self._batch.size:
            self.finish()

    def finish(self) -> None:
        """Have the last batch worked on, as it is."""
        if self._batch.tasks:
            self._batch.result = self._submit(self._batch.tasks)
            self._batch = _Batch(self._sizes.next())

    @property
    def gives(self) -> bool:
        """Whether the first of the line shall be taken: it is done, or as much as may be waits."""
        if not self._line:
            return False
        first = self._line[0]
        if not isinstance(first, _Batch) or first.done:
            return True
        most = self._workers * _BATCHES_AHEAD * self._sizes.largest + self._ahead.items
        waiting = len(self._line) - self._passing
        return waiting >= most or self._passing >= self._workers * _PASSING

    def take(self) -> Outcome | T:
        """Take the first of the line, when it is done."""
        if self._line[0] is self._batch:  # it waits for items that do not come: let it go as it is
            self.finish()
        first = self._line.popleft()
        if isinstance(first, _Batch):
            return first.next()
        self._passing -= 1
        return first
