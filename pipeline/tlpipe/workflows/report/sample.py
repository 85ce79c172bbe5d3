"""Which images the page holds, where there are too many for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]


def chosen(listed: Ints, mistakes: Ints, judged: NDArray[np.bool_], most: int, seed: int) -> Ints:
    """Rows of the page, ascending.

    First those that lists name, then other mistakes, then others that judge, then the rest; within
    each of these at random, and the same for the same seed.

    Parameters
    ----------
    listed, mistakes : int64 arrays
    judged : bool array (N,)
    most : int
        At least the number of those that are listed.
    seed : int
    """
    count = judged.size
    if count <= most:
        return np.arange(count)
    rank = np.where(judged, 2, 3)
    rank[mistakes] = 1
    rank[listed] = 0
    order = np.lexsort((np.random.default_rng(seed).random(count), rank))
    found: Ints = np.sort(order[:most])
    return found
