"""A feature file as HDF5 reads it: no longer than it says, and with no heap that has no end.

HDF5 keeps text in heaps ("global heap collections") that bear no checksum, and walks from object to
object in them. One that claims a size of 0 lets it walk for ever; a range of zeros is enough. So
HDF5 reads through this object, which walks each heap first, and takes the mark off a bad one: then
HDF5 says that it is damaged.
"""

from __future__ import annotations

import io
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import h5py

SIGNATURE = b"\x89HDF\r\n\x1a\n"

_MARK = b"GCOL\x01"
"""Begins a collection: HDF5 File Format Specification 3.0, section III.E, version 1."""

_HEADER = 16
"""Bytes of the header of a collection, and of each object in it, with lengths of 8 bytes."""

_OBJECT = struct.Struct("<H6xQ").unpack_from
"""Number and length in bytes of an object, out of its header."""

_TEXT = np.dtype([("length", "<u4"), ("heap", "<u8"), ("number", "<u4")])
"""What a dataset holds of a text: its length, and where it is (section VI.B, "variable-length")."""

_LEAST = 4096
"""Bytes of the smallest collection (H5HG_MINSIZE), which HDF5 reads at first."""

_MOST_SEARCHED = 1 << 16
"""Bytes of a read of which all is searched; of more, which are vectors, the start."""


class FileContent(io.RawIOBase):
    """A file, opened for reading.

    Parameters
    ----------
    path : pathlib.Path
    length : int, optional
        In bytes, where it is to seem longer than it is: zeros follow its end.
    """

    def __init__(self, path: Path, length: int | None = None) -> None:
        self._file = path.open("rb", buffering=0)
        self.length = self._file.seek(0, io.SEEK_END) if length is None else length
        self._at = 0
        self._one_at_a_time = threading.Lock()
        self._sound: dict[int, bool] = {}  # HDF5 reads each heap twice

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.length}[whence]
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        """Position in bytes."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read into `buffer`."""
        view = memoryview(buffer).cast("B")
        start, count = self._at, max(0, min(len(view), self.length - self._at))
        self._fill(view[:count], start)
        self._unmark_bad_heaps(view[:count], start)
        self._at = start + count
        return count

    def _fill(self, view: memoryview, start: int) -> None:
        done = 0
        with self._one_at_a_time:  # rows are read in several threads
            self._file.seek(start)
            while done < len(view):
                got = self._file.readinto(view[done:])
                if not got:
                    break
                done += got
        view[done:] = bytes(len(view) - done)

    def bytes_at(self, start: int, count: int) -> bytes:
        """Up to `count` bytes from `start` on; the position stays."""
        buffer = bytearray(max(0, min(count, self.length - start)))
        self._fill(memoryview(buffer), start)
        return bytes(buffer)

    def _unmark_bad_heaps(self, view: memoryview, start: int) -> None:
        """Take the mark off each bad collection whose mark stands, all or in part, in `view`."""
        edge = len(_MARK) - 1
        data = bytes(view if len(view) <= _MOST_SEARCHED else view[:_LEAST])
        before = min(start, edge)
        if data[:edge].find(b"L\x01") >= 0 or data[:1] == _MARK[-1:]:
            data = self.bytes_at(start - before, before) + data
        else:
            before = 0
        if any(data.endswith(_MARK[:n]) for n in range(1, len(_MARK))):
            data += self.bytes_at(start - before + len(data), edge)
        at = data.find(_MARK)
        while at >= 0:
            first = at - before  # in the view; may be negative
            address = start + first
            if address not in self._sound:
                self._sound[address] = self._is_sound(address)
            if not self._sound[address]:
                for index in range(max(first, 0), min(first + len(_MARK), len(view))):
                    view[index] = 0
            at = data.find(_MARK, at + 1)

    def _is_sound(self, address: int) -> bool:
        """Whether walking over the objects of a collection comes to its end."""
        size = int.from_bytes(self.bytes_at(address + 8, 8), "little")
        if not _LEAST <= size <= self.length - address:
            return True  # it is no collection, or HDF5 refuses it for its size
        at, end = _HEADER, size
        heap = self.bytes_at(address, size)
        while at + _HEADER <= end:
            number, length = _OBJECT(heap, at)
            step = _HEADER + (length + 7) // 8 * 8 if number else length
            if step < _HEADER or step > end - at:
                return False
            at += step
        return True

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


def check_lengths(dataset: h5py.Dataset, content: FileContent, start: int, stop: int) -> None:
    """Refuse texts that claim more bytes than the file has, for which HDF5 would take memory.

    Raises
    ------
    ValueError
    """
    rows = dataset.chunks[0] if dataset.chunks else dataset.shape[0]
    for first in range(start - start % rows, stop, rows) if rows else ():
        if dataset.chunks:
            offset = dataset.id.get_chunk_info_by_coord((first,)).byte_offset
        else:
            offset = dataset.id.get_offset()
        if offset is None:
            raise ValueError("texts that are not stored as a feature file stores them")
        raw = content.bytes_at(offset, rows * _TEXT.itemsize)
        texts = np.frombuffer(raw, _TEXT, count=len(raw) // _TEXT.itemsize)
        claimed = int(texts["length"][: min(stop - first, rows)].sum(dtype=np.int64))
        if claimed > content.length:
            raise ValueError(f"texts of {claimed} bytes in a file of {content.length}")
