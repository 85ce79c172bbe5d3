"""Decode: from a file to an RGB image, or to a reject with its reason.

Owns what "the pixels of an image" means, in one place for training and serving:

* the first frame of an animation or a multi-page file;
* EXIF orientation, as what turns the image upright;
* transparent pixels blended over white, as a viewer shows them, so that colours hidden under full
  transparency do not count;
* grey of 16 bits (or 12, in TIFF) scaled to 8 bits and rounded;
* palettes, CMYK, YCbCr, bi-level and grey images converted by Pillow;
* where the caller allows it, a JPEG file at 1/2, 1/4 or 1/8 of its size: its blocks of 8 x 8 pixels
  are then made small as they are decoded, at a fraction of the cost.

The content decides the format, not the name: a PNG called ``.jpg`` is read. Every format that the
installed Pillow decodes by itself is admitted; those it hands to another program (EPS to
Ghostscript, metafiles to Windows) or only recognises (GRIB, BUFR, HDF5, MPEG) are not: images may
come from strangers.

Takes the bytes of an image file, or an image that is in memory; gives a ``Picture`` or a
``Reject``. Imports ``types`` and Pillow.
"""

from __future__ import annotations

import contextlib
import functools
import io
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeGuard

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from tlpipe.picture import Picture
from tlpipe.types import FileStat, Reason, Reject, Stage

if TYPE_CHECKING:
    from tlpipe.types import UInt8Array

MAX_PIXELS = 178_956_970
"""Most pixels of an image: 2^29 bytes of RGB, the size at which Pillow itself refuses."""

_NOT_DECODED_BY_PILLOW = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})

_ORIENTATION = 0x0112  # EXIF tag 274, "Orientation"
# Source: EXIF 2.32, tag 274: what turns each orientation upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # Source: TIFF 6.0, section 8
_DEEP_GREY = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_UNDEFINED = ("F", "LAB")


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow's warnings about odd files; what matters of them becomes rejects.

    Enter it once around a job, in the main thread: Python's warning filters are global.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\..*")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


Reduce = Callable[["tuple[int, int]"], int]
"""How many times smaller an image of some width and height may be decoded: 1, 2, 4 or 8."""


def decode(raw: bytes, stat: FileStat, reduce: Reduce | None = None) -> Picture | Reject:
    """Decode one image file.

    Parameters
    ----------
    raw : bytes
        The file's content.
    stat : FileStat
        For the reject.
    reduce : callable, optional
        By default every pixel is decoded.

    Returns
    -------
    Picture or Reject
        The image, or why there is none. Nothing is raised for a bad file, whatever is in it.
    """
    return _or_reject(lambda: _decode(raw, reduce), stat, raw[:16])


def is_image(value: object) -> TypeGuard[Image.Image]:
    """Whether something is an image of Pillow's."""
    return isinstance(value, Image.Image)


def picture_of(image: Image.Image | UInt8Array) -> Picture | Reject:
    """Take an image that is in memory for what ``decode`` makes of a file that holds it.

    Parameters
    ----------
    image : PIL.Image.Image, or uint8 array (H, W, 3), (H, W, 4) or (H, W)
        One that was opened and not loaded yet is decoded, every pixel of it; its EXIF orientation
        counts. Arrays are RGB, RGBA or grey. It stays as it is.
    """

    def made() -> Picture:
        picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
        _check_size(picture.size)
        return _picture(picture, picture.size, 1)

    return _or_reject(made, FileStat(), b"")


def _or_reject(make: Callable[[], Picture], stat: FileStat, start: bytes) -> Picture | Reject:
    """What is made, or why it cannot be; `start` are the first bytes of the file."""
    try:
        return make()
    except UnidentifiedImageError:
        return Reject(
            Stage.DECODE,
            Reason.NOT_AN_IMAGE,
            f"No image format that Pillow reads starts with {start!r}.",
            stat,
        )
    except Image.DecompressionBombError as exc:
        return Reject(Stage.DECODE, Reason.TOO_LARGE, str(exc), stat)
    except MemoryError:
        return Reject(Stage.DECODE, Reason.TOO_LARGE, "Not enough memory to decode it.", stat)
    except _UnsupportedError as exc:
        return Reject(Stage.DECODE, Reason.UNSUPPORTED, str(exc), stat)
    except Exception as exc:
        # Pillow's readers raise whatever their parsing meets (OSError, SyntaxError, struct.error,
        # IndexError, zlib.error ...): whatever it is, it is this file's fault and costs one row.
        text = str(exc) or type(exc).__name__
        cut = any(word in text.lower() for word in ("truncated", "unexpected end", "not enough"))
        reason = Reason.TRUNCATED if cut else Reason.CORRUPT
        text = text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
        return Reject(Stage.DECODE, reason, f"{type(exc).__name__}: {text}", stat)


@functools.cache
def formats() -> list[str]:
    """Pillow's names of the formats that are read, the common ones first."""
    Image.init()
    common = ["JPEG", "PNG", "WEBP"]
    rest = [name for name in Image.ID if name not in {*common, *_NOT_DECODED_BY_PILLOW}]
    return [name for name in common if name in Image.OPEN] + rest


class _UnsupportedError(Exception):
    """An image of a pixel type with no defined way to RGB."""


def _decode(raw: bytes, reduce: Reduce | None) -> Picture:
    image: Image.Image
    with Image.open(io.BytesIO(raw), formats=formats()) as image:
        size = image.size
        _check_size(size)
        reduction = _reduced(image, reduce) if reduce is not None else 1
        return _picture(image, size, reduction)


def _check_size(size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise Image.DecompressionBombError(f"{width} x {height} pixels; the limit is {MAX_PIXELS}.")


def _picture(image: Image.Image, size: tuple[int, int], reduction: int) -> Picture:
    """Load an image that was opened, and bring it to RGB."""
    tiles = getattr(image, "tile", [])  # images that are in no file have none
    deep = [tile.args for tile in tiles] == ["RGB;16B"]  # a PNG with 16 bits a colour
    image.load()
    if deep and "transparency" in image.info:
        # The colours were cut to their high bytes on loading; the transparent one was not.
        image = image.copy()
        image.info["transparency"] = tuple(v >> 8 for v in image.info["transparency"])
    return Picture(_to_rgb(image), size, reduction, _UPRIGHT.get(_orientation(image)))


def _reduced(image: Image.Image, reduce: Reduce) -> int:
    """Have a JPEG file decoded smaller where that is allowed; how many times smaller."""
    if not isinstance(image, JpegImageFile) or image.mode not in ("RGB", "L"):
        return 1
    width, height = image.size
    # It may lie on its side: what both ways allow is allowed.
    reduction = min(reduce((width, height)), reduce((height, width)))
    if reduction == 1:
        return 1
    # Pillow divides the file's size by the size asked for, and rounds down to 8, 4, 2 or 1.
    drafted = image.draft(image.mode, (width // reduction, height // reduction))
    return 1 if drafted is None else reduction


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 (upright) where there is none or it cannot be read."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block, in any of many ways, leaves the pixels as good
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in _UNDEFINED:
        raise _UnsupportedError(f"Pixels of mode {image.mode!r} have no defined way to RGB.")
    if image.mode in _DEEP_GREY:
        return _deep_grey(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _deep_grey(image: Image.Image) -> Image.Image:
    """RGB of a grey image with more than 8 bits per pixel (mode "I" has 32; 16 may be used)."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise _UnsupportedError("Grey values of 32 bits have no defined white.")
    tags = getattr(image, "tag_v2", {})  # of a TIFF file
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    white = (1 << bits) - 1 if 8 < bits < 16 else 0xFFFF
    eight = (np.minimum(values, white) * 255 + white // 2) // white
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        eight = 255 - eight
    transparent = image.info.get("transparency")  # of a PNG file: one grey value
    if isinstance(transparent, int):
        eight[values == transparent] = 255
    return Image.fromarray(eight.astype(np.uint8)).convert("RGB")
