"""Geometry against a reference written from the definition of the filter, and against Pillow."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tlpipe.catalogue import find_card
from tlpipe.errors import OptionError
from tlpipe.picture import Picture
from tlpipe.stages import preprocess as module
from tlpipe.stages.decode import decode
from tlpipe.stages.preprocess import (
    check_decoder,
    default_decoder,
    preprocess,
    reduction,
    source_box,
)
from tlpipe.types import (
    DECODERS,
    DEFAULT_BACKBONE,
    EXACT_DECODER,
    FAST_DECODER,
    FileStat,
    Preprocess,
)

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


def exactly(image: Image.Image, size: tuple[int, int], spec: Preprocess) -> np.ndarray:
    return preprocess(Picture(image, image.size), size, spec, EXACT_DECODER)


def fast(image: Image.Image, size: tuple[int, int], spec: Preprocess) -> np.ndarray:
    return preprocess(Picture(image, image.size), size, spec, FAST_DECODER)


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


@pytest.mark.parametrize("way", [exactly, fast])
@pytest.mark.parametrize("size", [(640, 427), (427, 640), (500, 375), (200, 150), (1500, 230)])
@pytest.mark.parametrize("spec", [FRACTION, SQUASH, SHORTEST], ids=["fraction", "squash", "short"])
def test_pixels_are_those_of_the_reference(
    size: tuple[int, int], spec: Preprocess, way: Any
) -> None:
    """Within 2 levels, 0.35 on average: each of two passes is rounded and clipped to 8 bits."""
    image = photo_like(*size)
    found = way(image, (224, 224), spec).astype(np.float64)
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
    difference = np.abs(exactly(image, (56, 56), spec).astype(np.int16) - expected)
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
@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (3, 2), (1, 40_000)])
@pytest.mark.parametrize("decoder", DECODERS)
def test_tiny_and_thin_images_work(size: tuple[int, int], spec: Preprocess, decoder: str) -> None:
    found = preprocess(Picture(Image.new("RGB", size, (9, 8, 7)), size), (224, 200), spec, decoder)
    assert found.shape == (224, 200, 3)
    assert found.dtype == np.uint8
    assert (found == (9, 8, 7)).all()


@pytest.mark.parametrize("name", ["bicubic", "bilinear", "lanczos", "box", "nearest"])
def test_each_interpolation_is_pillows(name: Any) -> None:
    image = photo_like(300, 200)
    spec = dataclasses.replace(SQUASH, interpolation=name, antialias=name != "nearest")
    expected = np.asarray(image.resize((60, 50), Image.Resampling[name.upper()]))
    np.testing.assert_array_equal(exactly(image, (50, 60), spec), expected)


@pytest.mark.parametrize("name", ["bicubic", "bilinear", "lanczos", "box", "nearest"])
def test_each_fast_interpolation_is_close_to_pillows(name: Any) -> None:
    image = photo_like(300, 200)
    spec = dataclasses.replace(SQUASH, interpolation=name, antialias=name != "nearest")
    found, expected = fast(image, (50, 60), spec), exactly(image, (50, 60), spec)
    difference = np.abs(found.astype(np.int16) - expected)
    assert difference.max() <= (2 if name not in ("box", "nearest") else 0)


@pytest.mark.parametrize("turn", [None, *Image.Transpose])
@pytest.mark.parametrize("spec", [FRACTION, SQUASH, SHORTEST], ids=["fraction", "squash", "short"])
def test_turning_the_result_is_turning_the_image(turn: Any, spec: Preprocess) -> None:
    stored = photo_like(431, 300)
    upright = stored if turn is None else stored.transpose(turn)
    size = (100, 120)
    spec = dataclasses.replace(spec, size=130 if spec.size else 0)
    found = preprocess(Picture(stored, stored.size, 1, turn), size, spec, FAST_DECODER)
    difference = np.abs(found.astype(np.int16) - exactly(upright, size, spec))
    assert difference.max() <= 3
    assert difference.mean() <= 0.4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(1603, 1201), (1201, 1603)])
def test_a_reduced_jpeg_shows_the_same(orientation: int, size: tuple[int, int]) -> None:
    """Shifted by half a pixel of the result it would differ by 2 on average."""
    image = photo_like(size[0] // 8, size[1] // 8).resize(size, Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95, subsampling=0, exif=exif)

    def reduce(image_size: tuple[int, int]) -> int:
        return reduction(image_size, (224, 224), FRACTION)

    reduced = decode(file.getvalue(), FileStat(), reduce)
    whole = decode(file.getvalue(), FileStat())
    assert isinstance(reduced, Picture)
    assert isinstance(whole, Picture)
    assert (reduced.reduction, whole.reduction) == (2, 1)
    assert reduced.size == whole.size == size
    assert reduced.image.size == (-(-size[0] // 2), -(-size[1] // 2))
    found = preprocess(reduced, (224, 224), FRACTION, FAST_DECODER).astype(np.int16)
    difference = np.abs(found - preprocess(whole, (224, 224), FRACTION, EXACT_DECODER))
    assert difference.mean() <= 0.7


@settings(max_examples=300, deadline=None)
@given(
    width=st.integers(1, 9000),
    height=st.integers(1, 9000),
    spec=st.sampled_from([FRACTION, SHORTEST, SQUASH]),
)
def test_a_reduced_image_keeps_twice_the_pixels(width: int, height: int, spec: Preprocess) -> None:
    times = reduction((width, height), (224, 224), spec)
    left, top, right, bottom = source_box((width, height), (224, 224), spec)
    smallest = min(right - left, bottom - top) / 224
    assert times == 1 or smallest / times >= 2
    assert times == 8 or smallest / (2 * times) < 2


@settings(max_examples=150, deadline=None)
@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    spec=st.sampled_from([FRACTION, SHORTEST, SQUASH]),
    turn=st.sampled_from([None, *Image.Transpose]),
    times=st.sampled_from([1, 2, 4, 8]),
)
def test_no_size_is_refused(
    width: int, height: int, spec: Preprocess, turn: Any, times: int
) -> None:
    small = Image.new("RGB", (-(-width // times), -(-height // times)), (1, 2, 3))
    found = preprocess(Picture(small, (width, height), times, turn), (60, 50), spec, FAST_DECODER)
    assert found.shape == (60, 50, 3)
    assert (found == (1, 2, 3)).all()


def test_nearest_is_never_reduced() -> None:
    spec = dataclasses.replace(SQUASH, interpolation="nearest", antialias=False)
    assert reduction((8000, 8000), (224, 224), spec) == 1


def test_without_the_fast_library_the_default_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_decoder() == FAST_DECODER
    check_decoder(FAST_DECODER)
    monkeypatch.setattr(module, "cykooz_resizer", None)
    assert default_decoder() == EXACT_DECODER
    check_decoder(EXACT_DECODER)
    with pytest.raises(OptionError, match=r"needs the package cykooz\.resizer") as caught:
        check_decoder(FAST_DECODER)
    assert "--decode exact" in caught.value.hint
