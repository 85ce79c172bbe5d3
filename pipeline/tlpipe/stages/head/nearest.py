"""Nearest images: a quick baseline that learns nothing, and keeps all images that train.

The k images with the greatest cosine vote for their classes, each with the weight
``exp(cosine / T)`` (Wu, Xiong, Yu & Lin, "Unsupervised Feature Learning via Non-Parametric Instance
Discrimination", CVPR 2018, section 3.4; Caron et al., "Emerging Properties in Self-Supervised
Vision Transformers", ICCV 2021, appendix). So that a class without a vote is not impossible, a
share of the probability, ``doubt``, is spread over all classes. k, T and the doubt are those with
the least log loss on rows that do not vote.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tlpipe.errors import TrainingDataError
from tlpipe.last_layer import NearestImages
from tlpipe.stages.head.fewer import nested, sizes
from tlpipe.stages.head.nearest_search import NearestTrial, choose_setting, score
from tlpipe.stages.head.pool import open_pool
from tlpipe.stages.head.rows import InMemory, Vectors, chunks, unit_length
from tlpipe.stages.head.trained import HeldOut
from tlpipe.stages.head.voting import (
    Setting,
    block_rows,
    bounds_of,
    nearest_of,
    probabilities_from,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import Float32Array

    Rows = NDArray[np.intp]

MOST_BYTES = 500_000_000
"""Of the images in a classifier, float16."""


_PRIOR = Setting(k=10, temperature=0.07, doubt=0.1)  # where rows are too few to choose with


@dataclass(frozen=True)
class NearestHead:
    """Images that vote.

    Attributes
    ----------
    images : float32 array (M, D)
        Of unit length, rounded to float16, as they are exported.
    labels : int64 array (M,)
    classes : int
        K.
    setting : Setting
    trials : list of NearestTrial
    held_out : HeldOut or None
    threads : int or None
    fewer : list of (int, NearestHead)
        Their images are the first ones of `images`.
    """

    images: Float32Array
    labels: NDArray[np.int64]
    classes: int
    setting: Setting
    trials: list[NearestTrial]
    held_out: HeldOut | None
    threads: int | None = None
    fewer: list[tuple[int, NearestHead]] = field(default_factory=list)

    multilabel: ClassVar[bool] = False
    temperature: ClassVar[None] = None

    def logits(self, vectors: Float32Array | Vectors) -> NDArray[np.float64]:
        """Logarithms of the probabilities (N, K) for embeddings (N, D)."""
        return np.log(self.probabilities(vectors))

    def probabilities(self, vectors: Float32Array | Vectors) -> NDArray[np.float64]:
        """Probabilities (N, K) for embeddings (N, D)."""
        rows = InMemory(vectors) if isinstance(vectors, np.ndarray) else vectors
        count = rows.shape[0]
        found = np.empty((count, self.classes))

        def block(part: tuple[int, int]) -> None:
            unit = unit_length(rows.read(*part))
            cosines, places = nearest_of(unit @ self.images.T, self.setting.k)
            found[slice(*part)] = probabilities_from(
                cosines, self.labels[places], self.classes, self.setting
            )

        with open_pool(self.threads) as pool:
            pool.map(block, chunks(0, count, block_rows(len(self.images))))
        return found

    def bounds(self, vectors: Float32Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Least and greatest probabilities (N, K) that rounding in float32 may make of them.

        Of images that are equally near, up to rounding, any may be among the k nearest.
        """
        cosines = unit_length(vectors) @ self.images.T
        return bounds_of(cosines, self.labels, self.classes, self.setting)

    def layer(self) -> NearestImages:
        """The same as it is exported."""
        return NearestImages(
            images=self.images.astype(np.float16),
            labels=self.labels,
            classes=self.classes,
            k=self.setting.k,
            temperature=self.setting.temperature,
            doubt=self.setting.doubt,
        )

    def notices(self) -> list[str]:
        """What a user would want to know of it."""
        size = self.images.size * 2
        held = (
            f"The classifier holds the embeddings of all {len(self.images):,} images that vote:"
            f" {size / 1e6:,.1f} MB."
        )
        found = [held]
        if not self.trials:
            found.append(
                "There are too few images to choose settings with: the head has usual ones."
            )
        return found

    def facts(self) -> dict[str, Any]:
        """Method and settings, as a classifier states them."""
        return {
            "method": "votes of the nearest images by the cosine of frozen embeddings",
            "scaling": "unit",
            "k": self.setting.k,
            "vote_temperature": self.setting.temperature,
            "doubt": self.setting.doubt,
            "trials": [asdict(trial) for trial in self.trials],
        }


def train_nearest(
    vectors: Vectors | Float32Array,
    labels: NDArray[np.int32],
    folds: Sequence[tuple[Rows, Rows]],
    seed: int = 0,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> NearestHead:
    """Keep all images; choose k, the temperature and the doubt on rows that do not vote.

    Parameters
    ----------
    vectors : float32 array (N, D), or Vectors
        Read once; N x D x 4 bytes are held, whatever they are read from.
    labels : int32 array (N,)
        0 to K - 1; every class is among them.
    folds : sequence of pairs of int arrays
        Row numbers that vote, and that are scored.
    seed : int
        Which rows the heads of fewer have, and which held-out rows are scored.
    threads : int, optional
    progress : callable, optional
        Called with the number of settings tried so far.

    Raises
    ------
    TrainingDataError
        The images would make a classifier of more than ``MOST_BYTES``.
    """
    source = InMemory(vectors) if isinstance(vectors, np.ndarray) else vectors
    _check_size(*source.shape)
    order, classes = nested(labels, seed), int(labels.max()) + 1
    place = np.empty_like(order)
    place[order] = np.arange(order.size)
    images = np.empty(source.shape, np.float32)
    for start, stop in chunks(0, labels.size):
        unit = unit_length(source.read(start, stop))
        images[place[start:stop]] = unit.astype(np.float16)
    kinds = labels[order].astype(np.int64)
    setting = replace(_PRIOR, k=min(_PRIOR.k, labels.size))
    trials: list[NearestTrial] = []
    held_out = None
    if folds:
        moved = [(place[rows], np.sort(place[held])) for rows, held in folds]
        with open_pool(threads) as pool:
            scored = score(images, moved, seed, pool)
        setting, trials = choose_setting(scored, kinds, classes, setting, progress)
        found = probabilities_from(scored.cosines, kinds[scored.places], classes, setting)
        rows = order[scored.rows]
        ascending = np.argsort(rows)
        held_out = HeldOut(rows[ascending], np.log(found[ascending]))
    head = NearestHead(images, kinds, classes, setting, trials, held_out, threads)
    return replace(head, fewer=[(n, _of_first(head, n)) for n in sizes(labels.size, classes)])


def _check_size(count: int, dim: int) -> None:
    size = count * dim * 2
    if size > MOST_BYTES:
        raise TrainingDataError(
            f"A head of {count:,} nearest images with {dim:,} numbers each would make a classifier"
            f" of {size / 1e6:,.0f} MB; at most {MOST_BYTES / 1e6:,.0f} MB are written.",
            hint="Use --head linear, whose size does not depend on the number of images, or embed"
            " fewer images.",
        )


def _of_first(head: NearestHead, count: int) -> NearestHead:
    """Head of the first images, which are not copied."""
    setting = replace(head.setting, k=min(head.setting.k, count))
    return replace(
        head,
        images=head.images[:count],
        labels=head.labels[:count],
        setting=setting,
        held_out=None,
    )
