"""own_cards: keeps a user's own cards.

Owns the folder of the user's own cards. Takes a name, a path or a URL, gives what was added or
removed.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tlpipe.card import Card
from tlpipe.card_rules import NAME
from tlpipe.card_text import card_text
from tlpipe.catalogue import all_cards, find_card, shipped_cards
from tlpipe.errors import BackboneError, CardError, OutputError
from tlpipe.files import (
    cache_dir,
    is_file,
    is_utf8,
    make_folder,
    move_whole,
    user_cards_dir,
    whole_file,
)
from tlpipe.stages.download import Expected, fetch_file
from tlpipe.stages.session import open_graph
from tlpipe.stages.weights import (
    downloaded_file,
    prepared_file,
    prepared_files,
)
from tlpipe.types import ProgressCallback
from tlpipe.workflows.backbones import import_network, name_for
from tlpipe.workflows.network import BackboneOptions


@dataclass(frozen=True)
class Added:
    """A card that was added.

    Attributes
    ----------
    card : Card
    path : pathlib.Path
        The card's file.
    """

    card: Card
    path: Path


@dataclass(frozen=True)
class Removed:
    """What was removed.

    Attributes
    ----------
    name : str
    files : list of pathlib.Path
    size_bytes : int
        Of all of them.
    """

    name: str
    files: list[Path]
    size_bytes: int


def add_backbone(
    source: str | Path,
    *,
    name: str | None = None,
    options: BackboneOptions | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> Added:
    """Make a card for an ONNX file, so that it can be used by name.

    Parameters
    ----------
    source : str or pathlib.Path
        The path of an ONNX file, which stays where it is; or its URL, which is downloaded. The
        checksum it has now is recorded, and asked for from then on.
    name : str, optional
        ``architecture.tag``, or an architecture alone for the tag "local"; by default the file's
        name.
    options : BackboneOptions, optional
        What the file does not say.
    overwrite : bool
        Whether a card of the user's own with that name may be replaced.
    progress : callable, optional

    Raises
    ------
    UndecidedError
        The network does not tell which layer is its last; the message lists the candidates.
    CardError
        Its preprocessing is nowhere stated, or the name makes no sense.
    BackboneError
        The file cannot be used.
    OutputError
        There is such a card already, or it cannot be written.
    """
    options = options or BackboneOptions()
    url = str(source) if re.match(r"https?://", str(source)) else ""
    stem = _file_of(url) if url else Path(source).name
    if not (url or is_utf8(str(Path(source).resolve()))):
        raise CardError(
            f"The path {str(source)!r} is no UTF-8, and a card must be.",
            hint="Rename the file or its folder.",
        )
    full_name = _name(name, stem)
    target = _card_path(full_name, overwrite)
    path = _downloaded(url, stem, progress) if url else Path(source)
    card = replace(import_network(path, options), name=full_name)
    _ = card.arithmetic  # raises where it is nowhere stated
    if url:
        weights = replace(card.weights, urls=(url,), file=stem)
        card = replace(card, weights=weights, origin=url)
        settled = downloaded_file(card)
        if settled != path:
            make_folder(settled.parent)
            move_whole(path, settled)
    else:
        card = replace(card, origin=str(path.resolve()))
    card = Card.from_dict(card.to_dict(), f"The card made for {full_name!r}")
    prepared_file(card, open_graph)
    make_folder(target.parent)
    with whole_file(target) as temporary:
        temporary.write_text(card_text(card), encoding="utf-8")
    return Added(card, target)


def remove_backbone(name: str) -> Removed:
    """Remove a user's own card, and what was downloaded and prepared for a backbone.

    A card of tlpipe's own stays: only its downloaded and prepared files go. So do a network that
    a user's card refers to by its path, and a card that was named by its path.

    Raises
    ------
    UnknownBackboneError
        There is no such backbone.
    OutputError
        A file cannot be removed.
    """
    card = find_card(name)
    files = prepared_files(card)
    added = user_cards_dir() / f"{card.name}.toml"
    by_path = name.endswith(".toml") and Path(name).resolve() != added.resolve()
    if card.name not in shipped_cards() and not by_path:
        files.append(added)
    others = [c for c in all_cards().values() if c.name != card.name]
    shared = any(c.weights.sha256 == card.weights.sha256 for c in others)
    if card.weights.urls and not shared:
        folder = downloaded_file(card).parent
        files += sorted(folder.glob("*")) + sorted(folder.glob(".*.part*"))
    found = list(dict.fromkeys(path for path in files if is_file(path)))
    size = sum(path.stat().st_size for path in found)
    for path in found:
        try:
            path.unlink()
        except OSError as exc:
            raise OutputError(
                f"{str(path)!r} cannot be removed: {exc.strerror}.",
                hint="Correct its permissions, or remove it by hand.",
            ) from exc
    return Removed(card.name, found, size)


def _name(name: str | None, file: str) -> str:
    """Name of a card: the one that was given, completed; else one made of the file's."""
    if not name:
        return name_for(Path(file))
    full = name if "." in name else f"{name}.local"
    if not re.fullmatch(NAME, full):
        raise CardError(
            f"The name {name!r} makes no sense.",
            hint="Use architecture.tag, in lower case: resnet50.mine, for example.",
        )
    if full.endswith((".toml", ".onnx")):
        raise CardError(
            f"The name {name!r} would be taken for the path of a card or of a network.",
            hint=f"Choose another tag: {full.rpartition('.')[0]}.mine, for example.",
        )
    return full


def _card_path(name: str, overwrite: bool) -> Path:
    path = user_cards_dir() / f"{name}.toml"
    if name in shipped_cards():
        raise OutputError(
            f"The name {name!r} is that of a backbone that comes with tlpipe.",
            hint="Choose another one with --name.",
        )
    if is_file(path) and not overwrite:
        raise OutputError(
            f"There is a card {name!r} already: {str(path)!r}.",
            hint="Choose another one with --name, or replace it with --overwrite.",
        )
    return path


def _file_of(url: str) -> str:
    """Name of the file that a URL ends in."""
    try:
        name = Path(unquote(urlsplit(url).path)).name
    except ValueError:  # no address at all
        name = ""
    if not (name.lower().endswith(".onnx") and name.isprintable() and is_utf8(url)):
        raise CardError(
            f"The address {url!r} does not end in the name of an ONNX file.",
            hint="Download the file and add its path.",
        )
    return name


def _downloaded(url: str, file: str, progress: ProgressCallback | None) -> Path:
    """The file of a URL, under its own name in a folder for that URL alone.

    What is no network at all is not kept, so that another attempt fetches it anew.
    """
    from tlpipe.graph.io import load_model

    folder = hashlib.sha256(url.encode()).hexdigest()[:16]
    target = cache_dir() / "weights" / "new" / folder / file
    make_folder(target.parent)
    hint = "Download the file by other means, and add its path."
    fetch_file(url, target, Expected(), progress, hint=hint)
    try:
        load_model(target)
    except BackboneError:
        target.unlink(missing_ok=True)
        raise
    return target
