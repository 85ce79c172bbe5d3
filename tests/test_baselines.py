"""Quick baselines: against scikit-learn, in the graph, and down the whole road."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

import tlpipe
from conftest import Trained
from tlpipe.cli.main import cli
from tlpipe.errors import ExportError, TrainingDataError
from tlpipe.graph.digest import same_graph
from tlpipe.graph.head import head_alone, join_head
from tlpipe.last_layer import NearestImages
from tlpipe.stages.head import HeadOptions, InMemory, nearest, nearest_search, train_baseline
from tlpipe.stages.head.centroid import CentroidHead
from tlpipe.stages.head.nearest import NearestHead
from tlpipe.stages.head.voting import Setting, bounds_of, nearest_of, probabilities_from
from tlpipe.stages.session.half import half
from tlpipe.workflows.train_options import TrainOptions

DIM = 24


def blobs(classes: int, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, DIM))
    labels = rng.permutation(np.arange(count) % classes)
    vectors = centres[labels] + 1.5 * rng.normal(size=(count, DIM))
    return (vectors * rng.uniform(0.5, 20, (count, 1))).astype(np.float32), labels.astype(np.int32)


def folds(count: int, k: int = 4) -> list[tuple[np.ndarray, np.ndarray]]:
    rows = np.arange(count)
    return [(rows[rows % k != f], rows[rows % k == f]) for f in range(k)]


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)


def loss(p: np.ndarray, labels: np.ndarray) -> float:
    return float(-np.log(p[np.arange(labels.size), labels]).mean())


def knn(classes: int = 3, count: int = 240) -> tuple[NearestHead, np.ndarray, np.ndarray]:
    vectors, labels = blobs(classes, count)
    head = train_baseline("knn", vectors, labels, folds(count))
    assert isinstance(head, NearestHead)
    return head, vectors, labels


def centroid(classes: int = 3, count: int = 240) -> tuple[CentroidHead, np.ndarray, np.ndarray]:
    vectors, labels = blobs(classes, count)
    head = train_baseline("centroid", vectors, labels, folds(count))
    assert isinstance(head, CentroidHead)
    return head, vectors, labels


# -- nearest class mean ----------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 5])
def test_the_nearest_mean_is_scikit_learns(classes: int) -> None:
    head, vectors, labels = centroid(classes)
    theirs = NearestCentroid().fit(unit(vectors), labels)
    np.testing.assert_allclose(head.means, theirs.centroids_, atol=1e-6)
    new = blobs(classes, 400, seed=1)[0]
    np.testing.assert_array_equal(head.logits(new).argmax(axis=1), theirs.predict(unit(new)))


def test_the_scale_has_the_least_log_loss_on_rows_that_did_not_train() -> None:
    head, vectors, labels = centroid()
    assert head.held_out is not None
    np.testing.assert_array_equal(head.held_out.rows, np.arange(240))
    expected = np.empty((240, 3))
    for rows, held in folds(240):
        means = NearestCentroid().fit(unit(vectors[rows]), labels[rows]).centroids_
        expected[held] = unit(vectors[held]) @ means.T - (means**2).sum(axis=1) / 2
    np.testing.assert_allclose(head.held_out.logits, expected * head.scale, rtol=1e-4, atol=1e-4)

    def at(scale: float) -> float:
        e = np.exp(expected * scale)
        return loss(e / e.sum(axis=1, keepdims=True), labels)

    best = min(at(head.scale * factor) for factor in np.geomspace(0.2, 5, 41))
    assert at(head.scale) < best + 0.002


@pytest.mark.parametrize("kind", ["centroid", "knn"])
def test_a_class_that_a_fold_lacks_is_no_number_gone_wrong(kind: str) -> None:
    vectors, labels = blobs(3, 40)
    labels[:] = np.arange(40) % 2
    labels[7] = 2  # its only image is held out
    head = train_baseline(kind, vectors, labels, folds(40))
    assert head.held_out is not None
    assert np.isfinite(head.held_out.logits).all()
    assert np.isfinite(head.probabilities(vectors)).all()


# -- nearest images --------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (50, 0.02), (180, 0.15)])
def test_votes_are_scikit_learns(k: int, temperature: float) -> None:
    head = replace(knn()[0], setting=Setting(k, temperature, 0.0))
    theirs = KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / temperature)
    ).fit(head.images, head.labels)  # as they were rounded
    new = blobs(3, 100, seed=1)[0]
    np.testing.assert_allclose(head.probabilities(new), theirs.predict_proba(new), atol=2e-3)


def test_the_setting_has_the_least_log_loss_on_rows_that_do_not_vote() -> None:
    head, vectors, labels = knn()
    assert len(head.trials) == 1 + 6 * 5  # 180 rows vote: k = 200 is too many
    best = min(head.trials, key=lambda trial: trial.log_loss)
    assert (best.k, best.temperature, best.doubt) == (
        head.setting.k, head.setting.temperature, head.setting.doubt,
    )  # fmt: skip
    assert head.held_out is not None
    p = np.exp(head.held_out.logits)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert loss(p, labels[head.held_out.rows]) == pytest.approx(best.log_loss, rel=1e-6)
    for rows, held in folds(240):
        votes = KNeighborsClassifier(
            best.k, metric="cosine", algorithm="brute",
            weights=lambda d: np.exp((1 - d) / best.temperature),
        ).fit(vectors[rows], labels[rows]).predict_proba(vectors[held])  # fmt: skip
        expected = (1 - best.doubt) * votes + best.doubt / 3
        np.testing.assert_allclose(p[held], expected, atol=0.02)


def test_a_class_without_a_vote_is_not_impossible() -> None:
    head, vectors, _ = knn()
    p = replace(head, setting=Setting(1, 0.07, 0.03)).probabilities(vectors)
    np.testing.assert_allclose(np.sort(p, axis=1), [[0.01, 0.01, 0.98]] * 240)


def test_many_held_out_rows_are_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest_search, "MOST_HELD", 60)
    head, _, labels = knn()
    assert head.held_out is not None
    assert head.held_out.rows.size == 60
    assert (np.diff(head.held_out.rows) > 0).all()
    right = head.held_out.logits.argmax(axis=1) == labels[head.held_out.rows]
    assert right.mean() > 0.7


@pytest.mark.parametrize("kind", ["centroid", "knn"])
def test_one_image_of_each_class(kind: str) -> None:
    vectors, labels = blobs(4, 4)
    head = train_baseline(kind, vectors, labels, [])
    assert head.held_out is None
    assert not head.trials
    assert head.notices()
    np.testing.assert_array_equal(head.probabilities(vectors).argmax(axis=1), labels)


@pytest.mark.parametrize("kind", ["centroid", "knn"])
def test_heads_of_fewer_and_threads_and_sources_agree(kind: str) -> None:
    vectors, labels = blobs(3, 480)
    new, truth = blobs(3, 300, seed=2)
    head = train_baseline(kind, vectors, labels, folds(480), HeadOptions(threads=1))
    again = train_baseline(kind, InMemory(vectors), labels, folds(480), HeadOptions(threads=2))
    np.testing.assert_allclose(head.logits(new), again.logits(InMemory(new)), atol=1e-5)
    assert [count for count, _ in head.fewer] == [30, 60, 120, 240]
    accuracy = [(h.logits(new).argmax(axis=1) == truth).mean() for _, h in head.fewer]
    assert min(accuracy) > 0.6
    different = [
        np.abs(h.probabilities(new) - head.probabilities(new)).max() for _, h in head.fewer
    ]
    assert min(different) > 0.001


def test_of_equally_near_images_the_first_votes() -> None:
    cosines = np.array([[0.1, 0.5, 0.9, 0.5, 0.5], [0.5] * 5], np.float32)
    found, places = nearest_of(cosines, 3)
    np.testing.assert_array_equal(places, [[2, 1, 3], [0, 1, 2]])
    np.testing.assert_allclose(found, [[0.9, 0.5, 0.5], [0.5] * 3])


def test_bounds_allow_any_of_equals_and_nothing_else() -> None:
    setting = Setting(2, 0.1, 0.0)
    labels = np.array([0, 1, 2, 2])
    cosines = np.array([[0.9, 0.5, 0.5, 0.1]], np.float32)
    low, high = bounds_of(cosines, labels, 3, setting)
    vote = np.exp(-4) / (1 + np.exp(-4))
    np.testing.assert_allclose(low, [[1 - vote, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(high, [[1 - vote, vote, vote]], atol=1e-6)
    apart = np.array([[0.9, 0.5, 0.49, 0.1]], np.float32)
    low, high = bounds_of(apart, labels, 3, setting)
    expected = probabilities_from(*(a if i == 0 else labels[a] for i, a in enumerate(
        nearest_of(apart, 2))), 3, setting)  # fmt: skip
    np.testing.assert_allclose(low, expected, atol=1e-6)
    np.testing.assert_allclose(high, expected, atol=1e-6)


def test_too_many_images_are_refused_before_any_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "MOST_BYTES", 240 * DIM * 2 - 1)
    with pytest.raises(TrainingDataError, match="240 nearest images with 24 numbers") as caught:
        knn()
    assert "--head linear" in str(caught.value.hint)


# -- in the graph ----------------------------------------------------------------------------------


def backbone(opset: int) -> onnx.ModelProto:
    """A backbone that gives what it is given, with the sign changed."""
    x, y = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", DIM]) for n in ("x", "embeddings")
    )
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["embeddings"])], "g", [x], [y])
    version = 4 if opset < 9 else 8 if opset < 21 else 10
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=version
    )


def run(model: onnx.ModelProto | bytes, vectors: np.ndarray) -> dict[str, np.ndarray]:
    if isinstance(model, onnx.ModelProto):
        onnx.checker.check_model(model, full_check=True)
        model = model.SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {session.get_inputs()[0].name: vectors}), strict=True))


@pytest.mark.parametrize("opset", [7, 9, 10, 11, 13, 17, 21])
@pytest.mark.parametrize("k", [1, 7, 240])
def test_nearest_images_mean_the_same_in_every_version_of_onnx(opset: int, k: int) -> None:
    head, vectors, _ = knn()
    head = replace(head, setting=Setting(k, 0.04, 0.02))
    before = backbone(opset)
    joined = join_head(before, head.layer(), None, 0.3, {})
    assert same_graph(joined, before, before)
    new = np.concatenate([vectors[:9], blobs(3, 50, seed=3)[0], np.zeros((1, DIM), np.float32)])
    said = run(joined, -new)
    np.testing.assert_allclose(said["probabilities"], head.probabilities(new), atol=2e-5)
    assert list(said) == ["probabilities", "embeddings", "prediction_set"]
    alone = run(head_alone(head.layer(), None, 0.3, {}), new)
    np.testing.assert_allclose(alone["probabilities"], said["probabilities"], atol=1e-6)
    one = run(joined, -new[:1])
    np.testing.assert_allclose(one["probabilities"], said["probabilities"][:1], atol=1e-6)


@pytest.mark.parametrize("opset", [9, 17])
def test_tampering_with_the_votes_is_found(opset: int) -> None:
    head = knn()[0]
    before = backbone(opset)
    joined = join_head(before, head.layer(), None, None, {})
    assert same_graph(joined, before, before)
    for place, node in enumerate(joined.graph.node):
        if not node.name.startswith("tlpipe/head"):
            continue
        for change in ("op_type", "input", "removed", "attribute"):
            wrong = onnx.ModelProto()
            wrong.CopyFrom(joined)
            if change == "op_type":
                wrong.graph.node[place].op_type = "Identity"
            elif change == "input":
                wrong.graph.node[place].input[0] = "x"
            elif change == "removed":
                del wrong.graph.node[place]
            else:
                wrong.graph.node[place].attribute.append(helper.make_attribute("largest", 0))
            assert not same_graph(wrong, before, before), (node.name, change)


def test_arrays_that_do_not_fit_are_refused() -> None:
    layer = knn()[0].layer()
    assert isinstance(layer, NearestImages)
    with pytest.raises(ValueError, match="The labels have the shape"):
        head_alone(replace(layer, labels=layer.labels[1:]), None, None, {})
    with pytest.raises(ValueError, match="241 of 240 images"):
        head_alone(replace(layer, k=241), None, None, {})


def test_votes_can_be_counted_in_float16() -> None:
    head, _, _ = knn()
    new = blobs(3, 60, seed=3)[0]
    whole = head_alone(head.layer(), None, None, {}).SerializeToString()
    p = run(half(whole), new)["probabilities"]
    assert np.median(np.abs(p - head.probabilities(new))) < 0.01


# -- the whole road --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["centroid", "knn"])
def test_a_baseline_goes_the_whole_road(
    kind: str, trained: Trained, photos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "c.onnx"
    arguments = ["train-head", str(trained.features), "-o", str(output), "--head", kind]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    assert {"knn": "nearest images, votes by exp(cosine / T)", "centroid": "class means"}[
        kind
    ] in text
    report = json.loads(output.with_suffix(".metrics.json").read_text())
    assert report["training"]["head"] == kind
    assert report["metrics"]["accuracy"] >= 0.8
    assert report["metrics"]["temperature"] is None
    assert tlpipe.verify(output).frozen
    session = onnxruntime.InferenceSession(output, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_outputs()] == [
        "probabilities", "embeddings", "unknown_score", "unknown", "prediction_set",
    ]  # fmt: skip
    tlpipe.classify(str(output), tlpipe.source(photos), tmp_path / "p.csv")
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 46
    model = onnx.load(output)
    (softmax,) = (node for node in model.graph.node if node.op_type == "Softmax")
    softmax.op_type = "LogSoftmax"
    onnx.save(model, output)
    assert not tlpipe.verify(output).frozen


def test_a_head_that_votes_otherwise_is_not_written(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = NearestHead.layer

    def wrong(self: NearestHead) -> NearestImages:
        layer = original(self)
        return replace(layer, labels=(layer.labels + 1) % layer.classes)

    monkeypatch.setattr(NearestHead, "layer", wrong)
    with pytest.raises(ExportError, match="differ from the trained head's by"):
        tlpipe.train_head(trained.features, tmp_path / "c.onnx", options=TrainOptions(head="knn"))
    assert list(tmp_path.iterdir()) == []
