"""Reads images, and their labels, out of arrays: in place, or from memory where they are packed."""

from __future__ import annotations

import gzip
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from tlpipe.errors import CUT_OR_DAMAGED, SourceError
from tlpipe.stages.source.open_files import ChangedError, OpenFiles, Stamp
from tlpipe.stages.source.rasters import PIXEL_BYTES, PixelKind, image_file
from tlpipe.stages.source.reading import MAX_FILE_BYTES, too_large, unreadable
from tlpipe.types import FileStat, Reason, Reject, Stage

MOST_UNPACKED_BYTES = 1 << 30
"""Of all that is unpacked into memory for one source."""

_STEP = 1 << 20


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes in a file, maybe packed.

    Attributes
    ----------
    file : int
        Its number among the source's files.
    start : int
        Where they begin in the file, as they are or packed.
    size : int
        Number of bytes, unpacked.
    packing : {"none", "gzip", "deflate"}
        gzip: the whole file.
    packed_size : int
        Number of bytes in the file, where they are deflated.
    crc : int or None
        Checksum (CRC-32) of what is deflated.
    """

    file: int
    start: int
    size: int
    packing: Literal["none", "gzip", "deflate"] = "none"
    packed_size: int = 0
    crc: int | None = None


@dataclass(frozen=True, slots=True)
class Rasters:
    """An array of images, (N, H, W, C), in a piece behind a header of `skip` bytes."""

    piece: Piece
    skip: int
    count: int
    height: int
    width: int
    channels: int
    kind: PixelKind

    @property
    def image_bytes(self) -> int:
        """Size of the pixels of one image."""
        return self.height * self.width * self.channels * PIXEL_BYTES[self.kind]


class ArrayPlace(NamedTuple):
    """Where an image lies: the number of its array, its row there, and what the file was like."""

    array: int
    row: int
    stamp: Stamp


class PackedError(Exception):
    """What is packed cannot be unpacked; the message is an end of a sentence."""


class Pieces:
    """Reads in pieces of some files; may be used from several threads, and pickled.

    What is packed is unpacked whole into memory when it is first read in.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self.files = OpenFiles(paths)
        self._unpacked: dict[Piece, tuple[Stamp, bytes]] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"files": self.files}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.files = state["files"]
        self._unpacked = {}
        self._lock = threading.Lock()

    def read(self, piece: Piece, offset: int, size: int, stamp: Stamp) -> bytes:
        """Bytes at an offset in a piece, fewer only where the file ends.

        Raises
        ------
        ChangedError
            The file is not as `stamp` says.
        PackedError, OSError
            It cannot be read.
        """
        if piece.packing == "none":
            return self.files.read(piece.file, piece.start + offset, size, stamp)
        held = self._unpacked.get(piece)
        if held is None or held[0] != stamp:
            with self._lock:
                held = self._unpacked.get(piece)
                if held is None or held[0] != stamp:
                    held = self._unpacked[piece] = (stamp, self._unpack(piece, stamp))
        return held[1][offset : offset + size]

    def start(self, piece: Piece, size: int, stamp: Stamp) -> bytes:
        """First bytes of a piece, without unpacking all of it; raises as ``read``."""
        if piece.packing == "none":
            return self.files.read(piece.file, piece.start, min(size, piece.size), stamp)
        packed = self.files.read(
            piece.file, piece.start, min(piece.packed_size, size + _STEP), stamp
        )
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, size)
        except zlib.error as exc:
            raise PackedError(f"cannot be unpacked: {exc}") from exc

    def _unpack(self, piece: Piece, stamp: Stamp) -> bytes:
        if self.files.stamp(piece.file) != stamp:
            raise ChangedError
        try:
            if piece.packing == "gzip":
                content = ungzipped(self.files.paths[piece.file], piece.size + 1)
            else:
                packed = self.files.read(piece.file, piece.start, piece.packed_size, stamp)
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, piece.size + 1)
        except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
            raise PackedError(f"cannot be unpacked: {exc}") from exc
        if len(content) != piece.size:
            than = "more" if len(content) > piece.size else "fewer"
            raise PackedError(f"holds {than} than the {piece.size:,} bytes that it states")
        if piece.crc is not None and zlib.crc32(content) != piece.crc:
            raise PackedError("is damaged: its checksum (CRC-32) is not the stated one")
        return content


def ungzipped(path: str, most: int) -> bytes:
    """Up to `most` bytes from the beginning of what a gzip file holds.

    Raises
    ------
    OSError, EOFError, zlib.error
        It is none, or damaged.
    """
    content = bytearray()
    with gzip.open(path, "rb") as stream:
        while len(content) < most:
            more = stream.read(min(_STEP, most - len(content)))
            if not more:
                break
            content += more
    return bytes(content)


class ArrayReader:
    """Gives each image of some arrays as an uncompressed image file; see ``Reader``."""

    def __init__(self, pieces: Pieces, arrays: Sequence[Rasters]) -> None:
        self.pieces, self.arrays = pieces, tuple(arrays)

    def read(self, place: ArrayPlace, /) -> tuple[bytes, FileStat] | Reject:
        """An image, with the size of its pixels and its file's time of change."""
        rasters = self.arrays[place.array]
        size = rasters.image_bytes
        stat = FileStat(size, place.stamp[1])
        if size > MAX_FILE_BYTES:
            return too_large(size, stat)
        try:
            offset = rasters.skip + place.row * size
            pixels = self.pieces.read(rasters.piece, offset, size, place.stamp)
        except FileNotFoundError:
            return Reject(Stage.SOURCE, Reason.MISSING, "There is no such file any more.", stat)
        except ChangedError:
            detail = "The file has changed since it was listed."
            return Reject(Stage.SOURCE, Reason.UNREADABLE, detail, stat)
        except PackedError as exc:
            return Reject(Stage.SOURCE, Reason.CORRUPT, f"The file {exc}.", stat)
        except OSError as exc:
            return unreadable(exc, stat)
        if len(pixels) < size:
            return Reject(Stage.SOURCE, Reason.TRUNCATED, "The file ends within it.", stat)
        shape = (rasters.height, rasters.width)
        return image_file(pixels, shape, rasters.channels, rasters.kind), stat


def check_rasters(rasters: Rasters, where: str) -> None:
    """Hold what an array states of itself against what is there.

    Raises
    ------
    SourceError
    """
    expected = rasters.skip + rasters.count * rasters.image_bytes
    shape = f"{rasters.count:,} images of {rasters.height} x {rasters.width}"
    if not rasters.count or not rasters.image_bytes:
        raise SourceError(
            f"{where} holds no image: it states {shape}.",
            hint="Leave it out, or save it with images in it.",
        )
    if rasters.piece.size != expected:
        raise SourceError(
            f"{where} states {shape}, which take {expected:,} bytes with their header; it has"
            f" {rasters.piece.size:,}.",
            hint=CUT_OR_DAMAGED,
        )


def check_unpacked(sizes: Sequence[int], name: str, hint: str) -> None:
    """Refuse to unpack too much into memory.

    Raises
    ------
    SourceError
    """
    if sum(sizes) > MOST_UNPACKED_BYTES:
        raise SourceError(
            f"The source {name!r} is packed, and takes {sum(sizes):,} bytes of memory when it is"
            f" unpacked; at most {MOST_UNPACKED_BYTES:,} are.",
            hint=hint,
        )
