"""Preprocessing that many backbones share, by name; and what a network's file says of its own.

Takes a name, a path or a file's metadata; gives a ``Preprocess``. Imports ``card_rules``,
``errors``, ``files``, ``foreign_preprocess``, ``records`` and ``types``.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tlpipe.card_rules import PREPROCESS_HINT, check_preprocess
from tlpipe.errors import CardError
from tlpipe.files import is_file
from tlpipe.foreign_preprocess import from_foreign
from tlpipe.near import no_file
from tlpipe.records import RecordError, build
from tlpipe.types import Preprocess

_FOREIGN = "It must be JSON, as transformers and timm write it: an object."
_BASE = Preprocess(
    colour="rgb",
    resize="exact",
    size=0,
    interpolation="bilinear",
    antialias=True,
    crop="none",
    crop_fraction=0.0,
    scale=1.0,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)

PRESETS: dict[str, tuple[Preprocess, str]] = {
    # Source: torchvision.transforms, references/classification; 256 for a crop of 224.
    "imagenet": (
        replace(
            _BASE,
            resize="shortest",
            crop="centre",
            scale=1 / 255,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        ),
        (
            "RGB, 0 to 1, minus ImageNet's mean, by its deviation; short side to 256/224 of the"
            " size, centre crop. torchvision, most of timm, MXNet Gluon"
        ),
    ),
    # Source: tensorflow/models, research/slim/preprocessing/inception_preprocessing.py.
    "inception": (
        replace(
            _BASE,
            crop="centre-fraction",
            crop_fraction=0.875,
            mean=(127.5, 127.5, 127.5),
            std=(127.5, 127.5, 127.5),
        ),
        (
            "RGB, -1 to 1; centre 0.875 of the short side. TensorFlow's Inception, MobileNet and"
            " ResNetV2, Keras' mode 'tf', Google's ViT"
        ),
    ),
    # Source: BVLC Caffe's mean pixel of ImageNet, in the order blue, green, red.
    "caffe": (
        replace(_BASE, colour="bgr", interpolation="bicubic", mean=(103.939, 116.779, 123.68)),
        (
            "BGR, 0 to 255 minus the mean pixel; the whole image, squeezed. Caffe's AlexNet,"
            " GoogLeNet and VGG, Keras' mode 'caffe'"
        ),
    ),
    "unit": (
        replace(_BASE, resize="shortest", crop="centre", scale=1 / 255),
        "RGB, 0 to 1; short side to 256/224 of the size, centre crop",
    ),
    "raw": (
        replace(_BASE, resize="shortest", crop="centre"),
        (
            "RGB, 0 to 255 as they are, for networks that normalise inside (Keras'"
            " EfficientNet); short side to 256/224 of the size, centre crop"
        ),
    ),
}
"""By name: the preprocessing, its `size` still to be set by the network's; and in words."""


def preset(name: str, image_size: tuple[int, int]) -> Preprocess:
    """A preset for a network's image size.

    Parameters
    ----------
    name : str
        A key of ``PRESETS``.
    image_size : tuple of int
        Height and width in pixels.
    """
    found, _ = PRESETS[name]
    if found.resize == "shortest":
        found = replace(found, size=round(max(image_size) * 256 / 224))
    return found


def find_preprocess(text: str, image_size: tuple[int, int], channels: int = 3) -> Preprocess:
    """What a user named with ``--preprocess``.

    Parameters
    ----------
    text : str
        A preset; the path of a card, or of a TOML file with a table [preprocess]; or that of a
        ``preprocessor_config.json`` (see ``foreign_preprocess``).
    image_size : tuple of int
        Height and width in pixels.
    channels : int
        1 for a network that takes grey images.

    Raises
    ------
    CardError
        There is no such preset or file, or the file's preprocessing does not fit.
    """
    if text in PRESETS:
        found = preset(text, image_size)
    elif text.endswith(".toml"):
        found = _from_card(Path(text))
    elif text.endswith(".json"):
        found = _from_json(Path(text), image_size)
    else:
        raise CardError(
            f"There is no preprocessing {text!r}.",
            hint=f"Use one of {list(PRESETS)}, or the path of a card (.toml) to take it from, or of"
            " a preprocessor_config.json.",
        )
    if channels == 1 and found.colour != "grey":
        if len({*found.mean}) > 1 or len({*found.std}) > 1:
            raise CardError(
                f"The network takes grey images; {text!r} is for colours.",
                hint="Use unit, inception or raw, or a card whose colour is 'grey'.",
            )
        found = replace(found, colour="grey")
    check_preprocess(found, image_size, f"The preprocessing {text!r}")
    return found


def _from_json(path: Path, image_size: tuple[int, int]) -> Preprocess:
    where = f"The preprocessing in {str(path)!r}"
    if not is_file(path):
        message, hint = no_file(path, "The file")
        raise CardError(message, hint=hint)
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, RecursionError, ValueError) as exc:
        raise CardError(
            f"{where} cannot be read: {exc}.",
            hint=_FOREIGN,
        ) from exc
    if not isinstance(table, Mapping):
        raise CardError(
            f"{where} is {table!r}; it must be a table.",
            hint=_FOREIGN,
        )
    return from_foreign(table, image_size, where)


def _from_card(path: Path) -> Preprocess:
    where = f"The preprocessing in {str(path)!r}"
    if not is_file(path):
        message, hint = no_file(path, "The card")
        raise CardError(message, hint=hint)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8")).get("preprocess")
    except (OSError, RecursionError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise CardError(
            f"The card {str(path)!r} cannot be read: {exc}.",
            hint="A card is a TOML file; models/README.md explains each field.",
        ) from exc
    if not isinstance(table, Mapping):
        raise CardError(f"{where} is {table!r}.", hint=PREPROCESS_HINT)
    try:
        return build(Preprocess, table, where)
    except RecordError as exc:
        raise CardError(str(exc), hint="models/README.md explains each field.") from exc


def from_metadata(metadata: Mapping[str, str], image_size: tuple[int, int]) -> Preprocess | None:
    """What a network's own file says of its preprocessing; None where it does not.

    Two forms are understood: ``preprocess`` as tlpipe writes it, JSON of a ``Preprocess``; and
    ONNX's own, which states colours and range, but of the geometry only that it is the input's.

    Parameters
    ----------
    metadata : mapping of str to str
        The file's metadata properties.
    image_size : tuple of int
        Height and width in pixels.

    Raises
    ------
    CardError
        The file says something that makes no sense.

    Notes
    -----
    Source: onnx/docs/MetadataProps.md for ``Image.BitmapPixelFormat`` and
    ``Image.NominalPixelRange``.
    """
    if "preprocess" in metadata:
        where = "The preprocessing in the network's metadata"
        try:
            found = build(Preprocess, json.loads(metadata["preprocess"]), where)
        except (RecursionError, ValueError) as exc:
            raise CardError(
                f"{where} cannot be read: {exc}",
                hint="State how its images were prepared with --preprocess.",
            ) from exc
        check_preprocess(found, image_size, where)
        return found
    colours: dict[str, Any] = {"Rgb8": "rgb", "Bgr8": "bgr", "Gray8": "grey"}
    ranges = {
        "NominalRange_0_255": (1.0, 0.0, 1.0),
        "Normalized_0_1": (1 / 255, 0.0, 1.0),
        "Normalized_1_1": (1.0, 127.5, 127.5),
    }
    colour = colours.get(metadata.get("Image.BitmapPixelFormat", ""))
    values = ranges.get(metadata.get("Image.NominalPixelRange", ""))
    if colour is None or values is None:
        return None
    scale, mean, std = values
    return replace(_BASE, colour=colour, scale=scale, mean=(mean,) * 3, std=(std,) * 3)
