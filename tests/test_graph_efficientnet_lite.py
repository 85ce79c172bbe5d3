"""The EfficientNet-Lite backbones against golden vectors of a reference (PyTorch)."""

from __future__ import annotations

import importlib.resources
import itertools
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stored import pixels_of_item
from tlpipe.card import Card
from tlpipe.catalogue import find_card
from tlpipe.errors import WeightsError
from tlpipe.execution import ON_CPU
from tlpipe.files import sha256_file
from tlpipe.graph.efficientnet_lite import VARIANTS, build_efficientnet_lite, same_padding
from tlpipe.graph.legacy_torch import read_state_dict
from tlpipe.seams import OpenedNetwork
from tlpipe.stages.session import open_graph, open_network
from tlpipe.stages.weights import full_network, prepared_file, pretrained_file
from tlpipe.types import Item
from tlpipe.workflows.models import export_backbone

PHOTOS = ("china.jpg", "flower.jpg")

# Height and width after the stem and after each stage: 65, 33, 17, 15 and 9 are odd.
SIZES = {
    "efficientnet-lite0": [112, 112, 56, 28, 14, 14, 7, 7],
    "efficientnet-lite1": [120, 120, 60, 30, 15, 15, 8, 8],
    "efficientnet-lite2": [130, 130, 65, 33, 17, 17, 9, 9],
}
LAST_BLOCKS = {
    "efficientnet-lite0": [0, 2, 4, 7, 10, 14, 15],
    "efficientnet-lite1": [0, 3, 6, 10, 14, 19, 20],
    "efficientnet-lite2": [0, 3, 6, 10, 14, 19, 20],
}

# Positions in ImageNet's list of classes: 698 is palace; 985 is daisy and 599 honeycomb (the flower
# is a dahlia, which the list does not have).
EXPECTED = {
    ("efficientnet-lite0", "china.jpg"): 698,
    ("efficientnet-lite0", "flower.jpg"): 985,
    ("efficientnet-lite1", "china.jpg"): 698,
    ("efficientnet-lite1", "flower.jpg"): 599,
    ("efficientnet-lite2", "china.jpg"): 698,
    ("efficientnet-lite2", "flower.jpg"): 599,
}


@pytest.fixture(scope="module", params=VARIANTS)
def card(request: pytest.FixtureRequest) -> Card:
    return find_card(request.param)


@pytest.fixture(scope="module")
def golden(card: Card) -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "golden" / f"{card.architecture}.npz") as file:
        return dict(file)


def photo(name: str) -> Path:
    return Path(str(importlib.resources.files("sklearn.datasets.images") / name))


def pixels(card: Card, name: str) -> np.ndarray:
    return pixels_of_item(card, Item(name, photo(name)), "exact")[np.newaxis]


@pytest.mark.parametrize("name", PHOTOS)
def test_embeddings_are_those_of_the_reference(
    card: Card, golden: dict[str, np.ndarray], name: str
) -> None:
    found = open_network(prepared_file(card, open_graph), ON_CPU).run(pixels(card, name))[
        "embeddings"
    ][0]
    expected = golden[f"{name}/embedding"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=card.golden.tolerance)


def test_the_card_states_the_golden_values(card: Card, golden: dict[str, np.ndarray]) -> None:
    name = card.golden.image.rpartition("/")[2]
    assert sha256_file(photo(name)) == card.golden.image_sha256
    stated = np.array(card.golden.values)
    reference = golden[f"{name}/embedding"][: stated.size]
    np.testing.assert_allclose(stated, reference, rtol=1e-5, atol=1e-6)
    assert (stated > 0.01).sum() >= 5  # else agreement would mean nothing


def test_the_card_states_the_input_of_the_variant(card: Card) -> None:
    size = VARIANTS[card.architecture].size
    assert card.image_size == (size, size)
    assert card.preprocess.crop_fraction == size / (size + 32)


@pytest.fixture(scope="module")
def own(card: Card, tmp_path_factory: pytest.TempPathFactory) -> OpenedNetwork:
    path = tmp_path_factory.mktemp("own") / "imagenet.onnx"
    export_backbone(path, backbone=card)
    return open_network(path, ON_CPU)


@pytest.mark.parametrize("name", PHOTOS)
def test_the_full_network_names_the_photos(
    card: Card, golden: dict[str, np.ndarray], own: OpenedNetwork, name: str
) -> None:
    found = own.run(pixels(card, name))["probabilities"][0]
    logits = golden[f"{name}/logits"].astype(np.float64)
    expected = np.exp(logits - logits.max())
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=0, atol=1e-4)
    assert found.argmax() == EXPECTED[card.architecture, name]


def test_the_built_network_is_the_pinned_one(card: Card) -> None:
    model = full_network(card)  # raises where the digest is not the card's
    assert [value.name for value in model.graph.output] == ["features", "logits"]
    assert model.graph.name == card.architecture


def test_the_feature_maps_have_the_sizes_of_the_reference(card: Card) -> None:
    model = onnx.shape_inference.infer_shapes(full_network(card), strict_mode=True)
    sizes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim[2:]]
        for value in model.graph.value_info
    }
    blocks = [f"_blocks.{index}._bn2" for index in LAST_BLOCKS[card.architecture]]
    found = [sizes[name] for name in ["_bn0", *blocks]]
    assert found == [[size, size] for size in SIZES[card.architecture]]


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (224, 3, 2, (0, 1)),
        (56, 5, 2, (1, 2)),
        (65, 5, 2, (2, 2)),
        (33, 3, 2, (1, 1)),
        (9, 5, 1, (2, 2)),
        (7, 1, 1, (0, 0)),
        (4, 1, 2, (0, 0)),
    ],
)
def test_same_padding(size: int, kernel: int, stride: int, expected: tuple[int, int]) -> None:
    assert same_padding(size, kernel, stride) == expected


@given(st.integers(1, 600), st.integers(1, 7), st.integers(1, 4))
def test_same_padding_gives_the_size_over_the_stride(size: int, kernel: int, stride: int) -> None:
    before, after = same_padding(size, kernel, stride)
    assert (size + before + after - kernel) // stride + 1 == math.ceil(size / stride)
    assert 0 <= before <= after <= before + 1


@pytest.mark.parametrize(
    ("base", "expected"),
    [(16, 16), (24, 24), (40, 48), (80, 88), (112, 120), (192, 208), (320, 352)],
)
def test_filters_are_rounded_to_multiples_of_8(base: int, expected: int) -> None:
    assert VARIANTS["efficientnet-lite2"].filters(base) == expected
    assert VARIANTS["efficientnet-lite1"].filters(base) == base


def test_a_missing_tensor_is_named(card: Card) -> None:
    state = read_state_dict(pretrained_file(card))
    del state["_blocks.3._bn1.bias"]
    with pytest.raises(WeightsError, match=r"no tensor '_blocks\.3\._bn1\.bias'"):
        build_efficientnet_lite(state, card.architecture)


@pytest.mark.parametrize(("found", "wanted"), list(itertools.permutations(VARIANTS, 2)))
def test_the_weights_of_another_variant_are_refused(found: str, wanted: str) -> None:
    state = read_state_dict(pretrained_file(find_card(found)))
    with pytest.raises(WeightsError, match=r"has the shape .* expected was .* another network"):
        build_efficientnet_lite(state, wanted)
