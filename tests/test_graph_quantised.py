"""Quantised networks of every kind: the cut gives floats, no image depends on its neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from networks import SIZE, WIDTH, Net, checked, embed, feed
from tlpipe.errors import BackboneError
from tlpipe.graph.analyse import Choices, analyse
from tlpipe.stages.session import open_graph

CLASSES = 7
MICROSOFT = "com.microsoft"


def scale(net: Net, name: str, size: float, zero: int = 0, dtype: type = np.uint8) -> list[str]:
    """A scale and a zero point."""
    return [net.const(size, f"{name}.scale"), net.const(zero, f"{name}.zero", dtype)]


def byte_weights(net: Net, name: str, *shape: int) -> list[str]:
    """Weights in int8, with their scale and zero point."""
    array = net.rng.integers(-127, 128, shape)
    return [net.const(array, name, np.int8), *scale(net, name, 0.004, dtype=np.int8)]


def quantised_pair(net: Net, x: str, size: float, zero: int = 0) -> str:
    """``x`` rounded, as floats."""
    parts = scale(net, f"{x}.q", size, zero)
    return net.add("DequantizeLinear", net.add("QuantizeLinear", x, *parts), *parts)


def as_floats(net: Net, weights: list[str]) -> str:
    return net.add("DequantizeLinear", *weights)


@pytest.mark.parametrize("batch", [1, "N"])
def test_quantise_and_dequantise_around_float_operators(batch: int | str) -> None:
    net = Net(batch=batch)
    x = quantised_pair(net, net.take(3, SIZE, SIZE), 0.03, 128)
    kernel = as_floats(net, byte_weights(net, "K", WIDTH, 3, 3, 3))
    x = net.add("Relu", net.add("Conv", x, kernel, strides=[4, 4]), out="active")
    x = net.add("GlobalAveragePool", quantised_pair(net, x, 0.02), out="gap")
    x = quantised_pair(net, net.add("Flatten", x, out="flat"), 0.01)
    weights = as_floats(net, byte_weights(net, "W", CLASSES, WIDTH))
    y = net.add("Gemm", x, weights, net.w("b", CLASSES), transB=1, out="y")
    model = net.model(net.add("Softmax", quantised_pair(net, y, 0.05, 128), axis=1))
    checked(model, "gap", pooling="flatten", classes=CLASSES, tolerance=1e-2)


def operators(net: Net) -> tuple[str, list[str]]:
    """A trunk of quantised operators: a vector in uint8, and its scale and zero point."""
    x_facts = scale(net, "x", 0.03, 128)
    x = net.add("QuantizeLinear", net.take(3, SIZE, SIZE), *x_facts)
    map_facts, facts = scale(net, "map", 0.03, 3), scale(net, "pool", 0.02, 5)
    kernel = byte_weights(net, "K", WIDTH, 3, 3, 3)
    x = net.add("QLinearConv", x, *x_facts, *kernel, *map_facts, strides=[4, 4], out="qmap")
    x = net.add(
        "QLinearGlobalAveragePool", x, *map_facts, *facts, domain=MICROSOFT, channels_last=0,
        out="qgap",
    )  # fmt: skip
    net.add("DequantizeLinear", x, *facts, out="true")  # for the test alone
    return net.add("Flatten", x), facts


@pytest.mark.parametrize("operator", ["QGemm", "QLinearMatMul"])
@pytest.mark.parametrize("batch", [1, "N"])
def test_quantised_operators(operator: str, batch: int | str) -> None:
    net = Net(batch=batch)
    x, facts = operators(net)
    y_facts = scale(net, "y", 0.05, 128)
    if operator == "QGemm":
        bias = net.const(np.arange(CLASSES), "b", np.int32)
        weights = byte_weights(net, "W", CLASSES, WIDTH)
        y = net.add(operator, x, *facts, *weights, bias, *y_facts, domain=MICROSOFT, transB=1)
    else:
        y = net.add(operator, x, *facts, *byte_weights(net, "W", WIDTH, CLASSES), *y_facts)
    y = net.add("DequantizeLinear", y, *y_facts)
    model = net.model(net.add("Softmax", y, axis=1), domains=[MICROSOFT])
    checked(model, "qgap", pooling="flatten", classes=CLASSES, truth=["true"], tolerance=1e-2)


def test_a_quantised_convolution_as_the_last_layer() -> None:
    net = Net()
    facts, y_facts = scale(net, "x", 0.03, 128), scale(net, "y", 0.05, 100)
    map_facts = scale(net, "map", 0.03, 3)
    x = net.add("QuantizeLinear", net.take(3, SIZE, SIZE), *facts)
    kernel = byte_weights(net, "K", WIDTH, 3, 3, 3)
    x = net.add("QLinearConv", x, *facts, *kernel, *map_facts, strides=[4, 4], out="qmap")
    net.add("DequantizeLinear", x, *map_facts, out="true")
    head = byte_weights(net, "W", CLASSES, WIDTH, 1, 1)
    y = net.add("QLinearConv", x, *map_facts, *head, *y_facts)
    y = net.add("GlobalAveragePool", net.add("DequantizeLinear", y, *y_facts))
    model = net.model(net.add("Softmax", net.add("Flatten", y), axis=1))
    checked(
        model, "qmap", pooling="mean-channels-first", classes=CLASSES, truth=["true"],
        tolerance=1e-2,
    )  # fmt: skip


def dynamic(net: Net, x: str, name: str, weights: str, op: str, **attributes: object) -> str:
    """An operator whose input is quantised as it runs, by the smallest and largest of a batch."""
    net.add("DynamicQuantizeLinear", x, out=f"{name}.q", more=[f"{name}.s", f"{name}.z"])
    zero = net.const(0, f"{name}.wz", np.int8)
    y = net.add(op, f"{name}.q", weights, f"{name}.z", zero, **attributes)
    both = net.add("Mul", f"{name}.s", net.const(0.004, f"{name}.ws"))
    return net.add("Mul", net.add("Cast", y, to=TensorProto.FLOAT), both)


@pytest.mark.parametrize("batch", [1, "N"])
def test_dynamic_quantisation_goes_one_by_one(batch: int | str) -> None:
    net = Net(batch=batch)
    kernel = net.const(net.rng.integers(-127, 128, (WIDTH, 3, 3, 3)), "K", np.int8)
    x = dynamic(net, net.take(3, SIZE, SIZE), "conv", kernel, "ConvInteger", strides=[4, 4])
    x = net.add("Relu", x, out="map")
    x = net.add("Flatten", net.add("GlobalAveragePool", x, out="gap"))
    weights = net.const(net.rng.integers(-127, 128, (WIDTH, CLASSES)), "W", np.int8)
    y = net.add("Add", dynamic(net, x, "fc", weights, "MatMulInteger"), net.w("b", CLASSES))
    model = net.model(net.add("Softmax", y, axis=1))
    found = checked(model, "gap", pooling="flatten", classes=CLASSES, way="one-by-one")
    assert found.freed is not None
    assert "scales its activations by the batch" in found.freed.reasons[0]
    # A neighbour that is a hundred times as bright would coarsen the scale of a whole batch.
    images = feed(model)
    bright = images * np.float32([1, 100, 100, 100])[:, None, None, None]
    np.testing.assert_array_equal(embed(found, images)[0], embed(found, bright)[0])


def test_a_dynamic_last_layer_alone_leaves_the_trunk_in_floats() -> None:
    net = Net()
    weights = net.const(net.rng.integers(-127, 128, (WIDTH, CLASSES)), "W", np.int8)
    y = dynamic(net, net.pooled(), "fc", weights, "MatMulInteger")
    model = net.model(net.add("Add", y, net.w("b", CLASSES)))
    checked(model, "gap", pooling="flatten", classes=CLASSES)


def test_fused_dynamic_quantisation() -> None:
    """ONNX Runtime's own operator for the same."""
    net = Net()
    x = net.pooled()
    weights, size, zero = byte_weights(net, "V", WIDTH, WIDTH)
    x = net.add("DynamicQuantizeMatMul", x, weights, size, zero, domain=MICROSOFT, out="mid")
    head, size, zero = byte_weights(net, "W", WIDTH, CLASSES)
    bias = net.w("b", CLASSES)
    y = net.add("DynamicQuantizeMatMul", x, head, size, zero, bias, domain=MICROSOFT)
    model = net.model(net.add("Softmax", y, axis=1), domains=[MICROSOFT])
    checked(model, "mid", classes=CLASSES, way="one-by-one")


@pytest.mark.parametrize("hidden", ["If", "Scan"])
def test_dynamic_quantisation_inside_of_a_subgraph_goes_one_by_one(hidden: str) -> None:
    net = Net()
    x = net.pooled()
    weights = net.const(net.rng.integers(-127, 128, (WIDTH, WIDTH)), "V", np.int8)
    inner = Net()
    inner.nodes, body_in = [], x if hidden == "If" else "row"
    inner.const = net.const  # type: ignore[method-assign]
    y = dynamic(inner, body_in, "deep", weights, "MatMulInteger")
    for number, node in enumerate(inner.nodes):
        node.output[:] = [f"in_{name}" if name.startswith("t") else name for name in node.output]
        node.input[:] = [f"in_{name}" if name in made(inner, number) else name
                         for name in node.input]  # fmt: skip
    outputs = [helper.make_tensor_value_info(f"in_{y}", TensorProto.FLOAT, None)]
    if hidden == "If":
        branch = helper.make_graph(inner.nodes, "branch", [], outputs)
        mean = net.reduce("ReduceMean", x, [0, 1], keep=0)
        yes = net.add("Less", mean, net.const(1e9, "huge"))
        x = net.add("If", yes, then_branch=branch, else_branch=branch)
        x = net.add("Neg", x, out="mid")
    else:
        row = helper.make_tensor_value_info("row", TensorProto.FLOAT, None)
        body = helper.make_graph(inner.nodes, "body", [row], outputs)
        x = net.rank("Unsqueeze", x, [0])
        x = net.add("Scan", x, body=body, num_scan_inputs=1)
        x = net.rank("Squeeze", x, [0], out="mid")
    model = net.model(net.add("Softmax", net.fc(x, CLASSES), axis=1))
    found = analyse(model, open_graph, Choices(layer="mid"))
    assert found.freed is not None
    assert found.freed.way == "one-by-one", found.freed
    assert found.freed.reasons == ("it scales its activations by the batch",)
    images = feed(model)
    bright = images * np.float32([1, 100, 100, 100])[:, None, None, None]
    np.testing.assert_array_equal(embed(found, images)[0], embed(found, bright)[0])


def made(net: Net, number: int) -> set[str]:
    """Tensors with names given by counting that come before a node."""
    names = [name.removeprefix("in_") for node in net.nodes[:number] for name in node.output]
    return {name for name in names if name.startswith("t")}


def test_integers_without_a_scale_are_refused() -> None:
    net = Net()
    x = net.pooled()
    whole = net.add("Cast", net.add("Mul", x, net.const(50, "k")), to=TensorProto.UINT8, out="q")
    back = net.add("Cast", whole, to=TensorProto.FLOAT, out="back")
    model = net.model(net.add("Softmax", net.fc(back, CLASSES), axis=1))
    checked(model, "back", classes=CLASSES)
    with pytest.raises(BackboneError, match="holds integers, and no operator states their scale"):
        analyse(model, open_graph, Choices(layer="q"))


def test_a_relu_that_went_into_the_quantisation_counts() -> None:
    """Quantisers drop a Relu where integers begin at zero: what stands before may be negative."""
    net = Net()
    x = net.fc(net.pooled(), WIDTH, name="hidden", out="hidden")
    x = quantised_pair(net, x, 0.05)
    model = net.model(net.fc(x, CLASSES, out="y"))
    analysis = analyse(model, open_graph, Choices())
    assert analysis.decision is not None
    assert analysis.decision.feature.tensors == (x,)


@pytest.mark.parametrize("relu", [True, False])
def test_a_zero_that_is_computed_from_the_image(relu: bool) -> None:
    """Nobody knows whether it cuts off what is negative: it is passed only where nothing is."""
    net = Net()
    x = net.pooled() if relu else net.fc(net.pooled(), WIDTH, name="hidden", out="hidden")
    net.add("DynamicQuantizeLinear", x, out="q", more=["scale", "zero"])
    y = net.add("QuantizeLinear", x, "scale", "zero", out="whole")
    y = net.add("DequantizeLinear", y, "scale", "zero", out="back")
    model = net.model(net.fc(y, CLASSES, out="y"))
    analysis = analyse(model, open_graph, Choices())
    assert analysis.decision is not None
    assert analysis.decision.feature.tensors == (("gap",) if relu else ("back",))
