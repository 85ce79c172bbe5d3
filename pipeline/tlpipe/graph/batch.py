"""Frees the batch axis: a network that was written for one image takes any number of them.

Three ways, in this order; the first that is *proved* (``proof``) is taken:

1. ``as-is``: the sizes that the file states are made symbolic, and nothing else is done. Enough for
   most convolutional networks, and for files that take any batch already (which is proved as well:
   some say so and do not).
2. ``rewritten``: the batch is followed through the graph (``axes``), and every constant that fixes
   it is replaced: the targets of reshapes and expansions, class tokens that were stored once.
3. ``one-by-one``: the network stays as it is and becomes the body of a loop over the images
   (``scan``). That is always right, and as fast as running them one at a time. Networks that
   quantise their activations as they run always take this way: they use one scale for a whole
   batch, so that an image's embedding would depend on its neighbours. So do those that choose a
   branch by the image.

Takes and gives ``onnx.ModelProto``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import onnx

from tlpipe.errors import BackboneError
from tlpipe.graph.axis import Stuck
from tlpipe.graph.index import RANDOM, Index, all_nodes
from tlpipe.graph.proof import alone, filled, fixed_batch, is_finite, prove
from tlpipe.graph.rewrite import rewritten
from tlpipe.graph.scan import BATCH_PREFIX, SCAN, scanned
from tlpipe.graph.trace import Trace

if TYPE_CHECKING:
    from tlpipe.seams import OpenGraph

Way = Literal["as-is", "rewritten", "one-by-one"]

_PER_BATCH_SCALES = frozenset("DynamicQuantizeLinear DynamicQuantizeMatMul".split())


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


def free_batch(model: onnx.ModelProto, images: Any, open_graph: OpenGraph) -> Freed:
    """Make a network take any number of images, and prove it.

    Parameters
    ----------
    model : onnx.ModelProto
        With one input; its outputs are vectors that state their width, (N, D), as ``cut_at`` gives
        them. Not changed.
    images : array (B, ...)
        Some different images as that input takes them.
    open_graph : OpenGraph

    Raises
    ------
    BackboneError
        The network cannot be run, gives NaN or infinity, draws random numbers, or fails even one
        image at a time.
    """
    expected = alone(model, images, open_graph)
    if not all(is_finite(array) for array in expected):
        raise BackboneError(
            "The network gives NaN or infinity for ordinary images.",
            hint="Check its preprocessing, and whether it runs in half precision: then export it in"
            " float32. Or choose a layer before the one that does it, with --layer NAME.",
        )
    reasons: list[str] = []
    ways: list[Way] = ["as-is", "rewritten", "one-by-one"]
    if together := _together(model):
        ways = ["one-by-one"]
        reasons.append(together)
    for way in ways:
        try:
            freed = freed_by(way, model, images, open_graph)
            error = prove(freed, images, expected, open_graph)
        except Stuck as stuck:
            reasons.append(f"{way}: {stuck}")
        except BackboneError as exc:
            reasons.append(f"{way}: {_first_line(exc)}")
        else:
            return Freed(freed, way, error, tuple(reasons))
    if drawn := sorted({node.op_type for node in all_nodes(model.graph)} & RANDOM):
        raise BackboneError(
            f"The network draws random numbers ({', '.join(drawn)}): an image's embedding would be"
            " another each time.",
            hint="Export it for inference (in PyTorch, after model.eval()).",
        )
    raise BackboneError(
        f"The network cannot be made to take any number of images: {'; '.join(reasons)}.",
        hint="Export it with a dynamic batch axis.",
    )


def freed_by(
    way: Way, model: onnx.ModelProto, images: Any, open_graph: OpenGraph
) -> onnx.ModelProto:
    """The network freed in one way, without proof.

    Raises
    ------
    Stuck
        It cannot be freed in that way.
    """
    if way == "one-by-one":
        return scanned(model)
    freed = onnx.ModelProto()
    freed.CopyFrom(model)
    del freed.graph.value_info[:]
    freed.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    if way == "rewritten":
        batch = fixed_batch(model) or 1
        feeds = {model.graph.input[0].name: filled(images, batch)}
        freed = rewritten(freed, Trace(model, feeds, open_graph), batch, BATCH_PREFIX)
    return freed


def way_of(model: onnx.ModelProto) -> Way:
    """The way in which a prepared network, or a classifier made from one, was freed."""
    if any(node.name == SCAN for node in model.graph.node):
        return "one-by-one"
    names = [tensor.name for tensor in model.graph.initializer]
    names += [node.name for node in model.graph.node]
    return "rewritten" if any(name.startswith(BATCH_PREFIX) for name in names) else "as-is"


def _together(model: onnx.ModelProto) -> str:
    """Why a batch may mix its images whatever a proof says; "" where nothing speaks for that."""
    if any(node.op_type in _PER_BATCH_SCALES for node in all_nodes(model.graph)):
        return "it scales its activations by the batch"
    index = Index(model.graph)
    if any(node.op_type == "If" and index.is_data(node.input[0]) for node in index.nodes):
        return "it takes branches by what is in the images"
    return ""


def _first_line(exc: BackboneError) -> str:
    return (exc.message.splitlines() or [""])[0][:200]
