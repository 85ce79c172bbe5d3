"""Classifiers put together at random: the cut is right, whatever the parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from networks import FloatArray, Net, as_vector, embed, evaluated, feed, softmax
from tlpipe.graph import EMBEDDINGS, PROBABILITIES
from tlpipe.graph.analyse import Choices, analyse
from tlpipe.graph.digest import tensor_digests, weights_digest
from tlpipe.graph.head import join_head
from tlpipe.graph.io import check
from tlpipe.last_layer import LastLayer
from tlpipe.stages.session import open_graph

SIDE = 12


@dataclass(frozen=True)
class Built:
    """A network, and what must be found of it."""

    model: onnx.ModelProto
    tensor: str
    pooling: str
    classes: int
    weights: FloatArray  # (D, C)
    bias: FloatArray  # (C,)
    scored: bool  # whether a softmax ends it
    text: str


@dataclass
class Map:
    """A tensor (N, channels, side, side)."""

    name: str
    channels: int
    side: int


def conv(net: Net, x: Map, width: int, kernel: int = 3, group: int = 1) -> str:
    number = len(net.nodes)
    weights = net.w(f"w{number}", width, x.channels // group, kernel, kernel)
    pad = kernel // 2
    inputs = [x.name, weights, net.w(f"b{number}", width)]
    return net.add("Conv", *inputs, pads=[pad] * 4, group=group)


def plain(net: Net, x: Map, width: int) -> Map:
    return Map(net.add("Relu", conv(net, x, width)), width, x.side)


def normalised(net: Net, x: Map, width: int) -> Map:
    y, number = conv(net, x, width, 1), len(net.nodes)
    facts = [net.const(net.rng.uniform(0.5, 2, width), f"bn{number}.{part}") for part in "abcd"]
    return Map(net.add("LeakyRelu", net.add("BatchNormalization", y, *facts)), width, x.side)


def residual(net: Net, x: Map, width: int) -> Map:
    return Map(net.add("Add", conv(net, x, x.channels), x.name), x.channels, x.side)


def branches(net: Net, x: Map, width: int) -> Map:
    sides = [conv(net, x, width, kernel) for kernel in (1, 3)]
    return Map(net.add("Concat", *sides, axis=1), 2 * width, x.side)


def depthwise(net: Net, x: Map, width: int) -> Map:
    return Map(net.add("Sigmoid", conv(net, x, x.channels, 3, x.channels)), x.channels, x.side)


def smaller(net: Net, x: Map, width: int) -> Map:
    if x.side < 4:
        return x
    y = net.add("MaxPool", x.name, kernel_shape=[2, 2], strides=[2, 2])
    return Map(y, x.channels, x.side // 2)


def gated(net: Net, x: Map, width: int) -> Map:
    """Squeeze and excite."""
    pooled = Map(net.add("GlobalAveragePool", x.name), x.channels, 1)
    gate = net.add("Sigmoid", conv(net, pooled, x.channels, 1))
    return Map(net.add("Mul", x.name, gate), x.channels, x.side)


def shuffled(net: Net, x: Map, width: int) -> Map:
    """Through a shape that states the batch, where the network is made for one image."""
    first = 1 if net.batch == 1 else -1
    number = len(net.nodes)
    sizes = [first, x.channels, x.side * x.side]
    y = net.add("Reshape", x.name, net.shape(sizes, f"to{number}"))
    y = net.add("Transpose", net.add("Tanh", y), perm=[0, 2, 1])
    y = net.add("Transpose", y, perm=[0, 2, 1])
    sizes = [first, x.channels, x.side, x.side]
    y = net.add("Reshape", y, net.shape(sizes, f"back{number}"))
    return Map(y, x.channels, x.side)


BLOCKS: dict[str, Callable[[Net, Map, int], Map]] = {
    "plain": plain,
    "normalised": normalised,
    "residual": residual,
    "branches": branches,
    "depthwise": depthwise,
    "smaller": smaller,
    "gated": gated,
    "shuffled": shuffled,
}

HEADS = "gemm gemm-transposed matmul conv-after conv-before covering flat mean".split()
ENDS = "softmax log-softmax by-hand logits sigmoid".split()


def head(net: Net, kind: str, x: Map, classes: int) -> tuple[str, str, str, FloatArray]:
    """A last layer: its result (N, C), the feature and its pooling, and the weights (D, C)."""
    size = x.channels * (x.side**2 if kind in ("flat", "covering") else 1)
    matrix = net.rng.normal(0, size**-0.5, (size, classes)).astype(np.float32)
    bias = net.w("bias", classes)
    if kind in ("conv-before", "covering"):
        extent = x.side if kind == "covering" else 1
        kernel = np.ascontiguousarray(matrix.T).reshape(classes, x.channels, extent, extent)
        y = net.add("Conv", x.name, net.const(kernel, "weight"), bias)
        y = net.add("GlobalAveragePool", y) if kind == "conv-before" else y
        pooling = "mean-channels-first" if kind == "conv-before" else "flatten"
        return net.add("Flatten", y), x.name, pooling, matrix
    if kind == "mean":
        v = feature = net.reduce("ReduceMean", x.name, [2, 3], keep=0)
        pooling = "none"
    elif kind == "flat":
        v, feature, pooling = net.add("Flatten", x.name), x.name, "flatten"
    else:
        v = feature = net.add("GlobalAveragePool", x.name)
        pooling = "flatten"
        if kind == "conv-after":
            kernel = np.ascontiguousarray(matrix.T).reshape(classes, size, 1, 1)
            y = net.add("Conv", v, net.const(kernel, "weight"), bias)
            return net.rank("Squeeze", y, [2, 3]), feature, pooling, matrix
        sizes = [1, size] if net.batch == 1 else [-1, size]
        v = net.add("Reshape", v, net.shape(sizes, "vector"))
    if kind == "matmul":
        y = net.add("MatMul", v, net.const(matrix, "weight"))
        return net.add("Add", bias, y), feature, pooling, matrix
    turned = kind == "gemm-transposed"
    stored = net.const(matrix.T if turned else matrix, "weight")
    return net.add("Gemm", v, stored, bias, transB=int(turned)), feature, pooling, matrix


def ended(net: Net, kind: str, y: str) -> str:
    if kind == "softmax":
        return net.add("Softmax", y, axis=1, out="probabilities")
    if kind == "log-softmax":
        return net.add("LogSoftmax", y, axis=1, out="out")
    if kind == "sigmoid":
        return net.add("Sigmoid", y, out="out")
    if kind == "by-hand":
        e = net.add("Exp", net.add("Sub", y, net.reduce("ReduceMax", y, [1])))
        return net.add("Div", e, net.reduce("ReduceSum", e, [1]), out="out")
    return net.add("Identity", y, out="logits")


@st.composite
def classifiers(draw: st.DrawFn) -> Built:
    opset, batch = draw(st.integers(9, 21)), draw(st.sampled_from([1, 1, 3, "N"]))
    last_first = draw(st.booleans())
    blocks = draw(st.lists(st.sampled_from(sorted(BLOCKS)), min_size=0, max_size=5))
    width, classes = draw(st.integers(3, 9)), draw(st.integers(2, 40))
    kind, end = draw(st.sampled_from(HEADS)), draw(st.sampled_from(ENDS))
    if kind == "conv-before" and end == "logits":
        end = "softmax"  # its width alone would not tell classes from features
    if batch == 3 and "shuffled" in blocks:
        batch = "N"
    net = Net(batch=batch, opset=opset)
    net.rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if last_first:
        x = Map(net.add("Transpose", net.take(SIDE, SIDE, 3), perm=[0, 3, 1, 2]), 3, SIDE)
    else:
        x = Map(net.take(3, SIDE, SIDE), 3, SIDE)
    x = Map(conv(net, smaller(net, x, width), width), width, SIDE // 2)
    for block in blocks:
        x = BLOCKS[block](net, x, width)
    x = Map(net.add("Tanh", x.name, out="trunk"), x.channels, x.side)
    y, feature, pooling, weights = head(net, kind, x, classes)
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in net.weights}
    model = net.model(ended(net, end, y), ir=10 if opset > 20 else 8)
    text = f"opset {opset}, batch {batch}, {blocks}, {kind}, {end}"
    scored = end in ("softmax", "by-hand")
    return Built(model, feature, pooling, classes, weights, stored["bias"], scored, text)


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(classifiers())
def test_any_classifier(built: Built) -> None:
    model = built.model
    before = model.SerializeToString()
    found = analyse(model, open_graph, Choices())
    assert found.undecided is None, (built.text, str(found.undecided))
    assert found.freed is not None
    output = found.output()
    assert (output.tensors, output.pooling) == ((built.tensor,), built.pooling), built.text
    assert (output.classes, output.dim) == (built.classes, len(built.weights)), built.text
    assert found.freed.way != "one-by-one", (built.text, found.freed.reasons)
    event(found.freed.way)

    images = feed(model, side=SIDE)
    inside, last = evaluated(model, [built.tensor, model.graph.output[0].name], images)
    expected = as_vector(inside, built.pooling)
    ours = embed(found, images)
    # float32 rounds what stands inside, which may be much greater than what comes out.
    near = 5e-6 + 2e-5 * float(np.abs(expected).max())
    np.testing.assert_allclose(ours, expected, rtol=0, atol=near, err_msg=built.text)
    for number in range(len(images)):
        alone = embed(found, images[number : number + 1])
        np.testing.assert_allclose(alone[0], ours[number], rtol=0, atol=near)

    original, kept = tensor_digests(model), tensor_digests(found.freed.model)
    assert kept.items() <= original.items()
    assert not {"weight", "bias"} & set(kept)
    joined = join_head(
        found.freed.model, LastLayer(built.weights, built.bias), None, None, {"made": "by a test"}
    )
    check(joined)
    assert weights_digest(joined) == weights_digest(found.freed.model)
    run = open_graph(joined.SerializeToString(), "", optimised=True)
    features, chances = run({model.graph.input[0].name: images}, [EMBEDDINGS, PROBABILITIES])
    np.testing.assert_array_equal(features, ours)
    exact = softmax(features.astype(np.float64) @ built.weights + built.bias)
    np.testing.assert_allclose(chances, exact, rtol=0, atol=2e-5)
    if built.scored:  # the old head in its old place gives what the network gave
        np.testing.assert_allclose(chances, last, rtol=0, atol=5e-5, err_msg=built.text)
    assert model.SerializeToString() == before
