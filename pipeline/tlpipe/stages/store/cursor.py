"""A position in a feature file that is joined with a source, and what tells one item from another.

An item is known by its key, size and time of change; where these are not trusted, by its key alone.
"""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tlpipe.stages.store.read import SPAN_ROWS, FeatureFile

if TYPE_CHECKING:
    from tlpipe.types import Block

Stat = tuple[int, int]

ANY: Stat = (0, 0)
"""Stands for every stat where none is trusted."""

_FIRST_WINDOW = 64  # rows read after a jump; doubled while the streams agree

RACY_NS = 2_000_000_000
"""A file that was changed less than this before it was read, or later, may have been changed again
within the clock's grain, so its time of change proves nothing. 2 s is the grain of FAT, the
coarsest in use (Microsoft, File Times)."""


def identities(
    file: FeatureFile, start: int, stop: int, *, keys_only: bool = False
) -> tuple[list[str], list[Stat | None]]:
    """Keys of rows, and their stats; None for one that proves nothing."""
    if keys_only:
        return [key.decode() for key in file.read("keys", start, stop)], [ANY] * (stop - start)
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


def identity(key: str, stat: Stat | None) -> bytes:
    """What stands for an item in an index: 16 bytes."""
    size, mtime = stat or (-2, -2)  # no file has that
    return hashlib.blake2b(f"{size}:{mtime}:{key}".encode(), digest_size=16).digest()


@dataclass(eq=False)
class Cursor:
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
        self._read()
        return True

    def _read(self) -> None:
        """Have a window that begins at the cursor."""
        stop = min(self.row + self._size, self.file.count)
        found = identities(self.file, self.row, stop, keys_only=self.keys_only)
        self._keys, self._stats = found
        self._first, self._places = self.row, None

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
        """Position of a key in the window, which is moved on where it may lie just behind it."""
        at = self._positions().get(key)
        behind, ahead = self.row - self._first, self._first + len(self._keys) - self.row
        if at is None and behind >= ahead and self._first + len(self._keys) < self.file.count:
            self._read()
            at = self._positions().get(key)
        return at

    def _positions(self) -> dict[str, int]:
        if self._places is None:
            self._places = {key: n for n, key in enumerate(self._keys)}
        return self._places
