"""Builds EfficientNet-Lite0, -Lite1 and -Lite2 in ONNX from their pretrained tensors.

The tensors go into the graph as they are in the checkpoint: same names, same bytes. Batch
normalisation is not folded into the convolutions here (ONNX Runtime does that for itself when it
opens the file), so that the graph's weights can be compared with the published ones bit by bit.

Takes arrays, gives an ``onnx.ModelProto``.

Source: Tan and Le, "EfficientNet", ICML 2019 (arXiv:1905.11946), table 1, for the stages; the
"lite" changes (no squeeze-and-excite, ReLU6, stem and head not scaled) from the release notes of
EfficientNet-Lite, 2020. Block arguments, the variants' coefficients and batch-norm epsilon (1e-3)
as in ``tensorflow/tpu`` ``models/official/efficientnet/lite/efficientnet_lite_builder.py``; how
filters and repeats are scaled as in ``../efficientnet_model.py`` there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tlpipe.errors import WeightsError

INPUT = "input"
FEATURES = "features"
LOGITS = "logits"

_OPSET = 17
_IR_VERSION = 8
_EPSILON = 1e-3
_STEM_FILTERS = 32
_HEAD_FILTERS = 1280
_FETCH = "Fetch the weights that the card names: tlpipe models pull BACKBONE."


@dataclass(frozen=True)
class Variant:
    """How a network of the family is scaled.

    Attributes
    ----------
    width : float
        What the stages' filters are multiplied by.
    depth : float
        What the stages' repeats are multiplied by.
    size : int
        Height and width of the input, pixels.

    Notes
    -----
    Source: ``efficientnet_lite_params`` in ``efficientnet_lite_builder.py``.
    """

    width: float
    depth: float
    size: int

    def filters(self, base: int) -> int:
        """`base` filters, scaled: to the nearest multiple of 8, but not by -10 % or more.

        Source: ``round_filters`` in ``efficientnet_model.py``, with ``depth_divisor`` 8.
        """
        scaled = base * self.width
        rounded = max(8, int(scaled + 4) // 8 * 8)
        return rounded if rounded >= 0.9 * scaled else rounded + 8

    def repeats(self, base: int) -> int:
        """`base` repeats, scaled and rounded up.

        Source: ``round_repeats`` in ``efficientnet_model.py``.
        """
        return math.ceil(base * self.depth)


VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        "efficientnet-lite0": Variant(1.0, 1.0, 224),
        "efficientnet-lite1": Variant(1.0, 1.1, 240),
        "efficientnet-lite2": Variant(1.1, 1.2, 260),
    }
)
"""The networks that can be built, by architecture."""


@dataclass(frozen=True)
class _Stage:
    """One row of the architecture's table, before scaling."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    filters: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels that TensorFlow's "SAME" adds before and after an axis of `size` pixels.

    As many as give ceil(size / stride) outputs; the odd one comes after. With a stride of 2 they
    depend on whether `size` is even: a kernel of 3 takes (0, 1) on 224 pixels, (1, 1) on 33.

    Source: ``tf.nn``, "Notes on padding", in TensorFlow's documentation.
    """
    outputs = math.ceil(size / stride)
    total = max((outputs - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


@dataclass(frozen=True)
class _Maps:
    """Feature maps in the graph: their tensor's name, their number, and height and width."""

    name: str
    channels: int
    size: int


class _Builder:
    """Collects nodes; every weight it is asked for is taken from the checkpoint."""

    def __init__(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        self._tensors = tensors
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}

    def weight(self, name: str) -> str:
        if name not in self._tensors:
            raise WeightsError(
                f"The checkpoint has no tensor {name!r}: it is another network.",
                hint=_FETCH,
            )
        self.initializers.setdefault(name, numpy_helper.from_array(self._tensors[name], name))
        return name

    def add(self, op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Append a node; it and its output are called `name`."""
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def convolution(
        self,
        x: _Maps,
        weight: str,
        norm: str,
        *,
        filters: int,
        kernel: int = 1,
        stride: int = 1,
        depthwise: bool = False,
    ) -> _Maps:
        """Convolution with "SAME" padding, then batch normalisation."""
        expected = (filters, 1 if depthwise else x.channels, kernel, kernel)
        found = self._tensors[self.weight(weight)].shape
        if found != expected:
            raise WeightsError(
                f"The checkpoint's tensor {weight!r} has the shape {found}; expected was"
                f" {expected}: it is another network.",
                hint=_FETCH,
            )
        before, after = same_padding(x.size, kernel, stride)
        y = self.add(
            "Conv",
            [x.name, weight],
            weight.removesuffix(".weight"),
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[before, before, after, after],
            group=filters if depthwise else 1,
        )
        parts = ("weight", "bias", "running_mean", "running_var")
        y = self.add(
            "BatchNormalization",
            [y, *(self.weight(f"{norm}.{part}") for part in parts)],
            norm,
            epsilon=_EPSILON,
        )
        return _Maps(y, filters, math.ceil(x.size / stride))

    def relu6(self, x: _Maps) -> _Maps:
        for name, bound in (("relu6_min", 0.0), ("relu6_max", 6.0)):
            array = np.array(bound, np.float32)
            self.initializers.setdefault(name, numpy_helper.from_array(array, name))
        y = self.add("Clip", [x.name, "relu6_min", "relu6_max"], f"{x.name}/relu6")
        return replace(x, name=y)


def build_efficientnet_lite(
    tensors: Mapping[str, NDArray[Any]], architecture: str
) -> onnx.ModelProto:
    """Full network with its own 1000-class layer.

    Parameters
    ----------
    tensors : mapping of str to array
        State dict of that network, float32.
    architecture : str
        A key of ``VARIANTS``.

    Returns
    -------
    onnx.ModelProto
        Input ``input`` float32 (N, 3, size, size), normalised RGB; outputs ``features`` float32
        (N, 1280), the last layer's input, and ``logits`` float32 (N, 1000).

    Raises
    ------
    WeightsError
        A tensor is missing, or a convolution's has another shape.
    """
    variant = VARIANTS[architecture]
    net = _Builder(tensors)
    image = _Maps(INPUT, 3, variant.size)
    x = net.convolution(
        image, "_conv_stem.weight", "_bn0", filters=_STEM_FILTERS, kernel=3, stride=2
    )
    x = net.relu6(x)
    index = 0
    for number, stage in enumerate(_STAGES):
        # Stem and head are not scaled, nor are the repeats of the stages next to them.
        fixed = number in (0, len(_STAGES) - 1)
        filters = variant.filters(stage.filters)
        for repeat in range(stage.repeats if fixed else variant.repeats(stage.repeats)):
            x = _block(net, x, f"_blocks.{index}", stage, filters, first=repeat == 0)
            index += 1
    x = net.relu6(net.convolution(x, "_conv_head.weight", "_bn1", filters=_HEAD_FILTERS))
    pool = net.add("GlobalAveragePool", [x.name], "pool")
    net.add("Flatten", [pool], FEATURES, axis=1)
    fc = [net.weight("_fc.weight"), net.weight("_fc.bias")]
    net.add("Gemm", [FEATURES, *fc], LOGITS, transB=1)

    float32 = TensorProto.FLOAT
    classes, dim = tensors["_fc.weight"].shape
    graph = helper.make_graph(
        net.nodes,
        architecture,
        [helper.make_tensor_value_info(INPUT, float32, ["N", 3, variant.size, variant.size])],
        [
            helper.make_tensor_value_info(FEATURES, float32, ["N", dim]),
            helper.make_tensor_value_info(LOGITS, float32, ["N", classes]),
        ],
        list(net.initializers.values()),
    )
    model = helper.make_model(
        graph,
        producer_name="tlpipe",
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _block(
    net: _Builder, x: _Maps, name: str, stage: _Stage, filters: int, *, first: bool
) -> _Maps:
    """Inverted residual block: expand, depthwise convolution, project; add, but for the first.

    The first of a stage has the stride, and in each of these networks other filters than its input.
    """
    wide = x.channels * stage.expand
    y = x
    if stage.expand != 1:
        y = net.convolution(y, f"{name}._expand_conv.weight", f"{name}._bn0", filters=wide)
        y = net.relu6(y)
    y = net.convolution(
        y,
        f"{name}._depthwise_conv.weight",
        f"{name}._bn1",
        filters=wide,
        kernel=stage.kernel,
        stride=stage.stride if first else 1,
        depthwise=True,
    )
    y = net.relu6(y)
    y = net.convolution(y, f"{name}._project_conv.weight", f"{name}._bn2", filters=filters)
    return y if first else replace(y, name=net.add("Add", [y.name, x.name], f"{name}.add"))
