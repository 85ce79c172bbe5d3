"""What counts as a layer with weights, for every operator that can be one.

Takes a node of a ``Trace``, gives a ``Layer`` where the node multiplies data by constant weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx

from tlpipe.graph.index import einsum_terms, integer, integers
from tlpipe.graph.trace import Trace

# Operators with (data, weights, bias) at these inputs; -1 for none. Sources: the specifications of
# ONNX's operators, and docs/ContribOperators.md of ONNX Runtime for its own.
_INPUTS = {
    "Gemm": (0, 1, 2),
    "FusedGemm": (0, 1, 2),
    "MatMul": (0, 1, -1),
    "FusedMatMul": (0, 1, -1),
    "TransposeMatMul": (0, 1, -1),
    "Conv": (0, 1, 2),
    "FusedConv": (0, 1, 2),
    "NhwcFusedConv": (0, 1, 2),
    "QLinearConv": (0, 3, 8),
    "QLinearMatMul": (0, 3, -1),
    "QGemm": (0, 3, 6),
    "MatMulInteger": (0, 1, -1),
    "ConvInteger": (0, 1, -1),
    "MatMulIntegerToFloat": (0, 1, 6),
    "DynamicQuantizeMatMul": (0, 1, 4),
    "MatMulNBits": (0, 1, 5),
    "MatMulBnb4": (0, 1, -1),
    "Einsum": (0, 1, -1),
}
CONVOLUTIONS = frozenset("Conv FusedConv NhwcFusedConv QLinearConv ConvInteger".split())


@dataclass(frozen=True)
class Layer:
    """A layer with weights.

    Attributes
    ----------
    name : str
        Of its node; else of its output.
    operator : str
    data : str
        The tensor that feeds it.
    output : str
        The tensor it makes.
    weight : str
        Name of its weights.
    weight_shape : tuple of int
    kernel : tuple of int
        Of a convolution; else empty.
    has_bias : bool
    """

    name: str
    operator: str
    data: str
    output: str
    weight: str
    weight_shape: tuple[int, ...]
    kernel: tuple[int, ...]
    has_bias: bool

    @property
    def is_convolution(self) -> bool:
        """Whether it is a convolution."""
        return self.operator in CONVOLUTIONS


def any_layer(trace: Trace, node: onnx.NodeProto) -> Layer | None:
    """The layer a node is, whatever its width; None where it has no constant weights."""
    roles = _INPUTS.get(node.op_type)
    if roles is None:
        return None
    data_at, weight_at, bias_at = roles
    if len(node.input) <= weight_at:
        return None
    data, weight = node.input[data_at], node.input[weight_at]
    if node.op_type in ("MatMul", "Einsum") and data in trace.constants:
        data, weight = weight, data
    if not trace.is_data(data) or weight not in trace.constants:
        return None
    shape = trace.shapes.get(weight, ())
    if len(shape) < 2 or (node.op_type in CONVOLUTIONS and integer(node, "group", 1) != 1):
        return None
    return Layer(
        name=node.name or node.output[0],
        operator=node.op_type,
        data=data,
        output=node.output[0],
        weight=weight,
        weight_shape=shape,
        kernel=shape[2:] if node.op_type in CONVOLUTIONS else (),
        has_bias=0 <= bias_at < len(node.input) and bool(node.input[bias_at]),
    )


def weighted_layer(trace: Trace, node: onnx.NodeProto, width: int) -> Layer | None:
    """The layer a node is, where it has `width` outputs."""
    layer = any_layer(trace, node)
    if layer is None or _width(node, layer) != width:
        return None
    return layer


def _width(node: onnx.NodeProto, layer: Layer) -> int:
    """Number of outputs of a layer, per position."""
    shape = layer.weight_shape
    if layer.is_convolution:
        return shape[0]
    if node.op_type in ("MatMulNBits", "MatMulBnb4"):
        return integer(node, "N", 0)
    if node.op_type == "Einsum":
        return _einsum_width(node, layer)
    if math.prod(shape[:-2]) != 1:  # other weights for each position
        return 0
    if node.op_type == "MatMul" and node.input[0] == layer.weight:
        return shape[-2]
    if node.op_type in ("Gemm", "FusedGemm", "FusedMatMul", "TransposeMatMul", "QGemm"):
        if integer(node, "transA", 0):
            return 0
        return shape[-2] if integer(node, "transB", 0) else shape[-1]
    return shape[-1]


def _einsum_width(node: onnx.NodeProto, layer: Layer) -> int:
    terms, right = einsum_terms(node) or ([], "")
    if len(terms) != 2 or any("." in letters for letters in (*terms, right)):
        return 0
    at = list(node.input).index(layer.weight)
    sizes = dict(zip(terms[at], layer.weight_shape, strict=False))
    own = [letter for letter in terms[at] if letter in right and letter not in terms[1 - at]]
    return math.prod(sizes[letter] for letter in own) if own else 0


def covers_all(trace: Trace, node: onnx.NodeProto, layer: Layer) -> bool:
    """Whether a convolution's kernel spans its whole input, so that it is a matrix product."""
    pads = integers(node, "pads") or [0]
    return layer.kernel == tuple(trace.shapes.get(layer.data, ())[2:]) and not any(pads)
