"""Pictures: images that are in memory, as the bytes of a file that decodes to the same pixels.

Imports Pillow.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

_ORIENTATION = 0x0112  # EXIF tag 274
_PNG = ("1", "LA", "P", "RGBA", "I;16")
_TIFF = ("I", "F", "LAB")  # what PNG cannot hold, or not all of


def is_picture(image: Any) -> bool:
    """Whether something is an image of Pillow's, or an array of pixels as ``encoded`` takes it."""
    if isinstance(image, Image.Image):
        return True
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or not image.size:
        return False
    return image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3, 4))


def encoded(image: Any) -> bytes:
    """Bytes of an uncompressed or losslessly compressed file; see ``is_picture``.

    Raises
    ------
    Exception
        Of whatever kind: an image that was opened and not loaded yet is damaged.
    """
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image)
    image.load()
    orientation = image.getexif().get(_ORIENTATION, 1)
    if image.mode in ("L", "P", "RGB") and image.has_transparency_data:
        image = image.convert("RGBA")
    out = io.BytesIO()
    if image.mode in ("RGB", "L") and orientation == 1:
        image.save(out, "PPM")
        return out.getvalue()
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    if image.mode in _TIFF:
        image.save(out, "TIFF", exif=exif)
        return out.getvalue()
    if image.mode not in (*_PNG, "RGB", "L"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    image.save(out, "PNG", exif=exif, compress_level=1)
    return out.getvalue()
