"""Reads and writes ONNX files, their weights apart.

Takes paths, gives ``onnx.ModelProto``, and back. In all of this package a network is *lean*: its
large initializers stand in it as references into the file they came from (see ``wire``), and
``array_of`` reads one. So a network is cheap to copy, and no more than one copy of its weights is
ever in memory. The references of a file with ONNX's external data are of the same form; they may
only lead to files in the network's own folder.
"""

from __future__ import annotations

import mmap
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError, Message
from onnx import TensorProto, helper

from tlpipe.errors import BackboneError
from tlpipe.files import is_file, is_utf8
from tlpipe.graph import wire
from tlpipe.graph.references import (
    facts_of,
    payload_blocks,
    references,
    resolve,
    without_data,
)

if TYPE_CHECKING:
    from tlpipe.seams import OpenGraph, RunGraph

_ANOTHER = "Name an ONNX file (.onnx), or export or copy it again."
_LIMIT = 2**31 - 1  # bytes of one protocol buffer


def load_model(path: Path) -> onnx.ModelProto:
    """Network in an ONNX file, lean.

    Raises
    ------
    BackboneError
        The file cannot be read or is no ONNX model; or its weights are in other files, and these
        are missing, too short, or outside of its folder.
    """
    where = repr(str(path))
    mark = secrets.token_hex()  # no file can state it: so our own references are told from its
    if is_file(path) and not path.stat().st_size:  # it could not be mapped
        raise BackboneError(
            f"{where} is no ONNX model: it is empty.",
            hint=_ANOTHER,
        )
    try:
        with (
            path.open("rb") as stream,
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as buffer,
        ):
            # A reference cannot hold a name that is no UTF-8: then all is read.
            location = str(path.resolve())
            content = wire.skeleton(buffer, mark) if is_utf8(location) else bytes(buffer)
        model = onnx.ModelProto()
        model.ParseFromString(content)
    except (OSError, DecodeError, ValueError) as exc:
        raise BackboneError(
            f"{where} cannot be read as an ONNX model: {exc}.",
            hint=_ANOTHER,
        ) from exc
    if not model.graph.node:
        raise BackboneError(
            f"{where} is no ONNX model: it holds no node.",
            hint=_ANOTHER,
        )
    if (name := _no_text(model)) is not None:
        raise BackboneError(
            f"{where} is damaged: the name {name!r} in it is no UTF-8.",
            hint=_ANOTHER,
        )
    resolve(model, path, mark)
    return model


def _no_text(message: Message) -> bytes | None:
    """The first name in a message that is no UTF-8, which protobuf gives as bytes; else None."""
    for field, value in message.ListFields():
        if field.name in ("doc_string", "metadata_props"):  # for readers; may be anything
            continue
        if field.type == field.TYPE_MESSAGE:
            parts = [value] if isinstance(value, Message) else value
            found = next((bad for part in parts if (bad := _no_text(part)) is not None), None)
        elif field.type == field.TYPE_STRING:
            names = [value] if isinstance(value, (str, bytes)) else value
            found = next((name for name in names if isinstance(name, bytes)), None)
        else:
            continue
        if found is not None:
            return found
    return None


def write_model(model: onnx.ModelProto, path: Path) -> None:
    """Write a network with its weights inside, after ONNX's checker has passed it.

    The weights are copied from file to file, block by block.

    Raises
    ------
    BackboneError
        The checker refuses it, it is larger than an ONNX file can be, or a file that its weights
        are in is gone or has become shorter.
    OSError
        The file cannot be written.
    """
    check(model)
    apart, weights = _split(model)
    graph = apart.graph.SerializeToString(deterministic=True)
    apart.ClearField("graph")
    rest = apart.SerializeToString(deterministic=True)
    heads = [_header(tensor) for tensor in weights]
    total = len(graph) + sum(len(head) + length for head, length in heads)
    if total + len(rest) > _LIMIT - 64:
        raise BackboneError(
            f"The network has {total / 1e9:.1f} GB; one ONNX file can hold 2.1 GB at most.",
            hint="Choose a smaller backbone, or one in float16.",
        )
    with path.open("wb") as stream:
        stream.write(rest + wire.graph_header(total) + graph)
        for tensor, (head, _) in zip(weights, heads, strict=True):
            stream.write(head)
            for block in payload_blocks(tensor):
                stream.write(block)


def _header(tensor: TensorProto) -> tuple[bytes, int]:
    """What stands before a reference's payload in a graph, and the payload's length."""
    length = int(facts_of(tensor)["length"])
    bare = without_data(tensor).SerializeToString(deterministic=True)
    message = wire.payload_header(bare, length)
    return wire.initializer_header(len(message) + length) + message, length


def check(model: onnx.ModelProto) -> None:
    """Have ONNX's checker look at a network.

    Raises
    ------
    BackboneError
        It refuses it.
    """
    apart, weights = _split(model)
    apart.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in weights
    )
    try:
        onnx.checker.check_model(apart)
    except (onnx.checker.ValidationError, UnicodeDecodeError) as exc:  # of what it would cite
        reason = str(exc).strip().splitlines()[0]
        if "No Op registered" in reason:  # one of ONNX Runtime's own, listed as one of ONNX's
            return
        raise BackboneError(
            f"The network is no valid ONNX: {reason}",
            hint="Export it again, with another version of the exporter.",
        ) from exc


def _split(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[TensorProto]]:
    """The network without its references, and these."""
    apart = onnx.ModelProto()
    apart.CopyFrom(model)
    weights = [tensor for _, tensor in references(model)]
    if weights:
        inside = [t for t in apart.graph.initializer if t.data_location != TensorProto.EXTERNAL]
        del apart.graph.initializer[:]
        apart.graph.initializer.extend(inside)
    return apart, weights


@dataclass(frozen=True)
class Runnable:
    """A network in the form in which it is handed to whoever runs it.

    Attributes
    ----------
    content : bytes
        A serialized ``ModelProto`` with external data.
    folder : str
        The folder to which the locations of these data are relative; "" where there are none.
    """

    content: bytes
    folder: str


def runnable(model: onnx.ModelProto) -> Runnable:
    """`model`, ready to be run; its weights are mapped from their files, not copied."""
    locations = {facts_of(tensor)["location"] for _, tensor in references(model)}
    if not locations:
        return Runnable(model.SerializeToString(), "")
    folder = os.path.commonpath([Path(location).parent for location in locations])
    moved = onnx.ModelProto()
    moved.CopyFrom(model)
    for _, tensor in references(moved):
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = Path(entry.value).relative_to(folder).as_posix()
    return Runnable(moved.SerializeToString(), folder)


def opened(model: onnx.ModelProto, open_graph: OpenGraph, *, optimised: bool = False) -> RunGraph:
    """`model`, opened by whoever can run it.

    Raises
    ------
    BackboneError
        It cannot be opened.
    """
    ready = runnable(model)
    return open_graph(ready.content, ready.folder, optimised=optimised)


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
    kind = TensorProto.DataType.Name(tensor.elem_type).lower()
    sizes = [dim.dim_param or str(dim.dim_value or "?") for dim in tensor.shape.dim]
    return f"{value.name}: {kind} ({', '.join(sizes)})"
