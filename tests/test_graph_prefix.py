"""The preprocessing folded into freed networks of every kind of input, against NumPy."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from networks import SIZE, WIDTH, FloatArray, Net, evaluated
from tlpipe.execution import ON_CPU
from tlpipe.graph import EMBEDDINGS, IMAGE_INPUT, PROBABILITIES
from tlpipe.graph.analyse import Choices, analyse
from tlpipe.graph.batch import way_of
from tlpipe.graph.digest import tensor_digests
from tlpipe.graph.head import join_head
from tlpipe.graph.io import check
from tlpipe.graph.prefix import fold_preprocess
from tlpipe.last_layer import LastLayer
from tlpipe.stages.session import open_graph, open_network
from tlpipe.types import Preprocess

HEIGHT = 20
DTYPES: dict[str, Any] = {
    "float32": np.float32, "float16": np.float16, "float64": np.float64, "uint8": np.uint8,
}  # fmt: skip


def network(layout: str, dtype: str, channels: int, way: str, name: str) -> onnx.ModelProto:
    """A network with an input of that kind, which is freed in that way."""
    net = Net(batch="N" if way == "as-is" else 1)
    sizes = (channels, HEIGHT, SIZE) if layout == "NCHW" else (HEIGHT, SIZE, channels)
    x = net.take(*sizes, name=name, dtype=DTYPES[dtype])
    x = net.add("Cast", x, to=TensorProto.FLOAT)
    x = x if layout == "NCHW" else net.add("Transpose", x, perm=[0, 3, 1, 2])
    x = net.add("Conv", x, net.w("w", WIDTH, channels, 3, 3), net.w("b", WIDTH), strides=[4, 4])
    if way == "rewritten":
        x = net.add("Relu", net.add("Reshape", x, net.shape([1, WIDTH, -1], "to")))
        x = net.reduce("ReduceMean", x, [2], keep=0)
    else:
        x = net.reduce("ReduceMean", net.add("Relu", x), [2, 3], keep=0)
    if way == "one-by-one":
        x = net.add("Div", x, net.reduce("ReduceMax", x, [0, 1]))
    v = net.add("Tanh", x, out="v")
    return net.model(net.add("Softmax", net.fc(v, 7), axis=1))


def arithmetic(colour: str, dtype: str) -> Preprocess:
    scale, mean, std = 1 / 255, (0.4, 0.45, 0.5), (0.2, 0.25, 0.3)
    if colour == "grey":
        mean, std = (0.5,) * 3, (0.25,) * 3
    if dtype == "uint8":
        scale, mean, std = 1.0, (0.0,) * 3, (1.0,) * 3
    return Preprocess(
        colour, "exact", 0, "bilinear", True, "none", 0.0, scale, mean, std  # type: ignore[arg-type]
    )  # fmt: skip


def by_numpy(images: FloatArray, spec: Preprocess, layout: str, dtype: str) -> FloatArray:
    x = images.astype(np.float32)
    if spec.colour == "grey":
        x = (x @ np.float32([0.299, 0.587, 0.114]))[..., None]
        x = np.floor(x + np.float32(0.5)) if dtype == "uint8" else x
    elif spec.colour == "bgr":
        x = x[..., ::-1]
    if dtype != "uint8":
        channels = x.shape[-1]
        mean, std = np.float32(spec.mean[:channels]), np.float32(spec.std[:channels])
        x = (x * np.float32(spec.scale) - mean) / std
    x = x.transpose(0, 3, 1, 2) if layout == "NCHW" else x
    return np.ascontiguousarray(x).astype(DTYPES[dtype])


KINDS = [
    (layout, dtype, colour, way)
    for layout, dtype, colour in itertools.product(("NCHW", "NHWC"), DTYPES, ("rgb", "bgr", "grey"))
    for way in ("as-is", "rewritten", "one-by-one")
]


@pytest.mark.parametrize(("layout", "dtype", "colour", "way"), KINDS)
def test_the_folded_network_does_what_numpy_does(
    layout: str, dtype: str, colour: str, way: str
) -> None:
    name = {"rgb": "image", "bgr": "input:0", "grey": "x"}[colour]
    model = network(layout, dtype, 1 if colour == "grey" else 3, way, name)
    found = analyse(model, open_graph, Choices())
    assert found.freed is not None
    assert found.freed.way == way, found.freed.reasons
    spec = arithmetic(colour, dtype)
    whole = fold_preprocess(found.freed.model, found.image, spec)
    check(whole)
    assert way_of(whole) == way
    assert tensor_digests(whole) == tensor_digests(found.freed.model)

    images = np.random.default_rng(2).integers(0, 256, (4, HEIGHT, SIZE, 3), np.uint8)
    images[1:3] //= 2
    run = open_network(whole.SerializeToString(), ON_CPU)
    assert run.shapes() == ((HEIGHT, SIZE, 3), (WIDTH,))
    (expected,) = evaluated(model, ["v"], by_numpy(images, spec, layout, dtype))
    tolerance = 5e-3 if dtype == "float16" else 1e-5
    if dtype == "uint8" and colour == "grey":
        tolerance = 2e-2  # a luma right between two numbers may be rounded either way
    ours = run.run(images)[EMBEDDINGS]
    np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance * np.abs(expected).max())
    for number in range(4):
        alone = run.run(images[number : number + 1])[EMBEDDINGS][0]
        np.testing.assert_allclose(alone, ours[number], rtol=0, atol=1e-6)
    assert [value.name for value in whole.graph.input] == [IMAGE_INPUT]


@pytest.mark.parametrize("name", ["image", "embeddings", "probabilities"])
@pytest.mark.parametrize("place", ["inside", "pooled", "feature", "last", "input"])
@pytest.mark.parametrize("way", ["as-is", "one-by-one"])
def test_a_network_may_use_the_names_of_ours(name: str, place: str, way: str) -> None:
    def called(here: str) -> str:
        return name if here == place else here

    net = Net(batch=1)
    x = net.take(3, SIZE, SIZE, name=called("input"))
    x = net.add("Conv", x, net.w("w", WIDTH, 3, 3, 3), strides=[4, 4], out=called("inside"))
    if way == "one-by-one":
        x = net.add("Div", x, net.reduce("ReduceMax", net.add("Abs", x), [0, 1, 2, 3]))
    x = net.add("GlobalAveragePool", net.add("Relu", x), out=called("pooled"))
    if place == "feature":
        x = net.add("Tanh", net.add("Flatten", x), out=name)
    else:
        x = net.add("Flatten", x)
    model = net.model(net.add("Softmax", net.fc(x, 7), axis=1, out=called("last")))
    found = analyse(model, open_graph, Choices())
    assert found.freed is not None
    assert found.freed.way == way, found.freed.reasons
    whole = fold_preprocess(found.freed.model, found.image, arithmetic("rgb", "float32"))
    weights, bias = np.eye(WIDTH, 3, dtype=np.float32), np.zeros(3, np.float32)
    joined = join_head(whole, LastLayer(weights, bias), None, None, {})
    check(joined)
    assert tensor_digests(joined).items() <= tensor_digests(model).items()
    images = np.random.default_rng(2).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)
    ours = open_network(joined.SerializeToString(), ON_CPU).run(images)
    fed = by_numpy(images, arithmetic("rgb", "float32"), "NCHW", "float32")
    (expected,) = evaluated(model, list(found.output().tensors), fed)
    np.testing.assert_allclose(ours[EMBEDDINGS], expected.reshape(4, -1), rtol=1e-4, atol=1e-5)
    assert list(ours) == [PROBABILITIES, EMBEDDINGS]
