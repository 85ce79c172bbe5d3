"""The last layer as numbers: what the stages train and ``graph`` joins to a backbone.

Part of the vocabulary: holds arrays, and may import NumPy only for annotations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tlpipe.types import Float32Array

HeadActivation = Literal["softmax", "sigmoid"]

HeadKind = Literal["linear", "centroid", "knn"]
HEAD_KINDS: tuple[HeadKind, ...] = ("linear", "centroid", "knn")

ClassWeight = Literal["none", "balanced"]
CLASS_WEIGHTS: tuple[ClassWeight, ...] = ("none", "balanced")

TINY = 1e-37
"""Is added to the length of an embedding before it is divided by it: zeros stay zeros."""


@dataclass(frozen=True)
class Novelty:
    """How far an embedding lies from those of the classes: "none of these".

    With ``t`` the embedding, brought to unit length, less `mean`; ``z = t @ basis`` its part in the
    directions in which embeddings vary most, and ``r = t - z @ basis.T`` what remains::

        d2 = min over k of |z @ whiten - centres[k]| ** 2 + |r / noise| ** 2
        score = sqrt(d2 / D)

    ``docs/explanation/unknown.md`` says why.

    Attributes
    ----------
    mean : float32 array (D,)
    basis : float32 array (D, R)
        Orthonormal columns.
    whiten : float32 array (R, R)
    centres : float32 array (K, R)
        One for all classes where images may have several labels.
    noise : float
        Standard deviation of each dimension of what remains; more than 0.
    threshold : float
        A greater score means "none of these".
    """

    mean: Float32Array
    basis: Float32Array
    whiten: Float32Array
    centres: Float32Array
    noise: float
    threshold: float


@dataclass(frozen=True)
class UnknownFacts:
    """What a classifier says of its model of the unknown.

    Attributes
    ----------
    method : str
    false_alarms : float
        Share of images of the classes that are called "none of these", as stated.
    threshold : float
        The greatest score that is none.
    held_out : int
        Number of held-out images that set it.
    """

    method: str
    false_alarms: float
    threshold: float
    held_out: int


@dataclass(frozen=True)
class SetsFacts:
    """What a classifier says of its prediction sets.

    Attributes
    ----------
    method : str
    coverage : float
        Share of images whose set holds their class, as stated.
    threshold : float
        The least probability of a class in a set, but for the most probable one, which always is.
    held_out : int
        Number of held-out images that set it.
    """

    method: str
    coverage: float
    threshold: float
    held_out: int


@dataclass(frozen=True)
class LastLayer:
    """What stands behind the embeddings of a classifier.

    Attributes
    ----------
    weights : float32 array (D, K)
    bias : float32 array (K,)
        ``activation(x @ weights + bias)`` are the probabilities; temperature and standardisation
        are in them.
    normalise : bool
        Whether `x` is the embedding brought to unit length, or as it is.
    activation : {"softmax", "sigmoid"}
        Sigmoid where an image may have several labels.
    thresholds : float32 array (K,) or None
        From which probability on an image is given a label, where it may have several.
    """

    weights: Float32Array
    bias: Float32Array
    normalise: bool = False
    activation: HeadActivation = "softmax"
    thresholds: Float32Array | None = None

    @property
    def dim(self) -> int:
        """D."""
        return int(self.weights.shape[0])

    @property
    def classes(self) -> int:
        """K."""
        return int(self.weights.shape[1])


@dataclass(frozen=True)
class NearestImages:
    """The images that vote for the classes, in place of a last layer.

    With ``s`` the cosines of an embedding with its `k` nearest images, each of these votes for its
    class with the weight ``softmax(s / temperature)``; among equally near ones the first counts.
    The probability of a class is ``(1 - doubt) * votes + doubt / K``.

    Attributes
    ----------
    images : float16 array (M, D)
        Embeddings, brought to unit length.
    labels : int64 array (M,)
        0 to K - 1.
    classes : int
        K.
    k : int
        1 to M.
    temperature : float
    doubt : float
        0 to 1.
    """

    images: NDArray[np.float16]
    labels: NDArray[np.int64]
    classes: int
    k: int
    temperature: float
    doubt: float

    normalise: ClassVar[bool] = True
    activation: ClassVar[HeadActivation] = "softmax"
    thresholds: ClassVar[None] = None

    @property
    def dim(self) -> int:
        """D."""
        return int(self.images.shape[1])
