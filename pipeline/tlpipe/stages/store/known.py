"""What has been embedded before: rows of several feature files, found again item by item.

The source and each file are streams in the source's order, and are joined as such: a cursor stands
in each file, and as long as source and file agree whole stretches are compared at once. Where they
do not (items came, went, changed or moved), a window of the file around the cursor is searched, and
then an index of all rows, made when it is first needed. So any order is right, an unchanged one
is fast, and memory does not grow with the number of rows.
"""

from __future__ import annotations

import bisect
import itertools
import logging
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tlpipe.errors import DamagedFileError
from tlpipe.stages.store.cursor import ANY, Cursor, identities, identity
from tlpipe.stages.store.index import DigestIndex
from tlpipe.stages.store.layout import CHUNK_ROWS, SPAN_ROWS
from tlpipe.stages.store.read import FeatureFile
from tlpipe.stages.store.rows import Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import Block

_log = logging.getLogger(__name__)

_SPAN_ROWS = 8 * CHUNK_ROWS
_SPANS = 3  # kept in memory: 31 MB at a D of 1,280

_UNKNOWN = (-1, -1)


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive items of a block, from `start`, that rows from `place` on hold; None if none do.

    A place is the number of a row among those of all the files, one after the other.
    """

    start: int
    count: int
    place: int | None


class Known:
    """Rows of feature files that hold what a run would embed, all of one fingerprint.

    Parameters
    ----------
    files : sequence of FeatureFile
        Earlier ones win where several have a row of the same item.
    rehash : bool
        Trust no file's size and time of change.

    Attributes
    ----------
    changed : int
        Items met so far that the first file has too, but that it did not give: it has them in
        another state, or another file was as good.
    """

    def __init__(self, files: Sequence[FeatureFile], *, rehash: bool = False) -> None:
        self.files = files
        self._bases: list[int] = [0, *itertools.accumulate(file.count for file in files)]
        self.rehash = rehash
        self.changed = 0
        self._by_file = [Cursor(file, keys_only=rehash) for file in files]
        self._cursors = list(self._by_file)  # the one that was right last comes first
        self._index: DigestIndex | None = None
        self._lock = threading.Lock()
        self._spans: dict[tuple[int, int, int], Rows] = {}  # the latest used stand last

    @property
    def count(self) -> int:
        """Number of rows in all."""
        return self._bases[-1]

    def rewind(self) -> None:
        """Put all cursors back to the start."""
        self.changed = 0
        for cursor in self._cursors:
            cursor.move(0)

    def match(self, block: Block) -> Iterator[Run]:
        """Runs that cover a block, in order: items unchanged since a row was stored, and others.

        An item is unchanged when its key, size and time of change are those of the row; its key
        alone counts where stats are not trusted (``rehash``).
        """
        if self.rehash:
            block = replace(block, stats=[ANY] * len(block))
        start = unknown = 0
        while start < len(block):
            found = self._at(block, start)
            if found is None:
                start += 1
                continue
            place, count = found
            if unknown < start:
                yield Run(unknown, start - unknown, None)
            yield Run(start, count, place)
            start = unknown = start + count
        if unknown < start:
            yield Run(unknown, start - unknown, None)

    def split(
        self, block: Block, runs: Iterable[Run] | None = None, *, without: Collection[int] = ()
    ) -> Iterator[tuple[int, int, Rows | None]]:
        """Cover a block, in order, with rows that hold its items, and None for those to be read.

        Gives the first item, the number of items and the rows, at most a span at a time. Rows that
        are not those that were stored are not used.

        Parameters
        ----------
        block : Block
        runs : iterable of Run, optional
            What ``match`` said of the block, where it was asked before.
        without : collection of int
            Items to leave to the caller.
        """
        if runs is None:
            runs = [Run(0, len(block), None)] if self.rehash else self.match(block)
        for run in runs:
            if run.place is None:
                yield run.start, run.count, None
                continue
            for start, place, count in self._pieces(run.start, run.place, run.count, _SPAN_ROWS):
                try:
                    yield from _outside(
                        start, count, self._named(block, start, place, count), without
                    )
                except DamagedFileError as exc:
                    _log.warning("%s The images are embedded again.", exc.message)
                    yield from self._sound(block, start, place, count, without)

    def _pieces(
        self, start: int, place: int, count: int, size: int
    ) -> Iterator[tuple[int, int, int]]:
        """Cut a run where a file's spans of `size` rows end: item, place and number of each."""
        done = 0
        while done < count:
            row = self._locate(place + done)[1]
            step = min(count - done, size - row % size)
            yield start + done, place + done, step
            done += step

    def _named(self, block: Block, start: int, place: int, count: int) -> Rows:
        """Rows with the keys and labels that the source gives their items."""
        at = slice(start, start + count)
        return replace(self.rows(place, count), keys=block.keys[at], labels=block.labels[at])

    def _sound(
        self, block: Block, start: int, place: int, count: int, without: Collection[int]
    ) -> Iterator[tuple[int, int, Rows | None]]:
        """The chunks of a damaged span that are good, and None for the others."""
        for first, at, step in self._pieces(start, place, count, CHUNK_ROWS):
            try:
                yield from _outside(first, step, self._named(block, first, at, step), without)
            except DamagedFileError:
                yield first, step, None

    def _at(self, block: Block, start: int) -> tuple[int, int] | None:
        """Place of the row of an item, and how many rows and items agree from there on."""
        if not self._cursors:
            return None
        if block.stats[start] == _UNKNOWN:
            # A file that is not there; but at an address that is usual, and its row may be right.
            if not isinstance(block.places[start], str):
                self.changed += self._by_file[0].skip(block.keys[start])
            return None
        for step in ("here", "near"):
            for cursor in self._cursors:
                count = cursor.agree(block, start) if step == "here" else cursor.find(block, start)
                if count:
                    return self._taken(cursor, block, start, count)
        changed = [cursor.skip(block.keys[start]) for cursor in self._by_file]
        self.changed += changed[0]
        if all(changed):  # each file has this item once, in another state
            return None
        place = self._indexed().get(identity(block.keys[start], block.stats[start]))
        if place is None:
            return None
        number, row = self._locate(place)
        cursor = self._by_file[number]
        cursor.move(row)
        count = cursor.agree(block, start)
        return self._taken(cursor, block, start, count) if count else None

    def _taken(self, cursor: Cursor, block: Block, start: int, count: int) -> tuple[int, int]:
        place = self._bases[self._by_file.index(cursor)] + cursor.row
        cursor.advance(count)
        if cursor is not self._by_file[0]:
            self.changed += sum(map(self._by_file[0].skip, block.keys[start : start + count]))
        if cursor is not self._cursors[0]:
            self._cursors.remove(cursor)
            self._cursors.insert(0, cursor)
        return place, count

    def _indexed(self) -> DigestIndex:
        if self._index is None:
            self._index = DigestIndex()
            for number, file in enumerate(self.files):
                for start in range(0, file.count, SPAN_ROWS):
                    stop = min(start + SPAN_ROWS, file.count)
                    columns = identities(file, start, stop, keys_only=self.rehash)
                    pairs = zip(*columns, strict=True)
                    digests = [identity(key, stat) for key, stat in pairs]
                    table = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)
                    self._index.add(table, self._bases[number] + start)
        return self._index

    def _locate(self, place: int) -> tuple[int, int]:
        """Number of the file of a place, and the row in it."""
        number = bisect.bisect_right(self._bases, place) - 1
        return number, place - self._bases[number]

    def contents(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """SHA-256 of the content of all rows: the first place and uint8 (n, 32), span by span."""
        for number, file in enumerate(self.files):
            for start in range(0, file.count, SPAN_ROWS):
                stop = min(start + SPAN_ROWS, file.count)
                yield self._bases[number] + start, file.read("content_sha256", start, stop)

    def intact(self, place: int) -> bool:
        """Whether what is stored at a place is what was stored; may be asked in any thread.

        Places beyond those of the files are of rows that are being written: those are.
        """
        if place >= self.count:
            return True
        try:
            self.rows(place)
        except DamagedFileError:
            return False
        return True

    def rows(self, place: int, count: int = 1) -> Rows:
        """Rows of one span, of a few that are kept in memory; may be asked for in any thread.

        They have neither their keys nor their labels, which whoever asks knows better.

        Raises
        ------
        DamagedFileError
            Something in their chunk, or in their span if they are of several, is not as stored.
        """
        number, row = self._locate(place)
        try:
            return self._span(number, row, count, _SPAN_ROWS)
        except DamagedFileError:
            if row // CHUNK_ROWS != (row + count - 1) // CHUNK_ROWS:
                raise
            return self._span(number, row, count, CHUNK_ROWS)  # this chunk may be good

    def _span(self, number: int, row: int, count: int, size: int) -> Rows:
        """Rows out of the span of `size` rows in which they are."""
        first = row - row % size
        with self._lock:
            span = self._spans.pop((number, first, size), None)
            if span is None:
                stop = min(first + size, self.files[number].count)
                span = self.files[number].rows(first, stop, vectors=True, texts=False)
            self._spans[number, first, size] = span
            if len(self._spans) > _SPANS:
                del self._spans[next(iter(self._spans))]
        return span.part(row - first, row - first + count)

    def close(self) -> None:
        """Close the files and the index."""
        for file in self.files:
            file.close()
        if self._index is not None:
            self._index.close()


def _outside(
    start: int, count: int, rows: Rows, without: Collection[int]
) -> Iterator[tuple[int, int, Rows | None]]:
    """Rows, cut where items are to be left out."""
    first = 0
    for index in sorted(i - start for i in without if start <= i < start + count):
        if first < index:
            yield start + first, index - first, rows.part(first, index)
        yield start + index, 1, None
        first = index + 1
    if first < count:
        yield start + first, count - first, rows.part(first, count)
