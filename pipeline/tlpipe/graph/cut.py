"""Cuts a network at a tensor: what feeds the tensor stays, all else goes.

Takes and gives ``onnx.ModelProto``.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from tlpipe.errors import BackboneError
from tlpipe.graph import EMBEDDINGS, OWN_PREFIX


def cut_at(model: onnx.ModelProto, tensor: str, dim: int) -> onnx.ModelProto:
    """Feature extractor that ends at `tensor`, given out as ``embeddings``.

    Parameters
    ----------
    model : onnx.ModelProto
        Not changed.
    tensor : str
        Name of a float32 tensor of shape (N, `dim`) inside the graph.
    dim : int
        Length D of one embedding.

    Returns
    -------
    onnx.ModelProto
        The nodes and initializers that `tensor` depends on, unchanged and in order, followed by
        one ``Identity`` that names the output (unless it has that name).

    Raises
    ------
    BackboneError
        The graph computes no tensor of that name.
    """
    nodes = _ancestors(model.graph, tensor)
    if not nodes:
        outputs = [value.name for value in model.graph.output]
        raise BackboneError(
            f"The network computes no tensor {tensor!r}; its outputs are {outputs}.",
            hint="Correct 'tensor' under [output] in the backbone's card.",
        )
    used = {name for node in nodes for name in _reads(node)}
    nodes += named_embeddings(tensor)
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    for field in ("node", "initializer", "input", "output", "value_info"):
        cut.graph.ClearField(field)
    cut.graph.node.extend(nodes)
    cut.graph.initializer.extend(t for t in model.graph.initializer if t.name in used)
    cut.graph.input.extend(value for value in model.graph.input if value.name in used)
    cut.graph.output.append(
        helper.make_tensor_value_info(EMBEDDINGS, TensorProto.FLOAT, ["N", dim])
    )
    return cut


def named_embeddings(tensor: str) -> list[onnx.NodeProto]:
    """What gives `tensor` the name ``embeddings``: one Identity, or nothing where it has it."""
    if tensor == EMBEDDINGS:
        return []
    name = f"{OWN_PREFIX}{EMBEDDINGS}"
    return [helper.make_node("Identity", [tensor], [EMBEDDINGS], name=name)]


def _ancestors(graph: onnx.GraphProto, tensor: str) -> list[onnx.NodeProto]:
    """Nodes that `tensor` depends on, in the graph's (topological) order."""
    wanted = {tensor}
    found: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            wanted.update(_reads(node))
            found.append(node)
    return found[::-1]


def _reads(node: onnx.NodeProto) -> set[str]:
    """Names a node reads, those read by its subgraphs from outside included."""
    names = {name for name in node.input if name}
    for attribute in node.attribute:
        for subgraph in (attribute.g, *attribute.graphs):
            for inner in subgraph.node:
                names |= _reads(inner)
    return names
