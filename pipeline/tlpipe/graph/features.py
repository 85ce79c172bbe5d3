"""The embedding: which tensors of a graph it is, and how it becomes one vector per image.

Takes a ``Trace`` and a ``Walk``, gives a ``Feature``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import onnx

from tlpipe.errors import UndecidedError
from tlpipe.graph.index import integer
from tlpipe.graph.layers import Layer, covers_all
from tlpipe.graph.trace import Trace
from tlpipe.graph.walk import Walk
from tlpipe.types import Pooling, PoolingChoice

_NOT_NEGATIVE = frozenset("Relu Sigmoid HardSigmoid Softmax".split())
_KEEP_SIGNS = frozenset(
    "Identity Dropout Flatten Reshape Squeeze Unsqueeze Transpose GlobalAveragePool AveragePool"
    " MaxPool ReduceMean".split()
)
_REPACK = frozenset("Identity Dropout Flatten Reshape Squeeze Unsqueeze".split())


@dataclass(frozen=True)
class Feature:
    """What becomes the embedding.

    Attributes
    ----------
    tensors : tuple of str
        Usually one; several, of several heads, are joined one behind the other.
    pooling : str or None
        How each becomes (N, D): see ``types.Pooling``; None where that is not known.
    shapes : tuple of tuple of int
        Of the tensors, for one batch.
    """

    tensors: tuple[str, ...]
    pooling: Pooling | None
    shapes: tuple[tuple[int, ...], ...]

    @property
    def dim(self) -> int:
        """D, the length of the embedding."""
        if self.pooling is None:
            return 0
        return sum(pooled_size(shape, self.pooling) for shape in self.shapes)

    @classmethod
    def whole(cls, trace: Trace, tensor: str, batch: int) -> Feature:
        """The feature that is a tensor as it stands, pooled where that is beyond doubt.

        Raises
        ------
        UndecidedError
            It does not hold something for each image.
        """
        shape = trace.shapes.get(tensor, ())
        if len(shape) < 2 or shape[0] != batch or math.prod(shape) == 0:
            raise UndecidedError(
                f"The tensor {tensor!r} has the shape {list(shape)}; an embedding must start with"
                " the batch and hold a vector for each image.",
                hint="Name another tensor with --layer; 'tlpipe models inspect' lists them.",
            )
        return cls((tensor,), _pooling(shape), (shape,))

    def pooled(self, pooling: PoolingChoice | None) -> Feature:
        """The same with the pooling a user chose; None for no choice.

        Raises
        ------
        UndecidedError
            A choice is needed and was not made, or cannot be made.
        """
        shape = self.shapes[0]
        if pooling is None:
            if self.pooling is None:
                raise UndecidedError(
                    f"{self.tensors[0]!r} has the shape {list(shape)}: {_nature(shape)}.",
                    hint="Say how it becomes one vector: --pooling mean or --pooling flatten"
                    + (", or --pooling cls for the first token." if len(shape) == 3 else "."),
                )
            return self
        if pooling == "flatten" or math.prod(shape[1:]) == max(shape[1:]):
            return replace(self, pooling="none" if len(shape) == 2 else "flatten")
        if pooling == "cls" and len(shape) == 3:
            return replace(self, pooling="cls")
        if pooling == "mean" and len(shape) == 3:
            return replace(self, pooling="mean-channels-last")
        if pooling == "mean" and self.pooling is not None:
            return self
        raise UndecidedError(
            f"--pooling {pooling} does not fit {self.tensors[0]!r}, whose shape is {list(shape)}:"
            f" {_nature(shape)}.",
            hint="Use --pooling flatten, or another --layer.",
        )


def pooled_size(shape: tuple[int, ...], pooling: Pooling) -> int:
    """Length of the vector that a tensor of that shape becomes."""
    if pooling == "mean-channels-first":
        return shape[1]
    if pooling in ("mean-channels-last", "cls"):
        return shape[-1]
    return math.prod(shape[1:])


def _pooling(shape: tuple[int, ...]) -> Pooling | None:
    """How a tensor becomes a vector, where its shape leaves no doubt."""
    if len(shape) == 2:
        return "none"
    if math.prod(shape[1:]) == max(shape[1:]):
        return "flatten"
    if len(shape) == 4:
        _, a, b, c = shape
        if b == c != a:
            return "mean-channels-first"
        if a == b != c:
            return "mean-channels-last"
    return None


def _nature(shape: tuple[int, ...]) -> str:
    if len(shape) == 3:
        return f"{shape[1]} tokens of {shape[2]} numbers for each image"
    return "more than one vector for each image"


def feature_of(trace: Trace, tensor: str) -> str:
    """The tensor behind `tensor` that holds the same numbers, before they were repackaged.

    Reshaping, dropout, and a pair of quantising and dequantising are taken off; so constants that
    fix the batch size often go with them.
    """
    while True:
        node = trace.producers.get(tensor)
        if node is None or not node.input or not trace.is_data(node.input[0]):
            return tensor
        source = node.input[0]
        if node.op_type in ("DequantizeLinear", "DynamicQuantizeLinear"):
            maker = trace.producers.get(source)
            if node.op_type == "DequantizeLinear" and maker is not None:
                if maker.op_type != "QuantizeLinear" or _rectifies(trace, maker):
                    return tensor
                source = maker.input[0]
        elif node.op_type == "Gather" and (whole := as_strided(trace, node)):
            source = whole
        elif node.op_type not in _REPACK or tensor != node.output[0]:
            return tensor
        before, after = trace.shapes.get(source, ()), trace.shapes.get(tensor, ())
        one = before[:1] == (1,) and len(after) == 1  # one image, squeezed to a bare vector
        if not (one or before[:1] == after[:1]) or math.prod(before) != math.prod(after):
            return tensor
        if source not in trace.producers:  # the image itself
            return tensor
        tensor = source


def _rectifies(trace: Trace, node: onnx.NodeProto) -> bool:
    """Whether a QuantizeLinear may cut off negative numbers, as the Relu did that it took in.

    Quantisers drop a Relu (or Clip) where the integers begin at zero anyway; then what stands
    before is not yet what the next layer gets.
    """
    known = _begins_at_zero(trace, node)
    return known is not False and not _never_negative(trace, node.input[0])


def _begins_at_zero(trace: Trace, node: onnx.NodeProto) -> bool | None:
    """Whether the lowest integer of a QuantizeLinear or DequantizeLinear stands for zero.

    None where that is computed from the image.
    """
    if len(node.input) < 3 or not node.input[2]:
        return True  # unsigned integers from zero on
    if node.input[2] not in trace.constants:
        return None
    zero = trace.value(node.input[2])
    return bool(np.any(zero == np.iinfo(zero.dtype).min))


def _never_negative(trace: Trace, tensor: str) -> bool:
    """Whether a tensor holds no negative number, as far as the operators before it tell."""
    node = trace.producers.get(tensor)
    while node is not None and node.op_type in _KEEP_SIGNS and node.input:
        node = trace.producers.get(node.input[0])
    if node is None:
        return False
    if node.op_type == "DequantizeLinear":
        return _begins_at_zero(trace, node) is True
    return node.op_type in _NOT_NEGATIVE


def as_strided(trace: Trace, node: onnx.NodeProto) -> str:
    """Source of a reshaping that PyTorch wrote as a gather of all elements in order, or ""."""
    maker = trace.producers.get(node.input[0])
    if maker is None or maker.op_type != "Reshape" or node.input[1] not in trace.constants:
        return ""
    if len(trace.shapes[node.input[0]]) != 1 or integer(node, "axis", 0) != 0:
        return ""
    order = np.ravel(trace.value(node.input[1]))
    if order.size != trace.shapes[node.input[0]][0] or (order != np.arange(order.size)).any():
        return ""
    return str(maker.input[0])


def features_behind(trace: Trace, walk: Walk, batch: int) -> Feature:
    """What feeds the last layer, or the several last layers, of a classifier.

    Raises
    ------
    UndecidedError
        It cannot be told how that becomes a vector.
    """
    found: dict[str, Pooling] = {}
    for layer in walk.layers:
        tensor = feature_of(trace, layer.data)
        if len(walk.layers) > 1:
            tensor = _before_affine(trace, tensor)
        found[tensor] = _layer_pooling(trace, layer, tensor, walk)
    shapes = tuple(trace.shapes[tensor] for tensor in found)
    poolings = set(found.values())
    if poolings == {"none", "flatten"}:  # a vector laid out flat is what it was
        poolings = {"flatten"}
    if any(shape[:1] != (batch,) for shape in shapes) or len(poolings) != 1:
        raise UndecidedError(
            f"What feeds the last layers, {list(found)} of the shapes"
            f" {[list(shape) for shape in shapes]}, is no vector for each image.",
            hint="Name another tensor with --layer; 'tlpipe models inspect' lists them.",
        )
    return Feature(tuple(found), poolings.pop(), shapes)


def _layer_pooling(trace: Trace, layer: Layer, tensor: str, walk: Walk) -> Pooling:
    """How what feeds a last layer becomes a vector, so that the layer could do its work on it."""
    shape, data = trace.shapes[tensor], trace.shapes[layer.data]
    node = trace.producers[layer.output]
    if layer.is_convolution:
        if math.prod(data[2:]) == 1 or covers_all(trace, node, layer):
            return "none" if len(shape) == 2 else "flatten"
        return "mean-channels-first"
    positions = math.prod(data[1:-1])
    if positions == 1 or math.prod(data[1:]) == max(data[1:]):
        return "none" if len(shape) == 2 else "flatten"
    # The layer works on each of several positions; what it gives is averaged, or one is picked.
    if "pool" in walk.passed and len(shape) == len(data):
        return "mean-channels-last"
    if "pick-first" in walk.passed and len(shape) == 3:
        return "cls"
    raise UndecidedError(
        f"The last layer {layer.name!r} works on {positions} positions of {tensor!r}, and it cannot"
        " be told which of them become the embedding.",
        hint=f"Say it: --layer {tensor} --pooling mean, or --pooling cls.",
    )


def _before_affine(trace: Trace, tensor: str) -> str:
    """The tensor before a scaling and shifting of each number by constants."""
    while True:
        node = trace.producers.get(tensor)
        if node is None or node.op_type not in ("BatchNormalization", "Mul", "Add", "Sub", "Div"):
            return tensor
        data = [name for name in node.input if trace.is_data(name)]
        if len(data) != 1 or (node.op_type in ("Sub", "Div") and data[0] != node.input[0]):
            return tensor
        before = feature_of(trace, data[0])
        if before not in trace.producers or trace.shapes[before][:1] != trace.shapes[tensor][:1]:
            return tensor
        tensor = before
