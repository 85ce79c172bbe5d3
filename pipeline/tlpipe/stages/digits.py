"""Digits: renders scikit-learn's scanned digits as image files, for the demonstration.

1,797 scans of handwritten digits, 8 x 8 pixels with 17 levels of grey, which come with
scikit-learn. Takes a folder, fills it. Imports scikit-learn (for the data) and Pillow.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository, 1998, doi:10.24432/C50P49 (the test set).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

COUNT = 1797
NEW = 100
"""The last scans, kept apart without labels, as new images to classify."""

_PIXELS = 96  # of the digit
_MARGIN = 16  # on each side, so that cropping to the centre cuts no digit


def render(folder: Path) -> Iterator[int]:
    """Write ``labelled/<digit>/*.png`` and ``new/*.png`` below `folder`.

    Yields
    ------
    int
        The number of files written so far.
    """
    digits = load_digits()
    side = _PIXELS + 2 * _MARGIN
    for index, (scan, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        ink = np.round(255 - scan * (255 / 16)).astype(np.uint8)  # dark on white
        large = Image.fromarray(ink).resize((_PIXELS, _PIXELS), Image.Resampling.BICUBIC)
        page = Image.new("L", (side, side), 255)
        page.paste(large, (_MARGIN, _MARGIN))
        is_new = index >= COUNT - NEW
        path = folder / ("new" if is_new else f"labelled/{label}") / f"scan-{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        page.save(path)
        yield index + 1
