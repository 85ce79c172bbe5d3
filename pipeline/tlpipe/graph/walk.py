"""Walks back from a class output to the last layer that has weights.

From the output towards the image, operator by operator, through all that may stand behind a last
layer without being one: softmax in its many forms, reshaping, casts, quantisation, the addition of
a bias, scaling, averaging over positions or over several heads. The walk ends at the first operator
that multiplies data by constant weights and has as many outputs as there are classes: the last
layer. It gives up, with the reason, at anything else, above all where two branches of the network
meet that are not two such layers (a residual connection), and at a normalisation: then what the
output holds are not class scores.

Takes a ``Trace``, gives ``Walk``. Whether what was found is a classifier is judged in ``decide``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import onnx

from tlpipe.graph.index import integer, integers
from tlpipe.graph.layers import Layer, weighted_layer
from tlpipe.graph.trace import Trace
from tlpipe.types import Activation

# Go on along the first input.
_PASS = frozenset(
    "Identity Cast CastLike Dropout Reshape Flatten Squeeze Unsqueeze Transpose Neg Exp Log Expand"
    " QuantizeLinear DequantizeLinear".split()
)
_SOFTMAX = frozenset("Softmax LogSoftmax QLinearSoftmax Hardmax".split())
_SIGMOID = frozenset("Sigmoid HardSigmoid QLinearSigmoid".split())
_ACTIVATION = frozenset("Relu Clip LeakyRelu QLinearLeakyRelu".split())
_POOL = frozenset(
    "GlobalAveragePool AveragePool ReduceMean ReduceSum QLinearGlobalAveragePool"
    " QLinearAveragePool QLinearReduceMean".split()
)
_PICK = frozenset("Gather Slice".split())
_ARITHMETIC = frozenset("Add Sub Mul Div Sum Mean Max QLinearAdd QLinearMul".split())
_JOIN = frozenset("Add Sum Mean Max QLinearAdd".split())


class Stop(Exception):  # noqa: N818  (not an error: the walk's other result)
    """The walk found no last layer; its text says why."""


@dataclass
class Walk:
    """The way from an output to its last layer.

    Attributes
    ----------
    output : str
        Name of the graph's output.
    classes : int
        C, its number of values per image.
    layers : list of Layer
        The last layer, or several whose results are averaged.
    passed : set of str
        What was met: "softmax", "sigmoid", "argmax", "activation", "pool", "bias", "pick-first",
        "pick-other", "join", "batchnorm".
    scores : str
        The tensor to show as class scores; "" where none has a batch axis.
    scores_are_logits : bool
        Whether these come before any softmax or sigmoid.
    """

    output: str
    classes: int
    layers: list[Layer] = field(default_factory=list)
    passed: set[str] = field(default_factory=set)
    scores: str = ""
    scores_are_logits: bool = True

    @property
    def activation(self) -> Activation:
        """What makes probabilities of the scores."""
        if not self.scores_are_logits:
            return "none"
        return "sigmoid" if "sigmoid" in self.passed or self.classes == 1 else "softmax"

    @property
    def is_scored(self) -> bool:
        """Whether the output is made for reading classes from it."""
        return bool(self.passed & {"softmax", "sigmoid", "argmax"})


def walk_back(trace: Trace, output: str, batch: int) -> Walk:
    """Find the last layer behind an output.

    Parameters
    ----------
    trace : Trace
    output : str
        An output of the graph.
    batch : int
        Batch size of the trace.

    Raises
    ------
    Stop
        There is none.
    """
    shape = trace.shapes.get(output)
    if shape is None:
        raise Stop("its shape is not known")
    if shape[:1] == (batch,):
        walk = Walk(output, math.prod(shape[1:]), scores=output)
    elif batch == 1:  # made for one image, whose scores stand without a batch axis
        walk = Walk(output, math.prod(shape))
    else:
        raise Stop(f"its shape {list(shape)} does not start with the batch")
    walk.layers = _Walker(trace, batch, walk).go(output, walk.classes)
    if trace.shapes.get(walk.scores, ())[:1] != (batch,):
        walk.scores = ""
    return walk


class _Walker:
    def __init__(self, trace: Trace, batch: int, walk: Walk) -> None:
        self._trace = trace
        self._batch = batch
        self._walk = walk
        self._visited: set[str] = set()

    def go(self, tensor: str, width: int) -> list[Layer]:
        """Layers behind `tensor`, which holds `width` classes."""
        trace, walk = self._trace, self._walk
        while True:
            if tensor in self._visited:
                raise Stop(f"it comes back to {tensor!r}")
            self._visited.add(tensor)
            node = trace.producers.get(tensor)
            if node is None:
                raise Stop("it leads to the input without a weighted layer")
            layer = weighted_layer(trace, node, width)
            if layer is not None:
                walk.passed |= {"bias"} if layer.has_bias else set()
                return [layer]
            operator = node.op_type
            if operator in ("ArgMax", "TopK"):
                axis = integer(node, "axis", 0 if operator == "ArgMax" else -1)
                width = walk.classes = trace.shapes[node.input[0]][axis]
                walk.passed.add("argmax")
                walk.scores, walk.scores_are_logits = node.input[0], True
            if operator == "Concat":
                return self._joined(node, width)
            if operator in _ARITHMETIC:
                operands = self._operands(node)
                if len(operands) > 1:
                    return self._branches(node, operands, width)
                tensor = operands[0]
            elif operator == "BatchNormalization" and not walk.passed & {"activation", "pool"}:
                walk.passed.add("batchnorm")
                tensor = node.input[0]
            else:
                tensor = self._through(node, tensor)

    def _through(self, node: onnx.NodeProto, tensor: str) -> str:
        """Input along which to go on behind an operator with one data input."""
        operator, walk = node.op_type, self._walk
        data: list[str] = [name for name in node.input if self._trace.is_data(name)]
        if operator in _SOFTMAX or operator in _SIGMOID:
            self._scored("softmax" if operator in _SOFTMAX else "sigmoid", node, tensor)
        elif operator in _ACTIVATION:
            walk.passed.add("activation")
        elif operator in _POOL:
            walk.passed.add("pool")
        elif operator in _PICK:
            walk.passed.add("pick-first" if self._picks_first(node) else "pick-other")
        elif operator not in (*_PASS, "ArgMax", "TopK"):
            raise Stop(f"a {operator} stands before it")
        if len(data) != 1:
            raise Stop(f"a {operator} of {len(data)} tensors stands before it")
        return data[0]

    def _scored(self, kind: str, node: onnx.NodeProto, tensor: str) -> None:
        walk, trace = self._walk, self._trace
        walk.passed.add(kind)
        source = node.input[0]
        # Only where nothing but repackaging stands behind the softmax are its inputs the scores.
        same = math.prod(trace.shapes[source]) == math.prod(trace.shapes[walk.output])
        direct = walk.passed <= {"softmax", "argmax"}
        if kind == "softmax" and direct and (same or "argmax" in walk.passed):
            walk.scores, walk.scores_are_logits = source, True
        elif "argmax" in walk.passed:
            walk.scores, walk.scores_are_logits = tensor, kind != "softmax"
        else:
            walk.scores_are_logits = False

    def _picks_first(self, node: onnx.NodeProto) -> bool:
        """Whether a Gather or Slice takes position 0 of an axis."""
        starts = integers(node, "starts")
        if starts is not None:  # of a Slice before version 10
            return not any(starts)
        if node.input[1] not in self._trace.constants:
            raise Stop(f"a {node.op_type} at a position that is computed stands before it")
        return not self._trace.value(node.input[1]).any()

    def _operands(self, node: onnx.NodeProto) -> list[str]:
        """Inputs of an arithmetic operator along which class scores may have come."""
        trace = self._trace
        data = [name for name in node.input if trace.is_data(name)]
        constants = [name for name in node.input if name in trace.constants]
        if node.op_type in ("Add", "Sum", "QLinearAdd") and len(data) == 1:
            sizes = [math.prod(trace.shapes.get(name, ())) for name in constants]
            if max(sizes, default=0) >= 2:
                self._walk.passed.add("bias")
        if node.op_type in ("Div", "Sub") and len(data) == 2:
            self._softmax_part(node, data)
            return data[:1]
        # Run-time scales of dynamic quantisation are single numbers, made from the data.
        whole = [name for name in data if math.prod(trace.shapes[name]) > 1]
        if not whole and len(data) > 1:
            raise Stop(f"a {node.op_type} of single numbers stands before it")
        return whole or data

    def _softmax_part(self, node: onnx.NodeProto, data: list[str]) -> None:
        """Accept ``e / sum(e)`` and ``x - max(x)``, the parts of a softmax that was written out."""
        wanted = "ReduceSum" if node.op_type == "Div" else "ReduceMax"
        other = self._trace.producers.get(data[1])
        for _ in range(3):  # a Cast, Expand or Clip may stand between
            if other is None or other.op_type == wanted or not other.input:
                break
            other = self._trace.producers.get(other.input[0])
        if other is None or other.op_type != wanted or other.input[0] != data[0]:
            raise Stop(f"a {node.op_type} of two tensors (a normalisation) stands before it")
        if node.op_type == "Div":
            self._walk.passed.add("softmax")
            self._walk.scores_are_logits = False
        elif "softmax" in self._walk.passed:
            self._walk.scores, self._walk.scores_are_logits = data[0], True

    def _joined(self, node: onnx.NodeProto, width: int) -> list[Layer]:
        """Heads that are stacked to be averaged, or whose classes stand side by side."""
        trace, walk = self._trace, self._walk
        operands = [name for name in node.input if trace.is_data(name)]
        sizes = [math.prod(trace.shapes[name]) // self._batch for name in operands]
        stacked = all(size == width for size in sizes)
        if not (stacked or sum(sizes) == width) or len(operands) < len(node.input):
            raise Stop("a Concat stands before it")
        if stacked:
            walk.passed.discard("pool")  # the mean over the heads
        if walk.passed & {"activation", "pool"}:
            raise Stop("a Concat stands before it")
        walk.passed.add("join")
        layers = []
        for operand, size in zip(operands, sizes, strict=True):
            layers += self.go(operand, size)
            if walk.passed & {"activation", "pool"}:
                raise Stop("a Concat of branches that are no last layers stands before it")
        return layers

    def _branches(self, node: onnx.NodeProto, operands: list[str], width: int) -> list[Layer]:
        if node.op_type not in _JOIN or self._walk.passed & {"activation", "pool"}:
            raise Stop(f"a {node.op_type} of {len(operands)} tensors stands before it")
        self._walk.passed.add("join")
        layers = []
        for operand in operands:
            found = self.go(operand, width)
            if self._walk.passed & {"activation", "pool"}:
                raise Stop(f"a {node.op_type} of branches that are no last layers stands before it")
            layers += found
        for layer in layers:
            made = {name for n in self._trace.ancestors([layer.data]) for name in n.output}
            if any(other.output in made for other in layers):
                raise Stop("a residual connection stands before it")
        return layers
