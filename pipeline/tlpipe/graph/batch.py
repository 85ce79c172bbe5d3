"""Frees the batch axis: a network that was written for one image takes any number of them.

Three ways, in this order; the first that is *proved* is taken:

1. ``as-is``: the sizes that the file states are made symbolic, and nothing else is done. Enough for
   most convolutional networks, and for files that take any batch already (which is proved as well:
   some say so and do not).
2. ``rewritten``: the batch is followed through the graph (``axes``), and every constant that fixes
   it is replaced: the targets of reshapes and expansions, class tokens that were stored once.
3. ``one-by-one``: the network stays as it is and becomes the body of a ``Scan`` over the images.
   That is always right, and as fast as running them one at a time. Networks that quantise their
   activations as they run always take this way: they use one scale for a whole batch, so that an
   image's embedding would depend on its neighbours. So do those that choose a branch by the image.

The proof: four images, all different, one at a time through the network as it was, operator by
operator, must give what they give as a batch of four, and the first as a batch of one, optimised as
they will be later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper

from tlpipe.errors import BackboneError
from tlpipe.graph import OWN_PREFIX
from tlpipe.graph.axis import Stuck
from tlpipe.graph.index import Index, all_nodes, opset_of
from tlpipe.graph.io import runnable
from tlpipe.graph.references import inlined
from tlpipe.graph.rewrite import rewritten
from tlpipe.graph.tidy import converted
from tlpipe.graph.trace import Trace

if TYPE_CHECKING:
    from tlpipe.types import OpenGraph

BATCH_PREFIX = f"{OWN_PREFIX}batch/"
"""Start of the name of everything that is added to free the batch."""

_SCAN = f"{BATCH_PREFIX}scan"

_SCAN_OPSET = 9  # a Scan without a batch axis of its own, over any number of steps

Way = Literal["as-is", "rewritten", "one-by-one"]

_ROUNDING = 2.0**-20  # some units in the last place of float32

_PER_BATCH_SCALES = frozenset("DynamicQuantizeLinear DynamicQuantizeMatMul".split())
_COARSE = frozenset("QuantizeLinear QLinearConv QLinearMatMul QGemm MatMulNBits MatMulBnb4".split())


@dataclass(frozen=True)
class Freed:
    """A network that takes any number of images.

    Attributes
    ----------
    model : onnx.ModelProto
    way : {"as-is", "rewritten", "one-by-one"}
    difference : float
        Largest difference found by the proof, relative to the largest value.
    reasons : tuple of str
        Why the ways before it were not taken.
    """

    model: onnx.ModelProto
    way: Way
    difference: float
    reasons: tuple[str, ...]


def free_batch(
    model: onnx.ModelProto, images: Any, open_graph: OpenGraph, sizes: Sequence[int]
) -> Freed:
    """Make a network take any number of images, and prove it.

    Parameters
    ----------
    model : onnx.ModelProto
        With one input; each output's first axis is the batch. Not changed.
    images : array (4, ...)
        Four different images as that input takes them.
    open_graph : OpenGraph
    sizes : sequence of int
        Width of each output.

    Raises
    ------
    BackboneError
        The network cannot be run, or fails even one image at a time.
    """
    batch = fixed_batch(model) or 1
    outputs = [value.name for value in model.graph.output]
    expected = _one_by_one(model, images, open_graph, batch)
    tolerance = _tolerance(model)
    reasons: list[str] = []
    ways: list[Way] = ["as-is", "rewritten", "one-by-one"]
    if together := _together(model):
        ways = ["one-by-one"]
        reasons.append(together)
    for way in ways:
        try:
            freed = freed_by(way, model, _filled(images, batch), open_graph, sizes)
        except Stuck as stuck:
            reasons.append(f"{way}: {stuck}")
            continue
        try:
            ready = runnable(freed)
            run = open_graph(ready.content, ready.folder, optimised=True)
            name = freed.graph.input[0].name
            whole = run({name: images}, outputs)
            single = run({name: images[:1]}, outputs)
        except BackboneError as exc:
            reasons.append(f"{way}: {_first_line(exc)}")
            continue
        error = max(
            _difference(whole, expected, len(images)),
            _difference(single, [array[:1] for array in expected], 1, expected),
        )
        if error <= tolerance:
            return Freed(freed, way, error, tuple(reasons))
        reasons.append(f"{way}: a batch gives other values ({error:.1g} of the largest)")
    raise BackboneError(
        f"The network cannot be made to take any number of images: {'; '.join(reasons)}.",
        hint="Export it with a dynamic batch axis.",
    )


def freed_by(
    way: Way, model: onnx.ModelProto, images: Any, open_graph: OpenGraph, sizes: Sequence[int]
) -> onnx.ModelProto:
    """The network freed in one way, without proof.

    Raises
    ------
    Stuck
        It cannot be freed in that way.
    """
    if way == "one-by-one":
        return _scanned(model, sizes)
    freed = onnx.ModelProto()
    freed.CopyFrom(model)
    del freed.graph.value_info[:]
    freed.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    for value, size in zip(freed.graph.output, sizes, strict=True):
        value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, ["N", size]))
    if way == "rewritten":
        trace = Trace(model, {model.graph.input[0].name: images}, open_graph)
        freed = rewritten(freed, trace, len(images), BATCH_PREFIX)
    return freed


def way_of(model: onnx.ModelProto) -> Way:
    """The way in which a prepared network, or a classifier made from one, was freed."""
    if any(node.name == _SCAN for node in model.graph.node):
        return "one-by-one"
    names = [tensor.name for tensor in model.graph.initializer]
    names += [node.name for node in model.graph.node]
    return "rewritten" if any(name.startswith(BATCH_PREFIX) for name in names) else "as-is"


def fixed_batch(model: onnx.ModelProto) -> int:
    """Batch size that a network's input states; 0 where it is free."""
    return int(model.graph.input[0].type.tensor_type.shape.dim[0].dim_value)


def _one_by_one(
    model: onnx.ModelProto, images: Any, open_graph: OpenGraph, batch: int
) -> list[Any]:
    """Outputs of the network as it is, for batches of the size it states."""
    ready = runnable(model)
    run = open_graph(ready.content, ready.folder)
    name = model.graph.input[0].name
    outputs = [value.name for value in model.graph.output]
    found = []
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        arrays = run({name: _filled(part, batch)}, outputs)
        found.append([array[: len(part)] for array in arrays])
    return [np.concatenate(arrays) for arrays in zip(*found, strict=True)]


def _filled(images: Any, batch: int) -> Any:
    """As many images as a network takes at a time: the first, or all of them again and again."""
    return np.concatenate([images] * -(-batch // len(images)))[:batch]


def _difference(
    found: Sequence[Any], expected: Sequence[Any], count: int, scale: Sequence[Any] | None = None
) -> float:
    """Largest difference relative to the largest value and, twentyfold, to how images differ.

    The second keeps a mixing of images from hiding behind a large part that all of them share; it
    asks nothing where the difference is no more than rounding, as in a network that gives the same
    for every image.
    """
    worst = 0.0
    for ours, theirs, whole in zip(found, expected, scale or expected, strict=True):
        if ours.shape != theirs.shape or len(ours) != count or not np.isfinite(ours).all():
            return float("inf")
        error = float(np.abs(ours.astype(np.float64) - theirs).max(initial=0.0))
        largest = float(np.abs(whole).max(initial=0.0))
        spread = float(np.ptp(whole.astype(np.float64), axis=0).max(initial=0.0))
        if error > _ROUNDING * largest and spread * 0.05 < error:
            return float("inf")
        worst = max(worst, error / largest if error else 0.0)
    return worst


def _together(model: onnx.ModelProto) -> str:
    """Why images could not be told from their neighbours in a batch, whatever a proof says; ""."""
    if any(node.op_type in _PER_BATCH_SCALES for node in all_nodes(model.graph)):
        return "it scales its activations by the batch"
    index = Index(model.graph)
    if any(node.op_type == "If" and index.is_data(node.input[0]) for node in index.nodes):
        return "it takes branches by what is in the images"
    return ""


def _tolerance(model: onnx.ModelProto) -> float:
    """Largest difference that comes from another order of the same sums."""
    halves = any(t.data_type == TensorProto.FLOAT16 for t in model.graph.initializer)
    kind = model.graph.input[0].type.tensor_type.elem_type
    coarse = any(node.op_type in _COARSE for node in model.graph.node)
    return 1e-2 if halves or coarse or kind == TensorProto.FLOAT16 else 2e-4


def _scanned(model: onnx.ModelProto, sizes: Sequence[int]) -> onnx.ModelProto:
    """The network as the body of a Scan over the images."""
    if fixed_batch(model) > 1:
        raise Stuck(f"it takes batches of {fixed_batch(model)}")
    if opset_of(model) < _SCAN_OPSET:
        model = converted(model, _SCAN_OPSET)
    scanned = onnx.ModelProto()
    scanned.CopyFrom(model)
    (image,) = model.graph.input
    kind = image.type.tensor_type.elem_type
    sides = [d.dim_value or d.dim_param or None for d in image.type.tensor_type.shape.dim[1:]]
    row = f"{BATCH_PREFIX}image"
    body = onnx.GraphProto(name=f"{BATCH_PREFIX}body")
    body.input.append(helper.make_tensor_value_info(row, kind, sides))
    opset = opset_of(model)
    first = f"{BATCH_PREFIX}first"

    def rank(op: str, source: str, target: str) -> onnx.NodeProto:
        """Add or drop the first axis."""
        if opset < 13:
            return helper.make_node(op, [source], [target], name=f"{target}/{op}", axes=[0])
        return helper.make_node(op, [source, first], [target], name=f"{target}/{op}")

    body.node.append(rank("Unsqueeze", row, image.name))
    body.node.extend(model.graph.node)
    # Weights outside of the body would not be prepared for fast kernels by ONNX Runtime.
    body.initializer.extend(inlined(tensor) for tensor in model.graph.initializer)
    if opset >= 13:
        body.initializer.append(helper.make_tensor(first, TensorProto.INT64, [1], [0]))
    # A name may be used once, inside and outside together: the outputs' are used outside.
    inner = {value.name: f"{BATCH_PREFIX}inner/{value.name}" for value in model.graph.output}
    for node in body.node:
        for names in (node.input, node.output):
            names[:] = [inner.get(name, name) for name in names]
    for field in ("node", "initializer", "input", "output", "value_info"):
        scanned.graph.ClearField(field)
    for value, size in zip(model.graph.output, sizes, strict=True):
        single = f"{BATCH_PREFIX}single/{value.name}"
        body.node.append(rank("Squeeze", inner[value.name], single))
        body.output.append(helper.make_tensor_value_info(single, TensorProto.FLOAT, [size]))
        scanned.graph.output.append(
            helper.make_tensor_value_info(value.name, TensorProto.FLOAT, ["N", size])
        )
    outer = f"{BATCH_PREFIX}images"
    scanned.graph.input.append(helper.make_tensor_value_info(outer, kind, ["N", *sides]))
    scanned.graph.node.append(
        helper.make_node("Scan", [outer], list(inner), name=_SCAN, body=body, num_scan_inputs=1)
    )
    return scanned


def _first_line(exc: BackboneError) -> str:
    return (exc.message.splitlines() or [""])[0][:200]
