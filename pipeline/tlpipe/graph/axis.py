"""The place of the batch in a tensor, and one operator on the way of following it.

The vocabulary of ``axes``, ``rewrite`` and ``batch``.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from tlpipe.graph.index import integers
from tlpipe.graph.trace import Trace


class Stuck(Exception):  # noqa: N818  (not an error: another way is tried then)
    """The batch cannot be followed through an operator; the text says why."""


@dataclass(frozen=True)
class Axis:
    """The place of the batch in a tensor: axis `index` holds `before` * B * `after` elements."""

    index: int
    before: int = 1
    after: int = 1

    @property
    def factor(self) -> int:
        """Elements of the axis for each image."""
        return self.before * self.after


Axes = dict[str, Axis]


@dataclass(frozen=True)
class Step:
    """A node, with what is known of its operands."""

    trace: Trace
    node: onnx.NodeProto
    axes: Axes
    batch: int

    def shape(self, at: int) -> tuple[int, ...]:
        """Shape of the input at a position."""
        return self.trace.shapes[self.node.input[at]]

    @property
    def out(self) -> tuple[int, ...]:
        """Shape of the first output."""
        return self.trace.shapes[self.node.output[0]]

    @property
    def data(self) -> Axis:
        """Of the first input."""
        if self.node.input[0] not in self.axes:
            raise Stuck(f"a {self.node.op_type} takes images at another input than its first")
        return self.axes[self.node.input[0]]

    def stuck(self, why: str) -> Stuck:
        """What to raise where the batch cannot be followed."""
        return Stuck(f"a {self.node.op_type} {why}")

    def constants_of(self, at: int, name: str) -> list[int]:
        """Integers given as the attribute `name`, or as constant input `at`."""
        given = integers(self.node, name)
        if given is not None:
            return given
        if len(self.node.input) <= at or not self.node.input[at]:
            return []
        if self.node.input[at] not in self.trace.constants:
            raise self.stuck(f"has {name} that are computed")
        return [int(n) for n in self.trace.value(self.node.input[at]).ravel()]
