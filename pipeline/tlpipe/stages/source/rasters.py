"""From raw pixels to the bytes of an uncompressed image file: all that follows has one path.

Sources: the netpbm manual, pgm(5) and ppm(5); TIFF 6.0, sections 2, 6 and 18 (alpha that is not
multiplied in).
"""

from __future__ import annotations

import struct
from array import array
from typing import Literal

PixelKind = Literal["uint8", "bool", "uint16-little", "uint16-big"]

PIXEL_BYTES: dict[PixelKind, int] = {"uint8": 1, "bool": 1, "uint16-little": 2, "uint16-big": 2}

_BLACK_OR_WHITE = bytes([0]) + bytes([255]) * 255
_SHORT, _LONG = 3, 4
_HEADER_BYTES = 8


def image_file(pixels: bytes, size: tuple[int, int], channels: int, kind: PixelKind) -> bytes:
    """An image file that holds some pixels as they are.

    Parameters
    ----------
    pixels : bytes
        Of the shape (H, W, `channels`), row by row.
    size : tuple of int
        Height and width.
    channels : int
        1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA); 1 where `kind` is not uint8.
    kind : PixelKind
        bool: True is white. uint16: 65,535 is white.

    Returns
    -------
    bytes
        PGM or PPM; TIFF where there is alpha.
    """
    height, width = size
    if kind == "bool":
        pixels = pixels.translate(_BLACK_OR_WHITE)
    if kind == "uint16-little":  # PGM has the high byte first
        values = array("H", pixels)
        values.byteswap()
        pixels = values.tobytes()
    if channels in (2, 4):
        return _tiff_header(height, width, channels) + pixels
    magic = 5 if channels == 1 else 6
    white = 65535 if kind.startswith("uint16") else 255
    return b"P%d\n%d %d\n%d\n" % (magic, width, height, white) + pixels


def _tiff_header(height: int, width: int, channels: int) -> bytes:
    """All of a TIFF file of one strip but its pixels, which follow."""
    colour = 2 if channels == 4 else 1  # RGB, or black is zero
    count = 10
    behind = _HEADER_BYTES + 2 + 12 * count + 4  # where values stand that do not fit into an entry
    if channels == 4:
        bits, extra = behind, struct.pack("<4H", 8, 8, 8, 8)
    else:
        bits, extra = 8 | 8 << 16, b""
    entries = [
        (256, _LONG, 1, width),
        (257, _LONG, 1, height),
        (258, _SHORT, channels, bits),
        (259, _SHORT, 1, 1),  # not compressed
        (262, _SHORT, 1, colour),
        (273, _LONG, 1, behind + len(extra)),  # where the strip begins
        (277, _SHORT, 1, channels),
        (278, _LONG, 1, height),
        (279, _LONG, 1, height * width * channels),
        (338, _SHORT, 1, 2),  # the last channel is alpha, and not multiplied in
    ]
    directory = b"".join(struct.pack("<2H2I", *entry) for entry in entries)
    start = struct.pack("<2sHIH", b"II", 42, _HEADER_BYTES, count)
    return start + directory + bytes(4) + extra
