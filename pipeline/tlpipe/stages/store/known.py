"""What has been embedded before: rows of several feature files, found again item by item.

The source and each file are streams in the source's order, and are joined as such: a cursor stands
in each file, and as long as source and file agree whole stretches are compared at once. Where they
do not (items came, went, changed or moved), a window of the file around the cursor is searched, and
then an index of all rows, made when it is first needed. So any order is right, an unchanged one
is fast, and memory does not grow with the number of rows.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tlpipe.errors import DamagedFileError
from tlpipe.stages.store.cursor import ANY, Cursor, identities, identity
from tlpipe.stages.store.index import DigestIndex
from tlpipe.stages.store.layout import CHUNK_ROWS
from tlpipe.stages.store.read import SPAN_ROWS, FeatureFile
from tlpipe.stages.store.rows import Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import Block

_log = logging.getLogger(__name__)

_CHUNKS = 16  # kept in memory: 21 MB at a D of 1,280

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
        self._bases = np.cumsum([0, *(file.count for file in files)]).tolist()
        self.rehash = rehash
        self.changed = 0
        self._by_file = [Cursor(file, keys_only=rehash) for file in files]
        self._cursors = list(self._by_file)  # the one that was right last comes first
        self._index: DigestIndex | None = None
        self._lock = threading.Lock()
        self._chunks: dict[tuple[int, int], Rows] = {}  # the latest used stand last

    @property
    def count(self) -> int:
        """Number of rows in all."""
        return int(self._bases[-1])

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
        self, block: Block, *, without: Collection[int] = ()
    ) -> Iterator[tuple[int, int, Rows | None]]:
        """Cover a block, in order, with rows that hold its items, and None for those to be read.

        Gives the first item, the number of items and the rows, at most a chunk at a time. Rows that
        are not those that were stored are not used.

        Parameters
        ----------
        block : Block
        without : collection of int
            Items to leave to the caller.
        """
        runs = [Run(0, len(block), None)] if self.rehash else self.match(block)
        for run in runs:
            if run.place is None:
                yield run.start, run.count, None
                continue
            done = 0
            while done < run.count:
                start, place = run.start + done, run.place + done
                row = self._locate(place)[1]
                count = min(run.count - done, CHUNK_ROWS - row % CHUNK_ROWS)
                done += count
                try:
                    rows = self.rows(place, count)
                except DamagedFileError as exc:
                    _log.warning("%s The images are embedded again.", exc.message)
                    yield start, count, None
                    continue
                yield from _outside(start, count, rows, without)

    def _at(self, block: Block, start: int) -> tuple[int, int] | None:
        """Place of the row of an item, and how many rows and items agree from there on."""
        if not self._cursors or block.stats[start] == _UNKNOWN:
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
        return int(place), count

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
        number = int(np.searchsorted(self._bases, place, side="right")) - 1
        return number, place - self._bases[number]

    def contents(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """SHA-256 of the content of all rows: the first place and uint8 (n, 32), span by span."""
        for number, file in enumerate(self.files):
            for start in range(0, file.count, SPAN_ROWS):
                stop = min(start + SPAN_ROWS, file.count)
                yield self._bases[number] + start, file.read("content_sha256", start, stop)

    def rows(self, place: int, count: int) -> Rows:
        """Rows with their vectors, all of one file.

        Raises
        ------
        DamagedFileError
            They are not those that were stored.
        """
        number, row = self._locate(place)
        return self.files[number].rows(row, row + count, vectors=True)

    def intact(self, place: int) -> bool:
        """Whether what is stored at a place is what was stored; may be asked in any thread.

        Places beyond those of the files are of rows that are being written: those are.
        """
        if place >= self.count:
            return True
        try:
            self.row(place)
        except DamagedFileError:
            return False
        return True

    def row(self, place: int) -> Rows:
        """One row, out of a few chunks that are kept in memory; may be asked for in any thread.

        Raises
        ------
        DamagedFileError
            Its chunk is not as it was stored.
        """
        number, row = self._locate(place)
        first = row - row % CHUNK_ROWS
        with self._lock:
            chunk = self._chunks.pop((number, first), None)
            if chunk is None:
                stop = min(first + CHUNK_ROWS, self.files[number].count)
                chunk = self.files[number].rows(first, stop, vectors=True)
            self._chunks[number, first] = chunk
            if len(self._chunks) > _CHUNKS:
                del self._chunks[next(iter(self._chunks))]
        return chunk.part(row - first, row - first + 1)

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
