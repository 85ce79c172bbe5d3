"""Proves that a network treats the images of a batch as if each were alone.

Some images, all different, one at a time through the network as it was, must give what they give as
a batch, and the first what it gives as a batch of one. Then once more, optimised as the network
will be later: the batch against single images, and against the network as it was.

Takes networks and images, gives the largest difference found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto

from tlpipe.graph.axis import Stuck
from tlpipe.graph.index import all_nodes
from tlpipe.graph.io import opened

if TYPE_CHECKING:
    from tlpipe.seams import OpenGraph

# Sums in another order, in float32; and where numbers are rounded on the way, to half precision or
# to integers.
_FINE, _COARSE = 2e-4, 1e-2

# An optimised graph computes the same function in another order; a quantised one with other
# rounding, which deep networks may amplify. More than this is an error of the optimiser.
_GROSS, _GROSS_COARSE = 0.05, 0.5

_SINGLES = 2  # images that are run alone in the optimised network
_ROUNDING = 2.0**-20  # some units in the last place of float32
_MIXED = 0.05  # share of how much images differ

_QUANTISED = frozenset(
    "QuantizeLinear QLinearConv QLinearMatMul QGemm MatMulNBits MatMulBnb4 DynamicQuantizeLinear"
    " DynamicQuantizeMatMul".split()
)


def fixed_batch(model: onnx.ModelProto) -> int:
    """Batch size that a network's input states; 0 where it is free."""
    return int(model.graph.input[0].type.tensor_type.shape.dim[0].dim_value)


def filled(images: Any, batch: int) -> Any:
    """As many images as a network takes at a time: the first, or all of them again and again."""
    return np.concatenate([images] * -(-batch // len(images)))[:batch]


def alone(model: onnx.ModelProto, images: Any, open_graph: OpenGraph) -> list[Any]:
    """Outputs of the network as it is, for one image at a time, or as few as it states."""
    batch = fixed_batch(model) or 1
    run = opened(model, open_graph)
    name = model.graph.input[0].name
    outputs = [value.name for value in model.graph.output]
    found = []
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        arrays = run({name: filled(part, batch)}, outputs)
        found.append([array[: len(part)] for array in arrays])
    return [np.concatenate(arrays) for arrays in zip(*found, strict=True)]


def is_finite(array: Any) -> bool:
    """Whether an output holds neither NaN nor infinity."""
    return bool(np.isfinite(array).all())


def prove(
    freed: onnx.ModelProto, images: Any, expected: Sequence[Any], open_graph: OpenGraph
) -> float:
    """Largest difference found, relative to the largest value.

    Parameters
    ----------
    freed : onnx.ModelProto
        A network that should take any number of images.
    images : array (B, ...)
    expected : sequence of array (B, ...)
        What ``alone`` gave for them.
    open_graph : OpenGraph

    Raises
    ------
    Stuck
        It is too large.
    BackboneError
        The network cannot be run.
    """
    rough = _is_rough(freed)
    tolerance = _COARSE if rough else _FINE
    name = freed.graph.input[0].name
    outputs = [value.name for value in freed.graph.output]
    first = [array[:1] for array in expected]
    # One more than there are: a slice of the batch that was made for so many would show.
    many = filled(images, len(images) + 1)
    run = opened(freed, open_graph)
    error = max(
        _difference(run({name: many}, outputs), [filled(a, len(many)) for a in expected], expected),
        _difference(run({name: images[:1]}, outputs), first, expected),
    )
    if error > tolerance:
        raise Stuck(f"a batch gives other values ({_share(error)})")
    del run  # and its memory
    run = opened(freed, open_graph, optimised=True)
    whole = run({name: images}, outputs)
    single = [images[at : at + 1] for at in range(min(_SINGLES, len(images)))]
    singles = [run({name: image}, outputs) for image in single]
    joined = [np.concatenate(arrays) for arrays in zip(*singles, strict=True)]
    part = [array[: len(single)] for array in whole]
    error = max(error, _difference(part, joined, expected))
    if error > tolerance:
        raise Stuck(f"a batch gives other values once optimised ({_share(error)})")
    gross = _difference(whole, expected, None)
    if gross > (_GROSS_COARSE if rough else _GROSS):
        raise Stuck(f"ONNX Runtime's optimisation changes the values ({_share(gross)})")
    return error


def _share(error: float) -> str:
    return "images are mixed" if np.isinf(error) else f"by {error:.1g} of the largest"


def _difference(
    found: Sequence[Any], expected: Sequence[Any], scale: Sequence[Any] | None
) -> float:
    """Largest difference relative to the largest value of `scale`.

    Infinite where it is more than a twentieth of how much images differ, and more than rounding:
    else a mixing of images could hide behind a large part that all of them share. Without `scale`
    that is not looked at.
    """
    worst = 0.0
    for ours, theirs, whole in zip(found, expected, scale or expected, strict=True):
        if ours.shape != theirs.shape or not np.isfinite(ours).all():
            return float("inf")
        error = float(np.abs(ours.astype(np.float64) - theirs).max(initial=0.0))
        largest = float(np.abs(whole).max(initial=0.0))
        spread = float(np.ptp(whole.astype(np.float64), axis=0).max(initial=0.0))
        if scale is not None and error > max(_MIXED * spread, _ROUNDING * largest):
            return float("inf")
        worst = max(worst, error / largest if error else 0.0)
    return worst


def _is_rough(model: onnx.ModelProto) -> bool:
    """Whether numbers are rounded on the way: to half precision or to integers."""
    kind = model.graph.input[0].type.tensor_type.elem_type
    return (
        kind == TensorProto.FLOAT16
        or any(tensor.data_type == TensorProto.FLOAT16 for tensor in model.graph.initializer)
        or any(node.op_type in _QUANTISED for node in all_nodes(model.graph))
    )
