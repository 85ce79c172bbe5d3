"""Closest: of each row the few others whose embeddings are most alike, by cosine.

Takes embeddings, gives row numbers. Imports ``types`` and NumPy. All pairs are looked at, in blocks
of rows; nothing is estimated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import Float32Array

_BLOCK_BYTES = 64 << 20  # of the cosines that are in memory at once


def closest(vectors: Float32Array, among: NDArray[np.bool_], count: int) -> NDArray[np.int32]:
    """Rows most like each row, the most alike first.

    Parameters
    ----------
    vectors : float32 array (N, D)
    among : bool array (N,)
        Rows that are looked for; a row is never its own neighbour.
    count : int
        How many, k.

    Returns
    -------
    int32 array (N, k)
        -1 where there are no more.
    """
    total = len(vectors)
    found = np.full((total, count), -1, np.int32)
    rows = np.flatnonzero(among)
    if not rows.size:
        return found
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    unit = vectors / np.maximum(norms, 1e-30)[:, np.newaxis].astype(np.float32)
    others = np.ascontiguousarray(unit[rows].T)
    place = np.full(total, -1)
    place[rows] = np.arange(rows.size)
    most = min(count, rows.size)
    step = max(1, _BLOCK_BYTES // (4 * rows.size))
    for start in range(0, total, step):
        cosines = unit[start : start + step] @ others
        own = place[start : start + step]
        inside = np.flatnonzero(own >= 0)
        cosines[inside, own[inside]] = -np.inf
        best = np.argpartition(-cosines, most - 1, axis=1)[:, :most]
        values = np.take_along_axis(cosines, best, axis=1)
        # By falling cosine, and of equal ones by rising number.
        order = np.lexsort((best, -values), axis=1)
        best = np.take_along_axis(best, order, axis=1)
        values = np.take_along_axis(values, order, axis=1)
        found[start : start + step, :most] = np.where(np.isneginf(values), -1, rows[best])
    return found
