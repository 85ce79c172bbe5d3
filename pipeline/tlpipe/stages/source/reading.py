"""Reads image files whole, with an end to what is read: those of folders and manifests."""

from __future__ import annotations

import os
import stat as stat_module
from pathlib import Path

from tlpipe.types import FileStat, Reason, Reject, Stage

MAX_FILE_BYTES = 1 << 29
"""Largest image file that is read."""


class FileReader:
    """Reads files by their paths; see ``Reader``."""

    def read(self, place: str, /) -> tuple[bytes, FileStat] | Reject:
        """Content of a regular file."""
        path = Path(place)
        stat = FileStat()
        try:
            # Looked at before it is opened: opening a named pipe would wait for a writer.
            if not stat_module.S_ISREG(path.stat().st_mode):
                return Reject(Stage.SOURCE, Reason.UNREADABLE, "It is not a regular file.")
            with path.open("rb", buffering=0) as stream:
                found = os.fstat(stream.fileno())
                stat = FileStat(found.st_size, found.st_mtime_ns)
                if found.st_size > MAX_FILE_BYTES:
                    return too_large(found.st_size, stat)
                return stream.read(), stat
        except FileNotFoundError:
            return Reject(Stage.SOURCE, Reason.MISSING, "There is no such file.")
        except (OSError, ValueError) as exc:  # ValueError: a NUL character in the path
            return unreadable(exc, stat)


def too_large(size: int, stat: FileStat) -> Reject:
    """Why an image of `size` bytes is not read."""
    detail = f"{size} bytes; the limit is {MAX_FILE_BYTES}."
    return Reject(Stage.DECODE, Reason.TOO_LARGE, detail, stat)


def unreadable(exc: Exception, stat: FileStat) -> Reject:
    """Why an image is not read, where the system says it."""
    detail = getattr(exc, "strerror", None) or str(exc)
    return Reject(Stage.SOURCE, Reason.UNREADABLE, f"{detail}.", stat)
