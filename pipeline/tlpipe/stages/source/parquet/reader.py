"""Reads images out of Parquet tables: each stretch of rows once, in a bounded part of memory.

A Parquet file cannot be read from any place: what is before a row in its row group is read with it.
Items are asked for in about their order. So the rows of a row group are read forward, some
megabytes at a time; a stretch of rows is kept until each of them was given away; and what is asked
for out of order is read anew.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlpipe.errors import SourceError
from tlpipe.stages.source.parquet.file import TableFile, leaf_of
from tlpipe.stages.source.parquet.stretch import rows_at_once
from tlpipe.stages.source.places import Places, as_folder
from tlpipe.stages.source.reading import MAX_FILE_BYTES, FileReader, too_large
from tlpipe.types import FileStat, Reason, Reject, Stage

_STRETCH_BYTES = 4 << 20  # read at once, if images are of the usual size
_MOST_ROWS = 1024
_KEPT_BYTES = 256 << 20  # of stretches that were not given away yet
_MOST_CURSORS = 4
_MOST_FILES = 4

Place = tuple[int, int, int]


@dataclass(slots=True)
class _Stretch:
    """Rows that were read, and how many of them were not given away yet."""

    number: int
    group: int
    start: int
    images: Any
    paths: Any
    left: int
    size: int
    stat: FileStat

    def holds(self, place: Place) -> bool:
        number, group, row = place
        same = (number, group) == (self.number, self.group)
        return same and self.start <= row < self.start + len(self.images)


@dataclass(slots=True)
class _Cursor:
    """How far a row group has been read."""

    number: int
    group: int
    row: int
    batches: Iterator[Any]


class _RowError(Exception):
    """A row cannot be read, for this reason."""

    def __init__(self, reject: Reject) -> None:
        super().__init__(reject.detail)
        self.reject = reject


class TableReader:
    """Reads images by (number of the table, row group, row in it); see ``Reader``.

    Parameters
    ----------
    paths : sequence of str
        Those of the tables.
    allowed : sequence of str
        Real paths of folders outside a table's own that the paths in it may lead into. They are
        followed where a row has a path and no image.

    Attributes
    ----------
    listed : dict of int to (int, int)
        Size and time of change of each table when it was listed. What has changed since is not
        read: its rows may be others.
    """

    def __init__(self, paths: Sequence[str], allowed: Sequence[str]) -> None:
        self._paths, self._allowed = list(paths), list(allowed)
        self.listed: dict[int, tuple[int, int]] = {}
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._files: OrderedDict[int, TableFile] = OrderedDict()
        self._cursors: list[_Cursor] = []  # the one that was used last is the last
        self._kept: list[_Stretch] = []
        self._size = 0
        self._broken: dict[tuple[int, int], tuple[int, Reject]] = {}
        self._places: dict[int, Places] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self._paths, "allowed": self._allowed, "listed": dict(self.listed)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._paths, self._allowed = state["paths"], state["allowed"]
        self.listed = state["listed"]
        self._start()

    def read(self, place: Place, /) -> tuple[bytes, FileStat] | Reject:
        """Content of the image at a place."""
        try:
            with self._lock:
                image, path, stat = self._row(place)
                file = None if image is not None or not path else self._file_of(place[0], path)
        except _RowError as exc:
            return exc.reject
        if file is not None:
            return FileReader().read(file)
        if image is None:
            return Reject(Stage.SOURCE, Reason.MISSING, "The row has no image.", stat)
        if len(image) > MAX_FILE_BYTES:
            return too_large(len(image), stat)
        return image.to_pybytes(), stat

    def _row(self, place: Place) -> tuple[Any, str | None, FileStat]:
        """Buffer of an image and path of a row, with the table's size and time of change."""
        row = place[2]
        stretch = next((s for s in self._kept if s.holds(place)), None) or self._advance(place)
        at = row - stretch.start
        stretch.left -= 1
        if stretch.left <= 0 and stretch in self._kept:
            self._drop(stretch)
        image = stretch.images[at]
        buffer = image.as_buffer()  # None where the row has no image
        path = None
        if buffer is None and stretch.paths is not None:
            path = stretch.paths[at].as_py()
        return buffer, path, stretch.stat

    def _advance(self, place: Place) -> _Stretch:
        """Read on until the stretch that holds a place."""
        number, group, row = place
        broken = self._broken.get((number, group))
        if broken is not None and row >= broken[0]:
            raise _RowError(broken[1])
        cursor = None
        try:
            cursor = self._cursor(place)
            while True:
                stretch = self._next(cursor)
                if stretch is None:
                    detail = f"Row group {group} of the table ends before its row {row}."
                    raise _RowError(Reject(Stage.SOURCE, Reason.UNREADABLE, detail))
                self._keep(stretch)
                if stretch.holds(place):
                    return stretch
        except SourceError as exc:
            reject = Reject(Stage.SOURCE, Reason.UNREADABLE, str(exc))
            self._forget(cursor)
            cause = exc.__cause__
            if not (isinstance(cause, OSError) and cause.errno):  # the system may do better later
                self._broken[number, group] = (0 if cursor is None else cursor.row, reject)
            raise _RowError(reject) from exc
        except _RowError:
            self._forget(cursor)
            raise

    def _cursor(self, place: Place) -> _Cursor:
        """The cursor that is nearest before a place, or a new one at the row group's start."""
        number, group, row = place
        fit = [c for c in self._cursors if (c.number, c.group) == (number, group) and c.row <= row]
        if fit:
            cursor = max(fit, key=lambda cursor: cursor.row)
            self._cursors.remove(cursor)
        else:
            file = self._open(number)
            leaf = file.columns.image
            if leaf is None or not 0 <= group < len(file.rows):
                detail = f"The table has no images, or no row group {group}."
                raise _RowError(Reject(Stage.SOURCE, Reason.UNREADABLE, detail))
            leaves = [leaf] if file.columns.path is None else [leaf, file.columns.path]
            rows = rows_at_once(file.pages(group, leaf), _MOST_ROWS, _STRETCH_BYTES)
            cursor = _Cursor(number, group, 0, file.stretches(group, leaves, rows))
        self._cursors = [*self._cursors[1 - _MOST_CURSORS :], cursor]
        return cursor

    def _next(self, cursor: _Cursor) -> _Stretch | None:
        """Read some rows more."""
        batch = next(cursor.batches, None)
        if batch is None:
            return None
        file = self._open(cursor.number)
        columns = file.columns
        assert columns.image is not None, "the cursor reads it"
        images = leaf_of(batch, columns.image)
        stretch = _Stretch(
            cursor.number,
            cursor.group,
            cursor.row,
            images,
            None if columns.path is None else leaf_of(batch, columns.path),
            len(images),
            batch.nbytes,
            FileStat(*file.stat),
        )
        cursor.row += len(images)
        return stretch

    def _open(self, number: int) -> TableFile:
        file = self._files.get(number)
        if file is None:
            path = self._paths[number]
            file = TableFile(Path(path), "The table")
            listed = self.listed.get(number)
            if listed is not None and listed != file.stat:
                file.close()
                detail = "The table has changed since it was listed."
                raise _RowError(Reject(Stage.SOURCE, Reason.UNREADABLE, detail))
            self._files[number] = file
            while len(self._files) > _MOST_FILES:
                old, closing = self._files.popitem(last=False)
                self._cursors = [c for c in self._cursors if c.number != old]
                closing.close()
        self._files.move_to_end(number)
        return file

    def _keep(self, stretch: _Stretch) -> None:
        self._kept.append(stretch)
        self._size += stretch.size
        while self._size > _KEPT_BYTES and len(self._kept) > 1:
            self._drop(self._kept[0])

    def _drop(self, stretch: _Stretch) -> None:
        self._kept.remove(stretch)
        self._size -= stretch.size

    def _forget(self, cursor: _Cursor | None) -> None:
        if cursor in self._cursors:
            self._cursors.remove(cursor)

    def _file_of(self, number: int, written: str) -> str:
        """Path of the file that a row names in place of an image; it may be read."""
        folder = as_folder(os.path.dirname(self._paths[number]))  # noqa: PTH120
        if number not in self._places:
            self._places[number] = Places(folder, self._allowed)
        path = os.path.join(folder, written)  # noqa: PTH118
        if "\0" in written:
            outside: str | None = None  # reading it says what is wrong
        else:
            outside = self._places[number].outside(path)
        if outside is not None:
            detail = (
                f"It has a path and no image, and {written!r} leads outside the table's folder."
            )
            raise _RowError(Reject(Stage.SOURCE, Reason.UNREADABLE, detail))
        return path
