"""Where the batch went: follows the images' axis through a graph that was written for one batch.

A batch of B images does not always stay the first axis: transposing moves it, and reshaping merges
it with others (the windows of a Swin transformer, the heads of an attention). ``Axis`` says where
it is: an axis of `before` * B * `after` elements, in row-major order. ``follow`` computes that for
the result of one operator, from where it is in its operands.

Where the batch size is 1 several readings of a reshape are possible, and the likeliest is taken;
``batch`` proves the whole by running it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import onnx

from tlpipe.graph import moves
from tlpipe.graph.axis import Axes, Axis, Step
from tlpipe.graph.index import attribute, einsum_terms, integer, opset_of
from tlpipe.graph.trace import Trace

_SOFTMAX = ("Softmax", "LogSoftmax", "Hardmax")


def follow(trace: Trace, node: onnx.NodeProto, axes: Axes, batch: int) -> list[Axis | None]:
    """Place of the batch in each output of a node.

    Parameters
    ----------
    trace : Trace
    node : onnx.NodeProto
        At least one of its inputs carries the batch.
    axes : dict of str to Axis
        Of the tensors before it.
    batch : int
        Batch size of the trace.

    Raises
    ------
    Stuck
        The operator mixes images, or nothing is known of it.
    """
    rule = _RULES.get(node.op_type, _first_axis)
    found = rule(Step(trace, node, axes, batch))
    return [found if trace.shapes.get(name) is not None else None for name in node.output]


def _first_axis(step: Step) -> Axis:
    """Images stand first, each by itself: so it is for nearly every operator not listed below."""
    places = {step.axes[name] for name in step.node.input if name in step.axes}
    if places != {Axis(0)} or step.out[:1] != (step.batch,):
        raise step.stuck("is unknown")
    return Axis(0)


def _keep(step: Step) -> Axis:
    """Convolution, pooling, normalisation over channels: the first axis, whatever it holds."""
    axis = step.data
    if axis.index != 0:
        raise step.stuck(f"finds the images on axis {axis.index}")
    return axis


def _elementwise(step: Step) -> Axis:
    """Operands are aligned at their last axes; those of the batch must meet."""
    rank = len(step.out)
    places = set()
    for at, name in enumerate(step.node.input):
        if name in step.axes:
            axis = step.axes[name]
            places.add(replace(axis, index=axis.index + rank - len(step.shape(at))))
    if len(places) != 1:
        raise step.stuck("joins images that stand on different axes")
    (axis,) = places
    for at, name in enumerate(step.node.input):
        if name and name not in step.axes:
            own = axis.index - (rank - len(step.trace.shapes.get(name, ())))
            if own >= 0 and step.shape(at)[own] != 1:
                raise step.stuck("joins images with a constant that differs along their axis")
    return axis


def _along(step: Step) -> Axis:
    """Softmax and the like: anything but along the batch."""
    axis = step.data
    # Before version 13 a softmax works along all axes from the given one on.
    old = opset_of(step.trace.model) < 13 and step.node.op_type in _SOFTMAX
    along = integer(step.node, "axis", 1 if old else -1) % len(step.shape(0))
    if along == axis.index or (old and along < axis.index):
        raise step.stuck("works along the batch")
    return axis


def _reduce(step: Step) -> Axis:
    axis, rank = step.data, len(step.shape(0))
    along = [at % rank for at in step.constants_of(1, "axes")]
    if not along and integer(step.node, "noop_with_empty_axes", 0):
        return axis
    if axis.index in along or not along:
        raise step.stuck("works along the batch")
    return _reduced(step, along)


def _arg(step: Step) -> Axis:
    along = [integer(step.node, "axis", 0) % len(step.shape(0))]
    if step.data.index in along:
        raise step.stuck("works along the batch")
    return _reduced(step, along)


def _reduced(step: Step, along: list[int]) -> Axis:
    axis = step.data
    if integer(step.node, "keepdims", 1):
        return axis
    return replace(axis, index=axis.index - sum(at < axis.index for at in along))


def _matmul(step: Step) -> Axis:
    rank = len(step.out)
    places = set()
    for at, name in enumerate(step.node.input[:2]):
        if name not in step.axes:
            continue
        axis, own = step.axes[name], len(step.shape(at))
        contracted = own - 1 if at == 0 or own == 1 else own - 2
        if axis.index == contracted:
            raise step.stuck("sums over the batch")
        places.add(replace(axis, index=axis.index + rank - own))
    if len(places) != 1:
        raise step.stuck("joins images that stand on different axes")
    (axis,) = places
    for at, name in enumerate(step.node.input[:2]):
        own = axis.index - (rank - len(step.shape(at)))
        stacked = name not in step.axes and 0 <= own < len(step.shape(at)) - 2
        if stacked and step.shape(at)[own] != 1:
            raise step.stuck("joins images with a constant that differs along their axis")
    return axis


def _gemm(step: Step) -> Axis:
    rows = 1 if integer(step.node, "transA", 0) else 0
    if step.data.index != rows or any(name in step.axes for name in step.node.input[1:2]):
        raise step.stuck("sums over the batch")
    return replace(step.data, index=0)


def _concat(step: Step) -> Axis:
    along = integer(step.node, "axis", 1) % len(step.out)
    places = {step.axes[name] for name in step.node.input if name in step.axes}
    if len(places) != 1:
        raise step.stuck("joins images that stand on different axes")
    (axis,) = places
    if axis.index == along:
        raise step.stuck("joins images along the batch")
    return axis


def _split(step: Step) -> Axis:
    if integer(step.node, "axis", 0) % len(step.shape(0)) == step.data.index:
        raise step.stuck("parts the batch")
    return step.data


def _slice(step: Step) -> Axis:
    shape, axis = step.shape(0), step.data
    along = [at % len(shape) for at in step.constants_of(3, "axes")]
    if along and axis.index not in along:
        return axis
    starts = step.constants_of(1, "starts")
    ends = step.constants_of(2, "ends")
    for at, start, end in zip(along or range(len(starts)), starts, ends, strict=True):
        if at == axis.index and (start != 0 or end < 2**31 - 1):
            raise step.stuck("takes a part of the batch")
    return axis


def _gather(step: Step) -> Axis:
    rank = len(step.shape(0))
    along = integer(step.node, "axis", 0) % rank
    if step.node.input[1] in step.axes:
        raise step.stuck("takes its positions from the images")
    if step.data.index == along:
        raise step.stuck("takes a part of the batch")
    shift = len(step.shape(1)) - 1 if step.data.index > along else 0
    return replace(step.data, index=step.data.index + shift)


def _einsum(step: Step) -> Axis:
    terms, right = einsum_terms(step.node) or ([], "")
    places = {
        (letters[step.axes[name].index], step.axes[name].before, step.axes[name].after)
        for letters, name in zip(terms, step.node.input, strict=False)
        if name in step.axes and "." not in letters
    }
    if len(places) != 1 or next(iter(places))[0] not in right:
        equation = attribute(step.node, "equation", b"").decode()
        raise step.stuck(f"{equation!r} sums over the batch, or is too involved")
    ((letter, before, after),) = places
    return Axis(right.index(letter), before, after)


JOINING = frozenset("Add Sub Mul Div Pow Where Min Max Sum Mean".split())
"""Operators that join several tensors element by element."""

_ELEMENTWISE = (
    "Add Sub Mul Div Pow Where Min Max Sum Mean And Or Not Xor Equal Greater Less GreaterOrEqual"
    " LessOrEqual PRelu Mod BitShift Abs Acos Acosh Asin Asinh Atan Atanh Cast CastLike Ceil Celu"
    " Clip Cos Cosh Dropout Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity IsInf IsNaN"
    " LeakyRelu Log Mish Neg Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus"
    " Softsign Sqrt Swish Tan Tanh ThresholdedRelu FastGelu QuickGelu BiasGelu QuantizeLinear"
    " DequantizeLinear"
)
_FIRST = (
    "Conv FusedConv AveragePool MaxPool GlobalAveragePool GlobalMaxPool LpPool GlobalLpPool"
    " BatchNormalization InstanceNormalization GroupNormalization LRN DepthToSpace SpaceToDepth"
    " QLinearConv QLinearAveragePool QLinearGlobalAveragePool ConvTranspose Upsample"
)
_REDUCE = (
    "ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum"
    " ReduceLogSumExp ReduceSumSquare"
)
_RULES: dict[str, Callable[[Step], Axis]] = {
    **dict.fromkeys(_ELEMENTWISE.split(), _elementwise),
    **dict.fromkeys(_FIRST.split(), _keep),
    **dict.fromkeys(_REDUCE.split(), _reduce),
    **dict.fromkeys((*_SOFTMAX, "LpNormalization", "TopK"), _along),
    **dict.fromkeys("LayerNormalization SimplifiedLayerNormalization".split(), _along),
    **dict.fromkeys(("ArgMax", "ArgMin"), _arg),
    **dict.fromkeys(("MatMul", "FusedMatMul"), _matmul),
    "Transpose": moves.transpose,
    "Reshape": moves.reshape,
    "Flatten": moves.flatten,
    "Squeeze": moves.squeeze,
    "Unsqueeze": moves.unsqueeze,
    "Gemm": _gemm,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Expand": moves.expand,
    "Tile": moves.tile,
    "Einsum": _einsum,
    "Pad": lambda step: step.data,
    "Resize": lambda step: step.data,
}
