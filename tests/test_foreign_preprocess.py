"""Preprocessing as transformers and timm write it beside a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tlpipe.errors import CardError
from tlpipe.presets import find_preprocess, preset

VIT = {
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "ViTImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 224, "width": 224},
}
CLIP = {
    "crop_size": 224,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 224,
}
CONVNEXT = {
    "crop_pct": 0.875,
    "do_normalize": True,
    "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_processor_type": "ConvNextImageProcessor",
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "size": {"shortest_edge": 224},
}
TIMM = {
    "architecture": "resnet18",
    "pretrained_cfg": {
        "crop_mode": "center",
        "crop_pct": 0.95,
        "input_size": [3, 224, 224],
        "interpolation": "bicubic",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    },
}


def read(table: Any, folder: Path, size: tuple[int, int] = (224, 224)) -> Any:
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(table), encoding="utf-8")
    return find_preprocess(str(path), size)


def test_a_vision_transformer(tmp_path: Path) -> None:
    spec = read(VIT, tmp_path)
    assert (spec.resize, spec.crop, spec.interpolation) == ("exact", "none", "bilinear")
    pixels = np.arange(256, dtype=np.float64)
    found = (pixels * spec.scale - spec.mean[0]) / spec.std[0]
    np.testing.assert_allclose(found, pixels / 127.5 - 1, atol=1e-9)


def test_a_crop_after_resizing(tmp_path: Path) -> None:
    spec = read(CLIP, tmp_path)
    assert (spec.resize, spec.size, spec.crop) == ("shortest", 224, "centre")
    assert (spec.interpolation, spec.mean[2]) == ("bicubic", 0.40821073)


def test_convnext_crops_small_images_alone(tmp_path: Path) -> None:
    assert read(CONVNEXT, tmp_path).size == 256
    large = CONVNEXT | {"size": {"shortest_edge": 384}}
    spec = read(large, tmp_path, (384, 384))
    assert (spec.resize, spec.size, spec.crop) == ("exact", 0, "none")


def test_timm(tmp_path: Path) -> None:
    spec = read(TIMM, tmp_path)
    assert (spec.resize, spec.size, spec.crop) == ("shortest", 235, "centre")
    imagenet = preset("imagenet", (224, 224))
    assert (spec.scale, spec.mean, spec.std) == (imagenet.scale, imagenet.mean, imagenet.std)
    squashed = {"pretrained_cfg": TIMM["pretrained_cfg"] | {"crop_mode": "squash", "crop_pct": 1}}
    assert read(squashed, tmp_path).resize == "exact"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (VIT | {"image_processor_type": "OddImageProcessor"}, "image_processor_type 'OddImage"),
        (VIT | {"size": {"height": 384, "width": 384}}, "it is for 384 x 384 pixels, and the netw"),
        (VIT | {"resample": 5}, "cannot be understood: 5"),
        (VIT | {"do_resize": False}, "do_resize false"),
        (VIT | {"image_mean": [0.5]}, "cannot be understood"),
        ({"pretrained_cfg": {"input_size": [3, 224, 224]}}, "cannot be understood: 'crop_pct'"),
        (
            {"pretrained_cfg": TIMM["pretrained_cfg"] | {"crop_mode": "border"}},
            "crop_mode 'border'",
        ),
        ({"hidden_size": 768}, "is neither a preprocessor_config.json of transformers nor"),
        ([], "it must be a table"),
    ],
)
def test_what_is_not_understood_is_refused(table: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(CardError) as caught:
        read(table, tmp_path)
    assert message in caught.value.message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="does not exist"):
        find_preprocess(str(tmp_path / "none.json"), (8, 8))
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(CardError, match="cannot be read"):
        find_preprocess(str(tmp_path / "bad.json"), (8, 8))
