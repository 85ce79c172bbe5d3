"""The solver of the head: optima against SciPy in float64, on every path that data may take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from scipy.optimize import minimize

import tlpipe
from conftest import Trained
from test_multi_label import stored
from tlpipe.card import Card
from tlpipe.cli.main import cli
from tlpipe.errors import ClassifierError, OptionError, OutputError
from tlpipe.stages.classifier import read_metadata
from tlpipe.stages.head import HeadOptions, InMemory, probabilities_of, train
from tlpipe.stages.head.calibration import find_temperature
from tlpipe.stages.head.rows import apply_scaling, scaled_rows
from tlpipe.stages.session import properties_of
from tlpipe.stages.store import FeatureFile, StoredVectors
from tlpipe.workflows.train_options import LEAST_MEMORY_BYTES, TrainOptions


def data(count: int, classes: int, dim: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count).astype(np.int32)
    labels[:classes] = np.arange(classes)
    centres = rng.normal(size=(classes, dim))
    vectors = centres[labels] + 1.5 * rng.normal(size=(count, dim)) + 3
    return vectors.astype(np.float32), labels


def halves(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rows = np.arange(count)
    return [(rows[rows % 2 != k], rows[rows % 2 == k]) for k in range(2)]


def objective(
    theta: np.ndarray, x: np.ndarray, labels: np.ndarray, c: float, counts: np.ndarray
) -> tuple[float, np.ndarray]:
    """0.5 |W|^2 + C sum(loss), and its gradient, in float64, written anew."""
    several = labels.ndim == 2
    classes = labels.shape[1] if several else int(labels.max()) + 1
    theta = theta.reshape(classes, -1)
    scores = x @ theta[:, :-1].T + theta[:, -1]
    if several:
        loss = (np.logaddexp(0, scores) - labels * scores).sum(axis=1)
        away = 1 / (1 + np.exp(-scores)) - labels
    else:
        scores = scores - scores.max(axis=1, keepdims=True)
        total = np.exp(scores).sum(axis=1)
        loss = np.log(total) - scores[np.arange(len(x)), labels]
        away = np.exp(scores) / total[:, np.newaxis]
        away[np.arange(len(x)), labels] -= 1
    away = away * counts[:, np.newaxis] * c
    gradient = np.column_stack([away.T @ x + theta[:, :-1], away.sum(axis=0)])
    value = 0.5 * float((theta[:, :-1] ** 2).sum()) + c * float(counts @ loss)
    return value, gradient.ravel()


def gap(vectors: np.ndarray, labels: np.ndarray, options: HeadOptions, counts: Any = None) -> float:
    """How far the trained head lies above SciPy's optimum, as a fraction of it."""
    head = train(vectors, labels, np.arange(len(labels)), [], options)
    scaled = scaled_rows(InMemory(vectors), head.scaling)
    x = apply_scaling(vectors, head.scaling, scaled.mean, scaled.scale).astype(np.float64)
    weights = head.weights.T * scaled.scale
    bias = head.bias + head.weights.T @ scaled.mean
    ours = np.column_stack([weights, bias])
    two = labels.ndim == 1 and int(labels.max()) == 1
    if two:  # one question with a sigmoid
        ours, labels = ours[1:] - ours[:1], (labels == 1)[:, np.newaxis]
    counts = np.ones(len(x)) if counts is None else counts
    known = (x, labels, head.c, counts)
    best = minimize(
        objective, ours.ravel(), known, jac=True, method="L-BFGS-B",
        options={"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-15, "gtol": 1e-10, "maxcor": 30},
    )  # fmt: skip
    return (objective(ours.ravel(), *known)[0] - best.fun) / best.fun


@pytest.mark.parametrize("scaling", ["raw", "standardised", "unit"])
@pytest.mark.parametrize("classes", [2, 3, 9, 70])
@pytest.mark.parametrize("c", [1e-3, 0.1, 10.0, 1e3])
def test_the_optimum_is_that_of_a_float64_solver(scaling: Any, classes: int, c: float) -> None:
    vectors, labels = data(400, classes, 12)
    assert gap(vectors, labels, HeadOptions(scalings=(scaling,), c=(c,))) < 1e-6


@pytest.mark.parametrize("c", [0.01, 1.0])
def test_several_labels_have_an_optimum_each(c: float) -> None:
    vectors, labels = data(300, 4, 10)
    several = np.eye(4, dtype=bool)[labels] | (vectors[:, :4] > 4)
    assert gap(vectors, several, HeadOptions(scalings=("raw",), c=(c,))) < 1e-6


def test_fewer_rows_than_dimensions() -> None:
    vectors, labels = data(20, 3, 200)
    assert gap(vectors, labels, HeadOptions(scalings=("raw",), c=(1.0,))) < 1e-6


def test_class_weights_count_as_stated() -> None:
    vectors, labels = data(300, 3, 8)
    labels[labels == 2] = np.where(np.arange((labels == 2).sum()) < 90, 1, 2)
    sizes = np.bincount(labels)
    counts = (len(labels) / (3 * sizes))[labels]
    options = HeadOptions(scalings=("raw",), c=(0.1,), class_weight="balanced")
    assert gap(vectors, labels, options, counts) < 1e-6
    given = HeadOptions(scalings=("raw",), c=(0.1,), class_weight=(1.0, 0.5, 4.0))
    assert gap(vectors, labels, given, np.array([1.0, 0.5, 4.0])[labels]) < 1e-6


def test_embeddings_of_odd_sizes_are_solved_too() -> None:
    vectors, labels = data(200, 3, 10)
    vectors[:, 0] *= 1e4
    vectors[:, 1] = vectors[:, 2]
    vectors[:, 3] = 7.0
    vectors[:, 4] *= 1e-5
    vectors[:, 5] += 1e3
    for scaling in ("raw", "standardised", "unit"):
        head = train(vectors, labels, np.arange(200), halves(200), HeadOptions(scalings=(scaling,)))
        assert np.isfinite(head.weights).all()


def test_zeros_have_no_direction() -> None:
    vectors, labels = data(60, 2, 5)
    vectors[:4] = 0
    head = train(vectors, labels, np.arange(60), halves(60), HeadOptions(scalings=("unit",)))
    assert np.isfinite(head.probabilities(vectors)).all()
    np.testing.assert_allclose(head.logits(vectors)[0], head.bias)


def test_many_rows_are_screened_and_come_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, labels = data(900, 4, 10)
    folds = halves(900)[:1]
    whole = train(vectors, labels, np.arange(900), folds)
    monkeypatch.setattr("tlpipe.stages.head.choose.SCREENED", 200)
    screened = train(vectors, labels, np.arange(900), folds)
    assert (screened.scaling, screened.c) == (whole.scaling, whole.c)
    scaled = np.abs(whole.weights).max()
    np.testing.assert_allclose(screened.weights, whole.weights, atol=2e-3 * scaled)
    assert len(screened.trials) < len(whole.trials)


def test_an_array_that_may_be_consumed_gives_the_same_head(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, labels = data(300, 3, 8)
    monkeypatch.setattr("tlpipe.stages.head.choose._COPY_BYTES", 0)
    kept = train(vectors.copy(), labels, np.arange(300), halves(300))
    array = vectors.copy()
    consumed = train(array, labels, np.arange(300), halves(300), HeadOptions(consume=True))
    np.testing.assert_allclose(
        consumed.probabilities(vectors), kept.probabilities(vectors), atol=1e-4
    )
    assert not np.array_equal(array, vectors)


def test_heads_of_fewer_rows_have_all_classes_and_learn() -> None:
    vectors, labels = data(640, 4, 10)
    head = train(vectors, labels, np.arange(640), halves(640), HeadOptions(fewer=True))
    assert [count for count, _ in head.fewer] == [40, 80, 160, 320]
    losses = []
    for _, other in [*head.fewer, (640, head)]:
        p = other.probabilities(vectors)
        losses.append(-np.log(p[np.arange(640), labels]).mean())
    assert losses[0] > losses[-1]


@pytest.mark.parametrize("classes", [2, 5])
def test_one_image_of_each_class_gives_a_humble_head(classes: int) -> None:
    vectors, labels = data(classes, classes, 30)
    head = train(vectors, labels, np.arange(classes), [])
    assert head.held_out is None
    assert head.trials == []
    p = head.probabilities(vectors)
    assert (p.argmax(axis=1) == labels).all()
    assert p.max() < 0.99


def test_a_fold_without_a_class_is_no_obstacle() -> None:
    vectors, labels = data(80, 3, 6)
    rows = np.arange(80)
    folds = [(rows[labels != 2], rows[labels == 2]), (rows[labels == 2], rows[labels != 2])]
    head = train(vectors, labels, rows, folds)
    assert np.isfinite(head.held_out.logits).all()


def test_rows_of_folds_must_train() -> None:
    vectors, labels = data(40, 2, 4)
    with pytest.raises(ValueError, match="none of those that train"):
        train(vectors, labels, np.arange(20), halves(40))


def test_the_temperature_has_the_least_log_loss() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(2000, 3)) * 2
    chances = probabilities_of(scores, multilabel=False)
    labels = np.array([rng.choice(3, p=p) for p in chances], np.int32)
    ones = np.ones(2000, np.float32)
    assert find_temperature(3 * scores, labels, ones) == pytest.approx(3, rel=0.06)
    few = find_temperature(np.array([[9.0, 0.0], [0.0, 9.0]]), np.array([0, 1], np.int32), ones[:2])
    assert 0.5 < few < 1.5, "two right rows prove no certainty"


def test_embeddings_in_the_file_give_the_head_of_those_in_memory(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainOptions, "streams", lambda self, size: False)
    first = tlpipe.train_head(trained.features, tmp_path / "a.onnx")
    monkeypatch.setattr(TrainOptions, "streams", lambda self, size: True)
    second = tlpipe.train_head(trained.features, tmp_path / "b.onnx")
    assert first.metrics == second.metrics
    kept = {"trials", "gap", "temperature"}
    assert {k: v for k, v in first.training.items() if k not in kept} == {
        k: v for k, v in second.training.items() if k not in kept
    }


def test_stored_vectors_are_those_of_the_file(trained: Trained) -> None:
    with FeatureFile(trained.features) as file:
        whole = file.all_vectors()
        rows = np.flatnonzero(np.random.default_rng(0).random(file.count) < 0.4)
        some = StoredVectors(file, rows)
        assert some.shape == (rows.size, file.dim)
        np.testing.assert_array_equal(some.read(3, rows.size), whole[rows[3:]])
        np.testing.assert_array_equal(some.take(np.array([0, 5])), whole[rows[[0, 5]]])
        assert some.read(2, 2).shape == (0, file.dim)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"head": "tree"}, "The head 'tree' is unknown"),
        ({"class_weight": "most"}, "class weight 'most'"),
        ({"multi_label": True, "class_weight": "balanced"}, "without class weights"),
        ({"head": "knn", "class_weight": "balanced"}, "has no class weights"),
        ({"coverage": 1.0}, "--coverage is 1.0"),
        ({"false_alarms": 0.0}, "--false-alarms is 0.0"),
        ({"memory_bytes": LEAST_MEMORY_BYTES - 1}, "training needs at least 400 MB"),
        ({"threads": 0}, "--threads is 0"),
    ],
)
def test_options_that_make_no_sense(given: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        TrainOptions(**given)


def test_memory_decides_whether_embeddings_are_held() -> None:
    options = TrainOptions(memory_bytes=1 << 30)
    assert not options.streams(400 << 20)
    assert options.streams(800 << 20)


def test_the_head_alone_gives_the_classifiers_probabilities(
    trained: Trained, tmp_path: Path
) -> None:
    result = tlpipe.train_head(trained.features, tmp_path / "c.onnx")
    assert result.head_path == tmp_path / "c.head.onnx"
    whole, alone = (
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for path in (result.path, result.head_path)
    )
    assert alone.get_modelmeta().custom_metadata_map["format"] == "tlpipe-head"
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    names = ["probabilities", "embeddings", "unknown_score", "prediction_set"]
    said = dict(zip(names, whole.run(names, {"image": images}), strict=True))
    embeddings = said.pop("embeddings")
    for name, value in said.items():
        (found,) = alone.run([name], {"embeddings": embeddings})
        np.testing.assert_allclose(found, value, atol=1e-6)
    with pytest.raises(ClassifierError, match="no classifier of tlpipe"):
        tlpipe.classify(result.head_path, tmp_path, tmp_path / "p.csv")
    with pytest.raises(OutputError, match=r"c\.(onnx|metrics\.json|head\.onnx)' exists already"):
        tlpipe.train_head(trained.features, tmp_path / "c.onnx")


def test_the_commands_options_reach_the_head(trained: Trained, tmp_path: Path) -> None:
    output = tmp_path / "c.onnx"
    line = ["train-head", str(trained.features), "-o", str(output)]
    given = ["--class-weight", "balanced", "--coverage", "0.7", "--false-alarms", "0.2"]
    result = CliRunner().invoke(cli, [*line, *given, "--memory", "1GB", "--seed", "3"])
    assert result.exit_code == 0, result.output
    about = read_metadata(properties_of(output), "it")
    assert about.training["class_weight"] == "balanced"
    assert about.training["seed"] == 3
    assert about.unknown is not None
    assert about.unknown.false_alarms == 0.2
    assert about.sets is not None
    assert about.sets.coverage == 0.7
    wrong = CliRunner().invoke(cli, [*line, "--memory", "many"])
    assert wrong.exit_code == 2
    assert "'many' is no size such as 800MB or 4GB." in wrong.output
    small = CliRunner().invoke(cli, [*line, "--overwrite", "--memory", "8MB"])
    assert small.exit_code == 1
    assert "--memory is 8 MB; training needs at least 400 MB" in small.output


def test_lopsided_classes_and_few_images_are_told(tiny_card: Card, tmp_path: Path) -> None:
    cells = ["a"] * 40 + ["b"] * 2
    stored(tmp_path / "f.h5", tiny_card, cells)
    result = tlpipe.train_head(tmp_path / "f.h5", tmp_path / "c.onnx")
    assert any("The classes are lopsided: " in notice for notice in result.notices)
    stored(tmp_path / "g.h5", tiny_card, ["a", "b"])
    few = tlpipe.train_head(tmp_path / "g.h5", tmp_path / "d.onnx")
    assert few.metrics is None
    assert any("too few images to choose settings" in notice for notice in few.notices)
    said = CliRunner().invoke(
        cli, ["train-head", str(tmp_path / "g.h5"), "-o", str(tmp_path / "e.onnx")]
    )
    assert "how good it is, nobody knows" in said.output
