"""Builds a backbone's networks from its pretrained file.

Owns the cache of prepared networks. Takes a card and an ``OpenGraph``, gives an
``onnx.ModelProto``, or the path of a prepared file.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlpipe.card import PREPARATION, Card, OutputSpec
from tlpipe.errors import BackboneError, OutputError, WeightsError
from tlpipe.files import CACHE_VARIABLE, cache_dir, is_file, make_folder, sha256_file, whole_file
from tlpipe.stages.weights.locate import pretrained_file

if TYPE_CHECKING:
    import onnx

    from tlpipe.graph.batch import Way
    from tlpipe.graph.cut import Cut
    from tlpipe.graph.image_input import ImageInput
    from tlpipe.seams import OpenGraph
    from tlpipe.types import Preprocess

_log = logging.getLogger(__name__)


def full_network(card: Card) -> onnx.ModelProto:
    """Pretrained network with its own last layer: every tensor as published.

    Raises
    ------
    WeightsError
        The pretrained file is missing or another one, or gives other tensors than the card's
        digest states.
    BackboneError
        The file cannot be read as a network.
    """
    from tlpipe.graph.digest import weights_digest
    from tlpipe.graph.efficientnet_lite import VARIANTS, build_efficientnet_lite
    from tlpipe.graph.io import load_model
    from tlpipe.graph.legacy_torch import read_state_dict
    from tlpipe.graph.tidy import tidied

    path = pretrained_file(card)
    builders = dict.fromkeys(VARIANTS, build_efficientnet_lite)
    if card.weights.format == "onnx":
        model = tidied(load_model(path))
    elif build := builders.get(card.weights.architecture):
        model = build(read_state_dict(path), card.weights.architecture)
    else:
        raise WeightsError(
            f"The card of {card.name!r} names the architecture {card.weights.architecture!r};"
            f" tlpipe can build {sorted(builders)}.",
            hint="Update tlpipe, or take an ONNX file as the backbone.",
        )
    if card.weights.digest and (digest := weights_digest(model)) != card.weights.digest:
        raise WeightsError(
            f"The tensors of {card.name!r} have the digest {digest}; its card states"
            f" {card.weights.digest}.",
            hint="Fetch the card's own file (tlpipe models pull BACKBONE), or correct the card.",
        )
    return model


def resolved(card: Card, full: onnx.ModelProto, open_graph: OpenGraph) -> OutputSpec:
    """The card's output, with the tensors found that it leaves to tlpipe to find.

    Raises
    ------
    BackboneError
        They cannot be told, or are not of the sizes that the card states.
    """
    from tlpipe.graph.analyse import Choices, analyse

    stated = card.output
    if stated.is_found:
        return stated
    choices = Choices(input=card.input.tensor, size=card.image_size)
    analysis = analyse(full, open_graph, choices, prove=False)
    if analysis.undecided is not None:
        raise analysis.undecided
    found = analysis.output()
    if (found.dim, found.classes) != (stated.dim, stated.classes):
        raise BackboneError(
            f"The network of {card.name!r} has embeddings of {found.dim} numbers and"
            f" {found.classes} classes; its card states {stated.dim} and {stated.classes}.",
            hint="Correct 'dim' and 'classes' under [output] in the card.",
        )
    return found


def feature_network(
    card: Card, full: onnx.ModelProto, open_graph: OpenGraph, way: Way | None = None
) -> onnx.ModelProto:
    """The backbone: uint8 images (N, H, W, 3) in, ``embeddings`` (N, D) out.

    Parameters
    ----------
    card : Card
    full : onnx.ModelProto
        What ``full_network`` gave. Not changed.
    open_graph : OpenGraph
    way : str, optional
        How its batch is freed (see ``graph.batch``); by default what can be proved.

    Raises
    ------
    BackboneError
        The card does not fit the network, or this cannot take a batch.
    CardError
        The card does not state the preprocessing.
    """
    from tlpipe.graph import EMBEDDINGS
    from tlpipe.graph.cut import Cut
    from tlpipe.graph.prefix import fold_preprocess

    output = resolved(card, full, open_graph)
    assert output.pooling != "auto"
    cuts = [Cut(EMBEDDINGS, output.tensors, output.pooling, output.dim)]
    image, freed = _freed(card, full, cuts, open_graph, way)
    return fold_preprocess(freed, image, card.arithmetic)


def class_network(
    card: Card, full: onnx.ModelProto, open_graph: OpenGraph, way: Way | None = None
) -> onnx.ModelProto:
    """The whole network as a classifier: ``probabilities`` (N, C) and ``embeddings`` (N, D) out.

    Raises
    ------
    BackboneError
        As from ``feature_network``; or it has no classes of its own.
    """
    return class_networks(card, full, open_graph, [card.arithmetic], way)[0]


def class_networks(
    card: Card,
    full: onnx.ModelProto,
    open_graph: OpenGraph,
    preprocesses: Sequence[Preprocess],
    way: Way | None = None,
) -> list[onnx.ModelProto]:
    """What ``class_network`` gives, once for each of several preprocessings.

    Parameters
    ----------
    card : Card
        Its own preprocessing, which may be unstated, is of no matter.
    full : onnx.ModelProto
        What ``full_network`` gave. Not changed.
    open_graph : OpenGraph
    preprocesses : sequence of Preprocess
    way : str, optional
        As for ``feature_network``.

    Raises
    ------
    BackboneError
        As from ``class_network``.
    """
    from tlpipe.graph import CLASS_SCORES, EMBEDDINGS
    from tlpipe.graph.cut import Cut
    from tlpipe.graph.head import own_head
    from tlpipe.graph.prefix import fold_preprocess

    output = resolved(card, full, open_graph)
    assert output.pooling != "auto"
    assert output.activation != "auto"
    if not output.logits:
        raise BackboneError(
            f"The backbone {card.name!r} has no classes of its own: it is a feature extractor."
        )
    classes = output.classes or _class_count(full, output.logits)
    cuts = [
        Cut(EMBEDDINGS, output.tensors, output.pooling, output.dim),
        Cut(CLASS_SCORES, [output.logits], "flatten", classes),
    ]
    image, freed = _freed(card, full, cuts, open_graph, way)
    return [
        own_head(fold_preprocess(freed, image, preprocess), output.activation, classes)
        for preprocess in preprocesses
    ]


def _class_count(full: onnx.ModelProto, logits: str) -> int:
    """C of a card that does not state it: what the network's own output states."""
    for value in full.graph.output:
        sizes = value.type.tensor_type.shape.dim
        if value.name == logits and len(sizes) == 2 and sizes[1].dim_value:
            return int(sizes[1].dim_value)
    raise BackboneError(
        f"The network has no output {logits!r} of a stated size (N, C), but"
        f" {[value.name for value in full.graph.output]}.",
        hint="Correct 'logits', or state 'classes', under [output] in the backbone's card.",
    )


def _freed(
    card: Card,
    full: onnx.ModelProto,
    cuts: Sequence[Cut],
    open_graph: OpenGraph,
    way: Way | None,
) -> tuple[ImageInput, onnx.ModelProto]:
    """The network's input, and the network as far as `cuts`, with a free batch."""
    from tlpipe.graph.analyse import PROOF, cut_by_running, prepared_input
    from tlpipe.graph.batch import free_batch, freed_by

    spec = card.input
    image, sized = prepared_input(full, spec.tensor, card.image_size, open_graph)
    grey = card.preprocess.colour == "grey" if card.preprocess else image.channels == 1
    if (image.layout, image.dtype, image.channels == 1) != (spec.layout, spec.dtype, grey):
        raise BackboneError(
            f"The network of {card.name!r} takes {image.dtype} {image.layout} images of"
            f" {image.channels} channels; its card states {spec.dtype} {spec.layout} and"
            f" {'grey' if grey else 'coloured'} images.",
            hint="Correct [input] and 'colour' in the card.",
        )
    batch = image.batch or 1
    fed = image.samples(max(PROOF, batch), card.preprocess)
    cut = cut_by_running(sized, cuts, {image.tensor: fed[:batch]}, open_graph)
    if way is not None:
        return image, freed_by(way, cut, fed[:batch], open_graph)
    freed = free_batch(cut, fed[:PROOF], open_graph)
    if freed.way == "one-by-one":
        _log.warning(
            "The network of %s works on one image at a time: %s.",
            card.name,
            "; ".join(freed.reasons),
        )
    return image, freed.model


def prepared_files(card: Card) -> list[Path]:
    """Cached networks of a card, whatever their preprocessing."""
    return sorted((cache_dir() / "backbones").glob(f"{card.name}-{'?' * 16}.onnx*"))


def prepared_file(card: Card, open_graph: OpenGraph) -> Path:
    """Path of the cached feature network, built and proved at the first use.

    Raises
    ------
    WeightsError, BackboneError, CardError
        As from ``full_network`` and ``feature_network``.
    OutputError
        The cache cannot be written.
    """
    return cached(card, [], lambda: feature_network(card, full_network(card), open_graph))


def cached(card: Card, more: list[Any], build: Callable[[], onnx.ModelProto]) -> Path:
    """Path of a cached network, built at the first use.

    Parameters
    ----------
    card : Card
    more : list
        Plain values that determine the network beside the card.
    build : callable

    Raises
    ------
    OutputError
        The cache cannot be written.
    """
    facts = [PREPARATION, card.weights.identity, asdict(card.input), asdict(card.output)]
    facts += [card.arithmetic.to_dict(), *more]
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    path = cache_dir() / "backbones" / f"{card.name}-{key[:16]}.onnx"
    note = path.with_name(f"{path.name}.sha256")
    try:
        if is_file(path) and is_file(note):
            if note.read_bytes().strip() == sha256_file(path).encode():
                _log.info("The prepared network is used again: %s", path)
                return path
            _log.warning("The cached network %s is damaged; it is built anew.", path)
    except OSError as exc:
        raise OutputError(
            f"The cache {str(path.parent)!r} cannot be used: {exc.strerror}.",
            hint=f"Choose a folder that can be written to: {CACHE_VARIABLE}=FOLDER.",
        ) from exc
    make_folder(path.parent)
    from tlpipe.graph.io import write_model

    model = build()
    with whole_file(path) as temporary:
        write_model(model, temporary)
        digest = sha256_file(temporary)
    with whole_file(note) as temporary:
        temporary.write_text(digest + "\n", encoding="ascii")
    return path
