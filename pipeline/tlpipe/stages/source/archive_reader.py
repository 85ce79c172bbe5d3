"""Reads the members of tar and zip archives where they lie, without unpacking the archives.

Source of the local header of a zip file: PKWARE's APPNOTE.TXT 6.3.10, 4.3.7.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from tlpipe.stages.source.open_files import ChangedError, OpenFiles, Stamp
from tlpipe.stages.source.reading import MAX_FILE_BYTES, too_large, unreadable
from tlpipe.types import FileStat, Reason, Reject, Stage

LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_USUAL_EXTRA = 64  # bytes that may stand between a local header's name and the content
_DEFLATED = 8


class Stretch(NamedTuple):
    """Where the content of a tar's member lies: as it is, in one piece."""

    archive: int
    offset: int
    size: int
    stamp: Stamp


class Packed(NamedTuple):
    """Where a zip's member lies, from its local header on."""

    archive: int
    offset: int
    size: int
    stamp: Stamp
    packed_size: int
    method: int
    crc: int
    name_size: int


class ArchiveReader:
    """Reads members by their places; see ``Reader``.

    A place is a ``Stretch``, a ``Packed``, or a ``Reject``: of what is known to be none already.

    Parameters
    ----------
    paths : sequence of str
        The archives.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self.files = OpenFiles(paths)

    def read(self, place: Any, /) -> tuple[bytes, FileStat] | Reject:
        """Content of a member, with its size and its archive's time of change."""
        if isinstance(place, Reject):
            return place
        stat = FileStat(place.size, place.stamp[1])
        if place.size > MAX_FILE_BYTES:
            return too_large(place.size, stat)
        try:
            if isinstance(place, Stretch):
                content = self.files.read(place.archive, place.offset, place.size, place.stamp)
                if len(content) < place.size:
                    return _damaged(Reason.TRUNCATED, "The archive ends within it", stat)
                return content, stat
            unpacked = self._unpacked(place)
        except FileNotFoundError:
            return Reject(Stage.SOURCE, Reason.MISSING, "There is no such archive any more.", stat)
        except ChangedError:
            detail = "The archive has changed since it was listed."
            return Reject(Stage.SOURCE, Reason.UNREADABLE, detail, stat)
        except (OSError, ValueError) as exc:
            return unreadable(exc, stat)
        return (
            (unpacked, stat)
            if isinstance(unpacked, bytes)
            else _damaged(unpacked[0], unpacked[1], stat)
        )

    def _unpacked(self, place: Packed) -> bytes | tuple[Reason, str]:
        """Content of a zip's member; or what is wrong with it."""
        found = self._packed(place)
        if not isinstance(found, bytes):
            return found
        content = found
        if place.method == _DEFLATED:
            inflate = zlib.decompressobj(-zlib.MAX_WBITS)
            try:
                # One byte more than it should have, so that what says too little is found out.
                content = inflate.decompress(found, place.size + 1)
            except zlib.error as exc:
                return Reason.CORRUPT, f"It cannot be inflated ({exc})"
            if len(content) <= place.size and not inflate.eof:
                return Reason.CORRUPT, "What it was deflated to ends early"
        if len(content) != place.size:
            than = "more" if len(content) > place.size else "fewer"
            return Reason.CORRUPT, f"It has {than} bytes than the {place.size:,} that are stated"
        if zlib.crc32(content) != place.crc:
            return Reason.CORRUPT, "Its checksum (CRC-32) is not the stated one"
        return content

    def _packed(self, place: Packed) -> bytes | tuple[Reason, str]:
        """What a zip's member was packed to."""
        start = LOCAL_HEADER.size + place.name_size
        asked = start + _USUAL_EXTRA + place.packed_size
        found = self.files.read(place.archive, place.offset, asked, place.stamp)
        if len(found) < LOCAL_HEADER.size:
            return Reason.TRUNCATED, "The archive ends within it"
        signature, *_, name_size, extra_size = LOCAL_HEADER.unpack_from(found)
        if signature != b"PK\3\4" or name_size != place.name_size:
            return Reason.CORRUPT, "It does not begin where the archive's directory says"
        start += extra_size
        end = start + place.packed_size
        if end > asked:
            rest = self.files.read(place.archive, place.offset + asked, end - asked, place.stamp)
            found += rest
        if len(found) < end:
            return Reason.TRUNCATED, "The archive ends within it"
        return found[start:end]


def stated_stat(size: int, stamp: Stamp) -> FileStat:
    """Size and time of change of a member that is not read; what it states may be any number."""
    return FileStat(min(size, 1 << 62), stamp[1])


def _damaged(reason: Reason, detail: str, stat: FileStat) -> Reject:
    return Reject(Stage.SOURCE, reason, f"{detail}.", stat)
