"""Brings a network from anywhere into one form, without touching a weight.

What the many exporters do differently and what does not matter to the result: functions are
written out, weights are not listed as inputs, inputs that nothing reads are gone, open sizes of an
input are left out rather than stated as -1 or 0, operators are of a version that ONNX Runtime
implements.

Takes and gives ``onnx.ModelProto``.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx
import onnx.checker
import onnx.inliner
import onnx.version_converter

from tlpipe.errors import BackboneError
from tlpipe.graph.index import opset_of, reads

_OLDEST_OPSET = 7
"""ONNX Runtime implements operators from this version on."""

_MOST_NODES = 1_000_000
"""Operators of a network whose functions are written out: a few that call each other may be many
more than fit in memory."""

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
            if _written_out(tidy) > _MOST_NODES:
                raise ValueError(f"they would become more than {_MOST_NODES:,} operators")
            tidy = onnx.inliner.inline_local_functions(tidy)
        except (RuntimeError, ValueError, onnx.checker.ValidationError) as exc:
            raise BackboneError(
                f"The network's own functions cannot be written out: {exc}",
                hint="Export it again without functions.",
            ) from exc
    initializers = {tensor.name for tensor in tidy.graph.initializer}
    read = {name for node in tidy.graph.node for name in reads(node)}
    read |= {value.name for value in tidy.graph.output}
    stated = {value.name: value for value in reversed(tidy.graph.input)}  # each once, the first
    inputs = [v for name, v in reversed(stated.items()) if name in read - initializers]
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


def _written_out(model: onnx.ModelProto) -> int:
    """Number of operators of a network once its functions are written out."""
    bodies = {(f.domain, f.name): f.node for f in model.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size(nodes: Iterable[onnx.NodeProto]) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            if key in bodies and key not in sizes:
                sizes[key] = 1  # of one that calls itself, which the inliner refuses
                sizes[key] = size(bodies[key])
            total += sizes.get(key, 1)
            for entry in node.attribute:
                total += sum(size(subgraph.node) for subgraph in (entry.g, *entry.graphs))
        return total

    return size(model.graph.node)


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
