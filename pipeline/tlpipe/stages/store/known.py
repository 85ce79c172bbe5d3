"""What has been embedded before: rows of several feature files, found again item by item.

The source and each file are streams in the source's order, and are joined as such: a cursor stands
in each file, and as long as source and file agree whole stretches are compared at once. Where they
do not (items came, went, changed or moved), a window of the file around the cursor is searched, and
then an index of all rows, made when it is first needed. So any order is right, an unchanged one
is fast, and memory does not grow with the number of rows.
"""

from __future__ import annotations

import datetime
import hashlib
import logging
import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from tlpipe.errors import DamagedFileError
from tlpipe.stages.store.index import DigestIndex
from tlpipe.stages.store.layout import CHUNK_ROWS
from tlpipe.stages.store.read import SPAN_ROWS, FeatureFile
from tlpipe.stages.store.rows import Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import Block

_log = logging.getLogger(__name__)

Stat = tuple[int, int]

_FIRST_WINDOW = 64  # rows read after a jump; doubled while the streams agree

_CHUNKS = 16  # kept in memory: 21 MB at a D of 1,280

_ANY = (0, 0)
_UNKNOWN = (-1, -1)

RACY_NS = 2_000_000_000
"""A file that was changed less than this before it was read, or later, may have been changed again
within the clock's grain, so its time of change proves nothing. 2 s is the grain of FAT, the
coarsest in use (Microsoft, File Times)."""


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
        Items met so far that the first file has in another state.
    """

    def __init__(self, files: Sequence[FeatureFile], *, rehash: bool = False) -> None:
        self.files = files
        self._bases = np.cumsum([0, *(file.count for file in files)]).tolist()
        self.rehash = rehash
        self.changed = 0
        self._by_file = [_Cursor(file, keys_only=rehash) for file in files]
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
            block = replace(block, stats=[_ANY] * len(block))
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
                    return self._taken(cursor, count)
        changed = [cursor.skip(block.keys[start]) for cursor in self._by_file]
        self.changed += changed[0]
        if all(changed):  # each file has this item once, in another state
            return None
        place = self._indexed().get(_identity(block.keys[start], block.stats[start]))
        if place is None:
            return None
        number, row = self._locate(place)
        cursor = self._by_file[number]
        cursor.move(row)
        count = cursor.agree(block, start)
        return self._taken(cursor, count) if count else None

    def _taken(self, cursor: _Cursor, count: int) -> tuple[int, int]:
        place = self._bases[self._by_file.index(cursor)] + cursor.row
        cursor.advance(count)
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
                    digests = [_identity(key, stat) for key, stat in pairs]
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

        Places beyond these rows are those of rows that a run has just written.
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


def identities(
    file: FeatureFile, start: int, stop: int, *, keys_only: bool = False
) -> tuple[list[str], list[Stat | None]]:
    """Keys of rows, and their stats; None for one that proves nothing."""
    if keys_only:
        return [key.decode() for key in file.read("keys", start, stop)], [_ANY] * (stop - start)
    stats = file.read("stat", start, stop)
    found: list[Stat | None] = stats.tolist()
    for row in np.flatnonzero(stats["mtime_ns"] > _embedded_ns(file) - RACY_NS).tolist():
        found[row] = None
    return [key.decode() for key in file.read("keys", start, stop)], found


def _embedded_ns(file: FeatureFile) -> int:
    """When the run that wrote a file began, in ns since 1970; 0 where it does not say."""
    try:
        moment = datetime.datetime.fromisoformat(file.header.created_at)
    except ValueError:
        return 0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return int(moment.timestamp()) * 1_000_000_000


def _identity(key: str, stat: Stat | None) -> bytes:
    size, mtime = stat or (-2, -2)  # no file has that
    return hashlib.blake2b(f"{size}:{mtime}:{key}".encode(), digest_size=16).digest()


@dataclass(eq=False)
class _Cursor:
    """A position in a file, and a window of rows around it."""

    file: FeatureFile
    keys_only: bool = False
    row: int = 0
    _keys: list[str] = field(default_factory=list)
    _stats: list[Stat | None] = field(default_factory=list)
    _first: int = 0  # row of the window's first
    _size: int = SPAN_ROWS
    _places: dict[str, int] | None = None  # of the window's keys

    def move(self, row: int) -> None:
        """Go to a row, maybe far away."""
        if not self._first <= row < self._first + len(self._keys):
            self._size = _FIRST_WINDOW if row else SPAN_ROWS
        self.row = row

    def advance(self, count: int) -> None:
        """Go on by some rows."""
        self.row += count

    def _load(self) -> bool:
        """Have the cursor's row in the window; False at the file's end."""
        if self._first <= self.row < self._first + len(self._keys):
            return True
        if self.row >= self.file.count:
            return False
        if self.row == self._first + len(self._keys):
            self._size = min(2 * self._size, SPAN_ROWS)
        stop = min(self.row + self._size, self.file.count)
        found = identities(self.file, self.row, stop, keys_only=self.keys_only)
        self._keys, self._stats = found
        self._first, self._places = self.row, None
        return True

    def agree(self, block: Block, start: int) -> int:
        """How many items of the block from `start` on are the rows from the cursor on."""
        if not self._load():
            return 0
        at = self.row - self._first
        keys, stats = block.keys, block.stats
        if self._keys[at] != keys[start] or self._stats[at] != stats[start]:
            return 0
        count = min(len(self._keys) - at, len(keys) - start)
        mine = self._keys[at : at + count], self._stats[at : at + count]
        theirs = keys[start : start + count], stats[start : start + count]
        if mine[0] == theirs[0] and mine[1] == theirs[1]:
            return count
        pairs = zip(*mine, *theirs, strict=True)
        return next(n for n, (a, b, c, d) in enumerate(pairs) if a != c or b != d)

    def find(self, block: Block, start: int) -> int:
        """As ``agree``, after a step to the item's row, if it is in the window."""
        at = self._at(block.keys[start])
        if at is None or self._stats[at] != block.stats[start]:
            return 0
        self.row = self._first + at
        return self.agree(block, start)

    def skip(self, key: str) -> bool:
        """Step behind the row of an item that was changed, if its key is in the window."""
        if not self._load():
            return False
        at = self._at(key)
        if at is not None:
            self.row = self._first + at + 1
        return at is not None

    def _at(self, key: str) -> int | None:
        """Position of a key in the window."""
        if self._places is None:
            self._places = {key: n for n, key in enumerate(self._keys)}
        return self._places.get(key)
