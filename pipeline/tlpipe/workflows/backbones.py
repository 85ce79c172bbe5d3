"""Backbones: from a name, a card or an ONNX file to a card that can be used.

Owns the cache of cards made for ONNX files. Takes what a user named and the options that go with
it, gives a ``Card``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import TypeGuard

from tlpipe.card import PREPARATION, Card, DataFile, Golden, InputSpec, WeightsSpec
from tlpipe.catalogue import find_card
from tlpipe.errors import BackboneError, CardError
from tlpipe.files import cache_dir, is_file, make_folder, sha256_file, whole_file
from tlpipe.presets import PRESETS, find_preprocess
from tlpipe.workflows.network import BackboneOptions, Network, check_there, look_into

_log = logging.getLogger(__name__)


def find_backbone(backbone: str | Path | Card, options: BackboneOptions | None = None) -> Card:
    """A backbone's card, ready for use: its preprocessing is known.

    Parameters
    ----------
    backbone : str, pathlib.Path or Card
        A name of the catalogue; the path of a card (.toml) or of a network (.onnx); or a card.
    options : BackboneOptions, optional
        What neither card nor file says.

    Returns
    -------
    Card

    Raises
    ------
    UnknownBackboneError, CardError
        There is no such backbone, its preprocessing is nowhere stated, or a card states already
        what the options say.
    UndecidedError
        The network does not tell which layer is its last; the message lists the candidates.
    BackboneError
        The network cannot be used.
    """
    options = options or BackboneOptions()
    if is_network(backbone):
        return _ready(import_network(Path(backbone), options))
    card = backbone if isinstance(backbone, Card) else find_card(backbone)
    if not isinstance(backbone, Card):
        _log.info("Backbone %r: %s", card.name, _described(card))
    given = [
        f"--{name.replace('_', '-')}"
        for name in ("layer", "pooling", "input", "image_size")
        if getattr(options, name) is not None
    ]
    if options.preprocess is not None and card.preprocess is not None:
        given.insert(0, "--preprocess")
    if given:
        raise CardError(
            f"The card of {card.name!r} states already what {' and '.join(given)} would say.",
            hint="Leave that out; or make a card of your own: tlpipe models add NETWORK.onnx.",
        )
    if options.preprocess is not None:
        chosen = find_preprocess(options.preprocess, card.image_size)
        card = dataclasses.replace(card, preprocess=chosen)
    return _ready(card)


def _described(card: Card) -> str:
    """The pixels it takes, the numbers it gives, and where its weights come from."""
    weights = card.weights
    origin = weights.package or weights.file or ", ".join(weights.urls)
    height, width = card.image_size
    return f"{height} x {width} pixels, {card.output.dim:,} numbers, weights of {origin}."


def is_network(backbone: str | Path | Card) -> TypeGuard[str | Path]:
    """Whether a backbone was named by the path of an ONNX file."""
    return not isinstance(backbone, Card) and str(backbone).lower().endswith(".onnx")


def _ready(card: Card) -> Card:
    """`card`, if it states its preprocessing; else the error that says what to do."""
    _ = card.arithmetic
    return card


def import_network(path: Path, options: BackboneOptions) -> Card:
    """A card for an ONNX file; the second time it is taken from the cache.

    Raises
    ------
    UndecidedError
        The network does not tell which layer is its last.
    BackboneError, CardError
        As from ``look_into``.
    """
    check_there(path)
    own = _own(path)
    files = _files(own)
    facts = [PREPARATION, str(own), [asdict(f) for f in files], asdict(options)]
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    known = cache_dir() / "imports" / f"{key[:32]}.json"
    reusable = options.preprocess in (None, *PRESETS)  # a file may change
    if reusable and is_file(known):
        try:
            return Card.from_dict(json.loads(known.read_bytes()), "The cached card")
        except (CardError, OSError, RecursionError, ValueError):
            _log.warning("The cached card %s is damaged; it is made anew.", known)
    network = look_into(path, options, prove=False)
    card = _card_of(network, files, own)
    if reusable:
        make_folder(known.parent)
        with whole_file(known) as temporary:
            temporary.write_text(card.to_json(), encoding="utf-8")
    return card


def _own(path: Path) -> Path:
    """The network's absolute path; that of a link only where its weights stand beside the link."""
    from tlpipe.graph.io import load_model

    own = path.resolve()
    if path.is_symlink():
        try:
            load_model(own)
        except BackboneError:
            return path.absolute()
    return own


def _files(own: Path) -> list[DataFile]:
    """The network's file and those of its weights, with their checksums."""
    from tlpipe.graph.io import load_model
    from tlpipe.graph.references import data_files

    paths = [own, *data_files(load_model(own), own)]
    return [
        DataFile(Path(os.path.relpath(p, own.parent)).as_posix(), sha256_file(p), p.stat().st_size)
        for p in paths
    ]


def _card_of(network: Network, files: list[DataFile], path: Path) -> Card:
    """The checked card that says of a network, which is at `path`, what was found.

    Raises
    ------
    UndecidedError
        Its last layer could not be told.
    CardError
        What was found and what was said do not fit together.
    """
    image, output = network.analysis.image, network.analysis.output()
    own, *data = files
    card = Card(
        name=name_for(network.path),
        licence="unknown",
        origin="the user's own",
        paper="none",
        weights=WeightsSpec(
            package="",
            urls=(),
            file=str(path),
            data=tuple(data),
            format="onnx",
            architecture="",
            sha256=own.sha256,
            size_bytes=own.size_bytes,
            digest="",
        ),
        input=InputSpec(image.tensor, image.height, image.width, image.layout, image.dtype),
        preprocess=network.preprocess,
        output=output,
        golden=Golden("none", "none", (), 0.0, "none"),
    )
    return Card.from_dict(card.to_dict(), f"The card made for {card.name!r}")


def name_for(path: Path) -> str:
    """A card's name for a file: its own, with what names may not hold replaced."""
    stem = re.sub(r"[^a-z0-9_-]+", "-", path.stem.lower()).strip("-_") or "network"
    return f"{stem}.local"
