"""Quick baselines beside the linear probe: the nearest class mean, and the nearest images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from tlpipe.stages.head.centroid import train_centroid
from tlpipe.stages.head.nearest import train_nearest
from tlpipe.stages.head.training import HeadOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tlpipe.stages.head.rows import Vectors
    from tlpipe.stages.head.trained import AnyHead
    from tlpipe.types import Float32Array

    Rows = NDArray[np.intp]


def train_baseline(
    kind: Literal["centroid", "knn"],
    vectors: Vectors | Float32Array,
    labels: NDArray[np.int32],
    folds: Sequence[tuple[Rows, Rows]],
    options: HeadOptions | None = None,
    progress: Callable[[int], None] | None = None,
) -> AnyHead:
    """Make a baseline of all rows; its settings are chosen on those held out.

    Parameters
    ----------
    kind : {"centroid", "knn"}
    vectors : float32 array (N, D), or Vectors
    labels : int32 array (N,)
        0 to K - 1; every class is among them.
    folds : sequence of pairs of int arrays
        Row numbers to make it of, and to score on, while choosing.
    options : HeadOptions, optional
        Of these, `seed` and `threads` are heeded.
    progress : callable, optional
        Called with the number of settings tried so far.

    Raises
    ------
    TrainingDataError
        Too many images for "knn".
    """
    options = options or HeadOptions()
    if kind == "centroid":
        return train_centroid(vectors, labels, folds, options.seed)
    return train_nearest(vectors, labels, folds, options.seed, options.threads, progress)
