"""Cuts a network: what feeds the tensors that are wanted stays, all else goes.

Takes and gives ``onnx.ModelProto``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tlpipe.errors import BackboneError
from tlpipe.graph import (
    EMBEDDINGS,
    IMAGE_INPUT,
    LABELS,
    OWN_PREFIX,
    PREDICTION_SET,
    PROBABILITIES,
    UNKNOWN,
    UNKNOWN_SCORE,
)
from tlpipe.graph.index import Index, all_nodes, opset_of, reads, rename
from tlpipe.types import Pooling

_OURS = (IMAGE_INPUT, EMBEDDINGS, PROBABILITIES, LABELS, UNKNOWN_SCORE, UNKNOWN, PREDICTION_SET)
_INTEGERS = (TensorProto.UINT8, TensorProto.INT8)

# Where quantised operators take the scale of their result; its zero point comes next. Sources: the
# specifications of ONNX's operators, and docs/ContribOperators.md of ONNX Runtime for its own.
_RESULT_SCALES = {
    "QuantizeLinear": 1,
    **dict.fromkeys(("QLinearConv", "QLinearMatMul", "QLinearAdd", "QLinearMul"), 6),
    "QGemm": 7,
    **dict.fromkeys(("QLinearGlobalAveragePool", "QLinearAveragePool", "QLinearReduceMean"), 3),
    **dict.fromkeys(("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax"), 3),
    "QLinearConcat": 0,
}
_KEEP_SCALES = frozenset(
    "Identity Reshape Flatten Squeeze Unsqueeze Transpose MaxPool Gather Slice Dropout".split()
)


@dataclass(frozen=True)
class Cut:
    """An output of a cut network, float32 (N, `dim`).

    Attributes
    ----------
    name : str
        What the output is called.
    tensors : sequence of str
        Tensors of the network; several are joined one behind the other.
    pooling : str
        How each becomes (N, D).
    dim : int
    """

    name: str
    tensors: Sequence[str]
    pooling: Pooling
    dim: int


@dataclass(frozen=True)
class Kind:
    """``TensorProto.DataType`` and number of axes of a tensor."""

    data_type: int
    rank: int


def kind_of(array: Any) -> Kind:
    """Kind of a tensor with these values."""
    return Kind(helper.np_dtype_to_tensor_dtype(array.dtype), array.ndim)


def pruned(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """The network as far as `tensors` depend on it, with these as its outputs.

    Parameters
    ----------
    model : onnx.ModelProto
        Not changed.

    Returns
    -------
    onnx.ModelProto
        Nodes, initializers and inputs that the tensors depend on, unchanged and in order.

    Raises
    ------
    BackboneError
        The graph computes no tensor of such a name.
    """
    index = Index(model.graph)
    missing = [name for name in tensors if name not in index.producers]
    if missing:
        outputs = [value.name for value in model.graph.output]
        raise BackboneError(
            f"The network computes no tensor {missing[0]!r}; its outputs are {outputs}.",
            hint="Correct 'tensors' and 'logits' under [output] in the backbone's card.",
        )
    nodes = index.ancestors(tensors)
    used = {name for node in nodes for name in reads(node)}
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    for part in ("node", "initializer", "input", "output", "value_info"):
        cut.graph.ClearField(part)
    cut.graph.node.extend(nodes)
    cut.graph.initializer.extend(t for t in model.graph.initializer if t.name in used)
    cut.graph.input.extend(value for value in index.inputs if value.name in used)
    cut.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    return cut


def scales_of(model: onnx.ModelProto, tensor: str) -> tuple[str, str]:
    """Scale and zero point of a tensor of a network whose operators are quantised.

    Raises
    ------
    BackboneError
        No operator states them.
    """
    producers = Index(model.graph).producers
    source = tensor
    while source in producers:
        node = producers[source]
        at = _RESULT_SCALES.get(node.op_type)
        if at is not None and len(node.input) > at + 1:
            return node.input[at], node.input[at + 1]
        if node.op_type not in _KEEP_SCALES:
            break
        source = node.input[0]
    raise BackboneError(
        f"The tensor {tensor!r} holds integers, and no operator states their scale.",
        hint="Choose another tensor as the embedding.",
    )


def cut_at(
    model: onnx.ModelProto, cuts: Sequence[Cut], kinds: Mapping[str, Kind]
) -> onnx.ModelProto:
    """Network that ends at certain tensors, given out as vectors.

    Parameters
    ----------
    model : onnx.ModelProto
        Not changed.
    cuts : sequence of Cut
        Its new outputs.
    kinds : mapping of str to Kind
        Of the tensors.

    Returns
    -------
    onnx.ModelProto
        What ``pruned`` gives, followed by what makes vectors of the tensors: an ``Identity`` at
        the least. What has the name of an output or input of ours is called otherwise.

    Raises
    ------
    BackboneError
        The graph computes no tensor of such a name.
    """
    wanted = list(dict.fromkeys(tensor for cut in cuts for tensor in cut.tensors))
    scales = {name: scales_of(model, name) for name in wanted if kinds[name].data_type in _INTEGERS}
    made = Index(model.graph).producers
    extra = [name for pair in scales.values() for name in pair if name in made]
    result = pruned(model, [*wanted, *extra])
    present = {tensor.name for tensor in result.graph.initializer}
    needed = {name for pair in scales.values() for name in pair} - present
    result.graph.initializer.extend(t for t in model.graph.initializer if t.name in needed)
    del result.graph.output[:]
    moved = _set_aside(result.graph)
    for cut in cuts:
        _add_output(result, cut, kinds, scales, moved)
    return result


def _set_aside(graph: onnx.GraphProto) -> dict[str, str]:
    """Give what the network computes under a name of ours another one; weights keep theirs.

    Raises
    ------
    BackboneError
        Weights have one: it is by their names that they are compared.
    """
    for tensor in graph.initializer:
        if tensor.name in _OURS:
            raise BackboneError(
                f"The network's weights {tensor.name!r} have a name that tlpipe gives to what it"
                " adds.",
                hint="Export the network again with other names.",
            )
    made = {name for node in all_nodes(graph) if node.op_type != "Constant" for name in node.output}
    made |= {value.name for value in graph.input if value.name != IMAGE_INPUT}  # see ``prefix``
    moved = {name: f"{OWN_PREFIX}moved/{name}" for name in _OURS if name in made}
    for value in graph.input:
        value.name = moved.get(value.name, value.name)
    for node in graph.node:
        rename(node, moved)
    return moved


def _add_output(
    model: onnx.ModelProto,
    cut: Cut,
    kinds: Mapping[str, Kind],
    scales: Mapping[str, tuple[str, str]],
    moved: Mapping[str, str],
) -> None:
    """Nodes that make float32 (N, D) of the tensors of a cut."""
    graph = model.graph
    vectors = []
    start = f"{OWN_PREFIX}{cut.name}"
    for number, tensor in enumerate(cut.tensors):
        x = moved.get(tensor, tensor)
        for step in _steps(tensor, kinds[tensor], cut.pooling, scales, opset_of(model)):
            name = f"{start}/{number}/{step.operator}"
            inputs = [x, *step.inputs]
            if step.constant is not None:
                constant = numpy_helper.from_array(np.array(step.constant, np.int64), f"{name}/of")
                graph.initializer.append(constant)
                inputs.append(constant.name)
            node = helper.make_node(step.operator, inputs, [name], name=name, **step.attributes)
            graph.node.append(node)
            x = name
        vectors.append(x)
    if len(vectors) > 1:
        graph.node.append(helper.make_node("Concat", vectors, [cut.name], name=start, axis=1))
    else:
        graph.node.append(helper.make_node("Identity", vectors, [cut.name], name=start))
    value = helper.make_tensor_value_info(cut.name, TensorProto.FLOAT, ["N", cut.dim])
    graph.output.append(value)


@dataclass(frozen=True)
class _Step:
    """An operator to add: its further inputs, one of which may be a constant of integers."""

    operator: str
    inputs: tuple[str, ...] = ()
    constant: Any = None
    attributes: dict[str, Any] = field(default_factory=dict)


def _steps(
    tensor: str, kind: Kind, pooling: Pooling, scales: Mapping[str, tuple[str, str]], opset: int
) -> list[_Step]:
    """Operators that make a vector of a tensor."""
    steps = []
    if tensor in scales:
        steps.append(_Step("DequantizeLinear", scales[tensor]))
    elif kind.data_type != TensorProto.FLOAT:
        steps.append(_Step("Cast", attributes={"to": TensorProto.FLOAT}))
    if pooling == "mean-channels-first":
        steps.append(_Step("GlobalAveragePool"))
    elif pooling == "mean-channels-last":
        middle = list(range(1, kind.rank - 1))
        if opset < 18:
            steps.append(_Step("ReduceMean", attributes={"axes": middle, "keepdims": 0}))
        else:
            steps.append(_Step("ReduceMean", constant=middle, attributes={"keepdims": 0}))
    elif pooling == "cls":
        steps.append(_Step("Gather", constant=0, attributes={"axis": 1}))
    if pooling in ("flatten", "mean-channels-first"):
        steps.append(_Step("Flatten", attributes={"axis": 1}))
    return steps
