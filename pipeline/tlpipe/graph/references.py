"""Tensors whose values stand in a file: references, and ONNX's external data.

Takes ``onnx.TensorProto``, gives arrays. Only this module reads what a reference refers to.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tlpipe.errors import BackboneError
from tlpipe.files import is_file, is_utf8
from tlpipe.graph import wire

_BLOCK = 1 << 24  # bytes that are read at a time


def data_files(model: onnx.ModelProto, path: Path) -> list[Path]:
    """Files beside the one at `path` that hold weights of the network read from it, sorted."""
    own = str(path.resolve())
    found = {facts_of(tensor)["location"] for _, tensor in references(model)}
    return sorted(Path(location) for location in found if location != own)


def references(model: onnx.ModelProto) -> Iterator[tuple[str, TensorProto]]:
    """Initializers of the main graph that are references, by name."""
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            yield tensor.name, tensor


def array_of(tensor: TensorProto) -> NDArray[Any]:
    """Values of a tensor, read from its file where it is a reference.

    Raises
    ------
    BackboneError
        Its file is gone or has become shorter; or the tensor is damaged.
    """
    if tensor.data_location != TensorProto.EXTERNAL:
        try:
            return np.asarray(numpy_helper.to_array(tensor))
        except (ValueError, TypeError, KeyError) as exc:
            raise _damaged(tensor, exc) from exc
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type).newbyteorder("<")
    try:
        return np.frombuffer(payload(tensor), dtype).reshape(tuple(tensor.dims))
    except ValueError as exc:
        raise _damaged(tensor, exc) from exc


def _damaged(tensor: TensorProto, exc: Exception) -> BackboneError:
    return BackboneError(
        f"The tensor {tensor.name!r} of the shape {list(tensor.dims)} is damaged: {exc}.",
        hint="Copy or export the network again.",
    )


def payload(tensor: TensorProto) -> bytearray:
    """Bytes that a reference refers to.

    Raises
    ------
    BackboneError
        Their file is gone or has become shorter.
    """
    data = bytearray()
    for block in payload_blocks(tensor):
        data += block
    return data


def payload_blocks(tensor: TensorProto) -> Iterator[bytes]:
    """The same, in pieces.

    Raises
    ------
    BackboneError
        Their file is gone or has become shorter.
    """
    facts = facts_of(tensor)
    left = int(facts["length"])
    reason = "it has become shorter"
    try:
        with Path(facts["location"]).open("rb") as stream:
            stream.seek(int(facts["offset"]))
            while left and (block := stream.read(min(left, _BLOCK))):
                left -= len(block)
                yield block
    except OSError as exc:
        reason = str(exc.strerror)
    if left:
        raise BackboneError(
            f"The weights {tensor.name!r} can no longer be read from {facts['location']!r}:"
            f" {reason}.",
            hint="Bring the file back, and run the same command again.",
        )


def inlined(tensor: TensorProto) -> TensorProto:
    """`tensor` itself, or the same with its values inside where it is a reference."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return tensor
    full = without_data(tensor)
    full.raw_data = bytes(payload(tensor))
    return full


def resolve(model: onnx.ModelProto, path: Path, mark: str) -> None:
    """Make the references of external data absolute, after they were checked.

    References of the main graph's initializers stay references; any others (in subgraphs, in
    attributes, or small) are read at once.

    Parameters
    ----------
    model : onnx.ModelProto
    path : pathlib.Path
        Its file.
    mark : str
        The location of references that ``wire`` made a moment ago, to the file itself.
    """
    own = str(path.resolve())
    for tensor, is_main in _all_tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        facts = facts_of(tensor)
        is_own = is_main and facts.get("location") == mark
        facts = facts | {"location": own} if is_own else _checked(tensor, facts, path)
        del tensor.external_data[:]
        for key, value in facts.items():
            tensor.external_data.add(key=key, value=value)
        large = int(facts["length"]) > wire.LARGE and tensor.data_type in wire.PLAIN_TYPES
        if not (is_own or (is_main and large)):
            tensor.CopyFrom(inlined(tensor))


def _checked(tensor: TensorProto, facts: Mapping[str, str], path: Path) -> dict[str, str]:
    """Facts of external data with an absolute location and a length that is there."""
    where = f"{str(path)!r} keeps the tensor {tensor.name!r} in {facts.get('location', '')!r}"
    folder = path.resolve().parent
    location = Path(facts.get("location", ""))
    try:
        file = (folder / location).resolve()
        if path.is_symlink() and not is_file(file):
            # Caches of downloads keep all files in one folder, under names of their own, and links
            # to them in another: the data then stand beside the link.
            file = (path.absolute().parent / location).resolve()
        size = file.stat().st_size if is_file(file) else -1
    except (OSError, ValueError):  # a name that is too long, or holds a zero
        file, size = folder / location, -1
    if not is_utf8(str(folder)):
        raise BackboneError(
            f"{where}, and the name of its folder is no UTF-8.",
            hint="Rename the folder, or move both files to another.",
        )
    if location.is_absolute() or not file.is_relative_to(folder):
        raise BackboneError(
            f"{where}, which is outside of its own folder.",
            hint="Weights are read from the network's own folder only. If you trust the file, copy"
            " them there: onnx.save(onnx.load(path), new_path).",
        )
    try:
        if min(tensor.dims, default=0) < 0:
            raise ValueError(f"the size {min(tensor.dims)}")
        needed = math.ceil(math.prod(tensor.dims) * wire.bits(tensor.data_type) / 8)
        offset = int(facts.get("offset", 0))
        length = int(facts.get("length", needed))
    except (KeyError, ValueError, TypeError) as exc:
        raise BackboneError(
            f"{where}, with facts that make no sense: {dict(facts)}, type {tensor.data_type}, shape"
            f" {list(tensor.dims)}.",
            hint="Export the network again.",
        ) from exc
    if size < 0:
        raise BackboneError(
            f"{where}, and there is no such file beside it.",
            hint="Get it from where the network came from, and put it into the same folder.",
        )
    if offset < 0 or length != needed or offset + length > size:
        raise BackboneError(
            f"{where}, bytes {offset} to {offset + length}; the tensor needs {needed} bytes and the"
            f" file has {size}.",
            hint="The two files do not belong together, or one is incomplete.",
        )
    return {"location": str(file), "offset": str(offset), "length": str(length)}


def _all_tensors(model: onnx.ModelProto) -> Iterator[tuple[TensorProto, bool]]:
    """Every tensor of a network, and whether it is an initializer of the main graph."""
    yield from ((tensor, True) for tensor in model.graph.initializer)
    nodes = [*model.graph.node, *(node for f in model.functions for node in f.node)]
    while nodes:
        for attribute in nodes.pop().attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t, False
            yield from ((tensor, False) for tensor in attribute.tensors)
            for subgraph in (attribute.g, *attribute.graphs):
                yield from ((tensor, False) for tensor in subgraph.initializer)
                nodes.extend(subgraph.node)


def facts_of(tensor: TensorProto) -> dict[str, str]:
    """Where the values of a reference are: location, offset, length."""
    return {entry.key: entry.value for entry in tensor.external_data}


def without_data(tensor: TensorProto) -> TensorProto:
    """Name, type and shape of a tensor alone."""
    bare = TensorProto()
    bare.CopyFrom(tensor)
    for field in ("external_data", "data_location", "raw_data"):
        bare.ClearField(field)
    return bare
