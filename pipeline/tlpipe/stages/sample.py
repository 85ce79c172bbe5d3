"""Sample: a photo made in memory, to time the decoder with; what the decoder is made of.

Takes nothing, gives bytes and facts. Imports NumPy and Pillow.
"""

from __future__ import annotations

import io

import numpy as np
import PIL
from PIL import Image, features

WIDTH, HEIGHT = 640, 480


def sample_photo(seed: int = 0) -> bytes:
    """Content of a JPEG file of 640 x 480 pixels that costs about what a photo costs.

    Coarse colours with fine noise on them, quality 90: about 2 bits per pixel.
    """
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    pixels = smooth + rng.normal(0, 4, (HEIGHT, WIDTH, 1))
    photo = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(photo, "JPEG", quality=90)
    return photo.getvalue()


def decoder_facts() -> dict[str, str]:
    """Versions of Pillow and of the library that decodes JPEG for it."""
    turbo = features.version_feature("libjpeg_turbo")
    jpeg = f"libjpeg-turbo {turbo}" if turbo else f"libjpeg {features.version_codec('jpg')}"
    return {"pillow": PIL.__version__, "jpeg": jpeg}
