"""Tells an image that is missing from a source that went away while it was read."""

from __future__ import annotations

from pathlib import Path

from tlpipe.errors import SourceError
from tlpipe.stages.source import Source
from tlpipe.types import Item, Reason, Reject, Stage
from tlpipe.workflows.unplugged import is_unplugged


class SourceWatch:
    """Knows a source from another one that takes its place.

    Attributes
    ----------
    vanished : int
        Images that a folder had when it was listed, and that were not there any more.
    """

    def __init__(self, source: Source) -> None:
        self.vanished = 0
        self._source = source
        self._roots = [_identity(path) for path in source.paths]

    def check(self, item: Item, reject: Reject) -> None:
        """Raise where an item was rejected because its source is not there any more.

        Raises
        ------
        SourceError
        """
        if reject.stage is not Stage.SOURCE or reject.reason is Reason.DUPLICATE_KEY:
            return
        source = self._source
        gone = [_identity(path) for path in source.paths] != self._roots
        if source.walked and source.paths and not gone:  # a folder of this machine, which listed it
            path = Path(item.place)
            gone = _identity(path.parent) is None or is_unplugged(path)
        if gone:
            raise SourceError(
                f"The source {source.name!r} went away while it was read, at {item.key!r}"
                f" ({reject.detail})",
                hint="Connect or mount it again, and run the same command.",
            )
        self.vanished += source.walked and reject.reason is Reason.MISSING


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file or folder from another one of the same name; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
