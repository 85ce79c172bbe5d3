"""A file for HDF5 that survives a full disk.

When the system refuses a write, HDF5 cannot close the file: it raises from destructors, and then
crashes the interpreter at its exit. So HDF5 writes through this object, which keeps the first error
for us to raise and from then on lets HDF5 believe that all is well. What was written is useless
then, but it is a temporary file, and it is removed. The same holds for Ctrl-C and other signals,
whose exceptions may come up in these methods as anywhere.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Literal


class GuardedFile:
    """A binary file, opened for writing and reading, whose first error is kept in ``error``.

    Parameters
    ----------
    path : pathlib.Path
    mode : {"w+b", "r+b"}
        Whether it begins empty or as it is.
    """

    def __init__(self, path: Path, mode: Literal["w+b", "r+b"] = "w+b") -> None:
        self._file = path.open(mode, buffering=0)
        self.error: BaseException | None = None
        self._failed = False

    def _keep(self, error: BaseException) -> None:
        if not self._failed:
            self.error, self._failed = error, True

    def taken(self) -> BaseException | None:
        """The error that was kept, which is not kept any longer.

        What failed to open a file holds on to HDF5's list of properties, which holds on to this
        object. Were the error kept here, Python could free none of them, and HDF5 would crash when
        it frees the list after Python's end.
        """
        error, self.error = self.error, None
        return error

    def check(self) -> None:
        """Raise the error that was kept.

        Raises
        ------
        OSError, KeyboardInterrupt, SystemExit ...
            The error, whatever it is.
        """
        if self.error is not None:
            raise self.error

    def write(self, data: memoryview) -> int:
        """Write all of `data`; after an error, nothing."""
        view = memoryview(data).cast("B")
        done = 0
        while not self._failed and done < len(view):
            try:
                count = self._file.write(view[done:])
                if not count:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                done += count
            except BaseException as exc:
                self._keep(exc)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Set the file's length; after an error, do nothing."""
        try:
            if not self._failed:
                return self._file.truncate(size)
        except BaseException as exc:
            self._keep(exc)
        return size or 0

    def close(self) -> None:
        """Close the file; some systems report a failed write only here."""
        try:
            self._file.close()
        except BaseException as exc:
            self._keep(exc)

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes (h5py knows a file by this method)."""
        return self._file.read(size)

    def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer`, as far as the file goes; after an error, with nothing."""
        view = memoryview(buffer).cast("B")
        done = 0
        while not self._failed and done < len(view):
            try:
                count = self._file.readinto(view[done:])
                if not count:
                    break
                done += count
            except BaseException as exc:
                self._keep(exc)
        return done

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a position."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Position in bytes."""
        return self._file.tell()

    def flush(self) -> None:
        """Do nothing: the file has no buffer of its own."""
