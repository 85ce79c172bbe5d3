"""The default backbone against golden vectors of a reference implementation (PyTorch)."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

import numpy as np
import pytest

from tlpipe.catalogue import find_card
from tlpipe.errors import WeightsError
from tlpipe.files import sha256_file
from tlpipe.graph.efficientnet_lite import build_efficientnet_lite0
from tlpipe.graph.legacy_torch import read_state_dict
from tlpipe.stages.backbone import OrtNetwork
from tlpipe.stages.weights import full_network, prepared_file, pretrained_file
from tlpipe.types import DEFAULT_BACKBONE, Item
from tlpipe.workflows.common import loader
from tlpipe.workflows.models import export_backbone

CARD = find_card(DEFAULT_BACKBONE)
GOLDEN = np.load(Path(__file__).parent / "golden" / "efficientnet-lite0.npz")
TOLERANCE = CARD.golden.tolerance

# Positions in ImageNet's list of classes that fit the photos: palace; daisy.
EXPECTED = {"china.jpg": 698, "flower.jpg": 985}


def photo(name: str) -> Path:
    return Path(str(importlib.resources.files("sklearn.datasets.images") / name))


def pixels(name: str) -> np.ndarray:
    loaded = loader(CARD.image_size, CARD.preprocess)(Item(name, photo(name)))
    assert isinstance(loaded, tuple)
    return loaded[0][np.newaxis]


@pytest.mark.parametrize("name", EXPECTED)
def test_embeddings_are_those_of_the_reference(name: str) -> None:
    found = OrtNetwork(prepared_file(CARD), "cpu").run(pixels(name))["embeddings"][0]
    np.testing.assert_allclose(found, GOLDEN[f"{name}/embedding"], rtol=0, atol=TOLERANCE)


def test_the_card_states_the_golden_values() -> None:
    name = CARD.golden.image.rpartition("/")[2]
    assert sha256_file(photo(name)) == CARD.golden.image_sha256
    stated = np.array(CARD.golden.values)
    reference = GOLDEN[f"{name}/embedding"][: stated.size]
    np.testing.assert_allclose(stated, reference, rtol=1e-5, atol=1e-6)
    assert (stated > 0.01).sum() >= 5  # else agreement would mean nothing


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> OrtNetwork:
    path = tmp_path_factory.mktemp("own") / "imagenet.onnx"
    export_backbone(path)
    return OrtNetwork(path, "cpu")


@pytest.mark.parametrize(("name", "number"), EXPECTED.items())
def test_the_full_network_names_the_photos(own: OrtNetwork, name: str, number: int) -> None:
    found = own.run(pixels(name))["probabilities"][0]
    logits = GOLDEN[f"{name}/logits"].astype(np.float64)
    expected = np.exp(logits - logits.max())
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=0, atol=1e-4)
    assert found.argmax() == number


def test_the_built_network_is_the_pinned_one() -> None:
    model = full_network(CARD)  # raises where the digest is not the card's
    assert [value.name for value in model.graph.output] == ["features", "logits"]


def test_a_missing_tensor_is_named() -> None:
    state = read_state_dict(pretrained_file(CARD))
    del state["_blocks.3._bn1.bias"]
    with pytest.raises(WeightsError, match=r"no tensor '_blocks\.3\._bn1\.bias'"):
        build_efficientnet_lite0(state)
