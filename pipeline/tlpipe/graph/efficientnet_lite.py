"""Builds EfficientNet-Lite0 in ONNX from its pretrained tensors.

The tensors go into the graph as they are in the checkpoint: same names, same bytes. Batch
normalisation is not folded into the convolutions here (ONNX Runtime does that for itself when it
opens the file), so that the graph's weights can be compared with the published ones bit by bit.

Takes arrays, gives an ``onnx.ModelProto``.

Source: Tan and Le, "EfficientNet", ICML 2019 (arXiv:1905.11946), table 1, for the stages; the
"lite" changes (no squeeze-and-excite, ReLU6, stem and head not scaled) from the release notes of
EfficientNet-Lite, 2020. Block arguments, batch-norm epsilon (1e-3) and TensorFlow's "SAME" padding
as in ``tensorflow/tpu`` ``models/official/efficientnet/lite``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class _StageArguments:
    """One row of the architecture's table."""

    repeats: int
    kernel: int
    stride: int
    expand: int


_STAGES = (
    _StageArguments(1, 3, 1, 1),
    _StageArguments(2, 3, 2, 6),
    _StageArguments(2, 5, 2, 6),
    _StageArguments(3, 3, 2, 6),
    _StageArguments(3, 5, 1, 6),
    _StageArguments(4, 5, 2, 6),
    _StageArguments(1, 3, 1, 6),
)


class _Builder:
    """Collects nodes; every weight it is asked for is taken from the checkpoint."""

    def __init__(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        self._tensors = tensors
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}

    def weight(self, name: str) -> str:
        if name not in self._tensors:
            raise WeightsError(f"The checkpoint has no tensor {name!r}: it is another network.")
        self.initializers.setdefault(name, numpy_helper.from_array(self._tensors[name], name))
        return name

    def add(self, op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Append a node; it and its output are called `name`."""
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def convolution(self, x: str, weight: str, norm: str, *, stride: int = 1) -> str:
        """Convolution with "SAME" padding, then batch normalisation."""
        out_channels, per_group, kernel, _ = self._tensors[self.weight(weight)].shape
        depthwise = per_group == 1 and kernel > 1 and weight.endswith("_depthwise_conv.weight")
        # "SAME" for even inputs: kernel - stride pixels in all, the odd one at the end.
        before, after = (kernel - stride) // 2, kernel - stride - (kernel - stride) // 2
        y = self.add(
            "Conv",
            [x, weight],
            weight.removesuffix(".weight"),
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[before, before, after, after],
            group=out_channels if depthwise else 1,
        )
        parts = ("weight", "bias", "running_mean", "running_var")
        return self.add(
            "BatchNormalization",
            [y, *(self.weight(f"{norm}.{part}") for part in parts)],
            norm,
            epsilon=_EPSILON,
        )

    def relu6(self, x: str) -> str:
        for name, bound in (("relu6_min", 0.0), ("relu6_max", 6.0)):
            array = np.array(bound, np.float32)
            self.initializers.setdefault(name, numpy_helper.from_array(array, name))
        return self.add("Clip", [x, "relu6_min", "relu6_max"], f"{x}/relu6")


def build_efficientnet_lite0(tensors: Mapping[str, NDArray[Any]]) -> onnx.ModelProto:
    """Full network with its own 1000-class layer.

    Parameters
    ----------
    tensors : mapping of str to array
        State dict of ``efficientnet-lite0``, float32.

    Returns
    -------
    onnx.ModelProto
        Input ``input`` float32 (N, 3, 224, 224), normalised RGB; outputs ``features`` float32
        (N, 1280), the last layer's input, and ``logits`` float32 (N, 1000).

    Raises
    ------
    WeightsError
        A tensor is missing.
    """
    net = _Builder(tensors)
    x = net.relu6(net.convolution(INPUT, "_conv_stem.weight", "_bn0", stride=2))
    index = 0
    for stage in _STAGES:
        for repeat in range(stage.repeats):
            stride = stage.stride if repeat == 0 else 1
            x = _block(net, x, f"_blocks.{index}", stage, stride, residual=repeat > 0)
            index += 1
    x = net.relu6(net.convolution(x, "_conv_head.weight", "_bn1"))
    x = net.add("GlobalAveragePool", [x], "pool")
    net.add("Flatten", [x], FEATURES, axis=1)
    fc = [net.weight("_fc.weight"), net.weight("_fc.bias")]
    net.add("Gemm", [FEATURES, *fc], LOGITS, transB=1)

    float32 = TensorProto.FLOAT
    classes, dim = tensors["_fc.weight"].shape
    graph = helper.make_graph(
        net.nodes,
        "efficientnet-lite0",
        [helper.make_tensor_value_info(INPUT, float32, ["N", 3, 224, 224])],
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
    net: _Builder, x: str, name: str, stage: _StageArguments, stride: int, *, residual: bool
) -> str:
    """Inverted residual block: expand, depthwise convolution, project, add."""
    y = x
    if stage.expand != 1:
        y = net.relu6(net.convolution(y, f"{name}._expand_conv.weight", f"{name}._bn0"))
    y = net.convolution(y, f"{name}._depthwise_conv.weight", f"{name}._bn1", stride=stride)
    y = net.convolution(net.relu6(y), f"{name}._project_conv.weight", f"{name}._bn2")
    return net.add("Add", [y, x], f"{name}.add") if residual else y
