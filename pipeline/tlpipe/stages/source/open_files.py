"""Files that are read in places: opened when they are needed, a few at a time, by any thread."""

from __future__ import annotations

import os
import stat as stat_module
import threading
from collections.abc import Sequence
from typing import Any

_MOST_OPEN = 64
_MOST_OFFSET = 1 << 62  # no file is as long, and systems take no larger number

_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_NONBLOCK", 0)  # opening a named pipe would wait for a writer
)

Stamp = tuple[int, int]
"""Size in bytes and time of change in ns of a file: what tells that it is as it was."""


class ChangedError(Exception):
    """A file is not as it was when its content was listed."""


class OpenedFile:
    """An open file; closed when nobody uses it any more, so never under a thread that reads."""

    __slots__ = ("__weakref__", "descriptor", "lock")

    def __init__(self, path: str) -> None:
        self.descriptor = -1
        self.lock = threading.Lock()
        self.descriptor = os.open(path, _FLAGS)
        if not stat_module.S_ISREG(os.fstat(self.descriptor).st_mode):
            raise OSError("It is not a regular file")

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)

    def stamp(self) -> Stamp:
        """What the file is like now."""
        found = os.fstat(self.descriptor)
        return found.st_size, found.st_mtime_ns

    def whole(self, offset: int, size: int) -> bytes:
        """Bytes at an offset, fewer only where the file ends."""
        if offset > _MOST_OFFSET:
            return b""
        content = self._some(offset, size)
        if len(content) == size:
            return content
        pieces = [content]
        while content and (size := size - len(content)):
            offset += len(content)
            content = self._some(offset, size)
            pieces.append(content)
        return b"".join(pieces)

    def _some(self, offset: int, size: int) -> bytes:
        """Bytes at an offset, maybe fewer than asked for."""
        if hasattr(os, "pread"):
            return os.pread(self.descriptor, size, offset)
        with self.lock:  # Windows
            os.lseek(self.descriptor, offset, os.SEEK_SET)
            return os.read(self.descriptor, size)


class OpenFiles:
    """Reads stretches of some files; may be used from several threads, pickled, and forked.

    No lock is held while files are looked up: a fork in that moment would leave it locked.

    Parameters
    ----------
    paths : sequence of str
        They are named by their numbers from here on.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = tuple(paths)
        self._opened: dict[int, OpenedFile] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self.paths, "_opened": {}}

    def stamp(self, number: int) -> Stamp:
        """What a file is like now: that of its name, not one that was opened before.

        Raises
        ------
        OSError
        """
        return self.opened(number).stamp()

    def read(self, number: int, offset: int, size: int, stamp: Stamp) -> bytes:
        """A stretch of a file, shorter only where the file ends.

        Raises
        ------
        ChangedError
            The file is not as `stamp` says.
        OSError
            It cannot be read.
        """
        opened = self._opened.get(number)
        if opened is None or opened.stamp() != stamp:
            opened = self.opened(number)
            if opened.stamp() != stamp:
                raise ChangedError
        return opened.whole(offset, size)

    def opened(self, number: int) -> OpenedFile:
        """Open a file anew: what its name stands for now.

        Raises
        ------
        OSError
        """
        opened = OpenedFile(self.paths[number])
        while len(self._opened) >= _MOST_OPEN:
            try:
                self._opened.pop(next(iter(self._opened)), None)
            except (StopIteration, RuntimeError):  # another thread did so
                break
        self._opened[number] = opened
        return opened
