"""Replaces what fixes the batch size inside a graph.

Follows the batch through the graph (``axes``) and replaces, where it meets them, the targets of
reshapes, expansions and resizes, and joins constants (class tokens) to the batch by expanding
them. Weights are not touched; new constants get names of tlpipe's own.

Takes and gives ``onnx.ModelProto``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tlpipe.graph.axes import JOINING, follow
from tlpipe.graph.axis import Axes, Axis, Stuck
from tlpipe.graph.features import as_strided
from tlpipe.graph.index import integer, integers
from tlpipe.graph.trace import Trace


def rewritten(model: onnx.ModelProto, trace: Trace, batch: int, prefix: str) -> onnx.ModelProto:
    """`model` with every constant replaced that fixes the batch size at `batch`.

    Parameters
    ----------
    model : onnx.ModelProto
        Not changed.
    trace : Trace
        Of the same graph, for one batch.
    batch : int
        Batch size of the trace.
    prefix : str
        Start of the names of what is added.

    Raises
    ------
    Stuck
        The batch is lost on the way.
    """
    editor = _Editor(model, trace, batch, prefix)
    editor.run()
    return editor.model


class _Editor:
    def __init__(self, model: onnx.ModelProto, trace: Trace, batch: int, prefix: str) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self._trace = trace
        self._batch = batch
        self._prefix = prefix
        self._image = model.graph.input[0].name
        self._axes: Axes = {self._image: Axis(0)}
        self._nodes: list[onnx.NodeProto] = []
        self._count = 0

    def run(self) -> None:
        originals = list(self.model.graph.node)
        for node in originals:
            carries = [name for name in node.input if name in self._axes]
            if not carries or node.op_type in ("Shape", "Size"):
                self._sized(node)
                continue
            if node.op_type == "Gather" and (source := as_strided(self._trace, node)):
                node = self._plain_reshape(node, source)
            if node.op_type == "Concat":
                self._expand_constants(node)
            elif node.op_type in JOINING:
                self._single_constants(node)
            for name, axis in zip(
                node.output, follow(self._trace, node, self._axes, self._batch), strict=True
            ):
                if name and axis is not None:
                    self._axes[name] = axis
            self._replace_sizes(node)
            self._nodes.append(node)
        for value in self.model.graph.output:
            if self._axes.get(value.name) != Axis(0):
                raise Stuck(f"the images do not come first in {value.name!r}")
        del self.model.graph.node[:]
        self.model.graph.node.extend(self._nodes)

    def _sized(self, node: onnx.NodeProto) -> None:
        """A node without images; what it makes by their number carries them, too."""
        self._nodes.append(node)
        made_by_size = node.op_type in ("ConstantOfShape", "Expand", "Tile") and any(
            name in self._trace.shape_values for name in node.input
        )
        if made_by_size and self._trace.shapes.get(node.output[0], ())[:1] == (self._batch,):
            self._axes[node.output[0]] = Axis(0)

    def _plain_reshape(self, node: onnx.NodeProto, source: str) -> onnx.NodeProto:
        """What PyTorch writes as a gather of all elements in order, as the reshape it is."""
        target = self._constant(list(self._trace.shapes[node.output[0]]))
        name = node.name or f"{self._prefix}reshape/{node.output[0]}"
        if source not in self._axes:
            raise Stuck("a Gather takes its positions from the images")
        return helper.make_node("Reshape", [source, target], list(node.output), name=name)

    def _replace_sizes(self, node: onnx.NodeProto) -> None:
        """New targets for an operator whose inputs state the sizes of its output."""
        shape = list(self._trace.shapes[node.output[0]])
        axis = self._axes[node.output[0]]
        if node.op_type == "Reshape":
            shape[axis.index] = -1
            self._replace(node, 1, self._constant(shape))
        elif node.op_type == "Expand":
            shape[axis.index] = 1  # as large as the other operand, which holds the images
            self._replace(node, 1, self._constant(shape))
        elif node.op_type == "Resize" and len(node.input) > 3 and node.input[3]:
            along = integers(node, "axes")
            if along is None:
                self._replace(node, 3, self._sizes(shape, axis))
            elif axis.index in along:
                raise Stuck("a Resize states the number of images")

    def _replace(self, node: onnx.NodeProto, at: int, name: str) -> None:
        node.input[at] = name
        if node.op_type == "Reshape":  # -1, not 0, stands for the batch
            kept = [entry for entry in node.attribute if entry.name != "allowzero"]
            del node.attribute[:]
            node.attribute.extend(kept)

    def _expand_constants(self, node: onnx.NodeProto) -> None:
        """Class tokens and the like, stored once: one for each image."""
        axis = next(self._axes[name] for name in node.input if name in self._axes)
        along = integer(node, "axis", 1) % len(self._trace.shapes[node.output[0]])
        if axis.index == along:
            return  # ``follow`` refuses it
        for at, name in enumerate(node.input):
            if name in self._axes:
                continue
            shape = list(self._trace.shapes[name])
            if axis.factor != 1 or shape[axis.index] != self._batch:
                raise Stuck("a Concat joins the images with constants of another number")
            if name not in self._trace.constants:
                continue  # computed from the batch size: it follows by itself
            name = self._first_of(name, axis.index)
            shape[axis.index] = 1
            expanded = f"{self._prefix}expand/{self._next()}"
            self._nodes.append(
                helper.make_node(
                    "Expand", [name, self._sizes(shape, axis)], [expanded], name=expanded
                )
            )
            self._trace.shapes[expanded] = tuple(shape)
            node.input[at] = expanded
            self._axes[expanded] = axis

    def _single_constants(self, node: onnx.NodeProto) -> None:
        """Constants that were stored once for each image of a fixed batch: once alone."""
        if self._batch == 1:
            return
        rank = len(self._trace.shapes[node.output[0]])
        axis = next(self._axes[name] for name in node.input if name in self._axes)
        own = next(len(self._trace.shapes[name]) for name in node.input if name in self._axes)
        for at, name in enumerate(node.input):
            shape = self._trace.shapes.get(name, ())
            index = axis.index + (rank - own) - (rank - len(shape))
            if index < 0 or axis.factor != 1 or name not in self._trace.constants:
                continue
            if shape[index] == self._batch:
                node.input[at] = self._first_of(name, index)

    def _first_of(self, name: str, index: int) -> str:
        """The one slice of a constant that is repeated along an axis for each image."""
        if self._batch == 1:
            return name
        value = self._trace.value(name)
        if (value != value.take([0], index)).any():
            raise Stuck("a constant differs from image to image of the fixed batch")
        first = f"{self._prefix}first/{self._next()}"
        inputs = [name, self._constant([0])]
        self._nodes.append(helper.make_node("Gather", inputs, [first], name=first, axis=index))
        shape = list(self._trace.shapes[name])
        shape[index] = 1
        self._trace.shapes[first] = tuple(shape)
        return first

    def _sizes(self, shape: list[int], axis: Axis) -> str:
        """Tensor with these sizes, but with as many images as there are."""
        number = self._next()
        count, sizes = f"{self._prefix}count/{number}", f"{self._prefix}sizes/{number}"
        shape_of = f"{self._prefix}shape/{number}"
        self._nodes.append(helper.make_node("Shape", [self._image], [shape_of], name=shape_of))
        first = self._constant([0])
        self._nodes.append(helper.make_node("Gather", [shape_of, first], [count], name=count))
        if axis.factor != 1:
            scaled = f"{self._prefix}scaled/{number}"
            inputs = [count, self._constant([axis.factor])]
            self._nodes.append(helper.make_node("Mul", inputs, [scaled], name=scaled))
            count = scaled
        parts = [count]
        if axis.index:
            parts.insert(0, self._constant(shape[: axis.index]))
        if axis.index + 1 < len(shape):
            parts.append(self._constant(shape[axis.index + 1 :]))
        self._nodes.append(helper.make_node("Concat", parts, [sizes], name=sizes, axis=0))
        return sizes

    def _constant(self, values: list[int]) -> str:
        name = f"{self._prefix}constant/{self._next()}"
        array: Any = np.array(values, np.int64)
        self.model.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def _next(self) -> int:
        self._count += 1
        return self._count
