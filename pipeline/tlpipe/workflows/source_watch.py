"""Tells an image that is missing from a source that went away while it was read."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from tlpipe.errors import SourceError
from tlpipe.stages.source import Source
from tlpipe.types import Item, Reason, Reject, Stage

_AWAY = {
    getattr(errno, name)
    for name in "ENODEV ENXIO ENOMEDIUM ESTALE ENOTCONN EHOSTDOWN EHOSTUNREACH ETIMEDOUT".split()
    if hasattr(errno, name)
}
"""What systems answer where a disk was unplugged or a server is away: no fault of one file."""


class SourceWatch:
    """Knows a source from another one that takes its place."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._root = _identity(source.path)

    def check(self, item: Item, reject: Reject) -> None:
        """Raise where an item was rejected because its source is not there any more.

        Raises
        ------
        SourceError
        """
        if reject.stage is not Stage.SOURCE or reject.reason is Reason.DUPLICATE_KEY:
            return
        source = self._source
        gone = _identity(source.path) != self._root
        if source.unique_keys and not gone:  # a folder, which listed it a moment ago
            gone = _identity(item.path.parent) is None or _is_unplugged(item.path)
        if gone:
            raise SourceError(
                f"The source {str(source.path)!r} went away while it was read, at {item.key!r}"
                f" ({reject.detail})",
                hint="Connect or mount it again, and run the same command.",
            )


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file or folder from another one of the same name; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_unplugged(path: Path) -> bool:
    """Whether a file cannot be read because its whole disk or server is away, or its folder is."""
    try:
        with path.open("rb") as stream:
            stream.read(1)
    except OSError as exc:
        if exc.errno == errno.EIO:  # of one bad spot on a disk, or of all of it
            return not _lists(path.parent)
        return exc.errno in _AWAY
    except ValueError:  # a NUL character in the path
        return False
    return False


def _lists(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            next(entries, None)
    except OSError:
        return False
    return True
