"""Reads how images are prepared from the files that other libraries put beside a network.

Two forms: ``preprocessor_config.json`` of Hugging Face's transformers (as its exporters to ONNX
copy it), and ``config.json`` of a timm model on Hugging Face. What is not understood is refused.

Takes the content of such a file, gives a ``Preprocess``. Imports ``errors`` and ``types``.

Sources: transformers, ``image_processing_*.py`` of each family; timm,
``data/transforms_factory.py`` (``transforms_imagenet_eval``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, get_args

from tlpipe.errors import CardError
from tlpipe.types import Interpolation, Preprocess

_RESAMPLE: dict[object, Interpolation] = {  # numbers of PIL.Image.Resampling
    0: "nearest",
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
    4: "box",
}
_NAMES: dict[object, Interpolation] = {name: name for name in get_args(Interpolation)}

# Families whose processors do what their fields say, and no more.
_PLAIN = frozenset("ViT DeiT Beit CLIP Siglip Bit Blip MobileNetV1 MobileNetV2 Segformer".split())
_CONVNEXT_WHOLE = 384  # from this size on the whole image is squeezed, without a crop


def from_foreign(table: Mapping[str, Any], image_size: tuple[int, int], where: str) -> Preprocess:
    """Preprocessing in such a file.

    Parameters
    ----------
    table : mapping
        The file's JSON.
    image_size : tuple of int
        Height and width in pixels that the network takes.
    where : str
        What messages call the file.

    Raises
    ------
    CardError
        The file is of another kind, says something that is not understood, or is made for images
        of another size.
    """
    try:
        if isinstance(table.get("pretrained_cfg"), Mapping):
            return _timm(table["pretrained_cfg"], image_size)
        if "image_mean" in table or "image_processor_type" in table:
            return _transformers(table, image_size)
    except (KeyError, TypeError, ValueError) as exc:
        raise CardError(
            f"{where} cannot be understood: {exc}.",
            hint="Write what it means as a table [preprocess]: models/README.md explains each"
            " field.",
        ) from exc
    raise CardError(
        f"{where} is neither a preprocessor_config.json of transformers nor a config.json of timm.",
        hint="Name one of these, or write what it means as a table [preprocess] of a card.",
    )


def _timm(config: Mapping[str, Any], image_size: tuple[int, int]) -> Preprocess:
    height, width = (int(n) for n in config["input_size"][1:])
    _same(image_size, (height, width))
    mode, share = config.get("crop_mode", "center"), float(config["crop_pct"])
    whole = share == 1.0 and mode == "squash"
    if mode != "center" and not whole:
        raise ValueError(f"crop_mode {mode!r}")
    return Preprocess(
        colour="rgb",
        resize="exact" if whole else "shortest",
        size=0 if whole else math.floor(max(height, width) / share),
        interpolation=_NAMES[config["interpolation"]],
        antialias=config["interpolation"] != "nearest",
        crop="none" if whole else "centre",
        crop_fraction=0.0,
        scale=1 / 255,
        mean=_three(config["mean"]),
        std=_three(config["std"]),
    )


def _transformers(config: Mapping[str, Any], image_size: tuple[int, int]) -> Preprocess:
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    family = kind.removesuffix("Fast").removesuffix("ImageProcessor")
    family = family.removesuffix("FeatureExtractor")
    if family not in _PLAIN and family != "ConvNext":
        raise ValueError(f"image_processor_type {kind!r}")
    if not config.get("do_resize", True):
        raise ValueError("do_resize false")
    size = 0
    if family == "ConvNext":
        side = _side(config["size"])
        if side < _CONVNEXT_WHOLE:
            size = int(side / float(config.get("crop_pct") or 224 / 256))
        _same(image_size, (side, side))
    elif config.get("do_center_crop"):
        _same(image_size, _pair(config["crop_size"]))
        size = _side(config["size"])
    else:
        _same(image_size, _pair(config["size"]))
    scale = float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0
    normalised = config.get("do_normalize", True)
    resample = _RESAMPLE[config.get("resample", 2)]
    return Preprocess(
        colour="rgb",
        resize="shortest" if size else "exact",
        size=size,
        interpolation=resample,
        antialias=resample != "nearest",
        crop="centre" if size else "none",
        crop_fraction=0.0,
        scale=scale,
        mean=_three(config["image_mean"]) if normalised else (0.0, 0.0, 0.0),
        std=_three(config["image_std"]) if normalised else (1.0, 1.0, 1.0),
    )


def _side(size: Any) -> int:
    """Length of the short side: a number, or {"shortest_edge": n}."""
    if isinstance(size, Mapping):
        return int(size["shortest_edge"])
    return int(size)


def _pair(size: Any) -> tuple[int, int]:
    """Height and width: a number, or {"height": n, "width": n}."""
    if isinstance(size, Mapping):
        return int(size["height"]), int(size["width"])
    return int(size), int(size)


def _three(values: Any) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third


def _same(image_size: tuple[int, int], stated: tuple[int, int]) -> None:
    if stated != image_size:
        raise ValueError(
            f"it is for {stated[0]} x {stated[1]} pixels, and the network takes"
            f" {image_size[0]} x {image_size[1]}"
        )
