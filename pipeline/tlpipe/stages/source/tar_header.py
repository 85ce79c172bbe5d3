"""Headers of tar archives: ustar, GNU, pax and what was before them.

Sources: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Interchange Format"; GNU tar's
manual, "Basic Tar Format" (long names, sparse files, numbers of base 256).
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import NamedTuple

from tlpipe.stages.source.survey import printable

BLOCK = 512
"""Bytes of a header; contents are padded to a multiple of it."""

ZEROS = bytes(BLOCK)

MAGIC = b"ustar"
"""At byte 257 of all headers but the oldest kind of them."""

REGULAR = frozenset(b"0\07")
LINKS = frozenset(b"12")
WITHOUT_CONTENT = frozenset(b"123456V")
"""Links, devices, folders, pipes and the label of a volume: their sizes count for nothing."""

LONG_NAME, LONG_LINK, SPARSE, FOLDER = b"LKS5"
PAX, PAX_GLOBAL = frozenset(b"xX"), ord("g")

MOST_MODULO = 65521
"""Largest prime below 2^16: the modulus of Adler-32 (RFC 1950)."""


_FIELDS = struct.Struct("100s24x12s12x8sB100x6s82x155s12x")
"""Name, size, checksum, type, magic and prefix."""


class TarHeader(NamedTuple):
    """What a header says: the name as bytes, size in bytes, and the type as a byte."""

    name: bytes
    size: int
    kind: int


class BadHeaderError(Exception):
    """A block is no header."""


def parsed(block: bytes) -> TarHeader:
    """Read a header of 512 bytes.

    Raises
    ------
    BadHeaderError
        Its checksum or a number in it is wrong.
    """
    name, size, checksum, kind, magic, prefix = _FIELDS.unpack(block)
    stored = _number(checksum)
    # The checksum is the sum of all bytes, its own field taken as blanks. The low half of Adler-32
    # is that sum and one, modulo 65521, at a tenth of the time that Python's sum() takes.
    expected = (1 + stored - 8 * 32 + sum(checksum)) % MOST_MODULO
    if zlib.adler32(block) & 0xFFFF != expected and not _signed_checksum(block, stored):
        raise BadHeaderError("Its checksum is wrong")
    name = name.partition(b"\0")[0]
    if prefix[0] and magic == b"ustar\0":
        name = prefix.partition(b"\0")[0] + b"/" + name
    return TarHeader(name, _number(size), kind)


def _number(field: bytes) -> int:
    """A number in octal digits, or in base 256 where its first bit is set."""
    digits = field[:-1]
    if digits.isdigit() and field[-1] in b" \0" and not digits.strip(b"01234567"):
        return int(digits, 8)  # as nearly all are written
    if field[0] & 0x80:
        if field[0] != 0x80:
            raise BadHeaderError("A size in it is negative, or beyond all bounds")
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip(b" ")
    if not digits:
        return 0
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        raise BadHeaderError("A number in it is none")
    return int(digits, 8)


def _signed_checksum(block: bytes, stored: int) -> bool:
    """Whether the checksum is that of old writers, which took bytes as signed."""
    rest = block[:148] + block[156:]
    return stored == sum(rest) + 8 * 32 - 256 * sum(byte > 127 for byte in rest)


TELLING = re.compile(rb"path|size|sparse")
"""What is in a pax header that matters; most hold times alone, and are not looked into further."""

_PAX_LENGTH = re.compile(rb"(\d{1,7}) ")


def pax_records(content: bytes) -> dict[bytes, bytes]:
    """Records of a pax header, "length key=value\\n" each.

    Raises
    ------
    BadHeaderError
        It is not made of such records.
    """
    records: dict[bytes, bytes] = {}
    at = 0
    content = content.rstrip(b"\0")
    while at < len(content):
        match = _PAX_LENGTH.match(content, at)
        length = int(match[1]) if match else 0
        record = content[at : at + length]
        if match is None or len(record) < length or not record.endswith(b"\n"):
            raise BadHeaderError("The pax header before it is damaged")
        key, equals, value = record[match.end() - at : -1].partition(b"=")
        if not equals:
            raise BadHeaderError("The pax header before it is damaged")
        records[key] = value
        at += length
    return records


def text_of(name: bytes) -> str:
    r"""A name as valid UTF-8; bytes that are none become ``\xNN``, NUL as well."""
    text = printable(name.decode("utf-8", "surrogateescape"))
    return text.replace("\0", "\\x00") if "\0" in text else text
