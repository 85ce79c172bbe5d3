"""What must hold of a card beyond the types of its fields.

Takes a ``Card`` or a ``Preprocess``, raises where it makes no sense. Imports ``errors`` and
``types``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tlpipe.errors import CardError
from tlpipe.types import Preprocess

if TYPE_CHECKING:
    from tlpipe.card import Card

_EXPLAINED = "models/README.md explains each field."

NAME = r"[a-z0-9][a-z0-9_-]*\.[a-z0-9][a-z0-9_.-]*"
"""Pattern of a card's name: architecture.tag."""

AUTO = "auto"
"""In a card: what tlpipe finds in the network itself, and checks against the card's numbers."""

_LEAST, _MOST = 1e-30, 1e30  # of the numbers of a preprocessing, which is done in float32

MOST_DIM = 2**20
"""Longest embedding: of more numbers, a chunk of a feature file would be too large for HDF5."""

UNSTATED = "unstated"
"""In place of a card's [preprocess]: those who published the weights do not say."""


PREPROCESS_HINT = (
    "State how its images were prepared when it was trained: --preprocess imagenet, inception,"
    " caffe, unit, raw, or a card (.toml) to take it from; 'tlpipe models presets' explains them,"
    " and 'tlpipe models check' shows whether it is right. A wrong one looks plausible and costs"
    " accuracy."
)


def check_card(card: Card, where: str) -> None:
    """Refuse a card that makes no sense, in what no type can say.

    Raises
    ------
    CardError
    """
    weights, output = card.weights, card.output
    hashes = [weights.sha256, *(entry.sha256 for entry in weights.data)]
    hashes += [weights.digest] if weights.digest or weights.format != "onnx" else []
    autos = [output.pooling, output.activation, *output.tensors, output.logits].count(AUTO)
    rules = {
        "'name' must be architecture.tag, in lower case": re.fullmatch(NAME, card.name),
        "'sha256' and 'digest' must be 64 hexadecimal digits": all(
            re.fullmatch(r"[0-9a-f]{64}", value) for value in hashes
        ),
        "sizes must be at least 1": min(*card.image_size, output.dim, weights.size_bytes) > 0,
        f"'dim' must be at most {MOST_DIM:,}": output.dim <= MOST_DIM,
        "'tensors' must name a tensor, and each once": 0
        < len(output.tensors)
        == len(set(output.tensors)),
        "'auto' goes for all of tensors, pooling, logits and activation, or for none": autos == 0
        or (autos == 4 and len(output.tensors) == 1),
        "'classes' must not be negative": output.classes >= 0,
        "'package' and 'urls' exclude each other": not (weights.package and weights.urls),
        "'urls' must be http:// or https:// addresses": all(
            re.match(r"https?://.", url) for url in weights.urls
        ),
        "'architecture' goes with format 'torch-legacy'": bool(weights.architecture)
        == (weights.format == "torch-legacy"),
    }
    if card.preprocess is not None:
        rules |= _preprocess_rules(card.preprocess, card.image_size)
        rules["input 'dtype' uint8 goes with scale 1, mean 0 and std 1: it takes plain pixels"] = (
            card.input.dtype != "uint8" or card.preprocess.is_plain
        )
    broken = [rule for rule, holds in rules.items() if not holds]
    if broken:
        raise CardError(f"{where}: {'; '.join(broken)}.", hint=_EXPLAINED)


def _preprocess_rules(pre: Preprocess, image_size: tuple[int, int]) -> dict[str, Any]:
    """What must hold of a preprocessing."""
    return {
        "'std' must not be 0": all(pre.std),
        "'scale' must not be 0": pre.scale,
        "'scale', 'mean' and 'std' must be numbers that float32 can hold": all(
            value == 0 or _LEAST <= abs(value) <= _MOST
            for value in (pre.scale, *pre.mean, *pre.std)
        ),
        "colour 'grey' goes with three equal values of mean, and of std": pre.colour != "grey"
        or len({*pre.mean}) == len({*pre.std}) == 1,
        "'size' goes with resize 'shortest' and must reach height and width": pre.size
        >= max(image_size)
        if pre.resize == "shortest"
        else pre.size == 0,
        "resize 'shortest' goes with crop 'centre', and 'exact' with the others": (
            (pre.resize == "shortest") == (pre.crop == "centre")
        ),
        "'crop_fraction' goes with crop 'centre-fraction', in (0, 1]": 0 < pre.crop_fraction <= 1
        if pre.crop == "centre-fraction"
        else pre.crop_fraction == 0,
        "'antialias' must be true, but for interpolation 'nearest'": pre.antialias
        != (pre.interpolation == "nearest"),
    }


def check_preprocess(pre: Preprocess, image_size: tuple[int, int], where: str) -> None:
    """Refuse a preprocessing that makes no sense.

    Raises
    ------
    CardError
    """
    broken = [rule for rule, holds in _preprocess_rules(pre, image_size).items() if not holds]
    if broken:
        raise CardError(f"{where}: {'; '.join(broken)}.", hint=_EXPLAINED)
