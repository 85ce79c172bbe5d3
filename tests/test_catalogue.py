from __future__ import annotations

import dataclasses
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from conftest import Trained, card_text, tiny_network, with_header
from tlpipe.card import SCHEMA, Card
from tlpipe.catalogue import all_cards, cards_dir, find_card, read_card
from tlpipe.errors import CardError, UnknownBackboneError
from tlpipe.graph.io import load_model, metadata
from tlpipe.graph.tidy import tidied
from tlpipe.presets import preset
from tlpipe.stages.classifier import read_metadata
from tlpipe.stages.session import open_graph
from tlpipe.stages.store import read_features
from tlpipe.stages.weights import resolved
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
        " Did you mean 'efficientnet-lite0' or 'efficientnet-lite1' or 'efficientnet-lite2' or"
        " 'efficientnet-lite4'?"
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


# The ONNX model zoo's cards. What is known of the files stands here once more, so that a slip of
# the pen in a card does not go unnoticed: the files themselves are not here.
ZOO = """
alexnet            bvlcalexnet-12        6b0da951 243863787 data_0   NCHW 4096 caffe    BSD-3-Clause
densenet121        densenet-12           0294e7e8  32726877 data_0   NCHW 1024 unstated MIT
efficientnet-lite4 efficientnet-lite4-11 d1116899  51946641 images:0 NHWC 1280 lite     MIT
googlenet          googlenet-12          c99c5070  28021836 data_0   NCHW 1024 caffe    BSD-3-Clause
inception-v1       inception-v1-12       814b31a6  28021958 data_0   NCHW 1024 caffe    MIT
inception-v2       inception-v2-9        37ed4aa9  45042799 data_0   NCHW 1024 unstated MIT
mobilenetv2        mobilenetv2-12        c0c3f76d  13964571 input    NCHW 1280 imagenet Apache-2.0
resnet18-v1        resnet18-v1-7         4e8f8653  46820737 data     NCHW 512 imagenet Apache-2.0
resnet50-v1        resnet50-v1-12        3f03fdef 102576593 data     NCHW 2048 imagenet Apache-2.0
resnet50-v2        resnet50-v2-7         79102261 102442452 data     NCHW 2048 imagenet Apache-2.0
shufflenet-v2      shufflenet-v2-12      ea69821b   9218556 input    NCHW 1024 imagenet BSD-3-Clause
squeezenet1-1      squeezenet1.1-7       1eeff551   4956208 data     NCHW 512 imagenet Apache-2.0
vgg16              vgg16-12              722c42f5 553437752 data     NCHW 4096 imagenet Apache-2.0
"""
ZOO_ROWS = [row.split() for row in ZOO.strip().splitlines()]
ZOO_PATH = "validated/vision/classification/"
ZOO_HOSTS = (
    "https://huggingface.co/onnxmodelzoo/legacy_models/resolve/main/",
    "https://media.githubusercontent.com/media/onnx/models/main/",
)


@pytest.mark.parametrize("row", ZOO_ROWS, ids=[row[0] for row in ZOO_ROWS])
def test_a_card_of_the_zoo_is_what_is_known_of_its_file(row: list[str]) -> None:
    name, file, sha256, size_bytes, tensor, layout, dim, preprocess, licence = row
    card = find_card(name)
    weights, output = card.weights, card.output
    assert (card.name, card.licence) == (f"{name}.in1k", licence)
    assert (weights.file, weights.sha256[:8]) == (f"{file}.onnx", sha256)
    assert weights.size_bytes == int(size_bytes)
    assert (weights.format, weights.package, weights.digest, weights.data) == ("onnx", "", "", ())
    shape = (card.input.tensor, card.input.layout, card.input.dtype, card.image_size)
    assert shape == (tensor, layout, "float32", (224, 224))
    assert (output.tensors, output.dim, output.classes) == (("auto",), int(dim), 1000)
    assert not output.is_found
    lite = find_card(DEFAULT_BACKBONE).arithmetic
    expected = {
        "unstated": None,
        "imagenet": preset("imagenet", (224, 224)),
        "caffe": preset("caffe", (224, 224)),
        "lite": replace(lite, interpolation="bilinear"),
    }
    assert card.preprocess == expected[preprocess]
    assert not card.golden.values
    assert card.golden.reference.startswith("none")


@pytest.mark.parametrize("row", ZOO_ROWS, ids=[row[0] for row in ZOO_ROWS])
def test_a_card_of_the_zoo_says_where_from_and_what_was_not_tried(row: list[str]) -> None:
    card = find_card(row[0])
    paths = []
    for url, host in zip(card.weights.urls, ZOO_HOSTS, strict=True):
        assert url.startswith(host + ZOO_PATH)
        paths.append(url.removeprefix(host))
    assert len(set(paths)) == 1
    assert paths[0].endswith(f"/model/{card.weights.file}")
    text = (cards_dir() / f"{card.name}.toml").read_text(encoding="utf-8")
    comments = " ".join(re.findall(r"^# ?(.*)$", text, re.M))
    assert "Published top-1" in comments
    assert "Neither could be fetched when this card was written" in comments


# Graphs that come with the onnx package for its own tests, their weights left out: the nearest for
# each card.
LIGHT = {
    "alexnet": "bvlc_alexnet",
    "googlenet": "inception_v1",
    "inception-v1": "inception_v1",
    "inception-v2": "inception_v2",
    "densenet121": "densenet121",
    "resnet50-v1": "resnet50",
    "squeezenet1-1": "squeezenet",
}


@pytest.mark.parametrize("name", LIGHT)
def test_what_a_card_of_the_zoo_states_is_found_in_a_graph_of_that_architecture(name: str) -> None:
    card = find_card(name)
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    model = tidied(load_model(folder / f"light_{LIGHT[name]}.onnx"))
    (image,) = model.graph.input
    card = replace(card, input=replace(card.input, tensor=image.name))
    found = resolved(card, model, open_graph)  # refuses another dim or number of classes
    assert found.activation == "softmax"
    assert len(found.tensors) == 1


def test_every_card_with_addresses_is_of_the_zoo_and_no_file_stands_twice() -> None:
    cards = all_cards().values()
    with_urls = {card.architecture for card in cards if card.weights.urls}
    assert with_urls == {row[0] for row in ZOO_ROWS}
    assert len({card.weights.sha256 for card in cards}) == len(cards)


def test_the_catalogue_in_words_is_the_catalogue() -> None:
    text = (cards_dir() / "README.md").read_text(encoding="utf-8")
    section = text.split("## The catalogue")[1].split("\n## ")[0]
    rows = [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("| `")
    ]
    stated = {row[0]: (row[2], row[3], row[5]) for row in rows}
    assert stated == {
        card.architecture: (
            f"{card.weights.size_bytes / 1e6:,.0f}",
            f"{card.output.dim:,}",
            card.licence,
        )
        for card in all_cards().values()
    }
    verified = {row[0] for row in rows if row[6] == "yes"}
    assert verified == {card.architecture for card in all_cards().values() if card.golden.values}
    unstated = {row[0] for row in rows if row[4] == "unstated"}
    assert unstated == {c.architecture for c in all_cards().values() if c.preprocess is None}


# --- schema 2


def changed(card: Card, **tables: Any) -> dict[str, Any]:
    """The card as a table; each keyword changes fields of that table, or a field of the card."""
    table = card.to_dict()
    for name, value in tables.items():
        table[name] = table[name] | value if isinstance(value, dict) else value
    return table


AUTO = {"tensors": ["auto"], "pooling": "auto", "logits": "auto", "activation": "auto"}
URLS = ["https://example.org/a.onnx", "http://mirror.example.org/a.onnx"]
DATA = [{"file": "a.onnx.data", "sha256": "1" * 64, "size_bytes": 8}]
PLAIN = {"scale": 1.0, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}


@pytest.mark.parametrize(
    "changes",
    [
        {"output": AUTO},
        {"output": {"tensors": ["a", "b"], "pooling": "mean-channels-last"}},
        {"output": {"pooling": "cls"}},
        {"output": {"logits": "", "classes": 0, "activation": "none"}},
        {"weights": {"urls": URLS}},
        {"weights": {"data": DATA}},
        {"weights": {"digest": ""}},
        {"preprocess": "unstated"},
        {"input": {"dtype": "uint8"}, "preprocess": PLAIN},
        {"preprocess": {"colour": "grey", "mean": [0.5] * 3, "std": [0.5] * 3}},
    ],
)
def test_what_schema_2_can_say(tiny_card: Card, changes: dict[str, Any]) -> None:
    table = changed(tiny_card, **changes)
    card = Card.from_dict(table, "it")
    assert card != tiny_card
    assert json.loads(card.to_json()) == json.loads(json.dumps(table))
    assert Card.from_dict(json.loads(card.to_json()), "it") == card


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": AUTO | {"tensors": ["features"]}}, "'auto' goes for all of"),
        ({"output": AUTO | {"tensors": ["auto", "b"]}}, "'auto' goes for all of"),
        ({"output": AUTO | {"pooling": "flatten"}}, "'auto' goes for all of"),
        ({"output": AUTO | {"logits": "logits"}}, "'auto' goes for all of"),
        ({"output": AUTO | {"activation": "softmax"}}, "'auto' goes for all of"),
        ({"output": {"tensors": []}}, "'tensors' must name a tensor"),
        ({"output": {"tensors": ["a", "a"]}}, "'tensors' must name a tensor, and each once"),
        ({"output": {"tensors": "a"}}, "it must be a list"),
        ({"output": {"pooling": "mean"}}, "it must be one of"),
        ({"output": {"classes": -1}}, "'classes' must not be negative"),
        ({"weights": {"urls": ["ftp://example.org/a.onnx"]}}, "'urls' must be http"),
        ({"weights": {"urls": ["https://"]}}, "'urls' must be http"),
        ({"weights": {"urls": URLS[0]}}, "it must be a list"),
        ({"weights": {"urls": URLS, "package": "p"}}, "'package' and 'urls' exclude each other"),
        ({"weights": {"data": [DATA[0] | {"sha256": "1"}]}}, "64 hexadecimal digits"),
        ({"weights": {"data": [{"file": "a"}]}}, r"lacks \['sha256', 'size_bytes'\]"),
        ({"weights": {"architecture": "a", "format": "torch-legacy", "digest": ""}}, "64 hexa"),
        ({"preprocess": "unknown"}, "it must be a table"),
        ({"input": {"dtype": "int8"}}, "it must be one of"),
        ({"input": {"dtype": "uint8"}}, "it takes plain pixels"),
        ({"preprocess": {"colour": "grey"}}, "'grey' goes with three equal values"),
        ({"preprocess": {"antialias": False}}, "'antialias' must be true"),
        ({"schema": 0}, "states schema = 0"),
        ({"schema": True}, "states schema = True"),
    ],
)
def test_what_schema_2_refuses(tiny_card: Card, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CardError, match=message):
        Card.from_dict(changed(tiny_card, **changes), "it")


def test_unstated_preprocessing_is_an_error_when_it_is_needed(tiny_card: Card) -> None:
    card = replace(tiny_card, preprocess=None)
    with pytest.raises(CardError, match="--preprocess imagenet"):
        fingerprint(card)
    assert card.to_dict()["preprocess"] == "unstated"


def test_addresses_name_a_file_and_paths_are_relative_to_the_card(
    network: Path, tmp_path: Path
) -> None:
    text = card_text(network)
    assert Path(card_from(text, tmp_path).weights.file) == network
    text = text.replace("schema = 1", "schema = 2")
    text = text.replace('file = "', f'urls = ["{URLS[0]}"]\ndata = []\nfile = "')
    text = text.replace('tensor = "features"', 'tensors = ["features"]')
    text = text.replace('logits = "logits"', 'logits = "logits"\nclasses = 5\nactivation = "none"')
    card = card_from(text, tmp_path)
    assert (card.weights.file, card.weights.urls) == (network.name, (URLS[0],))
    assert (card.output.classes, card.output.activation) == (5, "none")


def test_files_of_weights_beside_the_network_count_for_its_identity(tiny_card: Card) -> None:
    def with_data(*sha256s: str) -> Card:
        data = [DATA[0] | {"file": str(i), "sha256": s} for i, s in enumerate(sha256s)]
        return Card.from_dict(changed(tiny_card, weights={"data": data}), "it")

    assert with_data().weights.identity == tiny_card.weights.sha256
    cards = [with_data(), with_data("1" * 64), with_data("2" * 64), with_data("1" * 64, "2" * 64)]
    assert len({fingerprint(card) for card in cards}) == len(cards)


# --- schema 1: as cards, feature files and classifiers have it that an older tlpipe wrote


def as_schema_1(card: Card) -> dict[str, Any]:
    table = card.to_dict() | {"schema": 1}
    weights, output = dict(table["weights"]), dict(table["output"])
    assert (weights.pop("urls"), weights.pop("data")) == ((), ())
    (output["tensor"],) = output.pop("tensors")
    assert (output.pop("classes"), output.pop("activation")) == (0, "softmax")
    return table | {"weights": weights, "output": output}


def test_schema_1_is_read_and_written_as_schema_2(tiny_card: Card) -> None:
    old = as_schema_1(tiny_card)
    card = Card.from_dict(json.loads(json.dumps(old)), "it")
    assert card == tiny_card
    assert card.output.tensors == ("features",)
    assert (card.output.classes, card.output.activation) == (0, "softmax")
    new = json.loads(card.to_json())
    assert new["schema"] == SCHEMA
    assert Card.from_dict(new, "it") == card
    assert fingerprint(card) == fingerprint(tiny_card)
    assert "tensor" in old["output"]  # what was given is not changed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": {}}, "'weights' lacks"),
        ({"output": {}}, "'output' lacks"),
        ({"output": "features"}, "it must be a table"),
    ],
)
def test_damaged_schema_1_is_refused(
    tiny_card: Card, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(CardError, match=message):
        Card.from_dict(as_schema_1(tiny_card) | changes, "it")


def test_files_with_a_card_of_schema_1_are_read(
    trained: Trained, tiny_card: Card, tmp_path: Path
) -> None:
    old = json.dumps(as_schema_1(tiny_card), sort_keys=True)
    features = Path(shutil.copy(trained.features, tmp_path / "old.h5"))
    assert json.loads(read_features(features).header.backbone)["schema"] == SCHEMA
    with_header(features, backbone=old)
    header = read_features(features).header
    assert header.card("it") == tiny_card
    flat = metadata(onnx.load(trained.classifier)) | {"backbone": old}
    info = read_metadata(flat, "it")
    assert info.card() == tiny_card
    assert read_metadata(info.to_metadata(), "it") == info
