"""Thumbnails, maps and neighbours: what a report shows of images and embeddings."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tlpipe.errors import OptionError
from tlpipe.stages.closest import closest
from tlpipe.stages.decode import decode
from tlpipe.stages.projection import principal, umap
from tlpipe.stages.thumbnails import TILES, Budget, reduction, squared, tile_px
from tlpipe.types import FileStat

# -- tiles -----------------------------------------------------------------------------------------


def encoded(image: Image.Image, orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    image.save(out, "PNG", exif=exif)
    return out.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(60, 40), (40, 60), (40, 40)])
def test_a_tile_is_the_centred_square_upright(orientation: int, size: tuple[int, int]) -> None:
    corners = np.array([[[250, 0, 0], [0, 250, 0]], [[0, 0, 250], [250, 250, 0]]], np.uint8)
    image = Image.fromarray(corners).resize(size, Image.Resampling.BILINEAR)
    raw = encoded(image, orientation)
    picture = decode(raw, FileStat())
    found = squared(picture, 16)  # type: ignore[arg-type]
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(raw))).convert("RGB")
    expected = np.asarray(ImageOps.fit(upright, (16, 16), Image.Resampling.BICUBIC))
    assert found.shape == (16, 16, 3)
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 6


@pytest.mark.parametrize(
    ("size", "px", "expected"),
    [((4000, 3000), 48, 8), ((500, 375), 48, 2), ((384, 900), 48, 4), ((100, 100), 48, 1)],
)
def test_an_image_is_decoded_at_twice_the_tile_at_least(
    size: tuple[int, int], px: int, expected: int
) -> None:
    assert reduction(size, px) == expected


def noise(count: int, px: int, seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    return list(rng.integers(0, 256, (count, px, px, 3), dtype=np.uint8))


@pytest.mark.parametrize("each", [60, 300, 900, 4000])
def test_sheets_never_take_more_than_the_budget(each: int) -> None:
    count, px = 700, 24
    budget = Budget(each * count, count)
    tiles, total, placed = noise(count, px), 0, 0
    for start in range(0, count, 100):
        found = budget.packed(tiles[start : start + 100])
        if found is not None:
            total += len(found.data)
            placed += found.count
    assert total <= each * count
    assert (placed == count) == (each > 60)  # so little is too little for noise


def test_a_sheet_has_its_tiles_row_by_row() -> None:
    tiles = [np.full((16, 16, 3), 10 * n, np.uint8) for n in range(23)]
    found = Budget(10**6, 23).packed(tiles)
    assert found is not None
    assert (found.tile_px, found.columns, found.count) == (16, 20, 23)
    sheet = np.asarray(Image.open(io.BytesIO(found.data)).convert("RGB")).astype(int)
    assert sheet.shape == (32, 320, 3)
    for number in range(23):
        row, column = divmod(number, 20)
        middle = sheet[16 * row + 8, 16 * column + 8]
        assert np.abs(middle - 10 * number).max() <= 8


def test_a_hard_sheet_does_not_spoil_the_easy_ones() -> None:
    budget = Budget(300_000, 400)
    hard = budget.packed(noise(100, 32))
    easy = [budget.packed([np.full((32, 32, 3), 90, np.uint8)] * 100) for _ in range(3)]
    assert hard is not None
    assert all(easy)


def test_more_tiles_are_smaller() -> None:
    widths = [tile_px(count, 5_000_000) for count in (1, 10_000, 20_000, 50_000, 10**6)]
    assert widths[:2] == [48, 48]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == 16


def test_a_single_picture_that_does_not_fit_is_none() -> None:
    assert Budget(10, 1).single(noise(1, 96)[0]) is None
    assert TILES % 20 == 0


# -- maps ------------------------------------------------------------------------------------------


def unit(vectors: Any) -> Any:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)


def test_principal_components_are_those_of_the_decomposition() -> None:
    rng = np.random.default_rng(3)
    vectors = (rng.normal(size=(300, 40)) * np.geomspace(8, 0.1, 40)).astype(np.float32)
    found = principal(vectors)
    centred = unit(vectors.astype(np.float64))
    centred -= centred.mean(axis=0)
    _, values, axes = np.linalg.svd(centred, full_matrices=False)
    assert found.kept == pytest.approx((values[:2] ** 2).sum() / (values**2).sum(), rel=1e-4)
    for axis, points in zip(axes[:2], found.points.T, strict=True):
        correlation = np.corrcoef(centred @ axis, points)[0, 1]
        assert abs(correlation) > 0.9999
        sign = np.sign(axis[np.abs(axis).argmax()])
        assert np.sign(correlation) == sign


def test_one_unit_of_a_map_is_the_same_in_both_directions() -> None:
    rng = np.random.default_rng(5)
    vectors = np.column_stack([np.ones(200), rng.normal(0, 0.3, 200), rng.normal(0, 0.1, 200)])
    points = principal(vectors.astype(np.float32)).points
    spans = np.ptp(points, axis=0)
    assert spans[0] == pytest.approx(1, abs=1e-6)
    assert 0 < spans[1] < 0.6
    assert np.allclose((points.min(axis=0) + points.max(axis=0)) / 2, 0.5, atol=1e-6)


@pytest.mark.parametrize(
    "vectors",
    [
        np.zeros((0, 4)),
        np.ones((1, 4)),
        np.ones((2, 4)),
        np.zeros((5, 4)),
        np.full((50, 3), 1e-3),
        np.array([[1.0, 2.0]]) * np.arange(1, 9)[:, np.newaxis],  # the same direction
    ],
)
def test_what_does_not_differ_lies_in_the_middle(vectors: Any) -> None:
    found = principal(vectors.astype(np.float32))
    assert found.points.shape == (len(vectors), 2)
    assert np.allclose(found.points, 0.5)
    assert found.kept is None


def test_two_images_lie_at_the_ends_of_a_line() -> None:
    found = principal(np.eye(2, 5, dtype=np.float32))
    assert sorted(found.points[:, 0].tolist()) == pytest.approx([0, 1])
    assert found.points[:, 1] == pytest.approx(0.5, abs=1e-3)


def test_one_number_per_image_makes_a_line() -> None:
    found = principal(np.array([[1], [-1], [1]], np.float32))
    assert sorted(found.points[:, 0].tolist()) == pytest.approx([0, 1, 1])
    assert found.points[:, 1] == pytest.approx(0.5)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 40), st.integers(1, 12), st.integers(0, 1000))
def test_points_lie_in_the_unit_square(count: int, dim: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    points = principal(vectors).points
    assert points.shape == (count, 2)
    assert np.isfinite(points).all()
    assert ((points >= 0) & (points <= 1)).all()


def test_umap_is_asked_as_its_own_documentation_says(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    class Fake:
        def __init__(self, **options: Any) -> None:
            asked.update(options)

        def fit_transform(self, vectors: Any) -> Any:
            return np.column_stack([4 * np.arange(len(vectors)), np.arange(len(vectors))])

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Fake))
    found = umap(np.ones((12, 3), np.float32), 7)
    assert asked == {
        "n_components": 2,
        "n_neighbors": 11,
        "metric": "cosine",
        "random_state": 7,
        "n_jobs": 1,
    }
    assert np.ptp(found.points, axis=0).tolist() == pytest.approx([1, 0.25])
    assert found.kept is None


def test_without_umap_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(OptionError, match="umap-learn") as caught:
        umap(np.ones((12, 3), np.float32), 0)
    assert "pip install 'tlpipe[umap]'" in caught.value.hint


def test_a_umap_of_few_images_is_refused() -> None:
    with pytest.raises(OptionError, match="9 images"):
        umap(np.ones((9, 3), np.float32), 0)


# -- neighbours ------------------------------------------------------------------------------------


def by_hand(vectors: Any, among: Any, count: int) -> list[list[int]]:
    cosines = unit(vectors) @ unit(vectors).T
    found = []
    for row in range(len(vectors)):
        others = [r for r in np.flatnonzero(among).tolist() if r != row]
        others.sort(key=lambda r: -cosines[row, r])
        found.append((others + [-1] * count)[:count])
    return found


@pytest.mark.parametrize(("among", "count"), [(50, 6), (4, 6), (1, 2), (0, 3)])
def test_the_closest_are_those_of_a_search_by_hand(among: int, count: int) -> None:
    vectors = np.random.default_rng(1).normal(size=(60, 7)).astype(np.float32)
    mask = np.arange(60) < among
    assert closest(vectors, mask, count).tolist() == by_hand(vectors, mask, count)


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(2).normal(size=(60, 7)).astype(np.float32)
    mask = np.arange(60) % 3 > 0
    whole = closest(vectors, mask, 5)
    monkeypatch.setattr("tlpipe.stages.closest._BLOCK_BYTES", 4 * 40 * 7)
    assert np.array_equal(closest(vectors, mask, 5), whole)


def test_an_embedding_of_zeros_has_neighbours_too() -> None:
    vectors = np.zeros((4, 3), np.float32)
    assert closest(vectors, np.ones(4, np.bool_), 2).tolist() == [[1, 2], [0, 2], [0, 1], [0, 1]]
