"""A file that was cut off, as HDF5 opens it: as long as it says it is."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

SIGNATURE = b"\x89HDF\r\n\x1a\n"


class PaddedFile(io.RawIOBase):
    """A file, opened for reading, that seems longer than it is: zeros follow its end.

    Parameters
    ----------
    path : pathlib.Path
    length : int
        In bytes.
    """

    def __init__(self, path: Path, length: int) -> None:
        self._file = path.open("rb", buffering=0)
        self._length = length
        self._at = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        """Position in bytes."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read into `buffer`."""
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._length - self._at))
        self._file.seek(self._at)
        done = 0
        while done < count:
            got = self._file.readinto(view[done:count])
            if not got:
                break
            done += got
        view[done:count] = bytes(count - done)
        self._at += count
        return count

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def stated_length(path: Path) -> int | None:
    """Length in bytes that an HDF5 file states; None where it cannot be told.

    The end-of-file address of superblocks of version 2 and 3 (HDF5 File Format Specification 3.0,
    section II.A), which is at byte 28 for addresses of 8 bytes.
    """
    with path.open("rb") as stream:
        start = stream.read(48)
    if len(start) < 48 or start[:8] != SIGNATURE or start[8] not in (2, 3) or start[9] != 8:
        return None
    return int.from_bytes(start[28:36], "little")
