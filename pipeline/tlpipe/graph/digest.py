"""Digests the weights of a network, so that "frozen" can be proved.

A digest covers the name, type, shape and bytes of every tensor that belongs to the backbone; what
tlpipe adds (named ``tlpipe/...``) is left out. It does not depend on how protobuf lays the file
out, nor on the order of the tensors.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import onnx

from tlpipe.graph import EMBEDDINGS, HEAD_PREFIX, OWN_PREFIX, PROBABILITIES
from tlpipe.graph.head_nodes import SHAPES, head_nodes, head_outputs, nearest_shapes
from tlpipe.graph.nearest_nodes import stated_attribute
from tlpipe.graph.references import array_of


def tensor_digests(model: onnx.ModelProto) -> dict[str, str]:
    """SHA-256 of each backbone tensor, by name.

    Initializers and the values of Constant nodes, those of subgraphs included. The digest covers
    the ONNX data type, the shape and the little-endian elements.
    """
    return {
        name: digest
        for name, digest in _all_digests(model).items()
        if not name.startswith(OWN_PREFIX)
    }


def weights_digest(model: onnx.ModelProto) -> str:
    """SHA-256 over all backbone tensors: one number for "these very weights"."""
    return combined(tensor_digests(model))


def combined(digests: Mapping[str, str]) -> str:
    """SHA-256 over what ``tensor_digests`` gave, whatever its order."""
    digest = hashlib.sha256()
    for name, value in sorted(digests.items()):
        digest.update(f"{name}\0{value}\n".encode())
    return digest.hexdigest()


def network_digest(model: onnx.ModelProto) -> str:
    """SHA-256 over all that a network computes: every tensor and every operator in its order.

    Those named ``tlpipe/...`` are included, metadata are not.
    """
    digest = hashlib.sha256(combined(_all_digests(model)).encode())
    for node in model.graph.node:
        digest.update(hashlib.sha256(node.SerializeToString(deterministic=True)).digest())
    for value in (*model.graph.input, *model.graph.output):
        digest.update(f"{value.name}\0".encode())
    for entry in sorted(model.opset_import, key=lambda entry: entry.domain):
        digest.update(f"{entry.domain}\0{entry.version}\0".encode())
    return digest.hexdigest()


def same_graph(model: onnx.ModelProto, features: onnx.ModelProto, full: onnx.ModelProto) -> bool:
    """Whether `model` computes its embeddings as `features` does, and only a head behind them.

    Parameters
    ----------
    model : onnx.ModelProto
        A classifier.
    features : onnx.ModelProto
        The backbone as prepared anew: every operator of it, attributes and connections included,
        and every constant of its preprocessing must be in `model`.
    full : onnx.ModelProto
        The pretrained network; its own last layer may be in `model`, too. All else must be a head
        that ``graph.head_nodes`` makes, operator by operator, and the outputs its own.
    """
    ours, backbone, own = _nodes(model), _nodes(features), _nodes(full)
    if backbone - ours:
        return False
    behind = Counter({n: k for n, k in (ours - backbone).items() if n not in own})
    outputs = _head_outputs(behind, stated_attribute(model))
    if outputs is None or {value.name for value in model.graph.output} != outputs:
        return False
    if not _defined_alike(model.graph, features.graph):
        return False
    if list(model.opset_import) != list(features.opset_import) or len(model.functions) != len(
        features.functions
    ):
        return False
    expected, found = _all_digests(features), _all_digests(model)
    constants = {name for name in found if name.startswith(OWN_PREFIX)}
    constants = {name for name in constants if not name.startswith(HEAD_PREFIX)}
    return all(expected.get(name) == found[name] for name in constants)


def _defined_alike(model: onnx.GraphProto, features: onnx.GraphProto) -> bool:
    """Whether all that the backbone reads is defined in `model` as in `features`, and only there.

    ONNX Runtime opens a file that defines a tensor twice, or as a sparse tensor, and which of them
    counts is its own affair.
    """
    stored, inputs = (
        [value.name for value in values] for values in (model.initializer, model.input)
    )
    made = [name for node in model.node for name in node.output if name]
    return (
        not model.sparse_initializer
        and max(Counter([*stored, *inputs, *made]).values(), default=1) == 1
        and inputs == [value.name for value in features.input]
        and {tensor.name for tensor in features.initializer} <= set(stored)
    )


def _head_outputs(nodes: Counter[bytes], nearest: int) -> set[str] | None:
    """Outputs of a classifier with these operators behind its backbone; None if they are no head.

    Without any, the network has its own last layer as its head.
    """
    if not nodes:
        return {PROBABILITIES, EMBEDDINGS}
    for shape in (*SHAPES, *nearest_shapes(nearest)):
        if nodes == _counted(head_nodes(shape)):
            return {EMBEDDINGS, *head_outputs(shape)}
    return None


def _nodes(model: onnx.ModelProto) -> Counter[bytes]:
    """Each node as bytes: operator, attributes and connections."""
    return _counted(model.graph.node)


def _counted(nodes: Iterable[onnx.NodeProto]) -> Counter[bytes]:
    return Counter(node.SerializeToString(deterministic=True) for node in nodes)


def _all_digests(model: onnx.ModelProto) -> dict[str, str]:
    digests: dict[str, str] = {}
    for name, tensor in _tensors(model.graph):
        start = f"{tensor.data_type}:{tuple(tensor.dims)}:".encode()
        digests[name] = hashlib.sha256(start + _elements(tensor)).hexdigest()
    return digests


def _elements(tensor: onnx.TensorProto) -> bytes:
    """Elements of a tensor, little-endian; a text is preceded by its length."""
    if tensor.data_type == onnx.TensorProto.STRING:
        return b"".join(b"%d:%b" % (len(text), text) for text in tensor.string_data)
    return array_of(tensor).tobytes()


def _tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield f"{node.output[0]}:{attribute.name}", attribute.t
            for subgraph in (attribute.g, *attribute.graphs):
                yield from _tensors(subgraph)
