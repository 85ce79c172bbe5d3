"""Makes the nodes of a head, named as their outputs."""

from __future__ import annotations

from typing import Any

from onnx import NodeProto, helper

from tlpipe.graph import (
    EMBEDDINGS,
    HEAD_PREFIX,
    LABELS,
    PREDICTION_SET,
    PROBABILITIES,
    UNKNOWN,
    UNKNOWN_SCORE,
)

_TENSORS = {EMBEDDINGS, PROBABILITIES, LABELS, UNKNOWN_SCORE, UNKNOWN, PREDICTION_SET}


def own_node(operator: str, inputs: list[str], output: str, **attributes: Any) -> NodeProto:
    """Node named as its output; names of the head's own tensors are given without their prefix."""
    return split_node(operator, inputs, [output], output, **attributes)


def split_node(
    operator: str, inputs: list[str], outputs: list[str], name: str, **attributes: Any
) -> NodeProto:
    """Node with several outputs, and a name of its own."""
    taken, made = ([_full(tensor) for tensor in tensors] for tensors in (inputs, outputs))
    return helper.make_node(operator, taken, made, name=HEAD_PREFIX + name, **attributes)


def _full(name: str) -> str:
    return name if name in _TENSORS else HEAD_PREFIX + name
