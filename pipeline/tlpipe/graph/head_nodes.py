"""The operators of a head: what may stand behind ``embeddings``, and nothing else.

Takes what a head has, gives nodes; their constants are named here, too. ``head`` joins them to a
network, ``digest`` holds a classifier against them.

All operators mean the same from version 7 of ONNX's operators on: sums are products with ones, for
ReduceSum and Squeeze take their axes in another form since version 13, and Gemm is always given
three inputs. And all numbers on the way stay near 1, whatever the length of an embedding: so the
same head can be run in float16.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import NodeProto

from tlpipe.graph import (
    EMBEDDINGS,
    HEAD_PREFIX,
    LABELS,
    PREDICTION_SET,
    PROBABILITIES,
    UNKNOWN,
    UNKNOWN_SCORE,
)
from tlpipe.graph.nearest_nodes import nearest_constants, nearest_nodes
from tlpipe.graph.own_node import own_node as _node
from tlpipe.last_layer import TINY, HeadActivation, LastLayer, NearestImages, Novelty

if TYPE_CHECKING:
    from numpy.typing import NDArray

Constants = dict[str, "NDArray[Any]"]


@dataclass(frozen=True)
class HeadShape:
    """What a head has.

    Attributes
    ----------
    normalise : bool
        Whether the last layer takes embeddings of unit length.
    activation : {"softmax", "sigmoid"}
    novelty, sets : bool
        Whether there is a model of the unknown, and whether there are prediction sets.
    labels : bool
        Whether each class has a threshold.
    nearest : int, optional
        Where nearest images vote in place of a last layer: the attribute of their TopK (see
        ``nearest_nodes.count_attribute``).
    """

    normalise: bool
    activation: HeadActivation
    novelty: bool
    sets: bool
    labels: bool = False
    nearest: int | None = None


_ACTIVATIONS: tuple[HeadActivation, ...] = ("softmax", "sigmoid")

SHAPES = tuple(
    HeadShape(normalise, activation, novelty, sets, labels)
    for normalise, activation, novelty, sets, labels in product(
        (False, True), _ACTIVATIONS, (False, True), (False, True), (False, True)
    )
)
"""Every head with a last layer."""


def nearest_shapes(count: int) -> tuple[HeadShape, ...]:
    """Every head whose nearest images vote, with this attribute of their TopK."""
    return tuple(
        HeadShape(True, "softmax", novelty, sets, nearest=count)
        for novelty, sets in product((False, True), (False, True))
    )


def head_nodes(shape: HeadShape) -> list[NodeProto]:
    """Operators of a head, in order; they depend on nothing but its shape."""
    nodes = []
    if shape.normalise or shape.novelty:
        nodes += _unit_length()
    nodes += _last_layer(shape) if shape.nearest is None else nearest_nodes(shape.nearest)
    if shape.labels:
        nodes += _labels()
    if shape.novelty:
        nodes += _novelty()
    if shape.sets:
        nodes += _sets()
    return nodes


def head_outputs(shape: HeadShape) -> list[str]:
    """Names of the outputs that a head has."""
    outputs = [PROBABILITIES]
    if shape.labels:
        outputs.append(LABELS)
    if shape.novelty:
        outputs += [UNKNOWN_SCORE, UNKNOWN]
    if shape.sets:
        outputs.append(PREDICTION_SET)
    return outputs


def head_constants(
    layer: LastLayer | NearestImages,
    novelty: Novelty | None,
    set_threshold: float | None,
    opset: int,
) -> Constants:
    """Constants of a head, by name, for operators of a version.

    Raises
    ------
    ValueError
        Arrays do not fit each other.
    """
    dim, classes = layer.dim, layer.classes
    constants: Mapping[str, Any] = {}
    if isinstance(layer, LastLayer):
        constants = _layer_constants(layer)
    if layer.normalise or novelty is not None:
        ones = np.ones((dim, 1))
        constants = {**constants, "ones": ones, "size/weights": ones / math.sqrt(dim)}
        constants = {**constants, "tiny": np.array([TINY])}
    if novelty is not None:
        constants = {**constants, **_novelty_constants(novelty, dim)}
    if set_threshold is not None:
        constants = {**constants, "least": np.array([set_threshold])}
    found: dict[str, NDArray[Any]] = {
        name: np.ascontiguousarray(array, np.float32) for name, array in constants.items()
    }
    if isinstance(layer, NearestImages):
        found |= nearest_constants(layer, opset)
    if novelty is not None:
        found["flat"] = np.array([-1], np.int64)
    if set_threshold is not None:
        found["numbers"] = np.arange(classes, dtype=np.int64)
    return {HEAD_PREFIX + name: array for name, array in found.items()}


def _layer_constants(layer: LastLayer) -> Mapping[str, Any]:
    expected = (layer.classes,)
    if layer.bias.shape != expected:
        raise ValueError(f"The bias has the shape {layer.bias.shape}, not {expected}.")
    found = {"weights": layer.weights, "bias": layer.bias}
    if layer.thresholds is None:
        return found
    if layer.thresholds.shape != expected:
        raise ValueError(f"The thresholds have the shape {layer.thresholds.shape}, not {expected}.")
    return found | {"thresholds": layer.thresholds}


def _novelty_constants(novelty: Novelty, dim: int) -> Mapping[str, Any]:
    rank = novelty.basis.shape[1]
    shapes = {
        "mean": (novelty.mean, (dim,)),
        "basis": (novelty.basis, (dim, rank)),
        "whiten": (novelty.whiten, (rank, rank)),
        "centres": (novelty.centres, (len(novelty.centres), rank)),
    }
    for name, (array, shape) in shapes.items():
        if array.shape != shape:
            raise ValueError(f"The {name} of the unknown has the shape {array.shape}, not {shape}.")
    root = math.sqrt(dim)  # of the mean over the dimensions
    centres = novelty.centres.astype(np.float64) / root
    return {
        "mean": novelty.mean,
        "basis": novelty.basis,
        "whiten": novelty.whiten.astype(np.float64) / root,
        "centres": centres,
        "closeness/bias": -(centres**2).sum(axis=1) / 2,
        "ones/rank": np.ones((rank, 1)),
        "noise/inverse": np.array([1 / (novelty.noise * root)]),
        "threshold": np.array([novelty.threshold]),
    }


def _unit_length() -> list[NodeProto]:
    """An embedding divided by its length; zeros stay zeros.

    It is first divided by the sum of its absolute values over sqrt(D): by that its length becomes a
    number from 1 to sqrt(D), whose square neither overflows nor vanishes.
    """
    return [
        _node("Abs", [EMBEDDINGS], "sizes"),
        _node("MatMul", ["sizes", "size/weights"], "size"),
        _node("Add", ["size", "tiny"], "size/positive"),
        _node("Div", [EMBEDDINGS, "size/positive"], "sized"),
        _node("Mul", ["sized", "sized"], "squares"),
        _node("MatMul", ["squares", "ones"], "length/square"),
        _node("Sqrt", ["length/square"], "length"),
        _node("Add", ["length", "tiny"], "length/positive"),
        _node("Div", ["sized", "length/positive"], "unit"),
    ]


def _last_layer(shape: HeadShape) -> list[NodeProto]:
    taken = "unit" if shape.normalise else EMBEDDINGS
    attributes: dict[str, Any] = {"axis": 1} if shape.activation == "softmax" else {}
    operator = shape.activation.capitalize()
    last = _node(operator, ["logits"], PROBABILITIES, **attributes)
    last.name = HEAD_PREFIX + shape.activation
    return [_node("Gemm", [taken, "weights", "bias"], "logits"), last]


def _labels() -> list[NodeProto]:
    """Classes that reach their own threshold."""
    return [
        _node("Less", [PROBABILITIES, "thresholds"], "below"),
        _node("Not", ["below"], LABELS),
    ]


def _novelty() -> list[NodeProto]:
    """``last_layer.Novelty``; the nearest class is found first, its distance is computed then.

    ``|p|^2 - 2 p c + |c|^2`` would lose the digits of a small distance between large numbers.
    """
    return [
        _node("Sub", ["unit", "mean"], "offset"),
        _node("MatMul", ["offset", "basis"], "inside"),
        _node("Gemm", ["inside", "basis", "mean"], "explained", transB=1),
        _node("Sub", ["unit", "explained"], "rest"),
        _node("Mul", ["rest", "noise/inverse"], "rest/scaled"),
        _node("Mul", ["rest/scaled", "rest/scaled"], "rest/squares"),
        _node("MatMul", ["rest/squares", "ones"], "rest/distance"),
        _node("MatMul", ["inside", "whiten"], "place"),
        _node("Gemm", ["place", "centres", "closeness/bias"], "closeness", transB=1),
        _node("ArgMax", ["closeness"], "nearest", axis=1, keepdims=0),
        _node("Gather", ["centres", "nearest"], "centre", axis=0),
        _node("Sub", ["place", "centre"], "gap"),
        _node("Mul", ["gap", "gap"], "gap/squares"),
        _node("MatMul", ["gap/squares", "ones/rank"], "gap/distance"),
        _node("Add", ["rest/distance", "gap/distance"], "distance"),
        _node("Sqrt", ["distance"], "score"),
        _node("Reshape", ["score", "flat"], UNKNOWN_SCORE),
        _node("Greater", [UNKNOWN_SCORE, "threshold"], UNKNOWN),
    ]


def _sets() -> list[NodeProto]:
    """Classes that reach the least probability, and the most probable one."""
    return [
        _node("Less", [PROBABILITIES, "least"], "unlikely"),
        _node("Not", ["unlikely"], "likely"),
        _node("ArgMax", [PROBABILITIES], "top", axis=1, keepdims=1),
        _node("Equal", ["top", "numbers"], "first"),
        _node("Or", ["likely", "first"], PREDICTION_SET),
    ]
