"""Geometry against a reference written from the definition of the filter, and against Pillow."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tlpipe.catalogue import find_card
from tlpipe.stages.preprocess import preprocess, source_box
from tlpipe.types import DEFAULT_BACKBONE, Preprocess

CARD = find_card(DEFAULT_BACKBONE)
FRACTION = CARD.preprocess
SHORTEST = dataclasses.replace(
    FRACTION, resize="shortest", size=256, crop="centre", crop_fraction=0.0
)
SQUASH = dataclasses.replace(FRACTION, crop="none", crop_fraction=0.0)


def photo_like(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth shapes with some noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / (7 + c) + y / (11 + 3 * c)) * 90 + 128 for c in range(3)]
    noisy = np.stack(waves, axis=-1) + rng.normal(0, 12, (height, width, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def keys_cubic(x: np.ndarray, a: float = -0.5) -> np.ndarray:
    """Source: R. Keys, "Cubic convolution interpolation", 1981, equation 15 (a = -1/2)."""
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def resample_matrix(length: int, start: float, stop: float, count: int) -> np.ndarray:
    """(count, length): weights of source pixels; the filter is widened when shrinking."""
    scale = (stop - start) / count
    widened = max(scale, 1.0)
    centres = start + (np.arange(count) + 0.5) * scale
    positions = np.arange(length) + 0.5
    weights = keys_cubic((positions[np.newaxis] - centres[:, np.newaxis]) / widened)
    return weights / weights.sum(axis=1, keepdims=True)


def reference(image: Image.Image, box: tuple[float, ...], size: tuple[int, int]) -> np.ndarray:
    """Separable antialiased bicubic in float64."""
    array = np.asarray(image, np.float64)
    left, top, right, bottom = box
    columns = resample_matrix(array.shape[1], left, right, size[1])
    rows = resample_matrix(array.shape[0], top, bottom, size[0])
    return np.clip(np.einsum("hy,yxc,wx->hwc", rows, array, columns, optimize=True), 0, 255)


@pytest.mark.parametrize("size", [(640, 427), (427, 640), (500, 375), (200, 150), (1500, 230)])
@pytest.mark.parametrize("spec", [FRACTION, SQUASH, SHORTEST], ids=["fraction", "squash", "short"])
def test_pixels_are_those_of_the_reference(size: tuple[int, int], spec: Preprocess) -> None:
    """Within 2 levels, 0.35 on average: each of two passes is rounded and clipped to 8 bits."""
    image = photo_like(*size)
    found = preprocess(image, (224, 224), spec).astype(np.float64)
    box = source_box(image.size, (224, 224), spec)
    difference = np.abs(found - reference(image, box, (224, 224)))
    assert difference.max() <= 2.0
    assert difference.mean() <= 0.35


def test_the_default_crop_is_that_of_its_training() -> None:
    """Source: lite_imagenet preprocessing, crop 224 / (224 + 32) of the short side, centred."""
    left, top, right, bottom = source_box((640, 427), (224, 224), FRACTION)
    side = 427 * 224 / 256
    assert right - left == pytest.approx(side)
    assert bottom - top == pytest.approx(side)
    assert left + right == pytest.approx(640)
    assert top + bottom == pytest.approx(427)


@settings(max_examples=60, deadline=None)
@given(width=st.integers(30, 700), height=st.integers(30, 700))
def test_a_crop_after_resizing_is_that_of_the_whole_resized(width: int, height: int) -> None:
    image = photo_like(width, height)
    short = min(width, height)
    whole_size = (int(64 * width / short), int(64 * height / short))
    whole = image.resize(whole_size, Image.Resampling.BICUBIC)
    left, top = (round((n - 56) / 2.0) for n in whole_size)
    expected = np.asarray(whole.crop((left, top, left + 56, top + 56)), np.int16)
    spec = dataclasses.replace(SHORTEST, size=64)
    difference = np.abs(preprocess(image, (56, 56), spec).astype(np.int16) - expected)
    # Pillow may take rows or columns first, whichever is less work, and rounds in between.
    assert difference.max() <= 4
    assert difference.mean() <= 0.4


@settings(max_examples=200, deadline=None)
@given(
    width=st.integers(1, 5000),
    height=st.integers(1, 5000),
    spec=st.sampled_from([FRACTION, SHORTEST, SQUASH]),
)
def test_the_box_lies_within_the_image(width: int, height: int, spec: Preprocess) -> None:
    left, top, right, bottom = source_box((width, height), (224, 224), spec)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


@pytest.mark.parametrize("spec", [FRACTION, SHORTEST, SQUASH])
@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (3, 2)])
def test_tiny_and_thin_images_work(size: tuple[int, int], spec: Preprocess) -> None:
    found = preprocess(Image.new("RGB", size, (9, 8, 7)), (224, 200), spec)
    assert found.shape == (224, 200, 3)
    assert found.dtype == np.uint8
    assert (found == (9, 8, 7)).all()


@pytest.mark.parametrize("name", ["bicubic", "bilinear", "lanczos", "box", "nearest"])
def test_each_interpolation_is_pillows(name: Any) -> None:
    image = photo_like(300, 200)
    spec = dataclasses.replace(SQUASH, interpolation=name, antialias=name != "nearest")
    expected = np.asarray(image.resize((60, 50), Image.Resampling[name.upper()]))
    np.testing.assert_array_equal(preprocess(image, (50, 60), spec), expected)
