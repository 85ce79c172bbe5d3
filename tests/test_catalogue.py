from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from conftest import card_text, tiny_network
from tlpipe.card import Card
from tlpipe.catalogue import all_cards, cards_dir, find_card, read_card
from tlpipe.errors import CardError, UnknownBackboneError
from tlpipe.types import DEFAULT_BACKBONE


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.onnx"
    onnx.save(tiny_network(), path)
    return path


def card_from(text: str, folder: Path) -> Card:
    path = folder / "card.toml"
    path.write_text(text, encoding="utf-8")
    return read_card(path)


def test_every_card_is_named_like_its_file() -> None:
    names = {path.stem for path in cards_dir().glob("*.toml")}
    assert names == set(all_cards())
    assert names


def test_a_backbone_is_found_by_architecture_name_or_path(tiny_card_path: Path) -> None:
    card = find_card(DEFAULT_BACKBONE)
    assert card.name == "efficientnet-lite0.in1k"
    assert find_card(card.name) == card
    assert find_card(str(tiny_card_path)).name == "tiny.test"


def test_an_unknown_backbone_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UnknownBackboneError) as caught:
        find_card("efficientnet-lite")
    assert str(caught.value) == (
        "There is no backbone 'efficientnet-lite' in the catalogue."
        " Did you mean 'efficientnet-lite0' or 'efficientnet-lite1' or 'efficientnet-lite2'?"
        " 'tlpipe models list' shows all; the path of a network (.onnx) or of a card"
        " (.toml) works too."
    )
    assert isinstance(caught.value, LookupError)


def test_a_card_survives_json(tiny_card: Card) -> None:
    table = json.loads(tiny_card.to_json())
    assert Card.from_dict(table, "it") == tiny_card


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": '"Tiny"'}, "'name' must be architecture.tag"),
        ({"sha256": '"abc"'}, "64 hexadecimal digits"),
        ({"std": "[0.0, 1.0, 1.0]"}, "'std' must not be 0"),
        ({"std": "[nan, 1.0, 1.0]"}, "numbers that float32 can hold"),
        ({"std": "[inf, 1.0, 1.0]"}, "numbers that float32 can hold"),
        ({"std": "[1e-45, 1.0, 1.0]"}, "numbers that float32 can hold"),
        ({"dim": "1_000_000_000"}, "'dim' must be at most 1,048,576"),
        ({"std": "[1.0, 1.0]"}, "it must have 3 values"),
        ({"std": '["a", 1.0, 1.0]'}, "must be of type float"),
        ({"std": "1.0"}, "it must be a list"),
        ({"dim": "0"}, "sizes must be at least 1"),
        ({"dim": '"8"'}, "must be of type int"),
        ({"colour": '"gray"'}, r"must be one of \['rgb', 'bgr', 'grey'\]"),
        ({"resize": '"shortest"'}, "'size' goes with resize 'shortest'"),
        ({"crop": '"centre"'}, "goes with crop 'centre'"),
        ({"crop": '"centre-fraction"'}, "'crop_fraction' goes with"),
    ],
)
def test_a_wrong_value_is_refused(
    network: Path, tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    with pytest.raises(CardError, match=message):
        card_from(card_text(network, **changes), tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("schema = 1", "schema = 3", "states schema = 3"),
        ('paper = "none"', "", r"lacks \['paper'\]"),
        ('paper = "none"', 'paper = "none"\nyear = 2020', r"unknown fields \['year'\]"),
        ("[golden]", "[golden", "cannot be read"),
        ('paper = "none"', "paper = " + "[" * 5000, "cannot be read"),
        ("scale = 1\n", "scale = nan\n", "numbers that float32 can hold"),
        ("scale = 1\n", "scale = 0\n", "'scale' must not be 0"),
        ("scale = 1\n", "", r"'preprocess' lacks \['scale'\]"),
    ],
)
def test_a_wrong_table_is_refused(
    network: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(CardError, match=message):
        card_from(card_text(network).replace(old, new), tmp_path)


def test_a_missing_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="does not exist"):
        find_card(str(tmp_path / "none.toml"))


def fingerprint(card: Card, **options: str) -> str:
    return card.fingerprint(**({"precision": "fp32", "decoder": "d"} | options))


def test_the_fingerprint_changes_with_all_that_changes_the_vectors(tiny_card: Card) -> None:
    def change(part: str, **values: Any) -> Card:
        whole = getattr(tiny_card, part)
        return dataclasses.replace(tiny_card, **{part: dataclasses.replace(whole, **values)})

    base = fingerprint(tiny_card)
    others = [
        fingerprint(change("weights", sha256="0" * 64)),
        fingerprint(change("input", height=17)),
        fingerprint(change("preprocess", mean=(0.0, 0.0, 0.0))),
        fingerprint(change("preprocess", interpolation="bicubic")),
        fingerprint(change("output", tensors=("other",))),
        fingerprint(tiny_card, precision="fp16"),
        fingerprint(tiny_card, decoder="other"),
    ]
    assert len({base, *others}) == len(others) + 1


def test_the_fingerprint_ignores_what_does_not(tiny_card: Card) -> None:
    other = dataclasses.replace(tiny_card, name="other.name", paper="another")
    assert fingerprint(other) == fingerprint(tiny_card)


def test_the_default_fingerprint_is_pinned() -> None:
    """Stored embeddings of all users depend on it: it must not change by accident."""
    card = find_card(DEFAULT_BACKBONE)
    assert fingerprint(card, decoder="pillow-exact-1") == (
        "c45de6e08fa4982ae9fca15c6db2c24e322360fe2f8402480296523c060562b1"
    )
