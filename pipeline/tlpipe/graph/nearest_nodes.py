"""The operators of a head whose nearest images vote: ``last_layer.NearestImages`` as a graph.

They mean the same from version 7 of ONNX's operators on, but for TopK, which takes its number as an
attribute before version 10 and as an input from then on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from tlpipe.graph import HEAD_PREFIX, PROBABILITIES
from tlpipe.graph.own_node import own_node, split_node

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.last_layer import NearestImages

COUNT_IS_INPUT = 0
"""In place of the number of nearest images, where TopK takes it as an input."""

_TOPK_TAKES_INPUT = 10  # since this version of the operators
_TOPK = "nearest-images"


def count_attribute(k: int, opset: int) -> int:
    """The number that TopK has as an attribute; ``COUNT_IS_INPUT`` where it has none."""
    return COUNT_IS_INPUT if opset >= _TOPK_TAKES_INPUT else k


def stated_attribute(model: ModelProto) -> int:
    """What ``count_attribute`` was in a model; it is a number of the head, as its constants are."""
    for node in model.graph.node:
        if node.op_type == "TopK" and node.name == HEAD_PREFIX + _TOPK:
            return next((int(a.i) for a in node.attribute if a.name == "k"), COUNT_IS_INPUT)
    return COUNT_IS_INPUT


def nearest_nodes(count: int) -> list[NodeProto]:
    """Operators from an embedding of unit length to probabilities.

    The weights of the votes are a softmax of the k greatest cosines; the votes of each class are
    their product with the table of which image is of which class.
    """
    more: dict[str, Any] = {"axis": 1}
    inputs = ["cosines", "images/count"]
    if count != COUNT_IS_INPUT:
        inputs, more = inputs[:1], {**more, "k": count}
    return [
        own_node("Cast", ["images"], "images/float", to=TensorProto.FLOAT),
        own_node("Gemm", ["unit", "images/float", "nothing"], "cosines", transB=1),
        split_node("TopK", inputs, ["nearest/cosines", "nearest/places"], _TOPK, **more),
        own_node("Mul", ["nearest/cosines", "votes/sharpness"], "nearest/sharp"),
        own_node("Softmax", ["nearest/sharp"], "votes/flat", axis=1),
        own_node("Reshape", ["votes/flat", "votes/form"], "votes"),
        own_node("Gather", ["images/labels", "nearest/places"], "nearest/labels", axis=0),
        own_node("Reshape", ["nearest/labels", "labels/form"], "labels/column"),
        own_node("Equal", ["labels/column", "classes"], "labels/right"),
        own_node("Cast", ["labels/right"], "labels/table", to=TensorProto.FLOAT),
        own_node("MatMul", ["votes", "labels/table"], "shares/row"),
        own_node("Reshape", ["shares/row", "shares/form"], "shares"),
        own_node("Mul", ["shares", "sureness"], "shares/sure"),
        own_node("Add", ["shares/sure", "doubt"], PROBABILITIES),
    ]


def nearest_constants(layer: NearestImages, opset: int) -> dict[str, NDArray[Any]]:
    """Their constants, by name without prefix.

    Raises
    ------
    ValueError
        Arrays do not fit each other.
    """
    count, classes = len(layer.images), layer.classes
    if layer.labels.shape != (count,):
        raise ValueError(f"The labels have the shape {layer.labels.shape}, not {(count,)}.")
    if not 1 <= layer.k <= count:
        raise ValueError(f"{layer.k} of {count} images cannot be the nearest.")
    found: dict[str, NDArray[Any]] = {
        "images": np.ascontiguousarray(layer.images, np.float16),
        "nothing": np.zeros(1, np.float32),
        "images/labels": np.ascontiguousarray(layer.labels, np.int64),
        "votes/sharpness": np.array([1 / layer.temperature], np.float32),
        "votes/form": np.array([0, 1, -1], np.int64),
        "labels/form": np.array([0, -1, 1], np.int64),
        "classes": np.arange(classes, dtype=np.int64),
        "shares/form": np.array([-1, classes], np.int64),
        "sureness": np.array([1 - layer.doubt], np.float32),
        "doubt": np.array([layer.doubt / classes], np.float32),
    }
    if count_attribute(layer.k, opset) == COUNT_IS_INPUT:
        found["images/count"] = np.array([layer.k], np.int64)
    return found
