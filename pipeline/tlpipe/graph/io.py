"""Reads and writes ONNX files.

Takes paths, gives ``onnx.ModelProto``, and back.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from tlpipe.errors import BackboneError


def load_model(path: Path) -> onnx.ModelProto:
    """Network in an ONNX file.

    Raises
    ------
    BackboneError
        The file cannot be read, is no ONNX model, or keeps its weights in other files.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except (OSError, DecodeError, ValueError) as exc:
        raise BackboneError(f"{str(path)!r} cannot be read as an ONNX model: {exc}.") from exc
    if not model.graph.node:
        raise BackboneError(f"{str(path)!r} is no ONNX model: it holds no node.")
    outside = [t.name for t in model.graph.initializer if t.data_location == t.EXTERNAL]
    if outside:
        raise BackboneError(
            f"{str(path)!r} keeps {len(outside)} of its tensors in other files.",
            hint="Save it as one file first: onnx.save(onnx.load(path), new_path).",
        )
    return model


def to_bytes(model: onnx.ModelProto) -> bytes:
    """Content of the file of a network, after ONNX's checker has passed it.

    Raises
    ------
    BackboneError
        The checker refuses it.
    """
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as exc:
        reason = str(exc).strip().splitlines()[0]
        raise BackboneError(f"The network is no valid ONNX: {reason}") from exc
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def metadata(model: onnx.ModelProto) -> dict[str, str]:
    """The file's metadata properties."""
    return {entry.key: entry.value for entry in model.metadata_props}


def signature(model: onnx.ModelProto) -> dict[str, list[str]]:
    """Inputs and outputs in words: "image: uint8 (N, 224, 224, 3)"."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initializers]
    return {
        "inputs": [_describe(value) for value in inputs],
        "outputs": [_describe(value) for value in model.graph.output],
    }


def _describe(value: onnx.ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    sizes = [dim.dim_param or str(dim.dim_value or "?") for dim in tensor.shape.dim]
    return f"{value.name}: {kind} ({', '.join(sizes)})"
