"""Networks of the user's own: looked into, used by path or name, pulled, checked, removed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import helper, numpy_helper

import tlpipe
from conftest import TINY_CLASSES, TINY_DIM, TINY_SIZE, tiny_network, write_image
from tlpipe import BackboneOptions, add_backbone, find_backbone, pull_backbone, remove_backbone
from tlpipe.card_text import card_text
from tlpipe.catalogue import all_cards, find_card, read_card, shipped_cards
from tlpipe.class_names import class_names
from tlpipe.cli.main import cli
from tlpipe.errors import (
    BackboneError,
    CardError,
    DownloadError,
    OptionError,
    OutputError,
    UndecidedError,
    UnknownBackboneError,
    WeightsError,
)
from tlpipe.execution import ON_CPU
from tlpipe.files import CACHE_VARIABLE, CARDS_VARIABLE, user_cards_dir
from tlpipe.presets import PRESETS, find_preprocess, from_metadata, preset
from tlpipe.stages.session import open_graph, open_network
from tlpipe.stages.weights import downloaded_file, prepared_file, where
from tlpipe.workflows import backbones as backbones_module
from tlpipe.workflows.network import look_into
from web_server import Server, serving

UNIT = BackboneOptions(preprocess="unit")


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test starts with an empty cache and no cards of its own."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv(CARDS_VARIABLE, str(tmp_path / "cards"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "My Net.onnx"
    onnx.save(tiny_network(), path)
    return path


@pytest.fixture
def server(network: Path) -> Iterator[Server]:
    with serving(network.read_bytes()) as running:
        yield running


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def noise(count: int = 3) -> np.ndarray:
    shape = (count, TINY_SIZE, TINY_SIZE, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


# --- by path


def test_a_network_is_a_backbone_by_its_path(network: Path) -> None:
    card = find_backbone(network, UNIT)
    assert card.name == "my-net.local"
    assert (card.output.tensors, card.output.pooling) == (("c",), "flatten")
    assert (card.output.dim, card.output.classes) == (TINY_DIM, TINY_CLASSES)
    assert (card.output.logits, card.output.activation) == ("logits", "softmax")
    assert (card.input.tensor, card.image_size) == ("x", (TINY_SIZE, TINY_SIZE))
    found = open_network(prepared_file(card, open_graph), ON_CPU).run(noise())["embeddings"]
    x = noise().transpose(0, 3, 1, 2).astype(np.float32) * np.float32(1 / 255)
    whole = tiny_network()
    whole.graph.output.append(onnx.ValueInfoProto(name="features"))
    expected = open_graph(whole.SerializeToString(), "")({"x": x}, ["features"])[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_second_use_needs_no_analysis(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = find_backbone(network, UNIT)
    monkeypatch.setattr(backbones_module, "look_into", None)
    assert find_backbone(network, UNIT) == first
    with pytest.raises(TypeError):  # other options are another question
        find_backbone(network, BackboneOptions(preprocess="raw"))
    damage(network)
    with pytest.raises(TypeError):  # so is another file
        find_backbone(network, UNIT)


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_damaged_note_of_an_import_is_made_anew(
    network: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = find_backbone(network, UNIT)
    (note,) = (tmp_path / "cache" / "imports").glob("*.json")
    for content in ("{", "[" * 100_000):
        note.write_text(content)
        caplog.clear()
        assert find_backbone(network, UNIT) == first
        assert "is damaged; it is made anew" in caplog.text


def test_preprocessing_is_never_guessed(network: Path) -> None:
    with pytest.raises(CardError) as caught:
        find_backbone(network)
    assert str(caught.value) == (
        "How images are to be prepared for 'my-net.local' is stated nowhere. State how its images"
        " were prepared when it was trained: --preprocess imagenet, inception, caffe, unit, raw, or"
        " a card (.toml) to take it from; 'tlpipe models presets' explains them, and 'tlpipe models"
        " check' shows whether it is right. A wrong one looks plausible and costs accuracy."
    )


def test_a_network_may_say_itself_how_images_are_prepared(network: Path) -> None:
    model = onnx.load(network)
    helper.set_model_props(
        model,
        {"Image.BitmapPixelFormat": "Bgr8", "Image.NominalPixelRange": "Normalized_1_1"},
    )
    onnx.save(model, network)
    spec = find_backbone(network).arithmetic
    assert (spec.colour, spec.scale, spec.mean, spec.std) == (
        "bgr",
        1.0,
        (127.5, 127.5, 127.5),
        (127.5, 127.5, 127.5),
    )
    assert look_into(network, BackboneOptions()).preprocess_from == "the file's metadata"


def test_metadata_in_tlpipes_own_form() -> None:
    spec = preset("imagenet", (16, 16))
    flat = {"preprocess": json.dumps(spec.to_dict())}
    assert from_metadata(flat, (16, 16)) == spec
    assert from_metadata({}, (16, 16)) is None
    assert from_metadata({"Image.BitmapPixelFormat": "Rgb8"}, (16, 16)) is None
    with pytest.raises(CardError, match="in the network's metadata cannot be read"):
        from_metadata({"preprocess": "{"}, (16, 16))


def test_a_classifier_of_tlpipe_is_no_backbone(trained) -> None:
    with pytest.raises(BackboneError, match="is a classifier that tlpipe made, not a backbone"):
        find_backbone(trained.classifier, UNIT)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_fit_any_size(name: str) -> None:
    assert find_preprocess(name, (224, 224)).size in (0, 256)
    assert find_preprocess(name, (299, 299)).size in (0, 342)
    assert find_preprocess(name, (192, 256)).size in (0, 293)


def test_preprocessing_from_a_card(tiny_card_path: Path, tmp_path: Path) -> None:
    spec = find_preprocess(str(tiny_card_path), (TINY_SIZE, TINY_SIZE))
    assert spec == read_card(tiny_card_path).preprocess
    with pytest.raises(CardError, match="does not exist"):
        find_preprocess(str(tmp_path / "none.toml"), (8, 8))
    with pytest.raises(CardError) as caught:
        find_preprocess("image-net", (8, 8))
    assert str(caught.value) == (
        "There is no preprocessing 'image-net'. Use one of ['imagenet', 'inception', 'caffe',"
        " 'unit', 'raw'], or the path of a card (.toml) to take it from, or of a"
        " preprocessor_config.json."
    )
    (tmp_path / "x.toml").write_text("[preprocess]\ncolour = 3\n")
    with pytest.raises(CardError, match=r"lacks \['resize'"):
        find_preprocess(str(tmp_path / "x.toml"), (8, 8))


def test_grey_networks_take_presets_without_colours() -> None:
    assert find_preprocess("unit", (8, 8), 1).colour == "grey"
    with pytest.raises(CardError, match="takes grey images; 'imagenet' is for colours"):
        find_preprocess("imagenet", (8, 8), 1)


def test_what_a_card_states_is_not_stated_again(tiny_card_path: Path) -> None:
    with pytest.raises(CardError) as caught:
        find_backbone(tiny_card_path, BackboneOptions(preprocess="raw", layer="c"))
    assert str(caught.value) == (
        "The card of 'tiny.test' states already what --preprocess and --layer would say. Leave that"
        " out; or make a card of your own: tlpipe models add NETWORK.onnx."
    )


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(OptionError, match="The pooling 'max' is unknown"):
        BackboneOptions(pooling="max")


def test_a_missing_network_is_named(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"The network '.*none\.onnx' does not exist"):
        find_backbone(tmp_path / "none.onnx", UNIT)


def test_weights_beside_the_network_are_checked_too(network: Path) -> None:
    onnx.save(
        tiny_network(),
        network,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    card = find_backbone(network, UNIT)
    assert [entry.file for entry in card.weights.data] == ["weights.bin"]
    assert card.weights.identity != card.weights.sha256
    damage(network.with_name("weights.bin"))
    with pytest.raises(WeightsError, match=r"weights\.bin' are not the published ones"):
        prepared_file(card, open_graph)
    network.with_name("weights.bin").unlink()
    with pytest.raises(WeightsError, match="A part of the weights"):
        prepared_file(card, open_graph)


def test_weights_beside_a_link_to_the_network(network: Path, photos: Path, tmp_path: Path) -> None:
    """As in the cache of the Hugging Face Hub: files under their checksums, and links to them."""
    apart = tmp_path / "apart.onnx"
    data = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    onnx.save(tiny_network(), apart, **data)
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    apart.rename(blobs / "aa")
    apart.with_name("weights.bin").rename(blobs / "bb")
    try:
        (snapshot / "net.onnx").symlink_to("../../blobs/aa")
        (snapshot / "weights.bin").symlink_to("../../blobs/bb")
    except OSError:
        pytest.skip("this system makes no links")
    card = find_backbone(snapshot / "net.onnx", UNIT)
    assert card.weights.file == str(snapshot / "net.onnx")
    assert [entry.file for entry in card.weights.data] == ["../../blobs/bb"]
    tlpipe.train(photos, tmp_path / "c.onnx", backbone=card)
    assert tlpipe.verify(tmp_path / "c.onnx").frozen
    damage(blobs / "bb")
    with pytest.raises(WeightsError, match="are not the published ones"):
        tlpipe.verify(tmp_path / "c.onnx")
    (snapshot / "weights.bin").unlink()
    (tmp_path / "secret.bin").write_bytes((blobs / "bb").read_bytes())
    (snapshot / "weights.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(BackboneError, match="which is outside of its own folder"):
        find_backbone(snapshot / "net.onnx", UNIT)


# --- the road, with a network by path


def test_the_whole_road_with_a_network_by_path(network: Path, photos: Path, tmp_path: Path) -> None:
    features, classifier = tmp_path / "f.h5", tmp_path / "c.onnx"
    flags = ["--backbone", network, "--preprocess", "unit"]
    result = run("embed", photos, "-o", features, *flags)
    assert result.exit_code == 0, result.output
    assert run("train-head", features, "-o", classifier).exit_code == 0
    verified = run("verify", classifier)
    assert verified.exit_code == 0, verified.output
    assert "the pretrained file is the one that the classifier itself names" in verified.output
    assert run("classify", classifier, photos, "-o", tmp_path / "p.csv").exit_code == 0
    assert run("train", photos, "-o", tmp_path / "t.onnx", *flags).exit_code == 0
    exported = run("models", "export", "-o", tmp_path / "own.onnx", *flags)
    assert exported.exit_code == 0, exported.output
    assert run("verify", tmp_path / "own.onnx").exit_code == 0


def test_the_network_itself_is_never_written_over(
    network: Path, photos: Path, tmp_path: Path
) -> None:
    content = network.read_bytes()
    card = find_backbone(network, UNIT)
    features = tmp_path / "f.h5"
    tlpipe.embed(photos, features, backbone=card)
    for write in (
        lambda: tlpipe.train(photos, network, backbone=card, overwrite=True),
        lambda: tlpipe.train_head(features, network, overwrite=True),
        lambda: tlpipe.export_backbone(network, backbone=card, overwrite=True),
    ):
        with pytest.raises(OutputError, match="is a file that this command reads"):
            write()
    assert network.read_bytes() == content


def test_a_fixed_batch_and_a_network_that_is_run_image_by_image(
    photos: Path, tmp_path: Path
) -> None:
    """The class token of a transformer, and a network that takes the mean over the batch."""
    model = tiny_network()
    model.graph.node.extend(
        [
            helper.make_node("ReduceMean", ["features"], ["m"], axes=[0], keepdims=1),
            helper.make_node("Sub", ["features", "m"], ["mixed0"]),
            helper.make_node("Add", ["mixed0", "features"], ["mixed"]),
            helper.make_node("Gemm", ["mixed", "fc.weight", "fc.bias"], ["y"], transB=1),
        ]
    )
    del model.graph.node[4]
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("y", 1, ["N", TINY_CLASSES]))
    onnx.save(model, tmp_path / "mixing.onnx")
    flags = ["--backbone", tmp_path / "mixing.onnx", "--preprocess", "unit"]
    result = run("train", photos, "-o", tmp_path / "c.onnx", *flags)
    assert result.exit_code == 0, result.output
    found = tlpipe.verify(tmp_path / "c.onnx")
    assert found.frozen
    scan = [n for n in onnx.load(tmp_path / "c.onnx").graph.node if n.op_type == "Scan"]
    assert len(scan) == 1
    shown = run("models", "inspect", tmp_path / "mixing.onnx")
    assert "one image at a time" in shown.output
    assert "a batch gives other values" in shown.output


# --- inspect


def test_inspect_says_what_would_be_cut_and_why(network: Path) -> None:
    result = run("models", "inspect", network)
    assert result.exit_code == 0
    for words in (
        "classifier of 5 classes",
        "because     the output 'logits' holds the scores of 5 classes: its names say 'logit'",
        "embedding   'c' [N, 8, 1, 1], laid out flat: 8 numbers",
        "any number of images at once, the graph as it is",
        "proved: 4 images at once give what they give one by one",
        "cut here",
    ):
        assert words in result.stdout, words
    assert "The file does not say how its images are to be prepared." in result.stderr


def test_inspect_gives_json(network: Path) -> None:
    report = json.loads(run("models", "inspect", network, "--json").stdout)
    assert (report["kind"], report["dim"], report["classes"]) == ("classifier", 8, 5)
    assert (report["tensors"], report["batch_way"]) == (["c"], "as-is")
    assert [c["fed_by"] for c in report["candidates"]] == ["c"]
    assert report["preprocess"] is None


def test_inspect_lists_the_candidates_where_it_cannot_tell(tmp_path: Path) -> None:
    path = unclear(tmp_path)
    result = run("models", "inspect", path)
    assert result.exit_code == 0
    assert "UNDECIDED" in result.stdout
    assert (
        "Hint: Say which tensor is the embedding with --layer NAME: 'c' [1, 8, 1, 1]"
        in result.stderr
    )
    assert json.loads(run("models", "inspect", path, "--json").stdout)["kind"] == "undecided"
    with pytest.raises(UndecidedError, match="could be class scores or an embedding"):
        find_backbone(path, UNIT)
    card = find_backbone(path, BackboneOptions(preprocess="unit", layer="f"))
    assert (card.output.tensors, card.output.logits) == (("f",), "")
    with pytest.raises(UndecidedError, match="has no layer 'nothing' that depends on the image"):
        find_backbone(path, BackboneOptions(preprocess="unit", layer="nothing"))


def unclear(folder: Path) -> Path:
    """A network whose 64 outputs may be classes or an embedding, with names that say nothing."""
    model = tiny_network()
    for name, array in (("w", np.ones((TINY_DIM, 64))), ("v", np.ones(64))):
        tensor = numpy_helper.from_array(array.astype(np.float32), name)
        model.graph.initializer.append(tensor)
    del model.graph.node[4]
    model.graph.node[3].output[0] = "f"
    model.graph.node.append(helper.make_node("Gemm", ["f", "w", "v"], ["y"]))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("y", 1, ["N", 64]))
    path = folder / "unclear.onnx"
    onnx.save(model, path)
    return path


# --- cards of one's own


def test_a_network_is_added_and_used_by_name(network: Path, photos: Path, tmp_path: Path) -> None:
    added = run("models", "add", network, "--preprocess", "unit", "--name", "mine")
    assert added.exit_code == 0, added.output
    assert "Added 'mine.local': embeddings of 8 numbers from 'c'." in added.stderr
    card = find_card("mine")
    assert read_card(user_cards_dir() / "mine.local.toml") == card
    assert card.weights.file == str(network.resolve())
    assert run("embed", photos, "-o", tmp_path / "f.h5", "--backbone", "mine").exit_code == 0
    assert "mine.local" in run("models", "list").output
    assert where(card) == "at hand"
    again = run("models", "add", network, "--preprocess", "unit", "--name", "mine")
    assert again.exit_code == 1
    assert "There is a card 'mine.local' already" in again.stderr
    more = ("--name", "mine", "--overwrite")
    assert run("models", "add", network, "--preprocess", "raw", *more).exit_code == 0
    removed = run("models", "remove", "mine")
    assert removed.exit_code == 0
    assert network.is_file()
    with pytest.raises(UnknownBackboneError):
        find_card("mine")


def test_a_card_that_cannot_be_made_leaves_nothing(network: Path) -> None:
    with pytest.raises(CardError, match="is stated nowhere"):
        add_backbone(network)
    with pytest.raises(OutputError, match="is that of a backbone that comes with tlpipe"):
        add_backbone(network, name="efficientnet-lite0.in1k", options=UNIT)
    with pytest.raises(CardError, match="The name 'Über' makes no sense"):
        add_backbone(network, name="Über", options=UNIT)
    assert not list(user_cards_dir().glob("*"))


def test_a_wrong_card_of_ones_own_spoils_only_itself(
    network: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add_backbone(network, name="good", options=UNIT)
    (user_cards_dir() / "bad.local.toml").write_text("schema = 2\n")
    assert find_backbone("efficientnet-lite0").name == "efficientnet-lite0.in1k"
    assert "good.local" in all_cards()
    assert "bad.local.toml' lacks" in caplog.text
    with pytest.raises(CardError, match=r"bad\.local\.toml' lacks"):
        find_card("bad.local")


def test_a_card_of_ones_own_does_not_take_a_name_of_tlpipes(network: Path) -> None:
    add_backbone(network, name="efficientnet-lite0", options=UNIT)
    assert find_card("efficientnet-lite0").name == "efficientnet-lite0.in1k"
    own = user_cards_dir() / "efficientnet-lite0.local.toml"
    own.rename(user_cards_dir() / "efficientnet-lite0.toml")
    assert find_card("efficientnet-lite0").name == "efficientnet-lite0.in1k"
    assert find_card("efficientnet-lite0.local").weights.file == str(network.resolve())


@pytest.mark.parametrize("name", ["x.toml", "x.onnx"])
def test_a_name_that_would_be_read_as_a_path_is_refused(network: Path, name: str) -> None:
    with pytest.raises(CardError, match="would be taken for the path"):
        add_backbone(network, name=name, options=UNIT)


def test_a_network_whose_name_is_no_utf8_works_by_path_but_has_no_card(
    network: Path, photos: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "caf\udce9.onnx"
    try:
        odd.write_bytes(network.read_bytes())
    except (OSError, UnicodeEncodeError):
        pytest.skip("this file system has no such names")
    with pytest.raises(CardError, match="is no UTF-8, and a card must be"):
        add_backbone(odd, options=UNIT)
    classifier = tmp_path / "c.onnx"
    tlpipe.embed(photos, tmp_path / "f.h5", backbone=find_backbone(odd, UNIT))
    tlpipe.train_head(tmp_path / "f.h5", classifier)
    assert tlpipe.verify(classifier).frozen
    assert tlpipe.verify(classifier).file == str(odd)


def test_text_in_a_card_survives(network: Path, tmp_path: Path) -> None:
    import dataclasses

    card = find_backbone(network, UNIT)
    odd = 'a "quoted" \\ name\twith\x7f\x01 é 😀\n'
    card = dataclasses.replace(card, origin=odd)
    path = tmp_path / "x.toml"
    path.write_text(card_text(card), encoding="utf-8")
    assert read_card(path) == card


# --- download


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_a_network_is_added_from_a_url(server: Server) -> None:
    url = server.url.replace("model.bin", "some%20net.onnx")
    card = add_backbone(url, options=UNIT).card
    assert (card.name, card.weights.urls) == ("some-net.local", (url,))
    assert card.weights.sha256 == hashlib.sha256(server.content).hexdigest()
    assert downloaded_file(card).read_bytes() == server.content
    assert where(card) == "downloaded"
    asked = len(server.log)
    remove_backbone("some-net")
    assert not downloaded_file(card).exists()
    again = add_backbone(url, options=UNIT).card
    assert again == card
    assert len(server.log) > asked


@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.parametrize("content", [b"", b"no network"])
def test_what_is_no_network_is_fetched_again(server: Server, content: bytes) -> None:
    url = server.url.replace("model.bin", "x.onnx")
    good, server.content = server.content, content
    with pytest.raises(BackboneError, match="ONNX model"):
        add_backbone(url, options=UNIT)
    server.content = good
    assert add_backbone(url, options=UNIT).card.weights.size_bytes == len(good)


@pytest.mark.parametrize(
    "url",
    ["http://h/x%00.onnx", "http://h/a%0a.onnx", "http://[::1/x.onnx", "http://h/\udcff.onnx"],
)
def test_an_address_that_makes_no_sense_is_refused(url: str) -> None:
    with pytest.raises(CardError, match="does not end in the name of an ONNX file"):
        add_backbone(url, options=UNIT)


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_weights_are_pulled_and_checked(server: Server, tmp_path: Path) -> None:
    url = server.url.replace("model.bin", "net.onnx")
    card = add_backbone(url, options=UNIT).card
    downloaded_file(card).unlink()
    for path in (tmp_path / "cache" / "backbones").glob("*"):
        path.unlink()
    with pytest.raises(WeightsError) as caught:
        prepared_file(find_card("net"), open_graph)
    assert str(caught.value) == (
        "The weights of 'net.local' (0 MB) were not downloaded yet. Download them: tlpipe models"
        f" pull net.local. Without a network, fetch {url} by other means, and give it with --from"
        " PATH."
    )
    good = server.content
    server.content = bytes(len(good))
    with pytest.raises(DownloadError, match="SHA-256"):
        pull_backbone("net")
    assert not downloaded_file(card).exists()
    server.content = good
    assert pull_backbone("net").read_bytes() == good
    copy = tmp_path / "by hand.onnx"
    copy.write_bytes(good)
    downloaded_file(card).unlink()
    result = run("models", "pull", "net", "--from", copy)
    assert result.exit_code == 0, result.output
    assert "is the published file." in result.stderr
    copy.write_bytes(bytes(len(good)))
    downloaded_file(card).unlink()
    result = run("models", "pull", "net", "--from", copy)
    assert result.exit_code == 1


def test_what_is_not_downloaded_is_not_pulled_from_elsewhere(network: Path) -> None:
    assert pull_backbone("efficientnet-lite0").is_file()
    with pytest.raises(CardError, match="they come with the package"):
        pull_backbone("efficientnet-lite0", source="x")
    add_backbone(network, name="mine", options=UNIT)
    with pytest.raises(CardError, match=r"they are in '.*My Net\.onnx'"):
        pull_backbone("mine", source="x")


def test_a_card_that_is_named_by_its_path_stays(network: Path, tmp_path: Path) -> None:
    card = add_backbone(network, name="mine", options=UNIT).path
    copy = tmp_path / "copy.toml"
    copy.write_bytes(card.read_bytes())
    assert len(remove_backbone(str(copy)).files) == 2  # the prepared network
    assert copy.is_file()
    assert card.is_file()
    assert remove_backbone(str(card)).files == [card]


def test_the_cards_of_the_catalogue_stay(tmp_path: Path) -> None:
    pull_backbone("efficientnet-lite0")
    removed = remove_backbone("efficientnet-lite0")
    assert [path.suffix for path in removed.files] == [".onnx", ".sha256"]
    assert find_card("efficientnet-lite0").name in shipped_cards()
    assert remove_backbone("efficientnet-lite0").files == []


# --- check


def test_check_measures_accuracy_on_classes_the_network_knows(
    network: Path, tmp_path: Path
) -> None:
    truth = find_backbone(network, BackboneOptions(preprocess="raw"))
    for number in range(12):
        write_image(tmp_path / "all" / f"{number}.png", number, (20 * number, 60, 200))
    tlpipe.export_backbone(tmp_path / "own.onnx", backbone=truth)
    tlpipe.classify(tmp_path / "own.onnx", tmp_path / "all", tmp_path / "p.csv")
    rows = [line.split(",") for line in (tmp_path / "p.csv").read_text().splitlines()[1:]]
    lines = ["path,label", *(f"all/{row[0]},{row[2]}" for row in rows)]
    (tmp_path / "truth.csv").write_text("\n".join(lines) + "\n")
    stated = BackboneOptions(preprocess="raw")
    result = tlpipe.check_backbone(network, tmp_path / "truth.csv", backbone_options=stated)
    assert result.trials[0].name == "as stated: raw"
    assert result.trials[0].top1 == 1.0
    assert {trial.name for trial in result.trials[1:]} == set(PRESETS) - {"raw"}
    assert "the stated one seems right" in result.verdict
    unstated = tlpipe.check_backbone(network, tmp_path / "truth.csv")
    assert [trial.name for trial in unstated.trials] == list(PRESETS)
    assert "by more than chance: ['raw'] may be right as well" in unstated.verdict


def test_check_shows_a_wrong_preprocessing(network: Path, tmp_path: Path) -> None:
    lines = ["path,label"]
    truth = find_backbone(network, BackboneOptions(preprocess="raw"))
    tlpipe.export_backbone(tmp_path / "own.onnx", backbone=truth)
    for number in range(40):
        colour = tuple(int(c) for c in np.random.default_rng(number).integers(0, 256, 3))
        write_image(tmp_path / "all" / f"{number}.png", number, colour)
    tlpipe.classify(tmp_path / "own.onnx", tmp_path / "all", tmp_path / "p.csv")
    for line in (tmp_path / "p.csv").read_text().splitlines()[1:]:
        key, _, guess, *_ = line.split(",")
        lines.append(f"all/{key},{guess}")
    (tmp_path / "truth.csv").write_text("\n".join(lines) + "\n")
    result = run("models", "check", network, tmp_path / "truth.csv", "--preprocess", "unit")
    assert result.exit_code == 0, result.output
    assert "'raw' is better than the stated preprocessing by" in result.stderr
    assert "probably wrong" in result.stderr


def test_a_few_images_prove_nothing(network: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "x.png", 1)
    tlpipe.export_backbone(tmp_path / "own.onnx", backbone=find_backbone(network, UNIT))
    for label in range(TINY_CLASSES):
        (tmp_path / "one.csv").write_text(f"path,label\nx.png,{label}\n")
        stated = tlpipe.check_backbone(network, tmp_path / "one.csv", backbone_options=UNIT)
        assert "probably wrong" not in stated.verdict
        assert "but not by more than chance" in (
            tlpipe.check_backbone(network, tmp_path / "one.csv").verdict
        )


def test_check_counts_what_it_cannot_read(network: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "0" / "x.png", 1)
    (tmp_path / "0" / "broken.png").write_bytes(b"x")
    result = run("models", "check", network, tmp_path, "--max-rejects", "0")
    assert result.exit_code == 3, result.output
    assert "Rejected 1: 1 not-an-image." in result.stderr
    assert run("models", "check", network, tmp_path, "--max-rejects", "50%").exit_code == 0


def test_check_names_what_it_sees_where_labels_are_no_classes(network: Path, photos: Path) -> None:
    result = run("models", "check", network, photos, "--preprocess", "unit", "--most", 5)
    assert result.exit_code == 0, result.output
    assert "The images' labels are no classes of the network" in result.stderr
    assert result.stdout.count(".png:") == 5


def test_check_finds_the_ways_of_a_grey_network_itself(photos: Path, tmp_path: Path) -> None:
    model = tiny_network()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    weight = next(t for t in model.graph.initializer if t.name == "conv.weight")
    grey = numpy_helper.to_array(weight)[:, :1]
    weight.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(grey), weight.name))
    path = tmp_path / "grey.onnx"
    onnx.save(model, path)
    result = tlpipe.check_backbone(path, photos)
    assert [trial.name for trial in result.trials] == ["inception", "unit", "raw"]


def test_check_needs_classes(network: Path, photos: Path) -> None:
    options = BackboneOptions(preprocess="unit", layer="c")
    with pytest.raises(BackboneError, match="has no classes of its own"):
        tlpipe.check_backbone(network, photos, backbone_options=options)


def test_the_names_of_imagenets_classes() -> None:
    names = class_names(1000)
    assert (names.names[0], names.identifiers[0]) == ("tench", "n01440764")
    assert (names.names[281], names.names[985]) == ("tabby", "daisy")
    assert len(set(names.names)) == 1000
    assert list(names.identifiers) == sorted(names.identifiers)
    assert names.find("Egyptian_cat") == 285
    assert names.find("n02123045") == 281
    assert names.find("281") == 281
    assert (names.find("1000"), names.find("cat")) == (None, None)
    assert class_names(1001).names[:2] == ("background", "tench")
    assert class_names(1001).find("tench") == 1
    assert class_names(3).names == ("0", "1", "2")


def test_the_presets_are_explained() -> None:
    output = run("models", "presets").output
    assert all(name in output for name in PRESETS)
