"""Who makes a tensor, who reads it, and which tensors do not depend on the image.

Takes a graph or a node, gives look-ups; only ``rename`` changes anything. Never runs a network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import onnx

RANDOM = frozenset(
    "RandomNormal RandomNormalLike RandomUniform RandomUniformLike Multinomial Bernoulli".split()
)
"""Operators whose results are not constant although all their inputs may be."""

_CONTROL = frozenset("If Loop Scan SequenceMap".split())


class Index:
    """Look-ups into a graph that does not change while they are used.

    Parameters
    ----------
    graph : onnx.GraphProto
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.nodes = list(graph.node)
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.inputs = [value for value in graph.input if value.name not in self.initializers]
        self.producers = {name: node for node in self.nodes for name in node.output if name}

    @cached_property
    def constants(self) -> set[str]:
        """Tensors that are the same for every image: weights, and all computed from them alone."""
        found = set(self.initializers)
        for node in self.nodes:
            if node.op_type in RANDOM or node.op_type in _CONTROL:
                continue
            if node.op_type == "Constant" or (node.input and all(n in found for n in reads(node))):
                found.update(name for name in node.output if name)
        return found

    @cached_property
    def shape_values(self) -> set[str]:
        """Tensors computed from the sizes of others, not from their values."""
        found: set[str] = set()
        for node in self.nodes:
            inputs = [name for name in reads(node) if name not in self.constants]
            if node.op_type in ("Shape", "Size") or (
                inputs and all(name in found for name in inputs)
            ):
                found.update(name for name in node.output if name)
        return found

    def tensor_of(self, layer: str) -> str:
        """The tensor of that name, else the first output of the node of that name, else ""."""
        if layer in self.producers:
            return layer
        by_node: dict[str, str] = {
            node.name: node.output[0] for node in self.nodes if node.name and node.output
        }
        return by_node.get(layer, "")

    def is_data(self, name: str) -> bool:
        """Whether a tensor depends on the image's pixels."""
        return bool(name) and name not in self.constants and name not in self.shape_values

    def ancestors(self, tensors: Iterable[str]) -> list[onnx.NodeProto]:
        """Nodes that the tensors depend on, in the graph's (topological) order."""
        wanted = set(tensors)
        found: list[onnx.NodeProto] = []
        for node in reversed(self.nodes):
            if wanted.intersection(node.output):
                wanted |= reads(node)
                found.append(node)
        return found[::-1]


def reads(node: onnx.NodeProto) -> set[str]:
    """Names a node reads, those its subgraphs read from outside included."""
    names = {name for name in node.input if name}
    for attribute in node.attribute:
        for subgraph in (attribute.g, *attribute.graphs):
            made = {value.name for value in subgraph.input}
            made |= {tensor.name for tensor in subgraph.initializer}
            for inner in subgraph.node:
                names |= reads(inner) - made
                made.update(inner.output)
            names |= {value.name for value in subgraph.output} - made
    return names


def rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Give tensors that a node or its subgraphs read or make other names, in place.

    Parameters
    ----------
    node : onnx.NodeProto
    names : mapping of str to str
        The new name of each, by its old one.
    """
    node.input[:] = [names.get(name, name) for name in node.input]
    node.output[:] = [names.get(name, name) for name in node.output]
    for entry in node.attribute:
        for subgraph in (entry.g, *entry.graphs):
            for inner in subgraph.node:
                rename(inner, names)
            for value in (*subgraph.input, *subgraph.output):
                value.name = names.get(value.name, value.name)


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Nodes of a graph, those of its subgraphs included."""
    for node in graph.node:
        yield node
        for entry in node.attribute:
            for subgraph in (entry.g, *entry.graphs):
                yield from all_nodes(subgraph)


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """Value of a node's attribute."""
    for entry in node.attribute:
        if entry.name == name:
            return onnx.helper.get_attribute_value(entry)
    return default


def einsum_terms(node: onnx.NodeProto) -> tuple[list[str], str] | None:
    """Letters of the operands and of the result of an Einsum; None where no result is stated."""
    equation: bytes = attribute(node, "equation", b"")
    left, arrow, right = equation.decode().replace(" ", "").partition("->")
    return (left.split(","), right) if arrow else None


def integer(node: onnx.NodeProto, name: str, default: int) -> int:
    """Value of a node's integer attribute."""
    value = attribute(node, name, default)
    return value if isinstance(value, int) else default


def integers(node: onnx.NodeProto, name: str) -> list[int] | None:
    """Value of a node's attribute that is a list of integers; None where it has none."""
    value = attribute(node, name)
    return None if value is None else [int(number) for number in value]


def opset_of(model: onnx.ModelProto) -> int:
    """Version of ONNX's own operators that a network uses."""
    return max((e.version for e in model.opset_import if e.domain in ("", "ai.onnx")), default=1)
