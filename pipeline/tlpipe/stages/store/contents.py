"""Embeds identical content once: which content has a vector already, or is about to have one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from tlpipe.stages.store.index import DigestIndex
from tlpipe.types import Twin

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tlpipe.types import Outcome


class Contents:
    """Contents by their SHA-256. Safe to use from any thread.

    A content is stored at a place, or claimed by the first who asked for it and is embedding it, or
    free. Whoever claims one must ``settle`` it.

    Parameters
    ----------
    stored : iterable of (int, uint8 array (n, 32))
        Digests that have places, numbered from the int on; read at the first question.
    intact : callable
        Whether what is stored at a place may be used.
    """

    def __init__(
        self,
        stored: Iterable[tuple[int, NDArray[np.uint8]]],
        intact: Callable[[int], bool] = lambda place: True,
    ) -> None:
        self._intact = intact
        self._lock = threading.Lock()
        self._claims: dict[bytes, Future[Outcome]] = {}
        self._index = DigestIndex()
        self._stored: Iterable[tuple[int, NDArray[np.uint8]]] | None = stored

    def ask(self, digest: bytes) -> Twin | None:
        """Where a content is, or will be; None when it is the asker's to embed.

        Parameters
        ----------
        digest : bytes of length 32
        """
        with self._lock:
            if self._stored is not None:  # asked for the first time, in a thread that has time
                for first, digests in self._stored:
                    self._index.add(digests, first)
                self._stored = None
            place = self._index.get(digest)
            if place is not None and self._intact(place):
                return Twin(place=place)
            claim = self._claims.get(digest)
            if claim is not None:
                return Twin(pending=claim)
            self._claims[digest] = Future()
            return None

    def settle(self, digest: bytes, result: Outcome | BaseException) -> None:
        """Tell those who wait for a claimed content what became of it.

        A content with a vector stays claimed until it has a place; others are free again.
        """
        with self._lock:
            claim = self._claims.get(digest)
            if claim is not None and (
                isinstance(result, BaseException) or result.reject is not None
            ):
                del self._claims[digest]
        if claim is None or claim.done():
            return
        if isinstance(result, BaseException):
            claim.set_exception(result)
        else:
            claim.set_result(result)

    def place(self, digest: bytes, place: int) -> None:
        """State the place of a content that was claimed."""
        with self._lock:
            self._index.put(digest, place)
            self._claims.pop(digest, None)

    def close(self) -> None:
        """Free the index."""
        self._index.close()
