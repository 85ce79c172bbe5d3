"""Thumbnails: many small square pictures of images, in few files that are small enough.

Takes ``Picture``s, gives WebP: sheets of tiles, and single larger ones. Imports ``picture``,
``types``, NumPy and Pillow.

How much a picture takes shows only once it is compressed. So each sheet is written at the quality
of the one before, and again at a lower one where it takes more than its share of the bytes that are
left; what does not fit at the lowest quality is left out.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tlpipe.picture import Picture

if TYPE_CHECKING:
    from tlpipe.types import UInt8Array

MEDIA_TYPE = "image/webp"
TILES = 400
"""Of a sheet: 20 by 20."""

_COLUMNS = 20
_QUALITIES = (75, 65, 55, 45, 35, 25, 15, 8)
# Bytes that a tile of so many pixels takes at a quality in the middle, measured on photos.
_TILE_BYTES = {48: 450, 32: 260, 24: 180, 16: 110}
_ENOUGH = 4  # times as many pixels as the result are decoded at least: 2 in each direction


def tile_px(count: int, budget_bytes: int) -> int:
    """Width of tiles of which `count` are likely to fit."""
    fitting = [px for px, size in _TILE_BYTES.items() if count * size <= budget_bytes]
    return max(fitting, default=min(_TILE_BYTES))


def reduction(size: tuple[int, int], px: int) -> int:
    """How many times smaller an image may be decoded, for a square of `px` pixels."""
    fits = [r for r in (8, 4, 2) if min(size) // r >= px * math.isqrt(_ENOUGH)]
    return max(fits, default=1)


def squared(picture: Picture, px: int) -> UInt8Array:
    """The centred square of an image, upright, uint8 (px, px, 3)."""
    image: Image.Image = picture.image
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    small = image.resize(
        (px, px),
        Image.Resampling.BICUBIC,
        box=(left, top, left + side, top + side),
        reducing_gap=2.0,
    )
    if picture.turn is not None:  # of a square, it does not matter when it is turned
        small = small.transpose(picture.turn)
    return np.asarray(small)


@dataclass(frozen=True)
class Packed:
    """Tiles in one file.

    Attributes
    ----------
    data : bytes
    tile_px, columns, count : int
    """

    data: bytes
    tile_px: int
    columns: int
    count: int


class Budget:
    """Bytes that pictures may take in all, shared out among those that are still to come.

    Parameters
    ----------
    size_bytes : int
    count : int
        Pictures to come.
    """

    def __init__(self, size_bytes: int, count: int) -> None:
        self._left_bytes, self._to_come = size_bytes, count
        self._step = 0

    def packed(self, tiles: list[UInt8Array]) -> Packed | None:
        """Tiles as one sheet; None where they do not fit at any quality."""
        px = tiles[0].shape[0]
        columns = min(_COLUMNS, len(tiles))
        sheet = np.zeros((-(-len(tiles) // columns) * px, columns * px, 3), np.uint8)
        for number, tile in enumerate(tiles):
            row, column = divmod(number, columns)
            sheet[row * px : (row + 1) * px, column * px : (column + 1) * px] = tile
        data = self._fitted(sheet, len(tiles))
        return None if data is None else Packed(data, px, columns, len(tiles))

    def single(self, picture: UInt8Array) -> bytes | None:
        """One picture; None where it does not fit at any quality."""
        return self._fitted(picture, 1)

    def _fitted(self, pixels: UInt8Array, count: int) -> bytes | None:
        allowed = self._left_bytes * count // max(self._to_come, count)
        self._to_come -= count
        found = None
        for step in range(self._step, len(_QUALITIES)):
            data = _webp(pixels, _QUALITIES[step])
            if len(data) <= allowed:
                found, self._step = data, step
                break
        if found is not None:
            self._left_bytes -= len(found)
            # A sheet may be harder than those that follow: the next one tries one better.
            self._step = max(0, self._step - (2 * len(found) < allowed))
        return found


def _webp(pixels: UInt8Array, quality: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "WEBP", quality=quality, method=4)
    return out.getvalue()
