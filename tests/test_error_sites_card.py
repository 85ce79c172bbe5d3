"""Errors of cards, of backbones by them, and of the demonstration, that no other test has seen."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from conftest import Trained, card_text, tiny_network
from refusals import disk_error, refused
from tlpipe import (
    BackboneOptions,
    RunOptions,
    check_backbone,
    classify,
    embed,
    find_backbone,
    remove_backbone,
)
from tlpipe.card import Card
from tlpipe.catalogue import find_card, read_card
from tlpipe.cli import demo
from tlpipe.cli.main import cli
from tlpipe.errors import (
    BackboneError,
    CardError,
    OptionError,
    OutputError,
    SourceError,
    TlpipeError,
    UnknownBackboneError,
)
from tlpipe.files import CACHE_VARIABLE, CARDS_VARIABLE, cache_dir
from tlpipe.presets import find_preprocess
from tlpipe.stages.session import open_graph
from tlpipe.stages.weights import prepared_file


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv(CARDS_VARIABLE, str(tmp_path / "cards"))


def card_of(model: onnx.ModelProto, folder: Path, **changes: str) -> Card:
    folder.mkdir(exist_ok=True)
    onnx.save(model, folder / "net.onnx")
    (folder / "net.toml").write_text(card_text(folder / "net.onnx", **changes))
    return read_card(folder / "net.toml")


# Cards


def test_a_card_that_is_no_table() -> None:
    with refused(CardError, "The backbone is ['resnet']; it must be a table", "models/README.md"):
        Card.from_dict(["resnet"], "The backbone")  # type: ignore[arg-type]


def test_an_architecture_of_two_cards(tmp_path: Path) -> None:
    for tag in ("one", "two"):
        card_of(tiny_network(), tmp_path / tag)
        text = card_text(tmp_path / tag / "net.onnx", name=f'"twin.{tag}"')
        (tmp_path / "cards").mkdir(exist_ok=True)
        (tmp_path / "cards" / f"twin.{tag}.toml").write_text(text)
    with refused(UnknownBackboneError, "'twin' could be any of ['twin.one', 'twin.two']", "full"):
        find_card("twin")


def test_a_preprocessing_for_smaller_images(tiny_card_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    text = tiny_card_path.read_text()
    for old, new in (('"exact"', '"shortest"'), ("size = 0", "size = 20")):
        text = text.replace(old, new)
    path.write_text(text.replace('crop = "none"', 'crop = "centre"'))
    assert find_preprocess(str(path), (20, 20)).size == 20
    with refused(CardError, str(path), "must reach height and width", "models/README.md"):
        find_preprocess(str(path), (24, 24))


def test_preprocessings_of_cards_that_are_none(tiny_card_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[preprocess")
    with refused(CardError, f"The card {str(path)!r} cannot be read", "Expected ']'"):
        find_preprocess(str(path), (16, 16))
    path.write_text("schema = 2\npreprocess = 'unstated'\n")
    with refused(CardError, str(path), "is 'unstated'", "--preprocess imagenet"):
        find_preprocess(str(path), (16, 16))


# Networks that are not as their cards say


def test_class_scores_of_a_size_that_nobody_states(tmp_path: Path, photos: Path) -> None:
    model = tiny_network()
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    card = card_of(model, tmp_path / "net")
    with refused(BackboneError, "no output 'logits' of a stated size (N, C)", "state 'classes'"):
        check_backbone(card, photos)


def test_a_grey_card_of_a_network_for_colours(tmp_path: Path, photos: Path) -> None:
    folder = tmp_path / "net"
    card_of(tiny_network(), folder)
    text = card_text(folder / "net.onnx", colour='"grey"', std="[64.0, 64.0, 64.0]")
    (folder / "net.toml").write_text(text.replace("110.0, 120.0", "100.0, 100.0"))
    card = read_card(folder / "net.toml")
    with refused(BackboneError, "images of 3 channels", "float32 NCHW and grey", "in the card"):
        embed(photos, tmp_path / "f.h5", backbone=card)


def test_a_cache_on_a_failing_disk(
    tmp_path: Path, tiny_card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = prepared_file(tiny_card, open_graph)
    disk_error(monkeypatch, path.with_name(f"{path.name}.sha256"))
    with refused(
        OutputError, str(cache_dir() / "backbones"), "Input/output error", "TLPIPE_CACHE="
    ):
        prepared_file(tiny_card, open_graph)


def test_a_classifier_on_a_failing_disk(
    tmp_path: Path, trained: Trained, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = trained.classifier
    disk_error(monkeypatch, path)
    with refused(BackboneError, f"{str(path)!r} cannot be read: Input/output", "permissions"):
        classify(path, photos, tmp_path / "p.csv")


def test_a_network_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "gone.onnx"
    found = error_of("models", "inspect", path)
    assert type(found) is BackboneError
    assert f"{str(path)!r} does not exist" in found.message
    assert "models list" in found.hint
    with refused(BackboneError, f"{str(path)!r} does not exist", "models list"):
        find_backbone(path)


def test_a_card_that_cannot_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = prepared_file(card_of(tiny_network(), tmp_path / "cards"), open_graph)
    unlink = Path.unlink

    def failing(self: Path, missing_ok: bool = False) -> None:
        if self == path:
            raise PermissionError(1, "Operation not permitted", str(self))
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", failing)
    with refused(OutputError, f"{str(path)!r} cannot be removed: Operation", "by hand"):
        remove_backbone("tiny.test")


# models check


def test_what_models_check_refuses(tmp_path: Path, tiny_card: Card, photos: Path) -> None:
    with refused(OptionError, "are not offered at int8", "Leave --precision out"):
        check_backbone(tiny_card, photos, options=RunOptions(precision="int8"))
    with refused(CardError, "The card of 'tiny.test' states already", "all but --preprocess"):
        check_backbone(tiny_card, photos, backbone_options=BackboneOptions(layer="features"))
    with refused(OptionError, "The engine 'ray' is for", "Leave --engine"):
        check_backbone(tiny_card, photos, options=RunOptions(engine="ray"))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"nothing")
    with refused(
        SourceError, "No image of", str(tmp_path / "bad"), "could be read", "not-an-image"
    ):
        check_backbone(tiny_card, tmp_path / "bad")


# The demonstration


def error_of(*words: object) -> TlpipeError:
    with pytest.raises(TlpipeError) as caught:
        cli.main(["--debug", *map(str, words)], standalone_mode=False)
    return caught.value


def test_a_demonstration_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = error_of("demo", "-o", tmp_path / "file" / "demo")
    assert type(found) is OutputError
    assert f"{str(tmp_path / 'file' / 'demo')!r} cannot be made: Not a directory" in found.message
    assert "--output" in found.hint
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / demo._MARK).touch()
    (folder / "digits").touch()  # where the folder of the scans is to be
    found = error_of("demo", "-o", folder)
    assert type(found) is OutputError
    assert f"cannot be written to {str(folder / 'digits')!r}" in found.message
    assert "--output" in found.hint
