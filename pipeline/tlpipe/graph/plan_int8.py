"""Decides which operators of a network run on 8-bit integers, and which tensors need a range.

Products of an activation with constant weights do (convolutions, fully connected layers), and so do
the light operators between them, so that activations need not change their form from one to the
next. All else stays in float: the preprocessing before the first product, what stands behind the
last one (pooling, and so the embedding), normalisation, softmax, attention's own products.

Takes an ``onnx.ModelProto``, gives a ``Plan``. Nothing is run.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto

from tlpipe.errors import BackboneError
from tlpipe.graph.index import Index, attribute, integer, reads
from tlpipe.graph.references import array_of

PRODUCTS = frozenset("Conv Gemm MatMul".split())

_LIGHT = frozenset(
    "Add Mul Concat AveragePool GlobalAveragePool Sigmoid LeakyRelu HardSigmoid HardSwish".split()
)
"""Operators between products that take and give integers, each tensor in its own range."""

_SAME_RANGE = frozenset("MaxPool Flatten Reshape Transpose Squeeze Unsqueeze".split())
"""... and those whose values are values of their input: its range is theirs."""


@dataclass
class Plan:
    """What of a network becomes integers.

    Attributes
    ----------
    products : list of onnx.NodeProto
        In the order of the graph.
    tensors : list of str
        Activations that are stored as integers, in the order of the graph.
    like : dict of str to str
        Those of them whose range is that of another one.
    dropped : dict of str to str
        Outputs of activation functions which saturation replaces (ReLU, ReLU6), and what they are
        applied to.
    """

    products: list[onnx.NodeProto] = field(default_factory=list)
    tensors: list[str] = field(default_factory=list)
    like: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)

    @property
    def measured(self) -> list[str]:
        """Tensors whose range must be measured."""
        return [name for name in self.tensors if name not in self.like]


def plan_int8(model: onnx.ModelProto) -> Plan:
    """Decide what of a network becomes integers.

    Parameters
    ----------
    model : onnx.ModelProto
        A prepared network whose batch normalisations are folded (``fold_norms``). Not changed.

    Raises
    ------
    BackboneError
        There is nothing that could.
    """
    index = Index(model.graph)
    planner = _Planner(index)
    for node in index.nodes:
        planner.take(node)
    if not planner.plan.products:
        kinds = Counter(node.op_type for node in index.nodes if node.op_type in PRODUCTS)
        found = ", ".join(f"{n} {kind}" for kind, n in kinds.items()) or "none at all"
        raise BackboneError(
            "The network cannot be quantised to int8: it has no convolution, Gemm or MatMul with"
            f" constant float32 weights at its top level (products found: {found}).",
            hint="Use another --precision; or export it in float32, with its weights stored and"
            " with a dynamic batch axis.",
        )
    return planner.plan


class _Planner:
    def __init__(self, index: Index) -> None:
        self.plan = Plan()
        self._index = index
        self._in: set[str] = set()
        self._outputs = {value.name for value in index.graph.output}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in index.nodes:
            for name in reads(node):
                self._readers.setdefault(name, []).append(node)
        self._before = {  # tensors that a product depends on
            name
            for node in index.ancestors(
                node.input[0] for node in index.nodes if is_product(node, index)
            )
            for name in node.output
        }

    def take(self, node: onnx.NodeProto) -> None:
        """Decide on one operator; those before it in the graph were decided on."""
        if is_product(node, self._index):
            self.plan.products.append(node)
            self._add(node.input[0])
            if node.op_type == "Conv":  # of the others float is as fast, and what follows needs it
                self._add(self._behind(node))
        elif node.op_type in _LIGHT and self._is_between(node, node.input):
            self._add(self._behind(node))
        elif node.op_type in _SAME_RANGE and self._is_between(node, node.input[:1]):
            source = node.input[0]
            self._add(node.output[0])
            self.plan.like[node.output[0]] = self.plan.like.get(source, source)

    def _is_between(self, node: onnx.NodeProto, values: list[str]) -> bool:
        """Whether all that an operator takes are integers, and a product needs what it makes."""
        return (
            len(node.output) == 1
            and all(name in self._in for name in values if name)
            and node.output[0] in self._before
        )

    def _add(self, name: str) -> None:
        if name not in self._in and self._readers.get(name):
            self._in.add(name)
            self.plan.tensors.append(name)

    def _behind(self, node: onnx.NodeProto) -> str:
        """What an operator's output is stored as: the result of its activation function."""
        output = str(node.output[0])
        readers = self._readers.get(output, [])
        if len(readers) == 1 and output not in self._outputs and self._saturates(readers[0]):
            self.plan.dropped[readers[0].output[0]] = output
            return str(readers[0].output[0])
        return output

    def _saturates(self, node: onnx.NodeProto) -> bool:
        """Whether a function does no more than limit values, to limits that have 0 between them.

        Its result's range then lies within them, and integers cannot leave that range.
        """
        if node.op_type == "Relu":
            return True
        if node.op_type != "Clip":
            return False
        limits = [attribute(node, name) for name in ("min", "max")]  # before opset 11
        for position, name in enumerate(node.input[1:]):
            if name:
                tensor = self._index.initializers.get(name)
                if tensor is None:
                    return False
                limits[position] = array_of(tensor).item()
        low, high = limits
        return (low is None or low <= 0) and (high is None or high >= 0)


def is_product(node: onnx.NodeProto, index: Index) -> bool:
    """Whether a node multiplies an activation with constant float32 weights in a plain way."""
    if node.op_type not in PRODUCTS or node.domain not in ("", "ai.onnx"):
        return False
    stored = index.initializers
    weights = stored.get(node.input[1])
    if weights is None or weights.data_type != TensorProto.FLOAT or node.input[0] in stored:
        return False
    if len(node.input) > 2 and node.input[2]:
        bias = stored.get(node.input[2])
        if bias is None or len(bias.dims) != 1 or bias.data_type != TensorProto.FLOAT:
            return False
    if node.op_type == "MatMul":
        return len(weights.dims) == 2
    if node.op_type == "Gemm":
        plain = np.isclose([attribute(node, n, 1.0) for n in ("alpha", "beta")], 1.0).all()
        return bool(plain) and not integer(node, "transA", 0)
    return len(weights.dims) >= 3
