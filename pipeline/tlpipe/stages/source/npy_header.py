"""Where NumPy's arrays lie in their files, and what their headers state.

Source of the format: NumPy's documentation, numpy.lib.format.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any

from tlpipe.errors import CUT_OR_DAMAGED, SourceError
from tlpipe.stages.source.archive_reader import LOCAL_HEADER, Packed
from tlpipe.stages.source.array_reader import PackedError, Piece, Pieces
from tlpipe.stages.source.survey import Survey
from tlpipe.stages.source.zip_list import STORED, ZipWalk

_MOST_HEADER = 10_000  # characters that NumPy takes for safe to parse; its own headers have 128
_MOST_MEMBERS = 10_000


@dataclass(frozen=True)
class Stored:
    """An array in a file, as its header states it: `skip` bytes of a piece, and `dtype` behind."""

    piece: Piece
    skip: int
    shape: tuple[int, ...]
    dtype: Any
    where: str


def npz_members(pieces: Pieces, where: str) -> dict[str, Piece]:
    """Arrays of an .npz file by their names, without ".npy".

    Raises
    ------
    SourceError
        It is no such file, or one that cannot be read.
    OSError, ChangedError
    """
    members: dict[str, Piece] = {}
    walk = ZipWalk(pieces.files, 0, where, Survey(""), most_bytes=1 << 62)
    for number, (name, place) in enumerate(walk.members()):
        if number >= _MOST_MEMBERS:
            raise SourceError(
                f"{where} holds more than {_MOST_MEMBERS:,} arrays.",
                hint="Save the images as one array.",
            )
        if not name.endswith(".npy"):
            continue
        plain = name.removesuffix(".npy")
        if not isinstance(place, Packed):
            detail = getattr(place, "detail", "")
            raise SourceError(
                f"{where}, array {plain[:200]!r}, cannot be read. {detail}",
                hint="Save it with numpy.savez or numpy.savez_compressed.",
            )
        if plain in members:
            raise SourceError(
                f"{where} holds two arrays of the name {plain[:200]!r}.",
                hint="Give each array a name of its own.",
            )
        members[plain] = _piece(pieces, place, f"{where}, array {plain[:200]!r},")
    return members


def _piece(pieces: Pieces, place: Packed, where: str) -> Piece:
    local = pieces.files.read(0, place.offset, LOCAL_HEADER.size, place.stamp)
    if len(local) < LOCAL_HEADER.size or not local.startswith(b"PK\3\4"):
        raise SourceError(
            f"{where} does not begin where the archive's directory says.",
            hint=CUT_OR_DAMAGED,
        )
    name_size, extra_size = LOCAL_HEADER.unpack(local)[-2:]
    start = place.offset + LOCAL_HEADER.size + name_size + extra_size
    if start + place.packed_size > place.stamp[0]:
        raise SourceError(
            f"{where} reaches beyond the end of the archive.",
            hint=CUT_OR_DAMAGED,
        )
    if place.method == STORED:
        return Piece(0, start, place.size)
    return Piece(0, start, place.size, "deflate", place.packed_size, place.crc)


def stored(pieces: Pieces, piece: Piece, where: str) -> Stored:
    """Read the header of an array, and refuse what is no plain array in C order.

    Raises
    ------
    SourceError
    OSError, ChangedError
    """
    stamp = pieces.files.stamp(piece.file)
    try:
        start = pieces.start(piece, _MOST_HEADER + 12, stamp)
    except PackedError as exc:
        raise SourceError(f"{where} {exc}.", hint=CUT_OR_DAMAGED) from exc
    skip, shape, fortran, dtype = _header(start, where)
    if dtype.hasobject or dtype.names or dtype.subdtype or dtype.itemsize < 1:
        raise SourceError(
            f"{where} has the type {str(dtype)[:200]!r}, which is not read: it may run code or has"
            " no plain values.",
            hint="Save plain arrays: images of uint8; labels of integers, or of text with"
            " array.astype(str).",
        )
    if fortran and len(shape) > 1:
        raise SourceError(
            f"{where} is stored in Fortran's order.",
            hint="Save numpy.ascontiguousarray(array).",
        )
    size = dtype.itemsize
    for length in shape:
        size *= length
    if skip + size != piece.size:
        raise SourceError(
            f"{where} states the shape {shape} of {dtype}, which takes {skip + size:,} bytes with"
            f" its header; it has {piece.size:,}.",
            hint=CUT_OR_DAMAGED,
        )
    return Stored(piece, skip, shape, dtype, where)


def _header(start: bytes, where: str) -> tuple[int, tuple[int, ...], bool, Any]:
    """Bytes that the header takes; the shape, whether it is in Fortran's order, and the type."""
    import numpy as np

    version = tuple(start[6:8])
    if start[:6] != b"\x93NUMPY" or version not in ((1, 0), (2, 0)):
        raise SourceError(
            f"{where} is no NumPy array of version 1.0 or 2.0: it begins with {start[:8]!r}.",
            hint="Save it with numpy.save, or numpy.savez.",
        )
    layout = struct.Struct("<H" if version == (1, 0) else "<I")
    begin = 8 + layout.size
    (length,) = layout.unpack(start[8:begin].ljust(layout.size, b"\0"))
    if length > _MOST_HEADER or begin + length > len(start):
        raise SourceError(
            f"{where} has a header of {length:,} bytes; {_MOST_HEADER:,} are read.",
            hint="Save a plain array with numpy.save.",
        )
    parse = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    try:
        shape, fortran, dtype = parse(
            io.BytesIO(start[8 : begin + length]), max_header_size=_MOST_HEADER
        )
    except Exception as exc:
        # NumPy's parser raises whatever ast and tokenize meet (ValueError, TokenError,
        # RecursionError ...): whatever it is, it is the header's fault.
        raise SourceError(
            f"{where} has a damaged header: {str(exc)[:200]}",
            hint=CUT_OR_DAMAGED,
        ) from exc
    if any(length < 0 for length in shape):
        raise SourceError(
            f"{where} states the shape {shape}.",
            hint=CUT_OR_DAMAGED,
        )
    return begin + length, shape, fortran, dtype
