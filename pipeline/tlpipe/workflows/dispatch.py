"""Has a stream of items worked on in partitions, and gives what became of it in its order.

The one way in which work is spread over machines. It knows no cluster library, only a ``Crew``. A
worker that dies costs the partition it was at, which is given to another one; a partition whose
workers die again and again is halved until the one item is found that does it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from tlpipe.errors import ClusterError
from tlpipe.types import Block, Reason, Reject, Stage
from tlpipe.workflows.partitions import Crashed, Crew, Fresh, Lost, Partition, Passing, Piece

_log = logging.getLogger(__name__)

A = TypeVar("A")
T = TypeVar("T", bound=Passing)

AIM_S = 10.0
"""Work in a partition, in seconds: about what a worker's death costs."""

FIRST, LEAST, MOST = 64, 16, 4096
"""Items of a partition: of the first ones, at least and at most."""

MOST_PASSING = 1 << 16
"""Items that are known already, and are listed before they are taken: about 80 MB at most."""

MOST_DONE = 1 << 20
"""Items that are done, or under way, before an earlier one is: of these, rejects are in memory."""

DEATHS, DEATHS_ALONE = 2, 3
"""Deaths of workers after which a partition is halved, and after which a single item is to blame
for them (the halves of a partition have its deaths but one)."""

_POLL_S = 1.0


class Sizes:
    """How many items go into a partition: seconds of work, and less towards the end.

    Parameters
    ----------
    total : int
        Items that are expected in all.
    """

    def __init__(self, total: int) -> None:
        self._left = total
        self._rate: float | None = None  # of one worker, in items per second

    def next(self, crew: int) -> int:
        """Size of the next partition for a crew of some size."""
        size = FIRST if self._rate is None else int(self._rate * AIM_S)
        # Towards the end each worker gets less and less, so that they end at about the same time.
        share = -(-self._left // (2 * max(1, crew)))
        return max(LEAST, min(size, share, MOST))

    def given(self, count: int) -> None:
        """Take note of the items of a partition."""
        self._left = max(0, self._left - count)

    def took(self, count: int, elapsed_s: float) -> None:
        """Take note of what a partition took."""
        rate = count / max(elapsed_s, 1e-6)
        self._rate = rate if self._rate is None else (self._rate + rate) / 2


@dataclass(eq=False)
class _Entry(Generic[A]):
    """A partition, from when its first item is listed until its answer is taken."""

    block: Block = field(default_factory=Block)
    count: int = 0
    answer: A | Crashed | None = None
    halves: list[_Entry[A]] = field(default_factory=list)
    deaths: int = 0

    @property
    def done(self) -> bool:
        if self.halves:
            return all(half.done for half in self.halves)
        return self.answer is not None

    def add(self, fresh: Fresh) -> None:
        at, block, more = slice(fresh.start, fresh.stop), fresh.block, self.block
        more.keys.extend(block.keys[at])
        more.places.extend(block.places[at])
        more.labels.extend(block.labels[at])
        more.splits.extend(block.splits[at])
        more.more.extend(block.more[at])
        self.count += fresh.stop - fresh.start

    def pieces(self, start: int, stop: int) -> Iterator[Piece[A]]:
        """Some of its items, as pieces of the answers that hold them."""
        if not self.halves:
            assert self.answer is not None, "it is done"
            yield Piece(self.answer, start, stop)
            return
        first, second = self.halves
        if start < first.count:
            yield from first.pieces(start, min(stop, first.count))
        if stop > first.count:
            yield from second.pieces(max(0, start - first.count), stop - first.count)

    def halve(self) -> None:
        middle = self.count // 2
        for start, stop in ((0, middle), (middle, self.count)):
            half: _Entry[A] = _Entry(deaths=self.deaths - 1)
            half.add(Fresh(self.block, start, stop))
            self.halves.append(half)
        self.block = Block()


@dataclass(frozen=True)
class _Part(Generic[A]):
    """Items in the line that belong to one entry."""

    entry: _Entry[A]
    start: int
    stop: int


class Dispatch(Generic[A, T]):
    """Has a stream worked on; iterating over it gives what became of it, in its order.

    Parameters
    ----------
    stream : iterable of Fresh, and of what passes through
    crew : Crew
    total : int
        Fresh items that are expected.
    numbers : iterator of int
        Gives the partitions' numbers.
    listen : callable
        Told of each answer as soon as it comes, in no order.

    Raises
    ------
    ClusterError
        While iterating: workers die again and again.
    """

    def __init__(
        self,
        stream: Iterable[Fresh | T],
        crew: Crew[A],
        total: int,
        numbers: Iterator[int],
        listen: Callable[[A | Crashed], None],
    ) -> None:
        self._stream: Iterator[Fresh | T] = iter(stream)
        self._crew, self._numbers, self._listen = crew, numbers, listen
        self._sizes = Sizes(total)
        self._line: deque[_Part[A] | T] = deque()
        self._open: _Entry[A] = _Entry()
        self._again: deque[_Entry[A]] = deque()
        self._out: dict[int, _Entry[A]] = {}
        self._passing = self._listed = 0  # items in the line, known and fresh
        self._rest: Fresh | None = None  # what did not fit into a partition
        self._ended = False
        self._succeeded = False
        self._deaths = 0  # since a partition was done

    def __iter__(self) -> Iterator[Piece[A] | T]:
        while True:
            self._feed()
            if not self._line:
                if self._ended:
                    return
                continue
            head = self._line[0]
            if not isinstance(head, _Part):
                self._line.popleft()
                self._passing -= len(head)
                yield head
            elif head.entry.done:
                self._line.popleft()
                self._listed -= head.stop - head.start
                yield from head.entry.pieces(head.start, head.stop)
            else:
                self._wait()

    def now(self, fresh: Fresh) -> Iterator[Piece[A]]:
        """Have items worked on that the stream did not show, before all others."""
        entries = []
        for start in range(fresh.start, fresh.stop, FIRST):
            entries.append(_Entry[A]())
            entries[-1].add(Fresh(fresh.block, start, min(start + FIRST, fresh.stop)))
        self._again.extendleft(reversed(entries))
        for entry in entries:
            while not entry.done:
                self._feed()
                self._wait()
            yield from entry.pieces(0, entry.count)

    def _feed(self) -> None:
        """Give the crew as much as it takes; list at least one thing where nothing is listed."""
        while self._crew.has_room or not (self._line or self._ended):
            entry = self._again.popleft() if self._again else self._next()
            if entry is None:
                return
            if not self._crew.has_room:
                self._again.appendleft(entry)
                return
            partition = Partition(next(self._numbers), entry.block)
            self._out[partition.number] = entry
            self._crew.give(partition)

    def _next(self) -> _Entry[A] | None:
        """Go on in the stream until a partition is full, or as much as may be is listed."""
        size = self._sizes.next(self._crew.size)
        while self._open.count < size and not self._ended and not self._full:
            found, self._rest = self._rest or next(self._stream, None), None
            if found is None:
                self._ended = True
            elif isinstance(found, Fresh):
                self._list(found, size)
            else:
                self._line.append(found)
                self._passing += len(found)
        if not self._open.count:
            return None
        entry, self._open = self._open, _Entry()
        self._sizes.given(entry.count)
        return entry

    @property
    def _full(self) -> bool:
        return self._passing >= MOST_PASSING or self._listed >= MOST_DONE

    def _list(self, found: Fresh, size: int) -> None:
        """Put items into the open partition; those that do not fit are the next of the stream."""
        entry, room = self._open, size - self._open.count
        stop = min(found.stop, found.start + room)
        first = entry.count
        entry.add(Fresh(found.block, found.start, stop))
        self._line.append(_Part(entry, first, entry.count))
        self._listed += stop - found.start
        if stop < found.stop:
            self._rest = Fresh(found.block, stop, found.stop)

    def _wait(self) -> None:
        for event in self._crew.wait(_POLL_S):
            entry = self._out.pop(event.partition.number)
            if isinstance(event, Lost):
                self._lost(entry, event)
                continue
            self._succeeded, self._deaths = True, 0
            self._sizes.took(entry.count, event.elapsed_s)
            self._settle(entry, event.answer)

    def _settle(self, entry: _Entry[A], answer: A | Crashed) -> None:
        entry.answer, entry.block = answer, Block()
        self._listen(answer)

    def _lost(self, entry: _Entry[A], lost: Lost) -> None:
        """Have a partition worked on again, or in halves; or find the item that is to blame."""
        if not lost.suspect:
            self._again.appendleft(entry)
            return
        _log.warning("A worker died at %s: %s", lost.partition, lost.why)
        entry.deaths += 1
        self._deaths += 1
        alone = entry.count == 1 and entry.deaths >= DEATHS_ALONE
        if self._deaths > max(10, 3 * self._crew.size) or (alone and not self._succeeded):
            raise ClusterError(
                f"The workers die: {self._deaths} in a row, the last one at {lost.partition}:"
                f" {lost.why}",
                hint="If they lack memory, give each more of it: fewer workers per node (--threads"
                " N takes N cores for each). The same command goes on from what was done.",
            )
        if alone:
            detail = "Every process that worked on it died."
            reject = Reject(Stage.DECODE, Reason.CRASHED, detail)
            self._settle(entry, Crashed(entry.block.item(0), reject))
        elif entry.count > 1 and entry.deaths >= DEATHS:
            entry.halve()
            self._again.extendleft(reversed(entry.halves))
        else:
            self._again.appendleft(entry)
