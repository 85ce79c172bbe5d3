"""Picture: a decoded image, between decoding and preprocessing.

Part of the vocabulary: a record, no behaviour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded image, as its file stores it.

    Attributes
    ----------
    image : PIL.Image.Image
        Mode RGB.
    size : tuple of int
        Width and height in pixels of what the file stores.
    reduction : int
        How many times smaller than `size` the image was decoded; sides are rounded up.
    turn : PIL.Image.Transpose or None
        What turns it upright; None where it is.
    """

    image: Any
    size: tuple[int, int]
    reduction: int = 1
    turn: Any = None
