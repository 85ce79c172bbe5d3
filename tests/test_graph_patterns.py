"""Last layers in every form in which exporters write them: the right one is found and cut off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from networks import WIDTH, Net, checked, embed, evaluated, feed
from tlpipe.graph.analyse import Analysis, Choices, analyse
from tlpipe.graph.digest import tensor_digests
from tlpipe.stages.session import open_graph

CLASSES = 7

Head = Callable[[Net, str], str]  # from a vector (N, WIDTH), gives the scores


def gemm(transposed: bool) -> Head:
    def head(net: Net, x: str) -> str:
        shape = (CLASSES, WIDTH) if transposed else (WIDTH, CLASSES)
        return net.add("Gemm", x, net.w("W", *shape), net.w("b", CLASSES), transB=int(transposed))

    return head


def matmul(bias_first: bool) -> Head:
    def head(net: Net, x: str) -> str:
        y, bias = net.add("MatMul", x, net.w("W", WIDTH, CLASSES)), net.w("b", CLASSES)
        return net.add("Add", *((bias, y) if bias_first else (y, bias)))

    return head


def weights_first(net: Net, x: str) -> str:
    column = net.rank("Unsqueeze", x, [2])
    y = net.add("MatMul", net.w("W", CLASSES, WIDTH), column)
    return net.add("Add", net.rank("Squeeze", y, [2]), net.w("b", CLASSES))


def convolution(net: Net, x: str) -> str:
    four = net.rank("Unsqueeze", x, [2, 3])
    y = net.add("Conv", four, net.w("W", CLASSES, WIDTH, 1, 1), net.w("b", CLASSES))
    return net.add("Flatten", y)


def computed(make: Callable[[Net], str]) -> Head:
    """A matrix product with weights that are computed from constants."""

    def head(net: Net, x: str) -> str:
        y = net.add("MatMul", x, make(net))
        return net.add("Add", y, net.w("b", CLASSES))

    return head


def transposed(net: Net) -> str:
    return net.add("Transpose", net.w("W", CLASSES, WIDTH), perm=[1, 0])


def reshaped(net: Net) -> str:
    return net.add("Reshape", net.w("W", WIDTH, CLASSES, 1, 1), net.shape([WIDTH, -1], "to"))


def squeezed(net: Net) -> str:
    return net.rank("Squeeze", net.w("W", 1, WIDTH, CLASSES), [0])


def constant_node(net: Net) -> str:
    array = net.rng.normal(size=(WIDTH, CLASSES)).astype(np.float32)
    return net.add("Constant", value=numpy_helper.from_array(array))


def stored_as_half(net: Net) -> str:
    array = net.rng.normal(size=(WIDTH, CLASSES))
    return net.add("Cast", net.const(array, "W", np.float16), to=TensorProto.FLOAT)


def stored_as_bytes(net: Net) -> str:
    array = net.rng.integers(-100, 100, (WIDTH, CLASSES))
    scale, zero = net.const(0.01, "scale"), net.const(0, "zero", np.int8)
    return net.add("DequantizeLinear", net.const(array, "W", np.int8), scale, zero)


def normalised(net: Net) -> str:
    weights = net.w("W", WIDTH, CLASSES)
    length = net.reduce("ReduceL2", weights, [0])
    return net.add("Mul", net.add("Div", weights, length), net.const(3, "gain"))


def one_value(net: Net) -> str:
    value = numpy_helper.from_array(np.array([0.02], np.float32))
    return net.add("ConstantOfShape", net.shape([WIDTH, CLASSES], "shape"), value=value)


def unsqueezed_kernel(net: Net, x: str) -> str:
    kernel = net.rank("Unsqueeze", net.w("W", CLASSES, WIDTH), [2, 3])
    y = net.add("Conv", net.rank("Unsqueeze", x, [2, 3]), kernel)
    return net.add("Flatten", y)


def einsum(equation: str, *shape: int) -> Head:
    def head(net: Net, x: str) -> str:
        operands = (x, net.w("W", *shape))
        if equation.startswith("c"):
            operands = operands[::-1]
        return net.add("Add", net.add("Einsum", *operands, equation=equation), net.w("b", CLASSES))

    return head


HEADS: dict[str, Head] = {
    "gemm": gemm(False),
    "gemm transB": gemm(True),
    "matmul, bias second": matmul(False),
    "matmul, bias first": matmul(True),
    "matmul, weights first": weights_first,
    "convolution behind the pooling": convolution,
    "transposed": computed(transposed),
    "reshaped": computed(reshaped),
    "squeezed": computed(squeezed),
    "unsqueezed": unsqueezed_kernel,
    "Constant node": computed(constant_node),
    "float16 in the file": computed(stored_as_half),
    "int8 in the file": computed(stored_as_bytes),
    "weight normalisation": computed(normalised),
    "ConstantOfShape": computed(one_value),
    "einsum nd,dc": einsum("nd,dc->nc", WIDTH, CLASSES),
    "einsum nd,cd": einsum("nd,cd->nc", CLASSES, WIDTH),
    "einsum cd,nd": einsum("cd,nd->nc", CLASSES, WIDTH),
}


@pytest.mark.parametrize("tail", ["", "Softmax"])
@pytest.mark.parametrize("head", HEADS)
def test_forms_of_the_last_layer(head: str, tail: str) -> None:
    net = Net()
    y = HEADS[head](net, net.pooled())
    model = net.model(net.add(tail, y, axis=-1) if tail else y)
    found = checked(model, "gap", pooling="flatten", classes=CLASSES)
    assert found.freed is not None
    kept = tensor_digests(found.freed.model)
    assert set(kept) == {"conv.w", "conv.b"}  # the whole trunk, and nothing of the head
    assert kept.items() <= tensor_digests(model).items()
    output = found.output()
    assert output.activation == "softmax"
    scores, last = evaluated(model, [output.logits, model.graph.output[0].name], feed(model))
    if tail:
        scores = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(scores, last, rtol=1e-5, atol=1e-6)


def written_out(lowered: bool) -> Callable[[Net, str], str]:
    def tail(net: Net, y: str) -> str:
        if lowered:
            y = net.add("Sub", y, net.reduce("ReduceMax", y, [1]))
        e = net.add("Exp", y)
        return net.add("Div", e, net.reduce("ReduceSum", e, [1]))

    return tail


def plain(op: str, **attributes: Any) -> Callable[[Net, str], str]:
    return lambda net, y: net.add(op, y, **attributes)


def to_shape(*sizes: int) -> Callable[[Net, str], str]:
    return lambda net, y: net.add("Reshape", y, net.shape(sizes, "sizes"))


TAILS: dict[str, Callable[[Net, str], str]] = {
    "Softmax": plain("Softmax", axis=1),
    "LogSoftmax": plain("LogSoftmax", axis=1),
    "Sigmoid": plain("Sigmoid"),
    "HardSigmoid": plain("HardSigmoid"),
    "softmax by hand": written_out(False),
    "softmax by hand, with its maximum": written_out(True),
    "Identity": plain("Identity"),
    "Dropout": plain("Dropout"),
    "Flatten": plain("Flatten", axis=1),
    "Reshape 1": to_shape(1, CLASSES),
    "Reshape -1": to_shape(-1, CLASSES),
    "Reshape 0": to_shape(0, CLASSES),
    "Unsqueeze": lambda net, y: net.rank("Unsqueeze", y, [1]),
    "Squeeze": lambda net, y: net.rank("Squeeze", net.rank("Unsqueeze", y, [2]), [2]),
    "Transpose": lambda net, y: net.add(
        "Transpose", net.rank("Unsqueeze", y, [2, 3]), perm=[0, 2, 3, 1]
    ),
    "temperature": lambda net, y: net.add("Div", y, net.const(0.5, "temperature")),
    "Cast": lambda net, y: net.add("Cast", y, to=TensorProto.DOUBLE),
}


@pytest.mark.parametrize("opset", [11, 17, 18])
@pytest.mark.parametrize("tail", TAILS)
def test_what_may_stand_behind_the_last_layer(tail: str, opset: int) -> None:
    net = Net(batch=1 if tail == "Reshape 1" else "N", opset=opset)
    logits = net.fc(net.pooled(), CLASSES)
    model = net.model(TAILS[tail](net, logits))
    found = checked(model, "gap", pooling="flatten", classes=CLASSES)
    if tail in ("Softmax", "softmax by hand, with its maximum"):
        assert (found.output().logits, found.output().activation) == (logits, "softmax")


@pytest.mark.parametrize("way", ["none", "Identity", "Dropout", "Reshape 1", "Reshape 0"])
def test_what_may_stand_before_the_last_layer(way: str) -> None:
    net = Net(batch=1 if way == "Reshape 1" else "N")
    x = net.pooled()
    sizes = {"Reshape 1": [1, WIDTH], "Reshape 0": [0, -1]}
    if way in sizes:
        x = net.add("Reshape", x, net.shape(sizes[way], "sizes"))
    elif way != "none":
        x = net.add(way, x)
    model = net.model(net.add("Softmax", net.fc(x, CLASSES), axis=1))
    checked(model, "gap", pooling="flatten", classes=CLASSES)


@pytest.mark.parametrize("batch", [1, "N"])
@pytest.mark.parametrize("form", ["Squeeze", "Reshape"])
def test_one_image_without_a_batch_axis(form: str, batch: int | str) -> None:
    """As ``squeeze()`` without an axis is exported: the last layer works on a bare vector."""
    net = Net(batch=batch)
    x = net.add("GlobalAveragePool", net.trunk(), out="gap")
    flat = [net.shape([WIDTH], "flat")] if form == "Reshape" else []
    y = net.add("MatMul", net.add(form, x, *flat), net.w("W", WIDTH, CLASSES))
    y = net.add("Add", y, net.w("b", CLASSES))
    found = checked_feature(net.model(net.add("Softmax", y, axis=0)), "gap")
    assert (found.dim, found.output().logits) == (WIDTH, "")  # no scores for each image


def checked_feature(model: onnx.ModelProto, tensor: str) -> Analysis:
    found = analyse(model, open_graph, Choices())
    assert found.decision is not None, found.undecided
    assert found.decision.feature.tensors == (tensor,)
    assert found.decision.walk is not None
    assert found.decision.walk.classes == CLASSES
    images = feed(model)
    (expected,) = evaluated(model, [tensor], images)
    np.testing.assert_allclose(
        embed(found, images), expected.reshape(len(images), -1), rtol=1e-5, atol=1e-6
    )
    return found


@pytest.mark.parametrize("classes", [10, 1000])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("scored", [False, True])
def test_a_convolution_before_the_pooling(classes: int, relu: bool, scored: bool) -> None:
    net = Net()
    y = net.add("Conv", net.trunk(), net.w("W", classes, WIDTH, 1, 1), net.w("b", classes))
    y = net.add("Relu", y) if relu else y
    y = net.add("Flatten", net.add("GlobalAveragePool", y))
    model = net.model(net.add("Softmax", y, axis=1) if scored else y)
    checked(model, "map", pooling="mean-channels-first", classes=classes)


def test_a_kernel_that_covers_the_whole_map() -> None:
    net = Net()
    y = net.add("Conv", net.trunk(), net.w("W", CLASSES, WIDTH, 4, 4), net.w("b", CLASSES))
    model = net.model(net.add("Softmax", net.add("Flatten", y), axis=1))
    checked(model, "map", pooling="flatten", classes=CLASSES)


def test_a_layer_on_each_token_and_the_mean_of_them() -> None:
    net = Net()
    y = net.add("MatMul", net.tokens(), net.w("W", WIDTH, CLASSES))
    y = net.reduce("ReduceMean", net.add("Add", y, net.w("b", CLASSES)), [1], keep=0)
    model = net.model(net.add("Softmax", y, axis=-1))
    checked(model, "tokens", pooling="mean-channels-last", classes=CLASSES)


def test_a_layer_on_each_token_of_which_one_is_taken() -> None:
    net = Net()
    y = net.add("MatMul", net.tokens(), net.w("W", WIDTH, CLASSES))
    y = net.add("Gather", y, net.const(0, "zero", np.int64), axis=1)
    model = net.model(net.add("Softmax", y, axis=-1))
    checked(model, "tokens", pooling="cls", classes=CLASSES)


def mean_of_two(net: Net, first: str, second: str) -> onnx.ModelProto:
    y = net.add("Add", net.fc(first, CLASSES, name="one"), net.fc(second, CLASSES, name="two"))
    return net.model(net.add("Div", y, net.const(2, "two")))


def test_two_heads_on_one_vector() -> None:
    net = Net()
    x = net.pooled()
    checked(mean_of_two(net, x, x), "gap", pooling="flatten", classes=CLASSES)


def two_tokens(net: Net) -> tuple[str, str]:
    x = net.tokens()
    first, second = (
        net.add("Gather", x, net.const(at, f"at{at}", np.int64), axis=1, out=f"token{at}")
        for at in (0, 1)
    )
    return first, second


def test_heads_on_a_class_and_a_distillation_token() -> None:
    net = Net()
    model = mean_of_two(net, *two_tokens(net))
    found = checked(model, ("token0", "token1"), classes=CLASSES)
    assert found.dim == 2 * WIDTH


def test_two_heads_with_a_normalisation_each_share_what_stands_before_it() -> None:
    net = Net()
    x = net.pooled()
    sides = []
    for side in "ab":
        parts = [net.const(net.rng.uniform(0.5, 2, WIDTH), f"{side}{n}") for n in range(4)]
        sides.append(net.add("BatchNormalization", x, *parts))
    checked(mean_of_two(net, *sides), "gap", pooling="flatten", classes=CLASSES)


@pytest.mark.parametrize("opset", [13, 18])
def test_stacked_heads(opset: int) -> None:
    net = Net(opset=opset)
    heads = [net.fc(x, CLASSES, name=f"fc{at}") for at, x in enumerate(two_tokens(net))]
    stack = net.add("Concat", *(net.rank("Unsqueeze", y, [0]) for y in heads), axis=0)
    model = net.model(net.reduce("ReduceMean", stack, [0], keep=0))
    checked(model, ("token0", "token1"), classes=CLASSES)


def test_groups_of_classes_side_by_side() -> None:
    net = Net()
    x = net.pooled()
    y = net.add("Concat", net.fc(x, 3, name="a"), net.fc(x, 4, name="b"), axis=1)
    model = net.model(net.add("Sigmoid", y))
    checked(model, "gap", pooling="flatten", classes=7)


def test_the_number_of_the_best_class() -> None:
    net = Net()
    logits = net.fc(net.pooled(), CLASSES)
    found = checked(
        net.model(net.add("ArgMax", logits, axis=1)), "gap", pooling="flatten", classes=CLASSES
    )
    assert found.output().logits == logits


def test_the_best_classes() -> None:
    net = Net()
    y = net.add("Softmax", net.fc(net.pooled(), CLASSES), axis=1)
    net.add("TopK", y, net.shape([3], "k"), out="values", more=["indices"], axis=1)
    checked(net.model("values", "indices"), "gap", pooling="flatten", classes=CLASSES)


def test_one_number_through_a_sigmoid_is_a_classifier_of_two() -> None:
    net = Net()
    model = net.model(net.add("Sigmoid", net.fc(net.pooled(), 1)))
    found = checked(model, "gap", pooling="flatten", classes=1)
    assert found.output().activation in ("sigmoid", "none")


@pytest.mark.parametrize("outputs", ["vector y", "y vector", "label y", "y label", "t5 y", "y t5"])
def test_several_outputs(outputs: str) -> None:
    """An embedding, a label or the logits beside the probabilities."""
    net = Net()
    logits = net.fc(net.pooled(), CLASSES, out="t5")
    net.add("Softmax", logits, axis=1, out="y")
    net.add("ArgMax", logits, axis=1, keepdims=0, out="label")
    checked(net.model(*outputs.split()), "gap", pooling="flatten", classes=CLASSES)


@pytest.mark.parametrize("outputs", ["main side", "side main"])
def test_heads_half_way_are_not_the_main_one(outputs: str) -> None:
    net = Net()
    x = net.trunk()
    early = net.add("Flatten", net.add("GlobalAveragePool", x))
    net.add("Softmax", net.fc(early, CLASSES, name="side"), axis=1, out="side")
    for number in range(4):
        x = net.add("Conv", x, net.w(f"w{number}", WIDTH, WIDTH, 1, 1))
        x = net.add("Relu", x, out=f"late{number}")
    late = net.add("Flatten", net.add("GlobalAveragePool", x, out="late"))
    net.add("Softmax", net.fc(late, CLASSES), axis=1, out="main")
    found = checked(net.model(*outputs.split()), "late", pooling="flatten", classes=CLASSES)
    assert found.decision is not None
    assert "auxiliary" in found.decision.notes[0]


def test_two_main_heads_are_asked_about() -> None:
    net = Net()
    first, second = two_tokens(net)
    net.add("Softmax", net.fc(first, CLASSES, name="a"), axis=1, out="left")
    net.add("Softmax", net.fc(second, CLASSES, name="b"), axis=1, out="right")
    model = net.model("left", "right")
    found = analyse(model, open_graph, Choices())
    assert found.undecided is not None
    assert "['left', 'right']" in found.undecided.message
    assert "'token0'" in found.undecided.hint
    assert "'token1'" in found.undecided.hint
    checked(model, "token1", classes=None, choices=Choices(layer="token1"))
