"""Preprocess: from an RGB image of any size to the uint8 pixels a backbone's graph takes.

Owns the geometry (crop, resize, interpolation); the arithmetic (scale, mean, std, channel order)
is inside the graph. The one code path for training and serving. Takes a ``PIL.Image.Image``, gives
an array. Imports ``types`` and Pillow.

Only the pixels that end up in the result are computed: a centred crop after resizing is turned
into the box of source pixels it shows. The filter taps of a pixel depend on its position in the
source and on the scale, so the pixels are those of resizing the whole and cropping then, but for
the rounding between the two passes of a resampling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tlpipe.types import Preprocess

if TYPE_CHECKING:
    from tlpipe.types import UInt8Array

_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
}


def preprocess(
    image: Image.Image, size: tuple[int, int], spec: Preprocess
) -> UInt8Array:  # (H, W, 3)
    """Crop and resize as a card says.

    Parameters
    ----------
    image : PIL.Image.Image
        Mode RGB, upright.
    size : tuple of int
        Height and width of the result in pixels.
    spec : Preprocess

    Returns
    -------
    uint8 array (H, W, 3)
        RGB, 0 to 255.
    """
    height, width = size
    box = source_box(image.size, size, spec)
    resized = image.resize((width, height), _FILTERS[spec.interpolation], box=box)
    return np.asarray(resized)


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
