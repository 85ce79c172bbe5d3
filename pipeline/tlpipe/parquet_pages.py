"""Looks at the pages of a Parquet file before pyarrow unpacks them.

The footer says how large a column is when it is unpacked, and may lie. Each page says it again, in
a header before it, and pyarrow takes as much memory as that says, and fails where the page holds
more. So the headers are walked, which costs a read of some bytes for each page of a megabyte.
Part of the vocabulary: two stages read Parquet files. Imports ``errors``.

The headers are structs of Thrift's compact protocol (Apache Thrift, ``thrift-compact-protocol.md``;
Apache Parquet, ``parquet.thrift``: PageHeader).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, Union

from tlpipe.errors import TableError

MOST_PAGE = 256 << 20
"""Bytes of an unpacked page. The usual ones have 1 MiB; some writers make one of each column."""

_USUAL_HEADER_BYTES = 512
_HEADER_BYTES = 64 << 10  # a header may hold statistics: the least and the greatest text
_STOP, _TRUE, _FALSE, _BYTE, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(11)
_DEEPEST = 8
_AGAIN = "Make or copy it again."


Value = Union[int, bytes, dict[int, "Value"], None]  # noqa: UP007  (it names itself)


class Page(NamedTuple):
    """What the header before a page says of it.

    Attributes
    ----------
    values : int
        How many it holds; 0 for a dictionary, or an index.
    unpacked : int
        Bytes that it unpacks to.
    is_dictionary : bool
    """

    values: int
    unpacked: int
    is_dictionary: bool


def walk_pages(stream: BinaryIO, start: int, values: int, where: str) -> Iterator[Page]:
    """Pages of a stretch of a column.

    Parameters
    ----------
    stream : binary file
    start : int
        Where the first page begins.
    values : int
        How many values the pages hold together, as the footer says.

    Raises
    ------
    TableError
        A header makes no sense, or one page claims too much.
    ValueError
        A header makes no sense.
    """
    seen = 0
    while seen < values:
        fields, length = _header(stream, start)
        unpacked, packed = _size(fields.get(2)), _size(fields.get(3))
        if min(unpacked, packed) < 0:
            raise TableError(
                f"{where} is damaged: a page states no size.",
                hint=_AGAIN,
            )
        if unpacked > MOST_PAGE:
            raise _too_much(where, unpacked, MOST_PAGE)
        # Of data pages (5) and those of version 2 (8), field 1 is the number of values.
        data = fields.get(5, fields.get(8))
        count = 0
        if isinstance(data, dict):
            count = max(0, _size(data.get(1)))
        elif 7 not in fields and 6 not in fields:  # no dictionary and no index either
            raise TableError(
                f"{where} is damaged: a page is of no known kind.",
                hint=_AGAIN,
            )
        yield Page(count, unpacked, 7 in fields)
        seen += count
        start += length + packed


def check_pages(stream: BinaryIO, start: int, values: int, most: int, where: str) -> int:
    """Walk the pages of a stretch of a column; see that none claims too much.

    Parameters
    ----------
    stream, start, values
        As for ``walk_pages``.
    most : int
        Bytes that they may unpack to together.

    Returns
    -------
    int
        Bytes that they unpack to.

    Raises
    ------
    TableError, ValueError
    """
    total = 0
    for page in walk_pages(stream, start, values, where):
        total += page.unpacked
        if total > most:
            raise _too_much(where, total, most)
    return total


def _too_much(where: str, claimed: int, most: int) -> TableError:
    return TableError(
        f"{where} has pages that claim to unpack to {claimed:,} bytes, far more than its"
        f" file can hold (at most {most:,} are believed).",
        hint=_AGAIN,
    )


def _header(stream: BinaryIO, start: int) -> tuple[dict[int, Value], int]:
    """Fields of the header at `start`, and its length."""
    for size in (_USUAL_HEADER_BYTES, _HEADER_BYTES):
        stream.seek(start)
        header = _Reader(stream.read(size))
        try:
            return header.struct(0), header.at
        except EOFError as exc:
            short = exc
    raise ValueError("a page's header ends early") from short


def _size(value: Value) -> int:
    """A number of a header; -1 where there is none."""
    return value if isinstance(value, int) else -1


class _Reader:
    """Reads a Thrift struct."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self.at = 0

    def struct(self, depth: int) -> dict[int, Value]:
        """Fields by number."""
        if depth > _DEEPEST:
            raise ValueError("a page's header is nested too deep")
        fields: dict[int, Value] = {}
        number = 0
        while True:
            head = self._byte()
            kind = _KINDS.get(head & 15)
            if kind == _STOP:
                return fields
            step = head >> 4
            number = number + step if step else self._integer()
            fields[number] = self._value(kind, depth)

    def _value(self, kind: int | None, depth: int) -> Value:
        if kind in (_TRUE, _FALSE):
            return int(kind == _TRUE)
        if kind == _BYTE:
            return self._byte()
        if kind == _I64:
            return self._integer()
        if kind == _DOUBLE:
            return self._bytes(8)
        if kind == _BINARY:
            return self._bytes(self._varint())
        if kind == _STRUCT:
            return self.struct(depth + 1)
        raise ValueError("a page's header holds what none does")  # lists and maps

    def _byte(self) -> int:
        return self._bytes(1)[0]

    def _bytes(self, count: int) -> bytes:
        found = self._raw[self.at : self.at + count]
        if len(found) < count:
            raise EOFError("a page's header ends early")
        self.at += count
        return found

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise ValueError("a page's header holds a number that is too long")

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)


# Numbers of the types in a field's head; those of 16, 32 and 64 bits are written alike.
_KINDS = {
    0: _STOP,
    1: _TRUE,
    2: _FALSE,
    3: _BYTE,
    4: _I64,
    5: _I64,
    6: _I64,
    7: _DOUBLE,
    8: _BINARY,
    9: _LIST,
    10: _SET,
    11: _MAP,
    12: _STRUCT,
}
