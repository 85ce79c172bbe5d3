"""The road from images to predictions, with the tiny backbone."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

import tlpipe
from conftest import (
    TINY_CLASSES,
    TINY_DIM,
    Trained,
    aged,
    card_text,
    tiny_network,
    with_header,
    write_classes,
    write_image,
)
from stored import pixels_of_item
from tlpipe.card import Card
from tlpipe.catalogue import read_card
from tlpipe.errors import (
    BackboneError,
    ClassifierError,
    ExportError,
    FeatureFileError,
    OptionError,
    OutputError,
    SourceError,
    StaleFeaturesError,
    TrainingDataError,
    UnknownFileError,
)
from tlpipe.execution import ON_CPU
from tlpipe.graph.head_nodes import HeadShape, head_nodes
from tlpipe.last_layer import LastLayer
from tlpipe.stages.session import open_graph, open_network
from tlpipe.stages.source import Survey
from tlpipe.stages.store import read_features, read_rejects
from tlpipe.stages.weights import prepared_file
from tlpipe.types import Progress
from tlpipe.workflows import export_classifier as export_module
from tlpipe.workflows import pixels as pixels_module
from tlpipe.workflows import precision as precision_module
from tlpipe.workflows import train_head as train_head_module
from tlpipe.workflows.common import as_source, opened
from tlpipe.workflows.run_options import RunOptions


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


# -- embed -----------------------------------------------------------------------------------------


def test_a_row_holds_what_belongs_together(trained: Trained, photos: Path, tiny_card: Card) -> None:
    """Key, label and vector of each row belong to one image, embedded alone once more."""
    data = read_features(trained.features)
    network = open_network(prepared_file(tiny_card, open_graph), ON_CPU)
    assert data.keys == sorted(data.keys)
    for item, key, vector, label in zip(
        tlpipe.source(photos).items(), data.keys, data.vectors, data.labels, strict=True
    ):
        assert item.key == key
        assert item.label == data.classes[label]
        alone = network.run(pixels_of_item(tiny_card, item)[np.newaxis])["embeddings"][0]
        np.testing.assert_allclose(vector, alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_vectors_do_not_depend_on_the_batch_size(
    trained: Trained, photos: Path, tiny_card: Card, tmp_path: Path, batch_size: int
) -> None:
    options = RunOptions(batch_size=batch_size)
    tlpipe.embed(photos, tmp_path / "f.h5", backbone=tiny_card, options=options)
    found, expected = read_features(tmp_path / "f.h5"), read_features(trained.features)
    np.testing.assert_allclose(found.vectors, expected.vectors, rtol=1e-5, atol=1e-6)
    assert found.keys == expected.keys


def messy(root: Path) -> Path:
    for number in range(6):
        write_image(root / "cat" / f"{number}.png", number)
    (root / "cat" / "3.png").write_bytes(b"")
    (root / "cat" / "4.png").write_text("hello")
    return root


def test_a_bad_image_costs_one_row(tiny_card: Card, tmp_path: Path) -> None:
    seen: list[Progress] = []
    options = RunOptions(max_rejects=1)
    result = tlpipe.embed(
        messy(tmp_path / "in"),
        tmp_path / "f.h5",
        backbone=tiny_card,
        options=options,
        progress=seen.append,
    )
    assert (result.count, result.dim) == (4, TINY_DIM)
    assert result.rejects == {"empty": 1, "not-an-image": 1}
    assert result.too_many_rejects
    assert read_features(tmp_path / "f.h5").keys == [f"cat/{n}.png" for n in (0, 1, 2, 5)]
    rejects = list(read_rejects(tmp_path / "f.h5"))
    assert [row[:3] for row in rejects] == [
        ("cat/3.png", "decode", "empty"),
        ("cat/4.png", "decode", "not-an-image"),
    ]
    assert seen[-1] == Progress("embed", 6, 6, 2)
    assert [at.done for at in seen] == list(range(1, 7))


@pytest.mark.parametrize(
    ("limit", "too_many"), [(None, False), (0, True), (2, False), (0.3, True), (0.4, False)]
)
def test_how_many_rejects_are_too_many(limit: float | None, too_many: bool) -> None:
    assert RunOptions(max_rejects=limit).too_many(2, 6) is too_many


def test_an_image_listed_twice_is_stored_once(tiny_card: Card, tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 1)
    (tmp_path / "m.csv").write_text("path,label\na.png,x\na.png,y\nb.png,x\n")
    result = tlpipe.embed(tmp_path / "m.csv", tmp_path / "f.h5", backbone=tiny_card)
    assert result.rejects == {"duplicate-key": 1, "missing": 1}
    assert read_features(tmp_path / "f.h5").classes == ["x"]


def test_an_existing_output_that_is_right_is_left_alone(
    photos: Path, tiny_card: Card, tmp_path: Path
) -> None:
    path = tmp_path / "f.h5"
    root = aged(shutil.copytree(photos, tmp_path / "photos"))
    first = tlpipe.embed(root, path, backbone=tiny_card)
    assert (first.unchanged, first.embedded, first.kept) == (False, 45, 0)
    before = path.read_bytes()
    again = tlpipe.embed(root, path, backbone=tiny_card)
    assert (again.unchanged, again.embedded, again.kept) == (True, 0, 45)
    assert path.read_bytes() == before


def test_an_update_embeds_what_is_new_and_no_more(
    photos: Path, tiny_card: Card, tmp_path: Path
) -> None:
    path = tmp_path / "f.h5"
    root = aged(shutil.copytree(photos, tmp_path / "photos"))
    tlpipe.embed(root, path, backbone=tiny_card)
    write_image(root / "red" / "new.png", 99)
    write_image(root / "red" / "000.png", 98)  # changed
    (root / "blue" / "001.png").unlink()  # gone
    (root / "green" / "001.png").rename(root / "blue" / "moved.png")  # another label
    shutil.copy(root / "blue" / "003.png", root / "blue" / "twin.png")
    aged(root)
    result = tlpipe.embed(root, path, backbone=tiny_card)
    assert (result.embedded, result.copied, result.kept, result.gone) == (2, 2, 42, 2)
    tlpipe.embed(root, tmp_path / "anew.h5", backbone=tiny_card)
    found, expected = read_features(path), read_features(tmp_path / "anew.h5")
    assert found.keys == expected.keys
    np.testing.assert_array_equal(found.vectors, expected.vectors, strict=True)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.content_sha256, expected.content_sha256)


def test_a_file_of_another_backbone_is_refused(
    trained: Trained, photos: Path, tiny_card: Card, tmp_path: Path
) -> None:
    before = trained.features.read_bytes()
    output = tiny_card.preprocess
    other = replace(tiny_card, name="other.test", preprocess=replace(output, interpolation="box"))
    with pytest.raises(StaleFeaturesError) as caught:
        tlpipe.embed(photos, trained.features, backbone=other)
    assert "They differ in: name: 'tiny.test' -> 'other.test'; preprocess.interpolation:" in str(
        caught.value
    )
    assert trained.features.read_bytes() == before


def test_a_source_that_shrank_is_not_followed_unasked(
    photos: Path, tiny_card: Card, tmp_path: Path
) -> None:
    path = tmp_path / "f.h5"
    root = aged(shutil.copytree(photos, tmp_path / "photos"))
    tlpipe.embed(root, path, backbone=tiny_card)
    before = path.read_bytes()
    for name in ("red", "green"):
        shutil.rmtree(root / name)
    with pytest.raises(SourceError, match=r"30 of the 45 images in .* are not in"):
        tlpipe.embed(root, path, backbone=tiny_card)
    assert path.read_bytes() == before
    options = tlpipe.UpdateOptions(max_gone=30)
    assert tlpipe.embed(root, path, backbone=tiny_card, update=options).gone == 30


def test_an_interrupted_run_is_continued(
    photos: Path, tiny_card: Card, tmp_path: Path, leftovers: Callable[[], list[str]]
) -> None:
    root = aged(shutil.copytree(photos, tmp_path / "photos"))

    def interrupt(at: Progress) -> None:
        if at.done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        tlpipe.embed(root, tmp_path / "f.h5", backbone=tiny_card, progress=interrupt)
    (note,) = caught.value.__notes__
    assert note == (
        "20 embeddings of this run are kept; the same command, without --overwrite, goes on from"
        " there."
    )
    assert not (tmp_path / "f.h5").exists()
    assert leftovers() == []
    result = tlpipe.embed(root, tmp_path / "f.h5", backbone=tiny_card)
    assert (result.kept, result.embedded) == (20, 25)
    assert not (tmp_path / ".f.h5.parts").exists()


def test_a_card_with_another_dim_is_refused(photos: Path, tmp_path: Path) -> None:
    onnx.save(tiny_network(), tmp_path / "tiny.onnx")
    (tmp_path / "c.toml").write_text(card_text(tmp_path / "tiny.onnx", dim="9"))
    with pytest.raises(BackboneError, match=r"of shape \(8,\), not\s+\(9,\)"):
        tlpipe.embed(photos, tmp_path / "f.h5", backbone=read_card(tmp_path / "c.toml"))
    assert not (tmp_path / "f.h5").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"device": "tpu"}, "The device 'tpu' is unknown"),
        ({"batch_size": 0}, "The batch size is 0; it must be"),
        ({"max_rejects": -1}, "max_rejects is -1; it must be"),
        ({"max_rejects": 1.0}, "max_rejects is 1.0"),
        ({"max_rejects": float("nan")}, "max_rejects is nan"),
        ({"batch_size": 1.5}, "The batch size is 1.5"),
    ],
)
def test_options_are_checked(values: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        RunOptions(**values)  # type: ignore[arg-type]


# -- train-head ------------------------------------------------------------------------------------


def test_the_report_says_what_was_done(trained: Trained) -> None:
    report = json.loads(trained.classifier.with_suffix(".metrics.json").read_text())
    assert report["classes"] == ["blue", "green", "red"]
    assert report["training"]["count"] + report["metrics"]["count"] == 45
    assert report["training"]["judged_on"] == "about a fifth of each class, held out of training"
    assert report["metrics"]["accuracy"] == 1.0  # the colours are far apart
    assert np.sum(report["metrics"]["confusion"]) == report["metrics"]["count"]


def test_the_classifier_is_one_graph_as_specified(trained: Trained) -> None:
    session = onnxruntime.InferenceSession(trained.classifier, providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", ["N", 16, 16, 3])
    outputs = [(o.name, o.type, o.shape) for o in session.get_outputs()]
    assert outputs == [
        ("probabilities", "tensor(float)", ["N", 3]),
        ("embeddings", "tensor(float)", ["N", TINY_DIM]),
        ("unknown_score", "tensor(float)", ["N"]),
        ("unknown", "tensor(bool)", ["N"]),
        ("prediction_set", "tensor(bool)", ["N", 3]),
    ]
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == ["blue", "green", "red"]
    assert metadata["format"] == "tlpipe-classifier"
    nodes = onnx.load(trained.classifier).graph.node
    heads = [n.SerializeToString() for n in nodes if n.name.startswith("tlpipe/head")]
    unit = json.loads(metadata["training"])["scaling"] == "unit"
    shape = HeadShape(normalise=unit, activation="softmax", novelty=True, sets=True)
    assert heads == [node.SerializeToString() for node in head_nodes(shape)]


def test_training_and_serving_see_the_same_pixels(
    trained: Trained, photos: Path, tiny_card: Card
) -> None:
    """The served embedding of each training image is the stored one."""
    session = onnxruntime.InferenceSession(trained.classifier, providers=["CPUExecutionProvider"])
    images = np.stack([pixels_of_item(tiny_card, i) for i in tlpipe.source(photos).items()])
    (served,) = session.run(["embeddings"], {"image": images})
    np.testing.assert_allclose(
        served, read_features(trained.features).vectors, rtol=1e-5, atol=1e-6
    )


def test_a_disagreeing_export_is_not_written(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = export_module.join_head

    def wrong(network: onnx.ModelProto, layer: LastLayer, *rest: object) -> bytes:
        return original(network, replace(layer, weights=layer.weights * 1.5), *rest)

    monkeypatch.setattr(export_module, "join_head", wrong)
    with pytest.raises(ExportError, match="differ from the trained head's by"):
        tlpipe.train_head(trained.features, tmp_path / "c.onnx")
    assert list(tmp_path.iterdir()) == []


def test_one_class_is_refused(tiny_card: Card, tmp_path: Path) -> None:
    tlpipe.embed(messy(tmp_path / "in"), tmp_path / "f.h5", backbone=tiny_card)
    with pytest.raises(TrainingDataError, match="of the one class 'cat'"):
        tlpipe.train_head(tmp_path / "f.h5", tmp_path / "c.onnx")


def test_a_wrong_file_is_refused(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(FeatureFileError, match="is no HDF5 file"):
        tlpipe.train_head(trained.classifier, tmp_path / "c.onnx")


def test_features_of_another_fingerprint_are_refused(trained: Trained, tmp_path: Path) -> None:
    path = shutil.copy(trained.features, tmp_path / "f.h5")
    with_header(path, fingerprint="0" * 64)
    with pytest.raises(FeatureFileError, match=r"its fingerprint 000000000000\.\.\. and its"):
        tlpipe.train_head(path, tmp_path / "c.onnx")


def test_images_that_stand_in_two_classes_or_splits_are_said(
    tiny_card: Card, photos: Path, tmp_path: Path
) -> None:
    root = tmp_path / "in"
    shutil.copytree(photos, root / "train")
    shutil.copytree(photos, root / "test")
    shutil.copy(photos / "red" / "000.png", root / "train" / "blue" / "red.png")
    assert tlpipe.embed(root, tmp_path / "f.h5", backbone=tiny_card).shared == 45
    notices = tlpipe.train_head(tmp_path / "f.h5", tmp_path / "c.onnx").notices
    assert notices == [
        "1 images stand in more than one class, with the very same content.",
        (
            "45 images that judge the classifier also train it, with the very same content: the"
            " numbers flatter."
        ),
    ]


def test_another_seed_holds_out_other_images(trained: Trained, tmp_path: Path) -> None:
    first = tlpipe.train_head(
        trained.features, tmp_path / "a.onnx", options=tlpipe.TrainOptions(seed=1)
    )
    second = tlpipe.train_head(
        trained.features, tmp_path / "b.onnx", options=tlpipe.TrainOptions(seed=2)
    )
    weights = [
        numpy_helper.to_array(t)
        for path in (first.path, second.path)
        for t in onnx.load(path).graph.initializer
        if t.name == "tlpipe/head/weights"
    ]
    assert not np.array_equal(*weights)


# -- train -----------------------------------------------------------------------------------------


def test_train_is_embed_and_train_head(photos: Path, tiny_card: Card, tmp_path: Path) -> None:
    result = tlpipe.train(photos, tmp_path / "c.onnx", backbone=tiny_card)
    assert result.trained.metrics.accuracy == 1.0
    names = sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".lock")
    assert names == ["c.features.h5", "c.head.onnx", "c.metrics.json", "c.onnx"]


def test_train_checks_all_its_outputs_first(photos: Path, tiny_card: Card, tmp_path: Path) -> None:
    (tmp_path / "c.metrics.json").write_text("precious")
    with pytest.raises(OutputError, match=r"c\.metrics\.json' exists already"):
        tlpipe.train(photos, tmp_path / "c.onnx", backbone=tiny_card)
    assert [path.name for path in tmp_path.iterdir()] == ["c.metrics.json"]


# -- classify and evaluate -------------------------------------------------------------------------


def test_a_row_per_input_in_order(trained: Trained, photos: Path, tmp_path: Path) -> None:
    result = tlpipe.classify(
        trained.classifier, photos, tmp_path / "p.csv", columns=tlpipe.Columns(top_k=3)
    )
    rows = rows_of(tmp_path / "p.csv")
    assert [row["key"] for row in rows] == [item.key for item in tlpipe.source(photos).items()]
    assert all(row["class"] == row["key"].split("/")[0] for row in rows)
    for row in rows:
        total = sum(float(row[k]) for k in ("probability", "probability_2", "probability_3"))
        assert total == pytest.approx(1.0, abs=1e-5)
    assert result.count == 45
    assert not result.too_many_rejects


def test_every_input_of_a_manifest_has_its_row(trained: Trained, tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 1, (200, 40, 40))
    (tmp_path / "m.csv").write_text("path\na.png\nmissing.png\na.png\n")
    tlpipe.classify(trained.classifier, tmp_path / "m.csv", tmp_path / "p.csv")
    rows = [(r["key"], r["status"], r["class"], r["reason"]) for r in rows_of(tmp_path / "p.csv")]
    assert rows == [
        ("a.png", "ok", "red", ""),
        ("missing.png", "rejected", "", "missing"),
        ("a.png", "ok", "red", ""),
    ]


def test_rejects_alone_are_too_many(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"")
    result = tlpipe.classify(trained.classifier, tmp_path / "x.png", tmp_path / "p.jsonl")
    assert result.too_many_rejects
    assert json.loads((tmp_path / "p.jsonl").read_text())["reason"] == "empty"


@pytest.mark.parametrize("top_k", [0, 4])
def test_top_k_has_bounds(trained: Trained, photos: Path, tmp_path: Path, top_k: int) -> None:
    with pytest.raises(OptionError, match=f"--top-k is {top_k}; it must be from 1 to 3"):
        tlpipe.classify(
            trained.classifier, photos, tmp_path / "p.csv", columns=tlpipe.Columns(top_k)
        )


def test_what_is_no_classifier_is_refused(photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "p.csv"
    with pytest.raises(ClassifierError, match="does not exist"):
        tlpipe.classify(tmp_path / "none.onnx", photos, output)
    onnx.save(tiny_network(), tmp_path / "tiny.onnx")
    with pytest.raises(ClassifierError, match="but no classifier of tlpipe"):
        tlpipe.classify(tmp_path / "tiny.onnx", photos, output)


def test_a_classifier_of_another_decoder_is_refused(
    photos: Path, tiny_card: Card, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision_module, "decoder_of", lambda mode, begun=None: "other-2")
        patch.setattr(pixels_module, "check_decoder", lambda decoder: None)
        tlpipe.embed(photos, tmp_path / "f.h5", backbone=tiny_card)
        with pytest.raises(FeatureFileError, match="with the decoder 'other-2' at 'fp32'; this"):
            tlpipe.train_head(tmp_path / "f.h5", tmp_path / "c.onnx")
        patch.setattr(train_head_module, "DECODERS", ["other-2"])
        tlpipe.train_head(tmp_path / "f.h5", tmp_path / "c.onnx")
    with pytest.raises(ClassifierError, match="on images decoded as 'other-2'; this tlpipe"):
        tlpipe.classify(tmp_path / "c.onnx", photos, tmp_path / "p.csv")


def test_evaluate_judges_labelled_images(trained: Trained, photos: Path) -> None:
    result = tlpipe.evaluate(trained.classifier, photos)
    assert result.metrics.count == 45
    assert result.metrics.accuracy > 0.9
    assert result.judged_on == f"all labelled images of {str(photos)!r}"


def test_evaluate_takes_the_test_split_by_itself(
    trained: Trained, photos: Path, tmp_path: Path
) -> None:
    shutil.copytree(photos, tmp_path / "train")
    shutil.copytree(photos / "red", tmp_path / "test" / "red")
    (tmp_path / "test" / "red" / "bad.png").write_bytes(b"x")
    result = tlpipe.evaluate(trained.classifier, tmp_path)
    assert result.metrics.count == 15
    assert result.rejects == {"not-an-image": 1}
    assert result.judged_on.startswith("the test split of")
    assert tlpipe.evaluate(trained.classifier, tmp_path, split="train").metrics.count == 45
    assert tlpipe.evaluate(trained.classifier, tmp_path, split="all").metrics.count == 60
    with pytest.raises(SourceError, match="no labelled image of the split 'validation'"):
        tlpipe.evaluate(trained.classifier, tmp_path, split="validation")


def test_foreign_labels_are_refused(trained: Trained, tmp_path: Path) -> None:
    write_image(tmp_path / "zebra" / "1.png", 1)
    with pytest.raises(SourceError, match=r"has the labels \['zebra'\], which are no classes"):
        tlpipe.evaluate(trained.classifier, tmp_path)


# -- verify, inspect, export -----------------------------------------------------------------------


def test_frozen_is_proved(trained: Trained) -> None:
    result = tlpipe.verify(trained.classifier)
    assert result.frozen
    assert result.identical == ["conv.bias", "conv.weight"]
    assert result.dropped == ["fc.bias", "fc.weight"]


def tamper(path: Path, target: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    model = onnx.load(path)
    change(model)
    onnx.save(model, target)
    return target


def head_node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == f"tlpipe/head/{name}")


def flip_a_bit(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == "conv.weight")
    raw = bytearray(tensor.raw_data)
    raw[3] ^= 1
    tensor.raw_data = bytes(raw)


def add_a_tensor(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "extra"))


def change_an_operator(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Sigmoid"


def add_an_operator(model: onnx.ModelProto) -> None:
    """Rescale the embedding between the backbone and the head, in a node of a foreign name."""
    gemm = head_node(model, "logits")
    node = onnx.helper.make_node("Neg", [gemm.input[0]], ["twisted"], name="foreign")
    gemm.input[0] = "twisted"
    model.graph.node.insert(list(model.graph.node).index(gemm), node)


def change_the_preprocessing(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == "tlpipe/mean")
    mean = numpy_helper.to_array(tensor) + np.float32(1)
    tensor.CopyFrom(numpy_helper.from_array(mean, "tlpipe/mean"))


def zero_the_embeddings(model: onnx.ModelProto) -> None:
    """With a node and a tensor that bear tlpipe's own names."""
    zero = numpy_helper.from_array(np.zeros(1, np.float32), "tlpipe/zero")
    model.graph.initializer.append(zero)
    identity = next(node for node in model.graph.node if node.output[0] == "embeddings")
    position = list(model.graph.node).index(identity)
    node = onnx.helper.make_node(
        "Mul", [identity.input[0], "tlpipe/zero"], ["tlpipe/evil"], name="tlpipe/evil"
    )
    identity.input[0] = "tlpipe/evil"
    model.graph.node.insert(position, node)


def taken_out(model: onnx.ModelProto) -> onnx.TensorProto:
    """A copy of a tensor of weights, which is no longer in the file."""
    tensor = next(t for t in model.graph.initializer if t.name == "conv.bias")
    kept = onnx.TensorProto.FromString(tensor.SerializeToString())
    model.graph.initializer.remove(tensor)
    return kept


def define_it_twice(model: onnx.ModelProto) -> None:
    """ONNX Runtime takes the first, whoever reads all in order the last."""
    kept = taken_out(model)
    other = numpy_helper.from_array(numpy_helper.to_array(kept) * 2, kept.name)
    model.graph.initializer.extend([other, kept])


def define_it_sparse(model: onnx.ModelProto) -> None:
    kept = taken_out(model)
    values = numpy_helper.from_array(numpy_helper.to_array(kept) * 2, kept.name)
    indices = numpy_helper.from_array(np.arange(kept.dims[0]), "indices")
    sparse = onnx.helper.make_sparse_tensor(values, indices, list(kept.dims))
    model.graph.sparse_initializer.append(sparse)


def ask_for_it(model: onnx.ModelProto) -> None:
    kept = taken_out(model)
    value = onnx.helper.make_tensor_value_info(kept.name, kept.data_type, kept.dims)
    model.graph.input.append(value)


def compute_it_in_the_head(model: onnx.ModelProto) -> None:
    """By the head's Softmax; the Gemm gives the probabilities."""
    kept = taken_out(model)
    gemm, softmax = head_node(model, "logits"), head_node(model, "softmax")
    gemm.output[0] = "probabilities"
    softmax.input[0], softmax.output[0] = "tlpipe/head/bias", kept.name


def bypass_the_embeddings(model: onnx.ModelProto) -> None:
    identity = next(node for node in model.graph.node if node.output[0] == "embeddings")
    head_node(model, "logits").input[0] = identity.input[0]


def exchange_the_output(model: onnx.ModelProto) -> None:
    identity = next(node for node in model.graph.node if node.output[0] == "embeddings")
    model.graph.output[1].name = identity.input[0]


def bypass_them_to_the_unknown(model: onnx.ModelProto) -> None:
    identity = next(node for node in model.graph.node if node.output[0] == "embeddings")
    head_node(model, "unit").input[0] = identity.input[0]


def say_that_all_is_known(model: onnx.ModelProto) -> None:
    """By an operator of the head's that compares otherwise."""
    head_node(model, "unknown").input[0] = "tlpipe/head/threshold"


def take_the_farthest_class(model: onnx.ModelProto) -> None:
    head_node(model, "nearest").op_type = "ArgMin"


def change_an_attribute(model: onnx.ModelProto) -> None:
    head_node(model, "explained").attribute[0].i = 0


def do_a_thing_twice(model: onnx.ModelProto) -> None:
    again = onnx.NodeProto.FromString(head_node(model, "offset").SerializeToString())
    again.output[0] = "tlpipe/head/other"
    model.graph.node.append(again)


def leave_an_output_out(model: onnx.ModelProto) -> None:
    del model.graph.output[-1]


def show_what_is_inside(model: onnx.ModelProto) -> None:
    model.graph.output.append(onnx.ValueInfoProto(name="tlpipe/head/unit"))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (define_it_twice, "same_graph"),
        (define_it_sparse, "same_graph"),
        (ask_for_it, "same_graph"),
        (compute_it_in_the_head, "same_graph"),
        (bypass_the_embeddings, "same_graph"),
        (exchange_the_output, "same_graph"),
        (bypass_them_to_the_unknown, "same_graph"),
        (say_that_all_is_known, "same_graph"),
        (take_the_farthest_class, "same_graph"),
        (change_an_attribute, "same_graph"),
        (do_a_thing_twice, "same_graph"),
        (leave_an_output_out, "same_graph"),
        (show_what_is_inside, "same_graph"),
        (change_the_preprocessing, "same_graph"),
        (zero_the_embeddings, "same_graph"),
        (flip_a_bit, "changed"),
        (add_a_tensor, "foreign"),
        (change_an_operator, "same_graph"),
        (add_an_operator, "same_graph"),
    ],
)
def test_tampering_is_found(
    trained: Trained, tmp_path: Path, change: Callable[[onnx.ModelProto], None], field: str
) -> None:
    result = tlpipe.verify(tamper(trained.classifier, tmp_path / "c.onnx", change))
    assert not result.frozen
    intact = {"changed": [], "foreign": [], "same_graph": True}
    assert {name for name in intact if getattr(result, name) != intact[name]} == {field}


def test_a_copied_digest_does_not_help(trained: Trained, tmp_path: Path) -> None:
    """Weights changed and the recorded digest with them: the pretrained file still tells."""

    def forge(model: onnx.ModelProto) -> None:
        from tlpipe.graph.digest import weights_digest

        flip_a_bit(model)
        for entry in model.metadata_props:
            if entry.key == "backbone_digest":
                entry.value = weights_digest(model)

    result = tlpipe.verify(tamper(trained.classifier, tmp_path / "c.onnx", forge))
    assert result.same_digest
    assert result.changed == ["conv.weight"]
    assert not result.frozen


def test_every_file_can_be_inspected(
    trained: Trained, tiny_card_path: Path, photos: Path, tmp_path: Path
) -> None:
    for name in ("p.csv", "p.jsonl"):
        tlpipe.classify(trained.classifier, photos, tmp_path / name)
    report = trained.classifier.with_suffix(".metrics.json")
    files = [trained.features, trained.classifier, report, tiny_card_path]
    files += [tiny_card_path.with_suffix(".onnx"), tmp_path / "p.csv", tmp_path / "p.jsonl"]
    found = [tlpipe.inspect(path) for path in files]
    assert [one.kind for one in found] == [
        "feature file",
        "classifier",
        "report of a classifier",
        "backbone card",
        "ONNX network",
        "predictions",
        "predictions",
    ]
    assert found[0].facts["embeddings"] == 45
    assert found[0].facts["classes"]["red"] == {"no split": 15}
    assert found[1].facts["classes"] == ["blue", "green", "red"]
    assert found[1].facts["backbone_digest"] == tlpipe.verify(trained.classifier).digest
    assert found[5].facts == found[6].facts
    assert found[5].facts["rows"] == 45


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.txt", "", "is no file that tlpipe knows"),
        ("x.json", "[]", "is no report of tlpipe's"),
        ("x.json", "{", "is no JSON text"),
        ("x.csv", "a,b\n1,2\n", "holds no predictions"),
        ("x.csv", "", "holds no predictions"),
        ("x.jsonl", "", "is empty"),
        ("x.jsonl", "{\n", "holds no predictions"),
        ("x.jsonl", "[1]\n", "holds no predictions"),
    ],
)
def test_unknown_files_are_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UnknownFileError, match=message):
        tlpipe.inspect(tmp_path / name)
    with pytest.raises(UnknownFileError, match="does not exist"):
        tlpipe.inspect(tmp_path / "none.h5")


def test_the_whole_backbone_can_be_had(tiny_card: Card, photos: Path, tmp_path: Path) -> None:
    names = [f"class {k}" for k in range(TINY_CLASSES)]
    path = tmp_path / "own.onnx"
    assert tlpipe.export_backbone(path, backbone=tiny_card, classes=names) == names
    result = tlpipe.classify(path, photos, tmp_path / "p.csv")
    assert set(result.classes) <= set(names)
    assert tlpipe.verify(path).dropped == []
    assert tlpipe.verify(path).frozen
    wrong = dataclasses.replace(
        tiny_card, output=dataclasses.replace(tiny_card.output, tensors=("b",))
    )
    with pytest.raises(BackboneError, match=r"\['b'\] give embeddings of the shape \(1, 8, 4, 4\)"):
        tlpipe.export_backbone(tmp_path / "x.onnx", backbone=wrong)
    with pytest.raises(OptionError, match="2 class names were given, 1 of them distinct"):
        tlpipe.export_backbone(tmp_path / "x.onnx", backbone=tiny_card, classes=["a", "a"])


def test_the_card_of_a_classifier_is_whole(trained: Trained, tiny_card: Card) -> None:
    model = onnx.load(trained.classifier)
    text = next(entry.value for entry in model.metadata_props if entry.key == "backbone")
    assert Card.from_dict(json.loads(text), "it") == tiny_card
    assert dataclasses.asdict(tiny_card)["name"] == "tiny.test"


def test_a_source_is_surveyed_when_it_is_taken_not_when_it_is_opened(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    source = opened(tmp_path)
    with pytest.raises(SourceError, match="holds no image"):
        as_source(source)
    write_classes(tmp_path, 1)
    seen: list[Survey] = []
    assert as_source(source, seen.append) is source
    assert seen == [source.survey]
