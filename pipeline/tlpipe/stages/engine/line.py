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

_GROUPS_AHEAD = 4  # per worker; covers the wait for one slow image at the head of the line
_PASSING = 8  # per worker, of what is no item: it may be large

T = TypeVar("T")

Submit = Callable[[list[Task]], "Future[list[Outcome]]"]


class _Group:
    """Items that one thread works on, and later their outcomes, one by one."""

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
        assert self.result is not None, "a group is submitted before its outcomes are asked for"
        self._given += 1
        return self.result.result()[self._given - 1]


class Line(Generic[T]):
    """Items under way, in groups, and between them what passes through.

    Parameters
    ----------
    workers : int
    submit : callable
        Has a group worked on.
    sizes : BatchSizes
    ahead : ReadAhead
    """

    def __init__(self, workers: int, submit: Submit, sizes: BatchSizes, ahead: ReadAhead) -> None:
        self._workers, self._submit, self._ahead = workers, submit, ahead
        self._line: deque[_Group | T] = deque()  # a group stands in it once for each of its items
        self._passing = 0  # how much of it is no item
        self._sizes = sizes
        self._group = _Group(sizes.group)

    def __len__(self) -> int:
        return len(self._line)

    def add(self, item: Item | T) -> None:
        """Take the next item, or what is none."""
        if not isinstance(item, Item):
            self._line.append(item)
            self._passing += 1
            return
        self._line.append(self._group)
        self._group.tasks.append((item, self._ahead.start(item)))
        if len(self._group.tasks) == self._group.size:
            self.finish()

    def finish(self) -> None:
        """Have the last group worked on, as it is."""
        if self._group.tasks:
            self._group.result = self._submit(self._group.tasks)
            self._group = _Group(self._sizes.group)

    @property
    def gives(self) -> bool:
        """Whether the first of the line shall be taken: it is done, or as much as may be waits."""
        if not self._line:
            return False
        first = self._line[0]
        if not isinstance(first, _Group) or first.done:
            return True
        most = self._workers * _GROUPS_AHEAD * self._group.size + self._ahead.items
        waiting = len(self._line) - self._passing
        return waiting >= most or self._passing >= self._workers * _PASSING

    def take(self) -> Outcome | T:
        """Take the first of the line, when it is done."""
        if self._line[0] is self._group:  # it waits for items that do not come: let it go as it is
            self.finish()
        first = self._line.popleft()
        if isinstance(first, _Group):
            return first.next()
        self._passing -= 1
        return first
