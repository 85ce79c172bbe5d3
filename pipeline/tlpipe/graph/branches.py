"""Writes out the branches that a network always takes.

Scripted networks hold ``If`` nodes that ask about sizes ("is this axis 1?"), not about the image.
For images of a fixed size such a question has one answer, and the node can be replaced by the
branch that is taken; then the graph can be followed. Whether the answer stays the same for other
batches is among the things that ``batch`` proves.

Takes and gives ``onnx.ModelProto``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import onnx
from onnx import helper

from tlpipe.graph import OWN_PREFIX
from tlpipe.graph.index import Index, attribute, rename
from tlpipe.graph.io import opened

if TYPE_CHECKING:
    from tlpipe.seams import OpenGraph

_MOST_ROUNDS = 8  # branches inside of branches


def straightened(
    model: onnx.ModelProto, feeds: Mapping[str, Any], open_graph: OpenGraph
) -> onnx.ModelProto:
    """The network with the branches written out that do not depend on the image.

    Parameters
    ----------
    model : onnx.ModelProto
        Not changed.
    feeds : mapping of str to array
        One batch for its inputs.
    open_graph : OpenGraph

    Returns
    -------
    onnx.ModelProto
        `model` itself where it has no such branches.
    """
    for _ in range(_MOST_ROUNDS):
        index = Index(model.graph)
        asked = {
            node.input[0]
            for node in index.nodes
            if node.op_type == "If" and not index.is_data(node.input[0])
        }
        if not asked:
            break
        model = _without(model, _answers(model, sorted(asked), feeds, open_graph))
    return model


def _answers(
    model: onnx.ModelProto, names: list[str], feeds: Mapping[str, Any], open_graph: OpenGraph
) -> dict[str, bool]:
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    del observed.graph.output[:]
    observed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    values = opened(observed, open_graph)(feeds, names)
    return {name: bool(value.ravel()[0]) for name, value in zip(names, values, strict=True)}


def _without(model: onnx.ModelProto, answers: Mapping[str, bool]) -> onnx.ModelProto:
    """The network with each ``If`` on one of `answers` replaced by its branch."""
    straight = onnx.ModelProto()
    straight.CopyFrom(model)
    nodes: list[onnx.NodeProto] = []
    for number, node in enumerate(model.graph.node):
        if node.op_type != "If" or node.input[0] not in answers:
            nodes.append(node)
            continue
        branch = attribute(node, "then_branch" if answers[node.input[0]] else "else_branch")
        assert isinstance(branch, onnx.GraphProto)
        names = _fresh_names(branch, f"{OWN_PREFIX}branch/{number}/")
        for tensor in branch.initializer:
            copy = straight.graph.initializer.add()
            copy.CopyFrom(tensor)
            copy.name = names[tensor.name]
        for inner in branch.node:
            copied = onnx.NodeProto()
            copied.CopyFrom(inner)
            rename(copied, names)
            nodes.append(copied)
        for made, wanted in zip(branch.output, node.output, strict=True):
            source = names.get(made.name, made.name)
            nodes.append(helper.make_node("Identity", [source], [wanted]))
    del straight.graph.node[:]
    straight.graph.node.extend(nodes)
    return straight


def _fresh_names(branch: onnx.GraphProto, prefix: str) -> dict[str, str]:
    """New names for what a branch makes: two branches may use the same ones."""
    made = [tensor.name for tensor in branch.initializer]
    made += [name for node in branch.node for name in node.output if name]
    return {name: f"{prefix}{name}" for name in made}
