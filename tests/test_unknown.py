"""What a classifier knows of what it does not know: the model, the sets, and both in a graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tlpipe.graph.head import head_alone, join_head
from tlpipe.graph.head_nodes import SHAPES, HeadShape, head_nodes, head_outputs
from tlpipe.last_layer import LastLayer, Novelty
from tlpipe.stages import conformal, novelty
from tlpipe.stages.session.half import half

Arrays = tuple[np.ndarray, np.ndarray]
Folds = list[tuple[np.ndarray, np.ndarray]]


def clusters(classes: int, per_class: int, dim: int, seed: int = 0, spread: float = 0.1) -> Arrays:
    """Embeddings that fill a few directions much and the others little, of many lengths."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, dim))
    labels = (np.arange(classes * per_class) % classes).astype(np.int32)
    directions = np.random.default_rng(98).normal(size=(5, dim)) * spread * 3
    vectors = centres[labels] + rng.normal(size=(labels.size, 5)) @ directions
    vectors += spread * rng.normal(size=vectors.shape)
    vectors *= rng.lognormal(size=(labels.size, 1))
    return vectors.astype(np.float32), labels


def folds_of(count: int, k: int = 5) -> Folds:
    rows = np.arange(count)
    return [(rows[rows % k != f], rows[rows % k == f]) for f in range(k)]


def fitted(vectors: np.ndarray, labels: np.ndarray, rate: float = 0.05) -> Novelty:
    rows = np.arange(labels.size)
    order = np.random.default_rng(1).permutation(rows)
    folds = [(order[train], order[held]) for train, held in folds_of(rows.size)]
    result = novelty.fit(vectors, labels, rows, folds, rate)
    assert not isinstance(result, str)
    return result[0]


# -- the model of the unknown ----------------------------------------------------------------------


def plainly(vectors: np.ndarray, labels: np.ndarray, rank: int, new: np.ndarray) -> np.ndarray:
    """The score written out: with a whole covariance matrix, and its inverse."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).astype(np.float64)
    mean = unit.mean(axis=0)
    centres = np.stack([unit[labels == k].mean(axis=0) for k in range(labels.max() + 1)])
    total = np.cov(unit.T, bias=True)
    values, directions = np.linalg.eigh(total)
    basis = directions[:, ::-1][:, :rank]
    noise = values[::-1][rank:].mean()
    within = basis.T @ np.cov((unit - centres[labels]).T, bias=True) @ basis
    floored, turn = np.linalg.eigh(within)
    inside = turn @ np.diag(1 / np.maximum(floored, noise)) @ turn.T
    shifted = new / np.linalg.norm(new, axis=1, keepdims=True).astype(np.float64) - mean
    rest = shifted - shifted @ basis @ basis.T
    gaps = (shifted @ basis)[:, np.newaxis] - (centres - mean) @ basis
    distances = np.einsum("nkr,rs,nks->nk", gaps, inside, gaps).min(axis=1)
    return np.sqrt((distances + (rest**2).sum(axis=1) / noise) / vectors.shape[1])


def test_the_score_is_that_of_its_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(novelty, "RANK", 6)
    vectors, labels = clusters(3, 60, 40)
    new = np.random.default_rng(2).normal(size=(50, 40)).astype(np.float32)
    model = novelty.model(novelty.moments(vectors, labels, np.arange(labels.size), 3))
    expected = plainly(vectors, labels, 6, new)
    np.testing.assert_allclose(novelty.scores(model, new), expected, rtol=1e-3)


def test_strange_embeddings_are_told_from_new_ones_of_the_classes() -> None:
    vectors, labels = clusters(4, 100, 128)
    model = fitted(vectors, labels)
    same, _ = clusters(4, 200, 128, seed=5)
    strange = np.random.default_rng(3).normal(size=(400, 128))
    assert (novelty.scores(model, same) > model.threshold).mean() < 0.12
    assert (novelty.scores(model, strange) > model.threshold).all()


@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_the_rate_of_false_alarms_is_the_stated_one(rate: float) -> None:
    """On average over data sets; somewhat less, for a model of all rows is nearer to new ones."""
    found = []
    for seed in range(25):
        vectors, labels = clusters(3, 200, 24, seed=seed)
        model = fitted(vectors, labels, rate)
        new, _ = clusters(3, 400, 24, seed=1000 + seed)
        found.append((novelty.scores(model, new) > model.threshold).mean())
    assert rate - 0.025 < np.mean(found) < rate + 0.01


def test_a_fold_is_what_a_model_without_it_says() -> None:
    """Whether the moments of a fold are subtracted or computed anew."""
    vectors, labels = clusters(3, 30, 16)
    rows, folds = np.arange(90), folds_of(90, 3)
    subtracted = novelty.fit(vectors, labels, rows, folds)
    anew = novelty.fit(vectors, labels, rows, [(train[::-1][:-1], held) for train, held in folds])
    again = novelty.fit(vectors, labels, rows[::-1], folds)
    assert not isinstance(subtracted, str)
    assert not isinstance(anew, str)
    assert not isinstance(again, str)
    assert subtracted[1].threshold == pytest.approx(again[1].threshold, rel=1e-4)
    assert subtracted[1].threshold == pytest.approx(anew[1].threshold, rel=0.05)
    assert subtracted[1].threshold != anew[1].threshold
    # By hand: scores of each fold's rows by a model of the others.
    by_hand = np.concatenate(
        [
            novelty.scores(novelty.model(novelty.moments(vectors, labels, train, 3)), vectors[held])
            for train, held in folds
        ]
    )
    assert subtracted[1].threshold == pytest.approx(np.sort(by_hand)[86], rel=1e-4)


def test_too_few_held_out_images_make_no_threshold() -> None:
    vectors, labels = clusters(2, 9, 8)
    rows = np.arange(18)
    result = novelty.fit(vectors, labels, rows, folds_of(18))
    assert result == (
        "Too few images were held out (18) to tell what belongs to no class with 5% false alarms:"
        " the classifier cannot answer --unknown."
    )
    assert not isinstance(novelty.fit(vectors, labels, rows, folds_of(18), 0.1), str)


@pytest.mark.parametrize("dim", [1, 2, 3, 70])
@pytest.mark.parametrize("per_class", [2, 11])
def test_any_size_gives_finite_scores(dim: int, per_class: int) -> None:
    vectors, labels = clusters(2, per_class, dim)
    vectors[0] = 0
    model = novelty.model(novelty.moments(vectors, labels, np.arange(labels.size), 2))
    assert np.isfinite(novelty.scores(model, vectors)).all()
    assert np.isfinite(graph_says(layer(dim, 2), model, None, vectors)["unknown_score"]).all()


def test_equal_embeddings_are_known_and_others_are_not() -> None:
    vectors = np.repeat(np.eye(2, 6, dtype=np.float32), 20, axis=0) * 7
    labels = np.repeat([0, 1], 20).astype(np.int32)
    model = fitted(vectors, labels)
    other = np.ones((1, 6), np.float32)
    said = graph_says(layer(6, 2), model, None, np.concatenate([vectors[19:21], other]))
    assert said["unknown"].tolist() == [False, False, True]


def test_a_class_without_a_row_in_a_fold_does_no_harm() -> None:
    vectors, labels = clusters(3, 30, 16)
    without = np.flatnonzero(labels != 2)
    model = novelty.model(novelty.moments(vectors, labels, without, 3))
    assert np.isfinite(novelty.scores(model, vectors)).all()


# -- prediction sets -------------------------------------------------------------------------------


def simulated(count: int, accuracy: float, seed: int, classes: int = 6) -> Arrays:
    """Logits whose greatest is the true class at about some rate, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count).astype(np.int32)
    logits = rng.normal(size=(count, classes))
    logits[np.arange(count), labels] += {0.7: 1.75, 0.95: 3.6}[accuracy]
    return logits, labels


@pytest.mark.parametrize(
    ("accuracy", "asked", "stated"),
    [(0.7, None, 0.9), (0.7, 0.8, 0.8), (0.95, None, 0.98), (0.95, 0.99, 0.99)],
)
def test_coverage_is_the_stated_one(accuracy: float, asked: float | None, stated: float) -> None:
    covered, right, sizes = [], [], []
    for seed in range(60):
        found = conformal.fit(*simulated(400, accuracy, seed), asked)
        assert not isinstance(found, str)
        logits, labels = simulated(2000, accuracy, 1000 + seed)
        sets = conformal.sets(conformal.softmax(logits), found.threshold)
        covered.append(sets[np.arange(2000), labels].mean())
        right.append((logits.argmax(axis=1) == labels).mean())
        sizes.append(sets.sum(axis=1).min())
        if asked is not None:
            assert found.coverage == asked
    assert abs(np.mean(right) - accuracy) < 0.05
    assert abs(np.mean(covered) - stated) < 0.01
    assert min(sizes) == 1


def test_sets_of_one_class_cover_as_much_as_the_head_is_right() -> None:
    logits, labels = simulated(500, 0.95, 0)
    found = conformal.fit(logits, labels, 0.8)
    assert not isinstance(found, str)
    assert found.threshold == 1
    sets = conformal.sets(conformal.softmax(logits), found.threshold)
    assert (sets.sum(axis=1) == 1).all()


@pytest.mark.parametrize(("count", "coverage"), [(8, None), (9, 0.9), (98, 0.99), (99, 0.99)])
def test_a_coverage_needs_so_many_rows(count: int, coverage: float | None) -> None:
    logits, labels = simulated(count, 0.7, 0)
    found = conformal.fit(logits, labels, coverage)
    enough = count in (9, 99)
    assert isinstance(found, str) != enough
    if not enough:
        stated = coverage or 0.9
        assert f"held out ({count}) for prediction sets that cover {stated}" in str(found)


def test_the_coverage_stated_by_itself_is_one_that_the_rows_can_tell() -> None:
    logits, labels = simulated(60, 0.95, 1)
    logits[np.arange(60), labels] += 100  # no mistakes: any coverage is less than the accuracy
    found = conformal.fit(logits, labels)
    assert not isinstance(found, str)
    assert (found.coverage, found.held_out) == (0.98, 60)


def test_no_rows_at_all_make_no_sets() -> None:
    found = conformal.fit(np.zeros((0, 3)), np.zeros(0, np.int32))
    assert isinstance(found, str)


# -- in the graph ----------------------------------------------------------------------------------


def layer(dim: int, classes: int, seed: int = 0, **changes: object) -> LastLayer:
    rng = np.random.default_rng(seed)
    plain = LastLayer(
        rng.normal(size=(dim, classes)).astype(np.float32),
        rng.normal(size=classes).astype(np.float32),
    )
    return replace(plain, **changes)


def features(dim: int, opset: int) -> onnx.ModelProto:
    """A backbone that gives what it is given."""
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", dim]) for n in ("x", "y"))
    y.name = "embeddings"
    node = helper.make_node("Neg", ["x"], ["embeddings"])
    return helper.make_model(
        helper.make_graph([node], "g", [x], [y]),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=min(10, 3 if opset < 9 else 8 if opset < 21 else 10),
    )


def run(model: onnx.ModelProto, vectors: np.ndarray) -> dict[str, np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    values = session.run(None, {session.get_inputs()[0].name: vectors.astype(np.float32)})
    return dict(zip(names, values, strict=True))


def graph_says(
    last: LastLayer, model: Novelty | None, least: float | None, vectors: np.ndarray
) -> dict[str, np.ndarray]:
    return run(head_alone(last, model, least, {}), vectors)


def probabilities_of(last: LastLayer, vectors: np.ndarray) -> np.ndarray:
    taken = novelty.unit_length(vectors) if last.normalise else vectors.astype(np.float64)
    logits = taken @ last.weights.astype(np.float64) + last.bias
    return conformal.softmax(logits) if last.activation == "softmax" else 1 / (1 + np.exp(-logits))


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 17, 18, 21])
@pytest.mark.parametrize("normalise", [False, True])
def test_a_head_means_the_same_in_every_version_of_onnx(opset: int, normalise: bool) -> None:
    vectors, labels = clusters(3, 40, 20)
    model, last = fitted(vectors, labels), layer(20, 3, normalise=normalise)
    new = np.concatenate([vectors, clusters(3, 20, 20, seed=4, spread=0.5)[0]])
    before = features(20, opset)
    if opset < 9:
        before.ir_version = 4  # constants need not be inputs
    joined = join_head(before, last, model, 0.3, {"made": "here"})
    assert joined.opset_import == before.opset_import
    said = run(joined, -new)
    expected = probabilities_of(last, new)
    score = novelty.scores(model, new)
    np.testing.assert_allclose(said["probabilities"], expected, atol=1e-5)
    np.testing.assert_allclose(said["unknown_score"], score, rtol=1e-4)
    np.testing.assert_array_equal(said["unknown"], said["unknown_score"] > model.threshold)
    assert 0 < said["unknown"].sum() < len(new)
    clear = np.abs(expected - 0.3).min(axis=1) > 1e-4
    np.testing.assert_array_equal(
        said["prediction_set"][clear], conformal.sets(expected, 0.3)[clear]
    )
    assert list(said) == [
        "probabilities", "embeddings", "unknown_score", "unknown", "prediction_set",
    ]  # fmt: skip


@pytest.mark.parametrize(("classes", "dim"), [(2, 64), (1000, 64), (3, 1280)])
def test_a_head_of_any_size_is_what_numpy_says(classes: int, dim: int) -> None:
    vectors, labels = clusters(classes, max(3, 60 // classes), dim)
    last = layer(dim, classes)
    model = fitted(vectors, labels)
    said = graph_says(last, model, 0.01, vectors)
    np.testing.assert_allclose(said["unknown_score"], novelty.scores(model, vectors), rtol=1e-3)
    assert said["prediction_set"].shape == (labels.size, classes)
    assert said["prediction_set"].any(axis=1).all()


@pytest.mark.parametrize("length", [1e-30, 1e-3, 1e4, 1e35])
def test_the_length_of_an_embedding_does_not_matter(length: float) -> None:
    vectors, labels = clusters(5, 40, 100)
    model = fitted(vectors, labels)
    scaled = (vectors * np.float32(length)).astype(np.float32)
    said = graph_says(layer(100, 5), model, None, scaled)["unknown_score"]
    np.testing.assert_allclose(said, novelty.scores(model, vectors), rtol=1e-3)


def test_small_distances_between_far_classes_keep_their_digits() -> None:
    """|p|^2 - 2 p c + |c|^2 in float32 would be off by more than the distance itself."""
    vectors, labels = clusters(8, 60, 200, spread=1e-3)
    model = fitted(vectors, labels)
    expected = novelty.scores(model, vectors)
    squares = (model.centres.astype(np.float64) ** 2).sum(axis=1)
    assert squares.max() * np.finfo(np.float32).eps > 2e-3 * 200 * np.median(expected) ** 2
    said = graph_says(layer(200, 8), model, None, vectors)["unknown_score"]
    np.testing.assert_allclose(said, expected, rtol=1e-3)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), classes=st.integers(2, 9), dim=st.integers(2, 90))
def test_any_model_in_the_graph_is_that_of_numpy(seed: int, classes: int, dim: int) -> None:
    vectors, labels = clusters(classes, 30, dim, seed=seed)
    new = np.random.default_rng(seed).normal(size=(20, dim)).astype(np.float32)
    model = fitted(vectors, labels)
    said = graph_says(layer(dim, classes), model, 0.5, np.concatenate([vectors, new]))
    expected = novelty.scores(model, np.concatenate([vectors, new]))
    np.testing.assert_allclose(said["unknown_score"], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("normalise", [False, True])
def test_zeros_are_numbers(activation: str, normalise: bool) -> None:
    vectors, labels = clusters(3, 40, 20)
    last = layer(20, 3, normalise=normalise, activation=activation)
    model, zeros = fitted(vectors, labels), np.zeros((2, 20), np.float32)
    said = graph_says(last, model, 0.4, zeros)
    np.testing.assert_allclose(said["probabilities"], probabilities_of(last, zeros), atol=1e-6)
    np.testing.assert_allclose(said["unknown_score"], novelty.scores(model, zeros), rtol=1e-4)


def test_the_most_probable_class_is_always_in_the_set() -> None:
    said = graph_says(layer(20, 4), None, 1.0, clusters(4, 10, 20)[0])
    np.testing.assert_array_equal(
        said["prediction_set"], np.eye(4, dtype=bool)[said["probabilities"].argmax(axis=1)]
    )


def test_a_head_without_extras_is_a_gemm_and_a_softmax() -> None:
    """As in the files of earlier versions: the names and bytes of its operators stay."""
    shape = HeadShape(normalise=False, activation="softmax", novelty=False, sets=False)
    gemm = helper.make_node(
        "Gemm",
        ["embeddings", "tlpipe/head/weights", "tlpipe/head/bias"],
        ["tlpipe/head/logits"],
        name="tlpipe/head/logits",
    )
    softmax = helper.make_node(
        "Softmax", ["tlpipe/head/logits"], ["probabilities"], name="tlpipe/head/softmax", axis=1
    )
    assert head_nodes(shape) == [gemm, softmax]
    assert head_outputs(shape) == ["probabilities"]


def test_every_operator_of_a_head_has_tlpipes_name_and_every_head_is_another() -> None:
    seen = set()
    for shape in SHAPES:
        nodes = head_nodes(shape)
        assert all(node.name.startswith("tlpipe/head/") for node in nodes)
        assert len({node.name for node in nodes}) == len(nodes)
        seen.add(b"".join(sorted(node.SerializeToString() for node in nodes)))
    assert len(seen) == len(SHAPES) == 32


@pytest.mark.parametrize("name", ["mean", "basis", "whiten", "centres"])
def test_arrays_that_do_not_fit_are_refused(name: str) -> None:
    vectors, labels = clusters(3, 40, 20)
    model = fitted(vectors, labels)
    array = getattr(model, name)
    wrong = replace(model, **{name: array[:, :-1] if name == "centres" else array[:-1]})
    with pytest.raises(ValueError, match=f"The {name} of the unknown has the shape"):
        head_alone(layer(20, 3), wrong, None, {})
    with pytest.raises(ValueError, match="The bias has the shape"):
        head_alone(layer(20, 3, bias=np.zeros(2, np.float32)), None, None, {})


def test_a_head_alone_says_what_it_says_behind_a_backbone() -> None:
    vectors, labels = clusters(3, 40, 20)
    model, last = fitted(vectors, labels), layer(20, 3, normalise=True)
    alone = graph_says(last, model, 0.3, vectors)
    joined = run(join_head(features(20, 17), last, model, 0.3, {}), -vectors)
    for name, value in alone.items():
        np.testing.assert_array_equal(value, joined[name])
    assert sorted({*alone, "embeddings"}) == sorted(joined)


@pytest.mark.parametrize("length", [0.01, 1, 2000])
def test_a_head_can_be_run_in_float16(length: float) -> None:
    """No number on the way leaves the range of float16, though the square of a length does."""
    vectors, labels = clusters(3, 40, 100)
    vectors *= np.float32(length) / np.linalg.norm(vectors, axis=1, keepdims=True)
    model = fitted(vectors, labels)
    whole = head_alone(layer(100, 3, normalise=True), model, None, {})
    names = [name for node in whole.graph.node for name in node.output]
    outputs = [name for name in names if name.removeprefix("tlpipe/head/") not in ("nearest",)]
    strange = np.random.default_rng(0).normal(size=(20, 100)).astype(np.float32) * length / 10
    for name in outputs:
        if name not in {value.name for value in whole.graph.output}:
            whole.graph.output.append(onnx.ValueInfoProto(name=name))
    session = onnxruntime.InferenceSession(
        whole.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    values = session.run(outputs, {"embeddings": np.concatenate([vectors, strange])})
    greatest = {
        name: np.abs(v.astype(float)).max() for name, v in zip(outputs, values, strict=True)
    }
    assert max(greatest.values()) < np.finfo(np.float16).max / 4, greatest
    halved = onnxruntime.InferenceSession(
        half(head_alone(layer(100, 3), model, None, {}).SerializeToString()),
        providers=["CPUExecutionProvider"],
    )
    (score,) = halved.run(["unknown_score"], {"embeddings": vectors})
    np.testing.assert_allclose(score, novelty.scores(model, vectors), rtol=0.01)
