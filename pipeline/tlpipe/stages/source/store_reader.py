"""Reads images from object stores."""

from __future__ import annotations

from tlpipe.addresses import server_of, shown
from tlpipe.stages.source.addressed import Address
from tlpipe.stages.source.reading import MAX_FILE_BYTES, too_large
from tlpipe.stages.source.servers import Servers
from tlpipe.stages.source.stores import Running, Store, StoreFailure, size_and_time
from tlpipe.types import FileStat, Reason, Reject, Stage


class StoreReader:
    """Reads ``Address`` places in object stores; see ``Reader``."""

    def __init__(self) -> None:
        self._running, self._servers = Running(), Servers()

    def interrupt(self) -> None:
        """End all reading that is under way."""
        self._running.interrupt()

    def read(self, place: Address, /) -> tuple[bytes, FileStat] | Reject:
        """Content of an object.

        Raises
        ------
        SourceError
            The store is away, or cannot be opened at all.
        Interrupted
            The run has ended.
        """
        server = server_of(place.url)
        left_out = self._servers.left_out(server)
        if left_out is not None:
            return left_out
        try:
            found = self._content(place, Store(place.url, self._running))
        except StoreFailure as failure:
            if failure.away:
                self._servers.failed(server, str(failure))
            return Reject(Stage.SOURCE, failure.reason, f"{shown(place.url)}: {failure}.")
        self._servers.answered(server)
        return found

    def _content(self, place: Address, store: Store) -> tuple[bytes, FileStat] | Reject:
        size, mtime = place.size_bytes, place.mtime_ns
        if size < 0:
            info = store.info(place.url)
            if info.get("type") == "directory":
                raise StoreFailure(Reason.UNREADABLE, "it is a folder", away=False)
            size, mtime = size_and_time(info)
        stat = FileStat(size, mtime)
        if size > MAX_FILE_BYTES:
            return too_large(size, stat)
        raw = store.content(place.url, MAX_FILE_BYTES + 1) if size else b""
        if len(raw) > MAX_FILE_BYTES:
            return too_large(len(raw), FileStat(len(raw)))
        # Where it was changed since it was listed, its time is not known.
        return raw, stat if len(raw) == size else FileStat(len(raw))
