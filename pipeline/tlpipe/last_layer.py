"""The last layer as numbers: what the stage ``head`` trains and ``graph`` joins to a backbone.

Part of the vocabulary: holds arrays, and may import NumPy only for annotations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tlpipe.types import Float32Array

HeadActivation = Literal["softmax", "sigmoid"]


@dataclass(frozen=True)
class Novelty:
    """How far an embedding lies from those of the classes: "none of these".

    The embedding, brought to unit length where `normalise` says so, is projected: ``z = (x -
    mean) @ projection``. Its distance is the least over the classes of ``|z - centres[k]|``.

    Attributes
    ----------
    normalise : bool
    mean : float32 array (D,)
    projection : float32 array (D, R)
    centres : float32 array (K, R)
    threshold : float
        A greater distance means "none of these".
    """

    normalise: bool
    mean: Float32Array
    projection: Float32Array
    centres: Float32Array
    threshold: float


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
    """

    weights: Float32Array
    bias: Float32Array
    normalise: bool = False
    activation: HeadActivation = "softmax"
