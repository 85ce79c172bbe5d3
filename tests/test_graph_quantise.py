"""Networks on 8-bit integers: what they give, and that the same ranges give the same network."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from networks import SIZE, FloatArray, Net, feed
from test_graph_light import FOLDER, KNOWN, LIVE, Known, enlivened, ids
from tlpipe.errors import BackboneError
from tlpipe.execution import ON_CPU
from tlpipe.graph.analyse import Choices, analyse
from tlpipe.graph.digest import network_digest
from tlpipe.graph.fold_norms import fold_norms
from tlpipe.graph.io import load_model
from tlpipe.graph.plan_int8 import plan_int8
from tlpipe.graph.quantise import MAXIMA, MINIMA, _integers, quantised, range_network
from tlpipe.stages.session import open_graph, open_network

WIDTH = 24


def block(net: Net, x: str, name: str, kind: str = "Relu", groups: int = 1) -> str:
    """A convolution, its normalisation and an activation function."""
    width = WIDTH // groups
    x = net.add("Conv", x, net.w(f"{name}.w", WIDTH, width, 3, 3), pads=[1] * 4, group=groups)
    rng = net.rng
    x = net.add(
        "BatchNormalization",
        x,
        net.const(rng.uniform(0.5, 2, WIDTH), f"{name}.scale"),
        net.const(rng.normal(0, 0.3, WIDTH), f"{name}.shift"),
        net.const(rng.normal(0, 0.3, WIDTH), f"{name}.mean"),
        net.const(rng.uniform(0.5, 2, WIDTH), f"{name}.variance"),
        epsilon=1e-3,
    )
    if kind == "Clip":
        return net.add("Clip", x, net.const(0.0, f"{name}.low"), net.const(6.0, f"{name}.high"))
    return net.add(kind, x) if kind else x


def residual(opset: int = 17) -> onnx.ModelProto:
    """What real networks are made of: stem, depthwise, residual sum, pooling, squeeze, product."""
    net = Net(opset=opset)
    x = block(net, net.trunk(), "a", "Relu")
    y = block(net, x, "b", "Relu", groups=WIDTH)
    y = block(net, y, "c", "")
    x = net.add("Relu", net.add("Add", x, y))
    x = net.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    gate = net.add("GlobalAveragePool", x)
    gate = net.add("Sigmoid", net.add("Conv", gate, net.w("gate", WIDTH, WIDTH, 1, 1)))
    x = block(net, net.add("Mul", x, gate), "d", "Relu")
    net.add("Flatten", net.add("GlobalAveragePool", x), out="embeddings")
    return net.model("embeddings")


def run(model: onnx.ModelProto, images: FloatArray, *, optimised: bool = True) -> FloatArray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {session.get_inputs()[0].name: images})[0])


def measured(model: onnx.ModelProto, images: FloatArray) -> dict[str, tuple[float, float]]:
    network, tensors = range_network(model)
    opened = open_graph(network.SerializeToString(), "")
    name = network.graph.input[0].name
    low, high = opened({name: images}, [MINIMA, MAXIMA])
    assert low.shape == high.shape == (1, len(tensors))
    return {t: (float(a), float(b)) for t, a, b in zip(tensors, low[0], high[0], strict=True)}


def cosines(a: FloatArray, b: FloatArray) -> Any:
    x, y = a.reshape(len(a), -1).astype("f8"), b.reshape(len(b), -1).astype("f8")
    return (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)


@pytest.mark.parametrize("opset", [11, 13, 17])
def test_integers_give_nearly_the_same(opset: int) -> None:
    model = residual(opset)
    before = model.SerializeToString()
    images = feed(model, 16)
    small = quantised(model, measured(model, images))
    assert model.SerializeToString() == before  # it was not changed
    expected = run(model, images)
    for optimised in (True, False):
        assert cosines(run(small, images, optimised=optimised), expected).min() > 0.995


def test_all_between_the_products_is_integers() -> None:
    model = residual()
    small = quantised(model, measured(model, feed(model)))
    counts = Counter(node.op_type for node in small.graph.node)
    assert "BatchNormalization" not in counts
    assert "Relu" not in counts  # saturation does it
    opened = open_network_graph(small)
    assert opened["QLinearConv"] == 6
    assert not opened["Conv"]
    assert opened["QLinearAdd"] == opened["QLinearMul"] == opened["QLinearSigmoid"] == 1
    assert opened["GlobalAveragePool"] == 1  # the last one, behind all products: in float


def open_network_graph(model: onnx.ModelProto) -> Counter[str]:
    """Operators that ONNX Runtime makes of a network, as tlpipe opens it."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "x.onnx")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = path
        onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return Counter(node.op_type for node in onnx.load(path).graph.node)


def test_the_same_ranges_give_the_same_network() -> None:
    model = residual()
    ranges = measured(model, feed(model))
    again = dict(reversed(ranges.items()))
    assert network_digest(quantised(model, ranges)) == network_digest(quantised(model, again))
    name = next(iter(ranges))
    other = ranges | {name: (ranges[name][0], ranges[name][1] * 2)}
    assert network_digest(quantised(model, ranges)) != network_digest(quantised(model, other))


def test_the_network_is_the_one_it_was() -> None:
    """A change of what is made of the same weights and ranges makes all int8 files stale."""
    net = Net()
    net.const(np.arange(-3 * 48 // 2, 3 * 48 // 2).reshape(3, 3, 4, 4) / 7, "w")
    net.const([1.0, -0.5, 0.25], "b")
    x = net.add("Relu", net.add("Conv", net.take(3, SIZE, SIZE), "w", "b", out="c"), out="r")
    net.add("Flatten", x, out="embeddings")
    small = quantised(net.model("embeddings"), {"x": (-1.0, 2.0), "r": (0.0, 50.0)})
    assert network_digest(small) == DIGEST


DIGEST = "65e1dd5bfc7ef6f7df901701c45e2876ef4403a6a0ea406627454a5e341f0d61"


def test_ranges_of_another_network_are_refused() -> None:
    with pytest.raises(BackboneError, match="ranges of 1 tensors, which are not the"):
        quantised(residual(), {"x": (0.0, 1.0)})


def test_a_network_without_constant_products_is_refused() -> None:
    net = Net()
    net.add("GlobalAveragePool", net.take(3, SIZE, SIZE), out="embeddings")
    with pytest.raises(BackboneError, match=r"no convolution, Gemm or MatMul.*none at all"):
        range_network(net.model("embeddings"))


def test_half_precision_is_refused() -> None:
    net = Net(dtype=np.float16)
    net.trunk()
    with pytest.raises(BackboneError, match=r"products found: 1 Conv") as caught:
        range_network(net.model("map"))
    assert "export it in float32" in caught.value.hint


def test_folding_keeps_the_values() -> None:
    model = residual()
    images = feed(model)
    folded = fold_norms(model)
    assert "BatchNormalization" not in {node.op_type for node in folded.graph.node}
    assert np.allclose(run(folded, images), run(model, images), rtol=1e-4, atol=1e-5)


def test_a_normalisation_that_others_see_through_is_kept() -> None:
    net = Net()
    x = net.add("Conv", net.take(3, SIZE, SIZE), net.w("w", WIDTH, 3, 3, 3), out="conv")
    y = net.add(
        "BatchNormalization", x, *(net.const(np.full(WIDTH, 2.0), n) for n in ("s", "b", "m", "v"))
    )
    net.add("Add", x, y, out="embeddings")
    assert "BatchNormalization" in {
        node.op_type for node in fold_norms(net.model("embeddings")).graph.node
    }


def test_a_clip_that_does_more_than_saturate_is_kept() -> None:
    for low, high, kept in ((0.0, 6.0, False), (-1.0, 1.0, False), (1.0, 6.0, True)):
        net = Net()
        x = net.add("Conv", net.take(3, SIZE, SIZE), net.w("w", WIDTH, 3, 3, 3))
        x = net.add("Clip", x, net.const(low, "low"), net.const(high, "high"))
        net.add("Conv", x, net.w("w2", WIDTH, WIDTH, 3, 3), out="embeddings")
        model = net.model("embeddings")
        small = quantised(model, measured(model, feed(model)))
        assert ("Clip" in {node.op_type for node in small.graph.node}) is kept
        images = feed(model)
        assert cosines(run(small, images), run(model, images)).min() > 0.99


def test_products_of_all_kinds() -> None:
    net = Net()
    x = net.fc(net.pooled(), 32, out="hidden")  # Gemm
    x = net.add("MatMul", net.add("Relu", x), net.w("m", 32, 20))
    net.add("Add", x, net.w("bias", 20), out="embeddings")
    model = net.model("embeddings")
    assert [n.op_type for n in plan_int8(model).products] == ["Conv", "Gemm", "MatMul"]
    images = feed(model, 16)
    small = quantised(model, measured(model, images))
    for optimised in (True, False):
        assert cosines(run(small, images, optimised=optimised), run(model, images)).min() > 0.99


@pytest.mark.parametrize("axis", [0, 1])
def test_rounding_keeps_the_sum_of_a_channel(axis: int) -> None:
    values = np.random.default_rng(1).normal(size=(40, 50)).astype(np.float32)
    scales = np.abs(values).max(axis=1 - axis) / np.float32(127)
    integers = _integers(values, scales, axis)
    exact = values / np.expand_dims(scales, 1 - axis).astype("f8")
    assert integers.dtype == np.int8
    assert np.abs(integers - exact).max() < 1
    assert np.abs(integers.sum(1 - axis) - exact.sum(1 - axis)).max() <= 0.5 + 1e-6
    assert np.abs(np.rint(exact).sum(1 - axis) - exact.sum(1 - axis)).max() > 1


def test_weights_of_zero_and_huge_biases() -> None:
    net = Net()
    weights = net.rng.normal(size=(4, 3, 3, 3))
    weights[1] = 0
    weights[2] *= 1e-12
    net.const(weights, "w")
    net.const([0.5, 1.0, 1e6, -2.0], "b")
    net.add("Relu", net.add("Conv", net.take(3, SIZE, SIZE), "w", "b"), out="r")
    net.add("GlobalAveragePool", "r", out="embeddings")
    model = net.model("embeddings")
    images = feed(model)
    small = quantised(model, measured(model, images))
    found, expected = run(small, images), run(model, images)
    assert np.allclose(found, expected, atol=1e6 / 255)


def test_weights_that_two_layers_share() -> None:
    net = Net()
    net.w("w", WIDTH, WIDTH, 3, 3)
    x = net.trunk()
    for step in range(2):
        bias = net.const(net.rng.normal(size=WIDTH) * 10.0 ** (8 * step), f"bias{step}")
        x = net.add("Relu", net.add("Conv", x, "w", bias, pads=[1] * 4))
    net.add("GlobalAveragePool", x, out="embeddings")
    model = net.model("embeddings")
    small = quantised(model, measured(model, feed(model)))
    assert cosines(run(small, feed(model)), run(model, feed(model))).min() > 0.99


def test_float_weights_between_integers_stay_float() -> None:
    """ONNX Runtime would quantise them unasked, with one scale for all channels."""
    net = Net()
    x = net.trunk()
    sizes = np.geomspace(1, 1e-4, WIDTH).reshape(-1, 1, 1, 1)
    weights = net.rng.normal(size=(WIDTH, WIDTH, 3, 3)) * sizes
    scales = [net.const(0.05, "s"), net.const(np.uint8(0), "z", np.uint8)]

    def through(x: str) -> str:
        return net.add("DequantizeLinear", net.add("QuantizeLinear", x, *scales), *scales)

    x = net.add("Conv", through(x), net.const(weights, "w"), pads=[1] * 4)
    x = through(net.add("Mul", x, net.const(1 / sizes.reshape(1, -1, 1, 1), "f")))
    net.add("Flatten", net.add("GlobalAveragePool", x), out="embeddings")
    model = net.model("embeddings")
    images = feed(model)
    opened = open_network(model.SerializeToString(), ON_CPU)
    assert np.allclose(
        opened.run(images)["embeddings"], run(model, images, optimised=False), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("known", KNOWN, ids=ids)
def test_real_architectures_as_they_stand(known: Known) -> None:
    """Their weights are computed when they run: there is nothing to store as integers."""
    model = load_model(FOLDER / f"light_{known.name}.onnx")
    with pytest.raises(BackboneError, match="cannot be quantised to int8"):
        range_network(model)


@pytest.mark.parametrize("known", LIVE, ids=ids)
def test_real_architectures_with_random_weights(known: Known) -> None:
    model = enlivened(load_model(FOLDER / f"light_{known.name}.onnx"))
    analysis = analyse(model, open_graph, Choices())
    assert analysis.freed is not None
    freed = analysis.freed.model
    images = feed(freed, 8, 224)
    small = quantised(freed, measured(freed, images))
    exact, found = run(freed, images), run(small, images)
    assert cosines(found, exact).mean() > 0.95
