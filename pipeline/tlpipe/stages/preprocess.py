"""Preprocess: from a decoded image of any size to the uint8 pixels a backbone's graph takes.

Owns the geometry (crop, resize, interpolation, turning upright); the arithmetic (scale, mean, std,
channel order) is inside the graph. The one code path for training and serving. Takes a ``Picture``,
gives an array. Imports ``errors``, ``types``, Pillow and fast_image_resize.

Only the pixels that end up in the result are computed: a centred crop after resizing is turned
into the box of source pixels it shows. The filter taps of a pixel depend on its position in the
source and on the scale, so the pixels are those of resizing the whole and cropping then, but for
the rounding between the two passes of a resampling.

Two ways, by the decoder's mode (see ``types.DECODERS``). Exact: Pillow resizes the upright image.
Fast: fast_image_resize, the same filters in SIMD instructions (1.2 ms become 0.27 ms for 500 x 375
pixels), resizes the image as it is stored, and the small result is turned upright.
"""

from __future__ import annotations

import functools
import math
import threading
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tlpipe.errors import OptionError
from tlpipe.picture import Picture
from tlpipe.types import EXACT_DECODER, FAST_DECODER, Preprocess

try:
    import cykooz_resizer
except ImportError:  # there are systems it has no wheel for
    cykooz_resizer = None

if TYPE_CHECKING:
    from tlpipe.types import UInt8Array

_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
}
# By their names there. Catmull-Rom is the bicubic with a = -1/2, which Pillow's is. Box and nearest
# stay with Pillow: where a pixel's edge falls on another's, the two decide differently.
_FAST_FILTERS = {"bicubic": "catmull_rom", "bilinear": "bilinear", "lanczos": "lanczos3"}

_MOST_REDUCED = (8, 4, 2)
_LEFT_OVER = 2
"""Times the size of the result that a reduced image must have at least: at 2 embeddings stay as
they are (mean cosine 0.99997 to a full decode, 1st percentile 0.9997), at 1 not (0.9997, 0.994)."""

# How the position (x, y) in the stored image, of width w and height h, follows from the upright
# (X, Y): whether the axes are exchanged, then whether x is w - x, and y is h - y.
_STORED = {
    None: (False, False, False),
    Image.Transpose.FLIP_LEFT_RIGHT: (False, True, False),
    Image.Transpose.ROTATE_180: (False, True, True),
    Image.Transpose.FLIP_TOP_BOTTOM: (False, False, True),
    Image.Transpose.TRANSPOSE: (True, False, False),
    Image.Transpose.ROTATE_270: (True, False, True),
    Image.Transpose.TRANSVERSE: (True, True, True),
    Image.Transpose.ROTATE_90: (True, True, False),
}

_LONGEST = 1 << 15
"""Pixels of the longest side that fast_image_resize is given: it keeps its buffers, and ends the
process where memory runs out."""

_own = threading.local()  # a resizer keeps buffers: one for each thread

Box = tuple[float, float, float, float]


def default_decoder() -> str:
    """Mode of decoding and resizing that suits this system."""
    return EXACT_DECODER if cykooz_resizer is None else FAST_DECODER


def check_decoder(decoder: str) -> None:
    """See that this system can resize as a mode says.

    Raises
    ------
    OptionError
        It lacks the library.
    """
    if decoder == FAST_DECODER and cykooz_resizer is None:
        raise OptionError(
            f"Images are to be prepared as {decoder!r}, which needs the package cykooz.resizer; it"
            " is not installed.",
            hint="pip install cykooz.resizer; or embed and train with --decode exact.",
        )


def reduction(image_size: tuple[int, int], size: tuple[int, int], spec: Preprocess) -> int:
    """How many times smaller an image may be decoded: 1, 2, 4 or 8.

    Parameters
    ----------
    image_size : tuple of int
        Width and height of the source (Pillow's order).
    size : tuple of int
        Height and width of the result (the arrays' order).
    spec : Preprocess
    """
    if spec.interpolation == "nearest":  # it picks pixels: of a smaller image other ones
        return 1
    left, top, right, bottom = source_box(image_size, size, spec)
    most = min((right - left) / size[1], (bottom - top) / size[0]) / _LEFT_OVER
    return next((times for times in _MOST_REDUCED if times <= most), 1)


def preprocess(
    picture: Picture, size: tuple[int, int], spec: Preprocess, decoder: str
) -> UInt8Array:  # (H, W, 3)
    """Crop and resize as a card says.

    Parameters
    ----------
    picture : Picture
    size : tuple of int
        Height and width of the result in pixels.
    spec : Preprocess
    decoder : str
        One of ``types.DECODERS``.

    Returns
    -------
    uint8 array (H, W, 3)
        RGB, 0 to 255.
    """
    height, width = size
    turn = picture.turn
    if decoder == EXACT_DECODER:
        image = picture.image if turn is None else picture.image.transpose(turn)
        box = source_box(image.size, size, spec)
        return np.asarray(image.resize((width, height), _FILTERS[spec.interpolation], box=box))
    swapped = _STORED[turn][0]
    upright = picture.size[::-1] if swapped else picture.size
    box = _stored_box(source_box(upright, size, spec), picture)
    across, down = (height, width) if swapped else (width, height)
    resized = _resized(picture.image, (across, down), box, spec)
    return np.asarray(resized if turn is None else resized.transpose(turn))


def _stored_box(box: Box, picture: Picture) -> Box:
    """A box of the upright image, in pixels of the stored one as it was decoded."""
    swap, flip_x, flip_y = _STORED[picture.turn]
    left, top, right, bottom = box
    if swap:
        left, top, right, bottom = top, left, bottom, right
    width, height = picture.size
    if flip_x:
        left, right = width - right, width - left
    if flip_y:
        top, bottom = height - bottom, height - top
    times = picture.reduction
    return left / times, top / times, right / times, bottom / times


def _resized(image: Image.Image, size: tuple[int, int], box: Box, spec: Preprocess) -> Image.Image:
    """The box of an image, resized to a width and height."""
    name = _FAST_FILTERS.get(spec.interpolation)
    if name is None or max(image.size) > _LONGEST:
        return image.resize(size, _FILTERS[spec.interpolation], box=box)
    left, top, right, bottom = box
    options = cykooz_resizer.ResizeOptions(
        resize_alg=_algorithm(name),
        crop_box=cykooz_resizer.CropBox(
            left, top, _inside(left, right, image.width), _inside(top, bottom, image.height)
        ),
        use_alpha=False,
    )
    resized = Image.new("RGB", size)
    _resizer().resize_pil(image, resized, options)
    return resized


def _inside(start: float, stop: float, length: int) -> float:
    """Length from `start` to `stop`, such that adding it to `start` does not exceed `length`."""
    found = min(stop, length) - start
    while start + found > length:
        found = math.nextafter(found, 0.0)
    return found


@functools.cache
def _algorithm(name: str) -> cykooz_resizer.ResizeAlg:
    return cykooz_resizer.ResizeAlg.convolution(cykooz_resizer.FilterType[name])


def _resizer() -> cykooz_resizer.Resizer:
    if not hasattr(_own, "resizer"):
        _own.resizer = cykooz_resizer.Resizer()
    return _own.resizer


def source_box(
    image_size: tuple[int, int], size: tuple[int, int], spec: Preprocess
) -> tuple[float, float, float, float]:
    """Part of the source that the result shows: left, top, right, bottom, in source pixels.

    Parameters
    ----------
    image_size : tuple of int
        Width and height of the source (Pillow's order).
    size : tuple of int
        Height and width of the result (the arrays' order).

    Notes
    -----
    "shortest" with "centre" follows torchvision's ``Resize`` and ``CenterCrop``: the long side is
    truncated to whole pixels, the crop's offset rounded half to even.
    """
    image_width, image_height = image_size
    height, width = size
    short = min(image_size)
    if spec.crop == "centre-fraction":
        side = spec.crop_fraction * short
        left, top = (image_width - side) / 2, (image_height - side) / 2
        return left, top, image_width - left, image_height - top
    if spec.crop == "none":
        return 0.0, 0.0, float(image_width), float(image_height)
    resized_width = max(spec.size, int(spec.size * image_width / short))
    resized_height = max(spec.size, int(spec.size * image_height / short))
    x_scale, y_scale = image_width / resized_width, image_height / resized_height
    left = round((resized_width - width) / 2.0)
    top = round((resized_height - height) / 2.0)
    # Rounding may carry an edge past the image by one unit in the last place.
    right = min((left + width) * x_scale, float(image_width))
    bottom = min((top + height) * y_scale, float(image_height))
    return left * x_scale, top * y_scale, right, bottom
