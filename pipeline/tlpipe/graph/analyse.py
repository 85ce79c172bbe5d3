"""What a network is, and what can be made of it: all of ``graph`` in one call.

Takes a network as its file has it, and what a user says of it; gives an ``Analysis``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx

from tlpipe.card import OutputSpec
from tlpipe.errors import BackboneError, UndecidedError
from tlpipe.graph import EMBEDDINGS
from tlpipe.graph.batch import Freed, free_batch
from tlpipe.graph.branches import straightened
from tlpipe.graph.cut import Cut, cut_at, kind_of, pruned
from tlpipe.graph.decide import Candidate, Decision, candidates, decide, named
from tlpipe.graph.image_input import ImageInput, possible_inputs, with_sizes
from tlpipe.graph.index import Index
from tlpipe.graph.io import opened
from tlpipe.graph.tidy import tidied
from tlpipe.graph.trace import Trace

if TYPE_CHECKING:
    from tlpipe.seams import OpenGraph
    from tlpipe.types import PoolingChoice

PROOF = 4
"""Number of images in the proof that the batch is free."""


@dataclass(frozen=True)
class Choices:
    """What a user says of a network, where the file does not or is to be overruled.

    Attributes
    ----------
    layer : str or None
        The tensor, or the node whose output, is the embedding.
    pooling : {"mean", "cls", "flatten"} or None
        How it becomes one vector, where it is more than one.
    input : str or None
        The input that takes images.
    size : tuple of int or None
        Height and width of the images.
    """

    layer: str | None = None
    pooling: PoolingChoice | None = None
    input: str | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Analysis:
    """What was found out about a network.

    Attributes
    ----------
    image : ImageInput
    decision : Decision or None
        None where it could not be told; then `undecided` says why.
    undecided : UndecidedError or None
    candidates : list of Candidate
        Layers before which it could be cut, the last first.
    freed : Freed or None
        The feature extractor with a free batch; None where undecided.
    """

    image: ImageInput
    decision: Decision | None
    undecided: UndecidedError | None
    candidates: list[Candidate]
    freed: Freed | None

    @property
    def dim(self) -> int:
        """D, the length of the embedding; 0 where undecided."""
        return 0 if self.decision is None else self.decision.feature.dim

    def output(self) -> OutputSpec:
        """What was found, as a card states it.

        Raises
        ------
        UndecidedError
            It could not be told.
        """
        if self.decision is None:
            assert self.undecided is not None
            raise self.undecided
        feature, walk = self.decision.feature, self.decision.walk
        assert feature.pooling is not None
        scored = walk if walk is not None and walk.scores else None
        return OutputSpec(
            tensors=feature.tensors,
            pooling=feature.pooling,
            dim=feature.dim,
            logits=scored.scores if scored else "",
            classes=scored.classes if scored else 0,
            activation=scored.activation if scored else "none",
        )


def analyse(
    model: onnx.ModelProto, open_graph: OpenGraph, choices: Choices, *, prove: bool = True
) -> Analysis:
    """Find a network's input, last layer and embedding, and prove that its batch can be freed.

    Parameters
    ----------
    model : onnx.ModelProto
        As ``io.load_model`` gives it. Not changed.
    open_graph : OpenGraph
    choices : Choices
    prove : bool
        Whether to free the batch and prove it.

    Raises
    ------
    BackboneError
        The network cannot be run, or its input is not understood.
    """
    tidy = tidied(model)
    if choices.layer is not None:  # what the embedding does not need, need not be understood
        tidy = _as_far_as(tidy, choices.layer)
    image, sized = prepared_input(tidy, choices.input, choices.size, open_graph)
    batch = image.batch or 1
    fed = image.samples(max(batch, PROOF))
    trace = Trace(sized, {image.tensor: fed[:batch]}, open_graph)
    found = candidates(trace)
    try:
        decision = _decision(trace, choices, batch)
    except UndecidedError as undecided:
        return Analysis(image, None, undecided, found, None)
    feature = decision.feature
    freed = None
    if prove:
        assert feature.pooling is not None
        cuts = [Cut(EMBEDDINGS, feature.tensors, feature.pooling, feature.dim)]
        cut = cut_by_running(sized, cuts, {image.tensor: fed[:batch]}, open_graph)
        freed = free_batch(cut, fed[:PROOF], open_graph)
    return Analysis(image, decision, None, found, freed)


def prepared_input(
    model: onnx.ModelProto,
    name: str | None,
    size: tuple[int, int] | None,
    open_graph: OpenGraph,
) -> tuple[ImageInput, onnx.ModelProto]:
    """Where images go in, and the network with their size stated and its branches written out.

    Parameters
    ----------
    model : onnx.ModelProto
        Tidied. Not changed.
    name : str or None
        Which input takes images; needed where there are several.
    size : tuple of int or None
        Height and width; needed where the network leaves them open.
    open_graph : OpenGraph

    Raises
    ------
    BackboneError
        There is no such input, or the network wants more than images.
    """
    image = _the_input(model, possible_inputs(model, name, size), open_graph)
    others = [v.name for v in Index(model.graph).inputs if v.name != image.tensor]
    if others:
        raise BackboneError(
            f"Beside the images in {image.tensor!r} the network wants {others}.",
            hint="Export it without them; or name an embedding that does not depend on them with"
            " --layer NAME.",
        )
    sized = with_sizes(model, image)
    if any(node.op_type == "If" for node in model.graph.node):
        sample = image.samples(image.batch or 1)
        sized = straightened(sized, {image.tensor: sample}, open_graph)
    return image, sized


def _the_input(
    model: onnx.ModelProto, possible: list[ImageInput], open_graph: OpenGraph
) -> ImageInput:
    """The one of several possible inputs with which the network runs.

    Raises
    ------
    BackboneError
        There is none, or there are several.
    """
    if len(possible) == 1:
        return possible[0]
    works, reasons = [], []
    for image in possible:
        sized = with_sizes(model, image)
        sample = image.samples(image.batch or 1)
        outputs = [value.name for value in model.graph.output]
        try:
            opened(sized, open_graph)({image.tensor: sample}, outputs)
        except BackboneError as exc:
            reasons.append(exc)
        else:
            works.append(image)
    if len(works) == 1:
        return works[0]
    if not works:
        raise reasons[0]
    raise BackboneError(
        f"The network's input {possible[0].tensor!r} does not tell how many colours there are, and"
        f" where they stand: it runs with {len(works)} readings of it.",
        hint="Export it with the number of channels stated: (N, 3, H, W) or (N, H, W, 3).",
    )


def cut_by_running(
    model: onnx.ModelProto,
    cuts: Sequence[Cut],
    feeds: Mapping[str, Any],
    open_graph: OpenGraph,
) -> onnx.ModelProto:
    """The network cut as ``cut_at`` does; types and ranks of the tensors are found by running it.

    Raises
    ------
    BackboneError
        The network computes no tensor of such a name, or cannot be run.
    """
    tensors = list(dict.fromkeys(name for cut in cuts for name in cut.tensors))
    arrays = opened(pruned(model, tensors), open_graph)(feeds, tensors)
    return cut_at(model, cuts, dict(zip(tensors, map(kind_of, arrays), strict=True)))


def _decision(trace: Trace, choices: Choices, batch: int) -> Decision:
    if choices.layer is not None:
        feature = named(trace, choices.layer, batch).pooled(choices.pooling)
        return Decision(feature, None, f"--layer names {feature.tensors[0]!r}")
    decision = decide(trace, batch)
    if decision.walk is None:  # what feeds a last layer needs no choice
        feature = decision.feature.pooled(choices.pooling)
        return Decision(feature, None, decision.reason, decision.notes)
    return decision


def _as_far_as(model: onnx.ModelProto, layer: str) -> onnx.ModelProto:
    """The network as far as a layer depends on it; whole where it has no such layer."""
    tensor = Index(model.graph).tensor_of(layer)
    return pruned(model, [tensor]) if tensor else model
