"""Shapes and constants of a graph, found by running it.

Shape inference knows a part of the tensors only: none in files of quantised or fused operators.
Running knows all. Behind every tensor a ``Shape`` is appended, so that only a few numbers each are
kept, not the tensors, and the memory is that of one ordinary run.

Takes a network and a function that opens one for running (see ``seams.OpenGraph``); gives a
``Trace``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper

from tlpipe.errors import BackboneError
from tlpipe.graph import OWN_PREFIX
from tlpipe.graph.cut import pruned
from tlpipe.graph.index import Index, attribute
from tlpipe.graph.io import opened
from tlpipe.graph.references import array_of

if TYPE_CHECKING:
    from tlpipe.seams import OpenGraph

# Their outputs are (or may be) no tensors, and have no shape.
_NO_TENSORS = frozenset(
    "SequenceConstruct SequenceEmpty SequenceInsert SequenceErase SplitToSequence SequenceMap"
    " Optional OptionalGetElement".split()
)


class _Shapes(dict[str, tuple[int, ...]]):
    """Shapes by name; asking for one that is not known is an error that says so."""

    def __missing__(self, name: str) -> tuple[int, ...]:
        raise BackboneError(
            f"The shape of the tensor {name!r} is not known: it comes from a branch or a loop that"
            " does not state what it gives.",
            hint="Name a tensor before it with --layer NAME; or export the network without it.",
        )


class Trace(Index):
    """A graph with the shapes its tensors have for one batch, and the values of its constants.

    Attributes
    ----------
    shapes : dict of str to tuple of int
        Of every tensor that a node of the graph makes, and of its inputs.
    """

    def __init__(
        self, model: onnx.ModelProto, feeds: Mapping[str, Any], open_graph: OpenGraph
    ) -> None:
        super().__init__(model.graph)
        self.model = model
        self._open = open_graph
        self._values: dict[str, Any] = {}
        self.shapes = _Shapes({name: tuple(array.shape) for name, array in feeds.items()})
        self.shapes |= {t.name: tuple(t.dims) for t in model.graph.initializer}
        self.shapes |= self._run(feeds)

    def _run(self, feeds: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        names = [
            name
            for node in self.nodes
            if node.op_type not in _NO_TENSORS
            for name in _tensors_of(node)
            if name
        ]
        observed = onnx.ModelProto()
        observed.CopyFrom(self.model)
        graph = observed.graph
        del graph.value_info[:]
        del graph.output[:]
        shapes = [f"{OWN_PREFIX}shape/{number}" for number in range(len(names))]
        for name, shape in zip(names, shapes, strict=True):
            graph.node.append(helper.make_node("Shape", [name], [shape]))
            graph.output.append(onnx.ValueInfoProto(name=shape))
        if not any(entry.domain in ("", "ai.onnx") for entry in observed.opset_import):
            observed.opset_import.append(helper.make_opsetid("", 17))
        found = opened(observed, self._open)(feeds, shapes)
        return {
            name: tuple(int(n) for n in sizes) for name, sizes in zip(names, found, strict=True)
        }

    def value(self, name: str) -> Any:
        """Array of a tensor that is constant."""
        if name in self._values:
            return self._values[name]
        if name in self.initializers:
            value = array_of(self.initializers[name])
        else:
            value = opened(pruned(self.model, [name]), self._open)({}, [name])[0]
        if np.size(value) <= 4096:  # shapes and the like; large weights are not kept
            self._values[name] = value
        return value


def _tensors_of(node: onnx.NodeProto) -> list[str]:
    """Outputs of a node that are tensors: all, but that of a branch may be anything."""
    if node.op_type not in ("If", "Loop"):
        return list(node.output)
    body = attribute(node, "then_branch" if node.op_type == "If" else "body")
    if not isinstance(body, onnx.GraphProto):  # whoever runs it will refuse it
        return []
    inner = list(body.output)[0 if node.op_type == "If" else 1 :]  # a loop's first says "go on"
    return [
        name
        for name, value in zip(node.output, inner, strict=False)
        if value.type.HasField("tensor_type")
    ]
