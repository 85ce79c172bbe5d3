"""Brings a network from anywhere into one form, without touching a weight.

What the many exporters do differently and what does not matter to the result: functions are
written out, weights are not listed as inputs, inputs that nothing reads are gone, open sizes of an
input are left out rather than stated as -1 or 0, operators are of a version that ONNX Runtime
implements.

Takes and gives ``onnx.ModelProto``.
"""

from __future__ import annotations

import onnx
import onnx.checker
import onnx.inliner
import onnx.version_converter

from tlpipe.errors import BackboneError
from tlpipe.graph.index import opset_of, reads

_OLDEST_OPSET = 7
"""ONNX Runtime implements operators from this version on."""

_LOWEST_IR = 4
"""From this version of the file format on, weights need not be listed as inputs."""


def tidied(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network: every tensor keeps its name and bytes.

    Parameters
    ----------
    model : onnx.ModelProto
        Not changed.

    Raises
    ------
    BackboneError
        Its operators are of a version so old that ONNX Runtime lacks it, and cannot be
        converted; or its functions call themselves.
    """
    tidy = onnx.ModelProto()
    tidy.CopyFrom(model)
    if tidy.functions:
        try:
            tidy = onnx.inliner.inline_local_functions(tidy)
        except (RuntimeError, ValueError, onnx.checker.ValidationError) as exc:
            raise BackboneError(
                f"The network's own functions cannot be written out: {exc}",
                hint="Export it again without functions.",
            ) from exc
    initializers = {tensor.name for tensor in tidy.graph.initializer}
    read = {name for node in tidy.graph.node for name in reads(node)}
    read |= {value.name for value in tidy.graph.output}
    inputs = [v for v in tidy.graph.input if v.name in read and v.name not in initializers]
    del tidy.graph.input[:]
    tidy.graph.input.extend(inputs)
    for value in tidy.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_value") and dim.dim_value < 1:  # some exporters' word for "open"
                dim.ClearField("dim_value")
    tidy.ir_version = max(tidy.ir_version, _LOWEST_IR)
    if opset_of(tidy) < _OLDEST_OPSET and tidy.opset_import:
        tidy = converted(tidy, _OLDEST_OPSET)
    return tidy


def converted(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The same network with operators of another version; no weight changes.

    Raises
    ------
    BackboneError
        It cannot be converted.
    """
    try:
        return onnx.version_converter.convert_version(model, opset)
    except Exception as exc:  # the converter raises RuntimeError and others
        raise BackboneError(
            f"The network uses version {opset_of(model)} of ONNX's operators, and cannot be"
            f" converted to version {opset}: {exc}",
            hint="Export it again with a newer exporter.",
        ) from exc
