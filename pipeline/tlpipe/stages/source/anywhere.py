"""Reads whatever a manifest, a list or a program may name: files, web addresses, object stores."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from tlpipe.addresses import is_web
from tlpipe.stages.source.addressed import Address
from tlpipe.stages.source.reading import FileReader
from tlpipe.stages.source.web_reader import WebReader
from tlpipe.types import FileStat, Reject

if TYPE_CHECKING:
    from tlpipe.stages.source.store_reader import StoreReader


class AnyReader:
    """Reads places of every kind: paths, and ``Address``; see ``Reader``.

    What is known of servers is this reader's own, and not pickled with it.
    """

    def __init__(self) -> None:
        self._files = FileReader()
        self._web = WebReader()
        self._lock = threading.Lock()
        self._stores: StoreReader | None = None

    def __reduce__(self) -> tuple[type[AnyReader], tuple[()]]:
        return AnyReader, ()

    def read(self, place: str | Address, /) -> tuple[bytes, FileStat] | Reject:
        """Content of what lies at a place; raises as ``WebReader``."""
        if isinstance(place, str):
            return self._files.read(place)
        if is_web(place.url):
            return self._web.read(place)
        return self._store().read(place)

    def interrupt(self) -> None:
        """End all reading that is under way."""
        self._web.interrupt()
        with self._lock:
            stores = self._stores
        if stores is not None:
            stores.interrupt()

    def _store(self) -> StoreReader:
        with self._lock:
            if self._stores is None:
                from tlpipe.stages.source.store_reader import StoreReader

                self._stores = StoreReader()
            return self._stores
