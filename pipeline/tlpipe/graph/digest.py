"""Digests the weights of a network, so that "frozen" can be proved.

A digest covers the name, type, shape and bytes of every tensor that belongs to the backbone; what
tlpipe adds (named ``tlpipe/...``) is left out. It does not depend on how protobuf lays the file
out, nor on the order of the tensors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import onnx
from onnx import numpy_helper

from tlpipe.graph import OWN_PREFIX


def tensor_digests(model: onnx.ModelProto) -> dict[str, str]:
    """SHA-256 of each backbone tensor, by name.

    Initializers and the values of Constant nodes, those of subgraphs included. The digest covers
    the ONNX data type, the shape and the little-endian elements.
    """
    digests: dict[str, str] = {}
    for name, tensor in _tensors(model.graph):
        if not name.startswith(OWN_PREFIX):
            array = numpy_helper.to_array(tensor)
            head = f"{tensor.data_type}:{tuple(tensor.dims)}:".encode()
            digests[name] = hashlib.sha256(head + array.tobytes()).hexdigest()
    return digests


def weights_digest(model: onnx.ModelProto) -> str:
    """SHA-256 over all backbone tensors: one number for "these very weights"."""
    digest = hashlib.sha256()
    for name, value in sorted(tensor_digests(model).items()):
        digest.update(f"{name}\0{value}\n".encode())
    return digest.hexdigest()


def backbone_nodes(model: onnx.ModelProto) -> list[bytes]:
    """Each backbone node in order: operator, attributes and connections, as bytes."""
    return [
        node.SerializeToString(deterministic=True)
        for node in model.graph.node
        if not node.name.startswith(OWN_PREFIX)
    ]


def _tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield f"{node.output[0]}:{attribute.name}", attribute.t
            for subgraph in (attribute.g, *attribute.graphs):
                yield from _tensors(subgraph)
