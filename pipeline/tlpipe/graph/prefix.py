"""Folds the arithmetic of preprocessing into a graph, so that it takes plain uint8 images.

The order is Transpose, Cast, Mul, Sub, Div: the transpose moves bytes rather than floats (5 times
cheaper on CPUs), and the three operations give the very bits that NumPy's
``(x * scale - mean) / std`` in float32 gives. Mean and deviation are not folded into the first
convolution: that would change its weights, and would be wrong under zero padding.

Takes and gives ``onnx.ModelProto``.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tlpipe.errors import BackboneError
from tlpipe.graph import IMAGE_INPUT, OWN_PREFIX
from tlpipe.types import Preprocess

_CHANNELS = 3


def fold_preprocess(
    model: onnx.ModelProto,
    tensor: str,
    layout: Literal["NCHW", "NHWC"],
    size: tuple[int, int],
    preprocess: Preprocess,
) -> onnx.ModelProto:
    """Network that takes ``image``, uint8 (N, H, W, 3) RGB, in place of `tensor`.

    Parameters
    ----------
    model : onnx.ModelProto
        Not changed.
    tensor : str
        Its float32 input.
    layout : {"NCHW", "NHWC"}
        Layout of that input.
    size : tuple of int
        Its height and width in pixels.
    preprocess : Preprocess
        Channel order, scale, mean and std; the geometry is done before the graph.

    Raises
    ------
    BackboneError
        The network has no input of that name, or has others beside it.
    """
    _check_input(model, tensor, layout, size)
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def constant(name: str, values: Any, dtype: type) -> str:
        full = f"{OWN_PREFIX}{name}"
        constants.append(numpy_helper.from_array(np.asarray(values, dtype), full))
        return full

    def add(op: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{OWN_PREFIX}preprocess/{op}"
        nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    channel_axis = 1 if layout == "NCHW" else 3
    shape = (1, _CHANNELS, 1, 1) if layout == "NCHW" else (1, 1, 1, _CHANNELS)
    x = IMAGE_INPUT
    if layout == "NCHW":
        x = add("Transpose", [x], perm=[0, 3, 1, 2])
    if preprocess.colour == "bgr":
        x = add("Gather", [x, constant("bgr", [2, 1, 0], np.int64)], axis=channel_axis)
    x = add("Cast", [x], to=TensorProto.FLOAT)
    if preprocess.scale != 1.0:
        x = add("Mul", [x, constant("scale", preprocess.scale, np.float32)])
    mean = np.reshape(np.array(preprocess.mean, np.float32), shape)
    std = np.reshape(np.array(preprocess.std, np.float32), shape)
    x = add("Sub", [x, constant("mean", mean, np.float32)])
    x = add("Div", [x, constant("std", std, np.float32)])
    folded = onnx.ModelProto()
    folded.CopyFrom(model)
    # Before IR version 4 initializers had to be listed as inputs, too; they no longer are.
    folded.ir_version = max(folded.ir_version, 4)
    del folded.graph.input[:]
    inner = tensor
    if tensor == IMAGE_INPUT:  # the new input takes this name
        inner = f"{OWN_PREFIX}input"
        for node in folded.graph.node:
            node.input[:] = [inner if name == tensor else name for name in node.input]
    nodes[-1].output[0] = inner  # what was the input is now computed

    image = helper.make_tensor_value_info(IMAGE_INPUT, TensorProto.UINT8, ["N", *size, _CHANNELS])
    folded.graph.input.append(image)
    folded.graph.initializer.extend(constants)
    body = list(folded.graph.node)
    del folded.graph.node[:]
    folded.graph.node.extend([*nodes, *body])
    return folded


def _check_input(model: onnx.ModelProto, tensor: str, layout: str, size: tuple[int, int]) -> None:
    """Refuse a card whose input is not that of the network."""
    weights = {initializer.name for initializer in model.graph.initializer}
    inputs = {value.name: value for value in model.graph.input if value.name not in weights}
    if list(inputs) != [tensor]:
        raise BackboneError(
            f"The network's inputs are {list(inputs)}, not just {tensor!r}.",
            hint="Correct 'tensor' under [input] in the backbone's card.",
        )
    stated = inputs[tensor].type.tensor_type
    shape = [dim.dim_value for dim in stated.shape.dim]  # 0 where it is not fixed
    expected = [_CHANNELS, *size] if layout == "NCHW" else [*size, _CHANNELS]
    fits = len(shape) == 4 and all(
        found in (0, wanted) for found, wanted in zip(shape[1:], expected, strict=True)
    )
    if not fits or stated.elem_type != TensorProto.FLOAT:
        kind = TensorProto.DataType.Name(stated.elem_type).lower()
        raise BackboneError(
            f"The network's input {tensor!r} is {kind} of the shape {shape} (0: not fixed), not"
            f" float of (N, {', '.join(map(str, expected))}).",
            hint="Correct 'layout', 'height' or 'width' under [input] in the backbone's card.",
        )
