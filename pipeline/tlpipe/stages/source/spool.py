"""Spool: bytes that come once and are needed again, in a temporary file without a name."""

from __future__ import annotations

import tempfile
import threading
import weakref

from tlpipe.errors import OutputError


class Spool:
    """Keeps bytes outside memory; used by several threads. The system removes them, come what may.

    Attributes
    ----------
    size : int
        Bytes in it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.size = 0
        try:
            # buffering=0: what one thread wrote, another one reads.
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  (see finalize)
        except OSError as exc:
            raise _full(exc) from exc
        weakref.finalize(self, self._file.close)

    def add(self, data: bytes) -> int:
        """Append bytes; gives their offset.

        Raises
        ------
        OutputError
            There is no room for them.
        """
        with self._lock:
            offset = self.size
            try:
                self._file.seek(offset)
                rest = memoryview(data)
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError as exc:
                raise _full(exc) from exc
            self.size = offset + len(data)
        return offset

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from an offset on; fewer at the end alone."""
        pieces = []
        with self._lock:
            self._file.seek(offset)
            while size > 0:
                piece = self._file.read(size)
                if not piece:
                    break
                pieces.append(piece)
                size -= len(piece)
        return b"".join(pieces)


def _full(exc: OSError) -> OutputError:
    return OutputError(
        f"The temporary file for what comes once could not be written: {exc.strerror or exc}.",
        hint="Name a folder on a disk with more room with TMPDIR=FOLDER.",
    )
