"""An index from digests to numbers that lies on disk: its memory does not grow with its size."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from tlpipe.errors import OutputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIGEST_BYTES = 16
"""Bytes of a digest that count: two that agree in them are taken for the same. Of 10^8 digests by
chance, two agree with a probability of 10^-23 (birthday bound, n^2 / 2^129)."""

_CACHE_KIB = 32 * 1024


class DigestIndex:
    """Numbers by digest; of two with the same digest the first stays. Safe to use from any thread.

    Of two that agree in their first 8 bytes and not in the next 8, the second is not found again:
    of 10^8 by chance two do with a probability of 3 * 10^-4, and then one image is read twice.
    It is a private database of SQLite's, in the system's folder for temporary files (``TMPDIR``)
    where it is too large for its cache; the system removes it with the process, however that ends.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        with _words():
            self._base = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            for setting in (
                "journal_mode = off",
                "synchronous = off",
                f"cache_size = -{_CACHE_KIB}",
            ):
                self._base.execute(f"pragma {setting}")
            self._base.execute("create table t (head integer primary key, tail integer, n integer)")
            self._base.execute("begin")

    def add(self, digests: NDArray[np.uint8], first: int) -> None:
        """Add digests, uint8 (n, 16 or more), with the numbers from `first` on.

        Raises
        ------
        OutputError
            There is no room for temporary files.
        """
        pairs = np.ascontiguousarray(digests[:, :DIGEST_BYTES]).view("<i8").reshape(-1, 2)
        order = np.argsort(pairs[:, 0], kind="stable")  # sorted, they go in four times as fast
        numbered = np.column_stack([pairs[order], order + first]).tolist()
        with self._lock, _words():
            self._base.executemany("insert or ignore into t values (?, ?, ?)", numbered)

    def put(self, digest: bytes, number: int) -> None:
        """Give one digest a number, in place of the one it may have.

        Raises
        ------
        OutputError
            As from ``add``.
        """
        head, tail = _halves(digest)
        with self._lock, _words():
            self._base.execute("insert or replace into t values (?, ?, ?)", (head, tail, number))

    def met(self, digest: bytes) -> bool:
        """Whether a digest is there already; it is from now on.

        Raises
        ------
        OutputError
            As from ``add``.
        """
        head, tail = _halves(digest)
        with self._lock, _words():
            statement = "insert or ignore into t values (?, ?, 0)"
            if self._base.execute(statement, (head, tail)).rowcount:
                return False
            found = self._base.execute("select tail from t where head = ?", (head,)).fetchone()
        return bool(found[0] == tail)

    def get(self, digest: bytes) -> int | None:
        """Number of a digest, or None."""
        head, tail = _halves(digest)
        with self._lock, _words():
            found = self._base.execute("select tail, n from t where head = ?", (head,)).fetchone()
        return int(found[1]) if found is not None and found[0] == tail else None

    def close(self) -> None:
        """Free its memory and disk."""
        self._base.close()


def _halves(digest: bytes) -> tuple[int, int]:
    return (
        int.from_bytes(digest[:8], "little", signed=True),
        int.from_bytes(digest[8:DIGEST_BYTES], "little", signed=True),
    )


@contextlib.contextmanager
def _words() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as exc:
        raise OutputError(
            f"A temporary index cannot be kept in {tempfile.gettempdir()!r}: {exc}.",
            hint="Make room there, or name another folder with TMPDIR=FOLDER.",
        ) from exc
