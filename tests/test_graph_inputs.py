"""Where images go in: every layout, type and name, old files, functions, several inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from networks import SIZE, WIDTH, Net, checked
from tlpipe.errors import BackboneError
from tlpipe.graph.analyse import Choices, analyse
from tlpipe.graph.digest import tensor_digests
from tlpipe.stages.session import open_graph

CLASSES = 7


def finished(net: Net, x: str = "") -> onnx.ModelProto:
    """A trunk on what the net takes, and a last layer."""
    x = x or net.pooled()
    return net.model(net.add("Softmax", net.fc(x, CLASSES), axis=1))


def error_of(model: onnx.ModelProto, choices: Choices | None = None) -> BackboneError:
    with pytest.raises(BackboneError) as told:
        analyse(model, open_graph, choices or Choices())
    return told.value


@pytest.mark.parametrize("batch", [1, "N"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_layouts_and_colours(layout: str, channels: int, batch: int | str) -> None:
    net = Net(batch=batch)
    if layout == "NCHW":
        x = net.take(channels, 20, SIZE)
    else:
        x = net.add("Transpose", net.take(20, SIZE, channels), perm=[0, 3, 1, 2])
    x = net.add("Conv", x, net.w("w", WIDTH, channels, 3, 3), strides=[4, 4])
    x = net.add("GlobalAveragePool", net.add("Relu", x), out="gap")
    found = checked(finished(net, net.add("Flatten", x)), "gap", pooling="flatten", classes=CLASSES)
    image = found.image
    assert (image.layout, image.channels, image.dtype) == (layout, channels, "float32")
    assert (image.height, image.width, image.batch) == (20, SIZE, 1 if batch == 1 else 0)


def test_half_precision() -> None:
    model = finished(Net(dtype=np.float16))
    found = checked(model, "gap", pooling="flatten", classes=CLASSES, tolerance=1e-2)
    assert found.image.dtype == "float16"


@pytest.mark.parametrize("throughout", [False, True])
def test_double_precision(throughout: bool) -> None:
    net = Net(dtype=np.float64 if throughout else np.float32)
    x = net.add("Flatten", net.take(3, SIZE, SIZE, dtype=np.float64))
    x = x if throughout else net.add("Cast", x, to=TensorProto.FLOAT)
    x = net.add("MatMul", x, net.w("w", 3 * SIZE * SIZE, WIDTH))
    model = finished(net, net.add("Tanh", x, out="v"))
    found = checked(model, "v", classes=CLASSES)
    assert found.image.dtype == "float64"


def test_bytes_as_the_image() -> None:
    net = Net()
    x = net.add("Cast", net.take(3, SIZE, SIZE, dtype=np.uint8), to=TensorProto.FLOAT)
    net.image = net.add("Div", x, net.const(255, "k"))
    found = checked(finished(net), "gap", pooling="flatten", classes=CLASSES)
    assert found.image.dtype == "uint8"


@pytest.mark.parametrize("sizes", [("H", "W"), (None, None), (0, 0), (-1, -1), (SIZE, "W")])
def test_an_open_size_must_be_said(sizes: tuple[Any, Any]) -> None:
    net = Net()
    net.take(3, *sizes)
    model = finished(net)
    told = error_of(model)
    assert "leaves the size of the images open: [0, 3, " in told.message
    assert "--image-size" in told.hint
    found = checked(
        model, "gap", pooling="flatten", classes=CLASSES, choices=Choices(size=(SIZE, SIZE))
    )
    assert (found.image.height, found.image.width) == (SIZE, SIZE)
    assert found.freed is not None
    dims = found.freed.model.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims][1:] == [3, SIZE, SIZE]


@pytest.mark.parametrize("number", [-1, 0])
def test_sizes_that_are_no_numbers_are_open(number: int) -> None:
    """As PaddlePaddle and some older exporters write them."""
    net = Net()
    net.take(3, SIZE, SIZE)
    model = finished(net)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    dims[0].dim_value = number
    found = analyse(model, open_graph, Choices())
    assert found.freed is not None
    assert found.image.batch == 0
    for at in (2, 3):
        dims[at].dim_value = number
    assert "leaves the size of the images open" in error_of(model).message
    assert analyse(model, open_graph, Choices(size=(SIZE, SIZE))).freed is not None


@pytest.mark.parametrize(("batch", "size"), [(10**12, None), ("N", (99999, 99999))])
def test_more_pixels_than_fit_in_memory_are_refused(
    batch: int | str, size: tuple[int, int] | None
) -> None:
    net = Net(batch=batch)
    side = SIZE if size is None else None
    net.take(3, side, side)
    assert "more than fits in memory" in error_of(finished(net), Choices(size=size)).message


def test_a_size_that_looks_like_colours_is_refused() -> None:
    net = Net()
    net.take(3, None, None)
    assert "too small to be told" in error_of(finished(net), Choices(size=(1, 1))).message


def test_another_size_than_stated_is_refused() -> None:
    told = error_of(finished(Net()), Choices(size=(32, 32)))
    assert f"takes {SIZE} x {SIZE} pixels, not 32 x 32" in told.message


@pytest.mark.parametrize(
    "name", ["serving_default_input_1:0", "image/input:0", "images", "image", "a b", "tlpipe/x"]
)
def test_any_name_will_do(name: str) -> None:
    net = Net()
    net.take(3, SIZE, SIZE, name=name)
    found = checked(finished(net), "gap", pooling="flatten", classes=CLASSES)
    assert found.image.tensor == name


def test_tensors_with_slashes_and_colons() -> None:
    net = Net()
    x = net.add("Relu", net.pooled(), out="model/top/Relu:0", name="model/top")
    model = net.model(net.fc(x, CLASSES, name="model/fc", out="model/fc/BiasAdd:0"))
    checked(model, "model/top/Relu:0", classes=CLASSES)
    for layer in ("model/top/Relu:0", "model/top"):
        checked(model, "model/top/Relu:0", classes=None, choices=Choices(layer=layer))


def test_inputs_that_nothing_reads_are_left_out() -> None:
    """As Keras leaves constants of its preprocessing behind."""
    net = Net()
    net.take(3, SIZE, SIZE)
    net.inputs.append(
        helper.make_tensor_value_info("normalization/Sub/y:0", TensorProto.FLOAT, [1, 1, 1, 3])
    )
    net.inputs.insert(0, helper.make_tensor_value_info("unused", TensorProto.FLOAT, ["N", 5]))
    checked(finished(net), "gap", pooling="flatten", classes=CLASSES)


def test_weights_listed_as_inputs() -> None:
    net = Net(opset=9)
    y = net.add("Softmax", net.fc(net.pooled(), CLASSES), axis=1)
    model = net.model(y, ir=3)
    for tensor in model.graph.initializer:
        model.graph.input.insert(
            0, helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        )
    found = checked(model, "gap", pooling="flatten", classes=CLASSES)
    assert found.freed is not None
    assert [value.name for value in found.freed.model.graph.input] == ["x"]
    assert found.freed.model.ir_version >= 4


@pytest.mark.parametrize("opset", [7, 8, 10])
def test_old_operators(opset: int) -> None:
    """Batch normalisation, pooling and a bias as they were then."""
    net = Net(opset=opset)
    x = net.add("Conv", net.take(3, SIZE, SIZE), net.w("w", WIDTH, 3, 3, 3))
    facts = [net.const(net.rng.uniform(1, 2, WIDTH), name) for name in "abcd"]
    x = net.add("Relu", net.add("BatchNormalization", x, *facts))
    x = net.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = net.add("AveragePool", x, kernel_shape=[7, 7], out="gap")
    x = net.add("Dropout", x, more=["mask"])
    checked(finished(net, net.add("Flatten", x)), "gap", pooling="flatten", classes=CLASSES)


@pytest.mark.parametrize("opset", [5, 6])
def test_older_operators_are_converted(opset: int) -> None:
    net = Net(opset=opset)
    x = net.add("Conv", net.take(3, SIZE, SIZE), net.w("w", WIDTH, 3, 3, 3), strides=[4, 4])
    x = net.add("GlobalAveragePool", net.add("Relu", x), out="gap")
    x = net.add("Flatten", x)
    y = net.add("MatMul", x, net.w("fc", WIDTH, CLASSES))
    model = net.model(net.add("Softmax", y, axis=1), ir=3)
    for tensor in model.graph.initializer:
        model.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        )
    checked(model, "gap", pooling="flatten", classes=CLASSES)


def test_functions_are_written_out() -> None:
    net = Net()
    x = net.add("Twice", net.pooled(), domain="own", out="doubled")
    model = net.model(net.add("Head", x, net.w("W", WIDTH, CLASSES), domain="own"))
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("own", "Twice", ["a"], ["b"], body, opsets))
    body = [
        helper.make_node("MatMul", ["a", "w"], ["c"]),
        helper.make_node("Softmax", ["c"], ["b"], axis=1),
    ]
    model.functions.append(helper.make_function("own", "Head", ["a", "w"], ["b"], body, opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    found = checked(model, "doubled", classes=CLASSES)
    assert found.freed is not None
    kept = tensor_digests(found.freed.model)
    assert kept.items() <= tensor_digests(model).items()
    assert set(kept) == {"conv.w", "conv.b"}


def two_inputs() -> onnx.ModelProto:
    """The second takes part behind the features only."""
    net = Net()
    x = net.pooled()
    net.take(CLASSES, name="prior")
    return net.model(net.add("Softmax", net.add("Add", net.fc(x, CLASSES), "prior"), axis=1))


def test_a_function_that_calls_itself_is_refused() -> None:
    net = Net()
    x = net.add("Twice", net.take(3, SIZE, SIZE), domain="own", out="twice")
    net.image = x
    model = finished(net)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    again = helper.make_node("Twice", ["a"], ["b"], domain="own")
    model.functions.append(helper.make_function("own", "Twice", ["a"], ["b"], [again], opsets))
    model.opset_import.append(opsets[1])
    assert "own functions cannot be written out" in error_of(model).message


def test_functions_that_would_become_too_many_operators_are_refused() -> None:
    net = Net()
    net.image = net.add("F30", net.take(3, SIZE, SIZE), domain="own", out="much")
    model = finished(net)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    model.opset_import.append(opsets[1])
    for number in range(31):
        name, domain = (f"F{number - 1}", "own") if number else ("Relu", "")
        twice = [
            helper.make_node(name, ["a"], ["b"], domain=domain),
            helper.make_node(name, ["b"], ["c"], domain=domain),
        ]
        function = helper.make_function("own", f"F{number}", ["a"], ["c"], twice, opsets)
        model.functions.append(function)
    assert "more than 1,000,000 operators" in error_of(model).message


def test_an_input_that_is_stated_twice_is_one() -> None:
    net = Net()
    net.take(3, SIZE, SIZE)
    model = finished(net)
    model.graph.input.append(model.graph.input[0])
    assert analyse(model, open_graph, Choices()).dim == WIDTH


def test_several_inputs_are_asked_about() -> None:
    told = error_of(two_inputs())
    assert "has 2 inputs: ['x [0, 3, 16, 16]', 'prior [0, 7]']" in told.message
    assert "--input NAME" in told.hint


def test_an_input_that_is_not_there() -> None:
    told = error_of(two_inputs(), Choices(input="y"))
    assert "has no input 'y', but ['x" in told.message


def test_another_input_that_takes_part_is_refused() -> None:
    told = error_of(two_inputs(), Choices(input="x"))
    assert "Beside the images in 'x' the network wants ['prior']" in told.message
    assert "--layer" in told.hint


@pytest.mark.parametrize("name", [None, "x"])
def test_a_layer_before_the_other_input_needs_none(name: str | None) -> None:
    choices = Choices(layer="vector", input=name)
    checked(two_inputs(), "vector", classes=None, choices=choices)


@pytest.mark.parametrize(
    ("sizes", "dtype", "said"),
    [
        ((3, 256), np.float32, "is float of the shape [0, 3, 256], which is no batch of images"),
        ((SIZE,), np.float32, "is float of the shape [0, 16]"),
        ((2, 3, SIZE, SIZE), np.float32, "is float of the shape [0, 2, 3, 16, 16]"),
        ((3, SIZE, SIZE), np.int64, "is int64 of the shape [0, 3, 16, 16]"),
        ((3, SIZE, SIZE), np.int8, "is int8 of the shape [0, 3, 16, 16]"),
    ],
)
def test_what_is_no_image_is_refused(sizes: tuple[int, ...], dtype: Any, said: str) -> None:
    net = Net()
    x = net.add("Cast", net.take(*sizes, dtype=dtype), to=TensorProto.FLOAT)
    model = net.model(net.add("Flatten", x))
    assert said in error_of(model).message


@pytest.mark.parametrize("sizes", [(4, SIZE, SIZE), (SIZE, SIZE, SIZE), (3, SIZE, 3), (1, SIZE, 3)])
def test_a_shape_that_is_not_that_of_images_is_refused(sizes: tuple[Any, ...]) -> None:
    net = Net()
    model = net.model(net.add("GlobalAveragePool", net.take(*sizes)))
    assert "no batch of images with three colours or one" in error_of(model).message


def test_a_network_that_runs_with_any_colours_does_not_tell() -> None:
    net = Net()
    model = net.model(net.add("GlobalAveragePool", net.take("C", SIZE, SIZE)))
    assert "runs with 2 readings of it" in error_of(model).message


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("stated", [False, True])
def test_open_axes_are_found_by_running(channels_last: bool, stated: bool) -> None:
    """As Hugging Face's exporter writes them: nothing about the input is fixed."""
    net = Net()
    x = net.take(SIZE, SIZE, 3) if channels_last else net.take(3, SIZE, SIZE)
    if channels_last:
        x = net.add("Transpose", x, perm=[0, 3, 1, 2])
    x = net.add("Relu", net.add("Conv", x, net.w("conv", 8, 3, 3, 3)))
    model = net.model(net.fc(net.add("Flatten", net.add("GlobalAveragePool", x)), 10, width=8))
    shape = model.graph.input[0].type.tensor_type
    if stated:
        for dim, name in zip(list(shape.shape.dim), "NCHW", strict=True):
            dim.dim_param = name
    else:
        shape.ClearField("shape")
    assert "leaves the size of the images open" in error_of(model).message
    found = analyse(model, open_graph, Choices(size=(SIZE, SIZE)))
    assert found.image.layout == ("NHWC" if channels_last else "NCHW")
    assert (found.image.channels, found.image.batch) == (3, 0)
    assert found.freed is not None


def test_a_network_without_an_input_is_refused() -> None:
    net = Net()
    model = net.model(net.add("Relu", net.w("w", 2, 2)))
    assert "has 0 inputs" in error_of(model).message


def test_what_onnx_runtime_cannot_open_is_refused_in_its_words() -> None:
    net = Net()
    model = net.model(net.add("NoSuchOperator", net.pooled()))
    told = error_of(model)
    assert "cannot be opened by ONNX Runtime" in told.message
    assert "NoSuchOperator" in told.message


def test_what_onnx_runtime_cannot_run_is_refused_in_its_words() -> None:
    net = Net()
    x = net.add("Reshape", net.trunk(), net.shape([5, 7], "impossible"))
    told = error_of(net.model(net.fc(x, CLASSES, width=7)))
    assert "ONNX Runtime" in told.message or "cannot be run" in told.message
