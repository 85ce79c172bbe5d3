"""What counts as images: from what a user gives as X to a list of paths and images.

Nothing is read and no pixel is looked at.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tlpipe.errors import ImageError
from tlpipe.stages.decode import is_image

_WANTED = (
    "Expected were paths, images of Pillow's, or uint8 arrays (H, W, 3), (H, W, 4) or (H, W): a"
    " list of them, an array of paths (N,) or (N, 1), or a uint8 array (N, H, W, 3) or (N, H, W)."
)


def as_images(x: Any) -> list[Any]:
    """The images that X holds.

    Parameters
    ----------
    x : sequence or array
        Of paths (str or os.PathLike), (N,) or (N, 1); of images of Pillow's; of uint8 arrays
        (H, W, 3), (H, W, 4) or (H, W). Tables of one column count as arrays.

    Returns
    -------
    list of pathlib.Path, PIL.Image.Image or uint8 array

    Raises
    ------
    TypeError
        `x` is no sequence of images, but something else.
    ImageError
        It is empty, or one of its elements is no image.
    """
    if isinstance(x, (str, bytes, os.PathLike)) or is_image(x):
        raise TypeError(f"X is one {type(x).__name__}, not several images: put it into a list.")
    if hasattr(x, "toarray"):
        raise TypeError(f"X is a sparse matrix ({type(x).__name__}). {_WANTED}")
    if hasattr(x, "__array__"):  # also a table's column, or a table
        x = _rows(np.asarray(x))
    elif not isinstance(x, Iterable):
        raise TypeError(f"X is a {type(x).__name__}. {_WANTED}")
    images = [_image(value, number) for number, value in enumerate(x)]
    if not images:
        raise ImageError("X is empty: 0 samples, and at least 1 image is required.")
    return images


def distinct(images: Sequence[Any]) -> tuple[list[Any], list[int]]:
    """The images without those that stand in it again, and the place of each among them."""
    places: dict[object, int] = {}
    kept: list[Any] = []
    numbers = []
    for image in images:
        key = image if isinstance(image, Path) else id(image)
        place = places.setdefault(key, len(kept))
        if place == len(kept):
            kept.append(image)
        numbers.append(place)
    return kept, numbers


def _rows(array: Any) -> Sequence[Any]:
    """The images of an array, one by one."""
    if array.dtype.kind in "OUT":  # objects and strings
        if array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        if array.ndim == 1:
            return list(array)
    elif array.dtype == np.uint8 and (array.ndim == 4 or _are_grey(array)):
        return list(array)
    if array.dtype == np.uint8 and array.ndim == 3:
        raise ImageError(
            f"X is a uint8 array of shape {array.shape}, which may be one image.",
            hint="For one image, give an array (1, H, W, 3).",
        )
    raise ImageError(f"X is an array of shape {array.shape} and type {array.dtype}. {_WANTED}")


def _are_grey(array: Any) -> bool:
    return array.ndim == 3 and array.shape[2] not in (1, 3, 4)


def _image(value: Any, number: int) -> Any:
    """One path, or image in memory."""
    if isinstance(value, (str, os.PathLike)):
        path = os.fspath(value)
        if isinstance(path, str) and path:
            return Path(path)
    if is_image(value):
        return value
    if isinstance(value, np.ndarray):
        shape = value.shape
        known = value.ndim == 2 or (value.ndim == 3 and shape[2] in (3, 4))
        if value.dtype == np.uint8 and known and value.size:
            return value
        raise ImageError(
            f"Image {number} of X is an array of shape {shape} and type {value.dtype}. {_WANTED}",
            hint="Numbers from 0 to 1 become pixels by (255 * x).round().astype('uint8').",
        )
    raise ImageError(f"Image {number} of X is {value!r}, a {type(value).__name__}. {_WANTED}")
