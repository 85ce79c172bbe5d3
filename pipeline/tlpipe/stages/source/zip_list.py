"""The members of a zip archive, found by reading its central directory in constant memory.

Source: PKWARE's APPNOTE.TXT 6.3.10, 4.3.12 to 4.3.16 (the directory and its end), 4.4.4 (flags),
4.5.3 (zip64), appendix D (names); Info-ZIP's proginfo/extrafld.txt (the Unicode path).
"""

from __future__ import annotations

import contextlib
import stat as stat_module
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tlpipe.stages.source.archive_reader import Packed, Stretch, stated_stat
from tlpipe.stages.source.members import MOST_PACKED_BYTES, Entry
from tlpipe.stages.source.open_files import OpenFiles
from tlpipe.stages.source.reading import too_large
from tlpipe.stages.source.survey import Survey
from tlpipe.stages.source.tar_list import LINK, NotAnArchiveError
from tlpipe.types import Reason, Reject, Stage

_END = struct.Struct("<4s4H2IH")
_END64_PLACE = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_ENTRY = struct.Struct("<4s6H3I5H2I")

_MOST_COMMENT = 1 << 16
_READ = 1 << 18
_NOT_HERE, _NOT_HERE_SHORT = 0xFFFFFFFF, 0xFFFF
"""What stands in a field whose value is in the zip64 extra field."""

_LONGEST_ENTRY = _ENTRY.size + 3 * _NOT_HERE_SHORT

_ZIP64_EXTRA, _UNICODE_PATH = 0x0001, 0x7075
_ENCRYPTED, _UTF8 = 1 << 0, 1 << 11
STORED, _DEFLATED = 0, 8
_DOS, _UNIX, _MACOS = 0, 3, 19
_LOCAL_BYTES = 30

_MOST_GROWTH = 1032
"""Times that deflate can make anything larger: 258 bytes for 2 bits (zlib's technical details)."""


class _Directory(NamedTuple):
    """Where the central directory lies; offsets in it count from `base`."""

    start: int
    end: int
    entries: int
    base: int


class _Field(NamedTuple):
    """One entry of the central directory."""

    name: str
    name_size: int
    host: int
    flags: int
    method: int
    crc: int
    packed_size: int
    size: int
    attributes: int
    offset: int


@dataclass
class ZipWalk:
    """One walk over the central directory of an archive; parameters as for ``TarWalk``."""

    files: OpenFiles
    number: int
    where: str
    survey: Survey
    most_bytes: int = MOST_PACKED_BYTES

    def __post_init__(self) -> None:
        self._stamp = self.files.stamp(self.number)
        self._start_before = self._end_before = 0  # of the member before
        self._total = 0  # bytes of all members so far

    def members(self) -> Iterator[Entry]:
        """Members in the directory's order; those that cannot be read are rejects.

        Raises
        ------
        NotAnArchiveError
            There is no central directory, or a damaged one.
        OSError, ChangedError
            It cannot be read, or changed meanwhile.
        """
        directory = self._directory()
        found = 0
        for entry in self._entries(directory):
            found += 1
            if entry.name.endswith("/") or (entry.host == _DOS and entry.attributes & 0x10):
                continue  # a folder
            mode = entry.attributes >> 16
            if entry.host in (_UNIX, _MACOS) and stat_module.S_ISLNK(mode):
                self.survey.skipped[LINK] += 1
                continue
            yield entry.name, self._place(entry, directory)
        if directory.entries not in (found, found & _NOT_HERE_SHORT):
            raise self._damaged(
                f"its directory should have {directory.entries:,} entries and has {found:,}"
            )

    def _place(self, entry: _Field, directory: _Directory) -> Stretch | Packed | Reject:
        """Where a member lies; or why it is not read."""
        stat = stated_stat(entry.size, self._stamp)
        offset = entry.offset + directory.base
        end = offset + _LOCAL_BYTES + entry.name_size + entry.packed_size
        wrong = None
        if entry.flags & _ENCRYPTED:
            return Reject(Stage.SOURCE, Reason.UNREADABLE, "It is encrypted.", stat)
        if entry.method not in (STORED, _DEFLATED):
            detail = f"It is packed by method {entry.method}; 0 (stored) and 8 (deflated) are read."
            return Reject(Stage.SOURCE, Reason.UNREADABLE, detail, stat)
        if max(entry.packed_size, entry.size) > self.most_bytes:
            return too_large(max(entry.packed_size, entry.size), stat)
        if end > directory.start:
            wrong = "It reaches into the archive's directory, or beyond its end"
        elif offset < self._end_before and end > self._start_before:
            wrong = "It overlaps the member before it"
        elif self._total + end - offset > directory.start:
            wrong = "The archive's members overlap: together they are longer than it is"
        elif entry.method == STORED and entry.packed_size != entry.size:
            wrong = f"It is stored in {entry.packed_size:,} bytes, and {entry.size:,} are stated"
        elif entry.size > entry.packed_size * _MOST_GROWTH:
            wrong = f"{entry.packed_size:,} bytes cannot be deflated from the {entry.size:,} stated"
        if wrong is not None:
            return Reject(Stage.SOURCE, Reason.CORRUPT, f"{wrong}.", stat)
        self._start_before, self._end_before = offset, end
        self._total += end - offset
        return Packed(
            self.number,
            offset,
            entry.size,
            self._stamp,
            entry.packed_size,
            entry.method,
            entry.crc,
            entry.name_size,
        )

    def _entries(self, directory: _Directory) -> Iterator[_Field]:
        """Entries of the central directory, read piece by piece."""
        at, held, begin = directory.start, b"", 0
        while at + begin < directory.end:
            if len(held) - begin < _LONGEST_ENTRY and at + len(held) < directory.end:
                at, begin = at + begin, 0
                held = self._read(at, min(_READ + _LONGEST_ENTRY, directory.end - at))
            if len(held) - begin < _ENTRY.size:
                raise self._damaged("its directory ends within an entry")
            values = _ENTRY.unpack_from(held, begin)
            name_size, extra_size, comment_size = values[10:13]
            name_at = begin + _ENTRY.size
            extra_at = name_at + name_size
            begin = extra_at + extra_size + comment_size
            if values[0] != b"PK\1\2" or begin > len(held):
                raise self._damaged(f"its directory is damaged near byte {at:,}")
            yield self._field(
                values, held[name_at:extra_at], held[extra_at : extra_at + extra_size]
            )

    def _field(self, values: tuple[int, ...], raw: bytes, extra: bytes) -> _Field:
        _, made_by, _, flags, method, _, _, crc, packed_size, size = values[:10]
        attributes, offset = values[15], values[16]
        name = None
        if extra:
            fields = self._extra_fields(extra)
            name = _unicode_path(fields.get(_UNICODE_PATH, b""), raw)
            if _NOT_HERE in (size, packed_size, offset):
                size, packed_size, offset = self._zip64(
                    fields.get(_ZIP64_EXTRA, b""), [size, packed_size, offset]
                )
        host = made_by >> 8
        if name is None:
            name = _name(raw, flags, host)
        return _Field(
            name, len(raw), host, flags, method, crc, packed_size, size, attributes, offset
        )

    def _extra_fields(self, extra: bytes) -> dict[int, bytes]:
        fields = {}
        at = 0
        while at + 4 <= len(extra):
            kind, length = struct.unpack_from("<HH", extra, at)
            fields[kind] = extra[at + 4 : at + 4 + length]
            at += 4 + length
        return fields

    def _zip64(self, content: bytes, values: list[int]) -> list[int]:
        """Sizes and offset, those that do not fit into the entry taken from its extra field."""
        at = 0
        for number, value in enumerate(values):
            if value == _NOT_HERE and at + 8 <= len(content):
                (values[number],) = struct.unpack_from("<Q", content, at)
                at += 8
        return values

    def _directory(self) -> _Directory:
        """Find the central directory by the record at the end of the file."""
        size = self._stamp[0]
        start = max(0, size - _MOST_COMMENT - _END.size)
        tail = self._read(start, size - start)
        at = tail.rfind(b"PK\5\6")
        while at >= 0:
            if at + _END.size <= len(tail):
                values = _END.unpack_from(tail, at)
                if at + _END.size + values[7] <= len(tail):
                    return self._checked(start + at, values)
            at = tail.rfind(b"PK\5\6", 0, at)
        raise NotAnArchiveError(
            f"{self.where} is no zip archive, or was cut: the directory that stands at the end of"
            " every zip archive is missing.",
            hint="Make or copy it again; 'zip -FF FILE --out NEW' rebuilds what can be rebuilt.",
        )

    def _checked(self, at: int, values: tuple[int, ...]) -> _Directory:
        """Where the directory lies, as its end at `at` says."""
        _, disk, first_disk, _, count, length, offset, _ = values
        end = at
        before = self._read(max(0, at - _END64_PLACE.size), _END64_PLACE.size)
        if len(before) == _END64_PLACE.size and before.startswith(b"PK\6\7"):
            found = self._zip64_end(at - _END64_PLACE.size, _END64_PLACE.unpack(before)[2])
            if found is not None:
                end, (disk, first_disk, _, count, length, offset) = found
        if disk or first_disk:
            raise NotAnArchiveError(
                f"{self.where} is one of several volumes of a zip archive.",
                hint="Join them first, for example with 'zip --split-size 0 FILE --out NEW'.",
            )
        start = end - length
        base = start - offset
        if start < 0 or base < 0:
            raise self._damaged("its directory does not lie where its end says")
        return _Directory(start, end, count, base)

    def _zip64_end(self, place: int, stated: int) -> tuple[int, tuple[int, ...]] | None:
        """Where the end of a zip64 directory stands, and what it says."""
        for at in (stated, place - _END64.size):  # the latter where something stands before it all
            if 0 <= at <= place - _END64.size:
                content = self._read(at, _END64.size)
                if content.startswith(b"PK\6\6"):
                    return at, _END64.unpack(content)[4:]
        return None

    def _read(self, offset: int, size: int) -> bytes:
        return self.files.read(self.number, offset, size, self._stamp)

    def _damaged(self, what: str) -> NotAnArchiveError:
        return NotAnArchiveError(
            f"{self.where} cannot be read: {what}.", hint="Make or copy it again."
        )


def _unicode_path(content: bytes, raw: bytes) -> str | None:
    """Name in Info-ZIP's extra field, where it belongs to the one in the entry."""
    if len(content) < 5 or content[0] != 1:
        return None
    if int.from_bytes(content[1:5], "little") != zlib.crc32(raw):
        return None
    return _printable(content[5:].decode("utf-8", "backslashreplace"))


def _name(raw: bytes, flags: int, host: int) -> str:
    """A name as text: in UTF-8 where it says so or was made where that is usual, else cp437."""
    if raw.isascii():
        name = raw.decode("ascii")
    elif flags & _UTF8:
        name = raw.decode("utf-8", "backslashreplace")
    else:
        name = raw.decode("cp437")
        if host in (_UNIX, _MACOS):
            with contextlib.suppress(UnicodeDecodeError):
                name = raw.decode("utf-8")
    if host == _DOS and "\\" in name and "/" not in name:
        name = name.replace("\\", "/")  # of writers that took the system's separator
    return _printable(name)


def _printable(name: str) -> str:
    return name.replace("\0", "\\x00") if "\0" in name else name
