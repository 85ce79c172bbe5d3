"""The estimators for scikit-learn: its own checks, its tools, and equality with tlpipe's verbs."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.datasets import load_iris, make_classification
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils import estimator_checks, estimator_html_repr
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

from conftest import TINY_DIM, card_text, tiny_network, write_image
from tlpipe import embed
from tlpipe.card import Card
from tlpipe.errors import ImageError, OptionError, TrainingDataError, UnknownBackboneError
from tlpipe.sklearn import ImageEmbedder, LinearProbe
from tlpipe.sklearn.folds import plan_folds
from tlpipe.stages.store import read_features

# Checks that give X as numbers are not for an embedder of images; those that give none are.
WITHOUT_X = """check_estimator_cloneable check_estimator_tags_renamed check_valid_tag_types
    check_estimator_repr check_no_attributes_set_in_init check_mixin_order
    check_do_not_raise_errors_in_init_or_set_params check_parameters_default_constructible
    check_get_params_invariance check_set_params""".split()


@parametrize_with_checks(
    [LinearProbe(), LinearProbe(C=1.0, scaling="raw", class_weight="balanced", cv=2)]
)
def test_linear_probe_passes_the_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


def test_image_embedder_passes_the_checks_of_scikit_learn() -> None:
    with pytest.warns(SkipTestWarning, match="requires input"):  # the checks of tables of numbers
        results = check_estimator(ImageEmbedder())
    assert {result["status"] for result in results} == {"passed"}


@pytest.mark.parametrize("name", WITHOUT_X)
def test_image_embedder_passes_the_checks_that_need_no_numbers(name: str) -> None:
    getattr(estimator_checks, name)("ImageEmbedder", ImageEmbedder())


@pytest.fixture(scope="module")
def paths(photos: Path) -> list[str]:
    return sorted(str(path) for path in photos.rglob("*.png"))


@pytest.fixture(scope="module")
def labels(paths: list[str]) -> list[str]:
    return [Path(path).parent.name for path in paths]


@pytest.fixture(scope="module")
def stored(photos: Path, tiny_card: Card, tmp_path_factory: pytest.TempPathFactory) -> Any:
    output = tmp_path_factory.mktemp("stored") / "features.h5"
    embed(photos, output, backbone=tiny_card)
    return read_features(output).vectors


def assert_same(vectors: Any, expected: Any) -> None:
    """Equal but for the rounding of calls with other numbers of images."""
    assert_allclose(vectors, expected, rtol=1e-6, atol=1e-6)


def pixels(path: str) -> Any:
    return np.asarray(Image.open(path))


@pytest.mark.parametrize(
    "form",
    [
        lambda paths: paths,
        lambda paths: tuple(Path(path) for path in paths),
        np.array,
        lambda paths: np.array(paths, object)[:, np.newaxis],
        pandas.Series,
        lambda paths: pandas.DataFrame({"path": paths}),
        lambda paths: [Image.open(path) for path in paths],
        lambda paths: [pixels(path) for path in paths],
        lambda paths: np.stack([pixels(path) for path in paths]),
        lambda paths: [paths[0], pixels(paths[1]), Image.open(paths[2]), *paths[3:]],
    ],
    ids="list paths array column series table pillow arrays stack mixed".split(),
)
def test_vectors_are_those_of_the_feature_file(
    form: Any, paths: list[str], stored: Any, tiny_card: Card
) -> None:
    vectors = ImageEmbedder(tiny_card).transform(form(paths))
    assert vectors.dtype == np.float32
    assert_same(vectors, stored)


@pytest.mark.parametrize("decode", ["auto", "exact"])
def test_a_photo_on_its_side_gives_the_vector_of_embed_as_file_and_in_memory(
    decode: Any, tiny_card: Card, tmp_path: Path
) -> None:
    from tlpipe import RunOptions

    for number in range(2):
        image = Image.open(write_image(tmp_path / "x" / f"{number}.png", number))
        exif = image.getexif()
        exif[0x0112] = 6 + 2 * number
        image.resize((60, 44)).save(tmp_path / "x" / f"{number}.jpg", exif=exif, quality=90)
        (tmp_path / "x" / f"{number}.png").unlink()
    embed(tmp_path / "x", tmp_path / "f.h5", backbone=tiny_card, options=RunOptions(decode=decode))
    stored = read_features(tmp_path / "f.h5").vectors
    files = sorted((tmp_path / "x").iterdir())
    embedder = ImageEmbedder(tiny_card, decode=decode)
    assert_same(embedder.transform(files), stored)
    assert_same(embedder.transform([Image.open(file) for file in files]), stored)
    upright = [np.asarray(Image.open(file)) for file in files]
    assert np.abs(embedder.transform(upright) - stored).max() > 1e-3


def test_arrays_of_grey_and_with_alpha_are_what_such_files_are(
    tiny_card: Card, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, shape, np.uint8) for shape in ((20, 30), (30, 20, 4))]
    files = []
    for number, array in enumerate(arrays):
        Image.fromarray(array).save(tmp_path / f"{number}.png")
        files.append(tmp_path / f"{number}.png")
    embedder = ImageEmbedder(tiny_card)
    assert_same(embedder.transform(arrays), embedder.transform(files))
    greys = np.stack([arrays[0], arrays[0][::-1]])
    assert_same(embedder.transform(greys)[:1], embedder.transform(files[:1]))


def test_repeated_images_are_embedded_once_and_stay_in_place(
    paths: list[str], stored: Any, tiny_card: Card
) -> None:
    order = [3, 0, 3, 3, 1, 0]
    opened = {i: Image.open(paths[i]) for i in set(order)}
    embedder = ImageEmbedder(tiny_card)
    assert_same(embedder.transform([paths[i] for i in order]), stored[order])
    assert_same(embedder.transform([opened[i] for i in order]), stored[order])


def test_a_bad_image_is_named_or_becomes_nan(
    paths: list[str], stored: Any, tiny_card: Card, tmp_path: Path
) -> None:
    bad, gone = tmp_path / "bad.jpg", str(tmp_path / "gone.jpg")
    bad.write_bytes(b"\xff\xd8\xff no photo")
    images = [paths[0], bad, paths[1], gone, bad]
    embedder = ImageEmbedder(tiny_card, on_error="nan").fit(images)
    vectors = embedder.transform(images)
    assert_array_equal(np.isnan(vectors).all(axis=1), [False, True, False, True, True])
    assert_same(vectors[[0, 2]], stored[:2])
    embedder.set_params(on_error="raise")
    with pytest.raises(ImageError, match=r"bad\.jpg' \(image 1 of X\) cannot be used: \S+"):
        embedder.transform(images)
    with pytest.raises(ImageError, match=r"gone\.jpg' \(image 0 of X\) .*: missing. There is no"):
        embedder.transform([gone])
    float_image = Image.fromarray(np.zeros((9, 9), np.float32))
    with pytest.raises(ImageError, match=r"Image 1 of X cannot be used: unsupported\. .*'F'"):
        embedder.transform([paths[0], float_image])


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ("a.jpg", TypeError, "put it into a list"),
        (Image.new("RGB", (4, 4)), TypeError, "put it into a list"),
        (5, TypeError, "X is a int"),
        (csr_array(np.eye(3)), TypeError, "sparse"),
        ([], ImageError, "0 samples"),
        (np.zeros((0, 8, 8, 3), np.uint8), ImageError, "0 samples"),
        (np.zeros((20, 2)), ImageError, r"shape \(20, 2\) and type float64"),
        (np.zeros((20, 2), np.uint8), ImageError, r"shape \(20, 2\) and type uint8"),
        (np.array([["a", "b"]]), ImageError, r"shape \(1, 2\)"),
        (np.zeros((8, 8, 3), np.uint8), ImageError, r"may be one image\. .*\(1, H, W, 3\)"),
        (np.zeros((2, 8, 8, 3)), ImageError, "float64"),
        (np.zeros((2, 8, 8, 5), np.uint8), ImageError, r"Image 0 .*\(8, 8, 5\)"),
        (["a.jpg", None], ImageError, "Image 1 of X is None"),
        (["a.jpg", ""], ImageError, "Image 1 of X is ''"),
        ([np.zeros((8, 0, 3), np.uint8)], ImageError, r"\(8, 0, 3\)"),
        ([np.zeros((8, 8, 3))], ImageError, "astype"),
    ],
)
def test_what_is_no_images_is_refused_by_fit_and_transform(
    x: Any, error: type[Exception], message: str, tiny_card: Card
) -> None:
    embedder = ImageEmbedder(tiny_card)
    for method in (embedder.fit, embedder.transform):
        with pytest.raises(error, match=message):
            method(x)


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"on_error": "ignore"}, OptionError),
        ({"device": "tpu"}, OptionError),
        ({"batch_size": 0}, OptionError),
        ({"threads": 1.5}, OptionError),
        ({"decode": "fast"}, OptionError),
        ({"backbone": "no-such-net"}, UnknownBackboneError),
    ],
)
def test_wrong_parameters_of_the_embedder_are_refused_by_fit(
    parameters: dict[str, Any], error: type[Exception], paths: list[str], tiny_card: Card
) -> None:
    with pytest.raises(error):
        ImageEmbedder(**{"backbone": tiny_card, **parameters}).fit(paths)


def test_the_embedder_is_cloned_pickled_and_shown(
    paths: list[str], stored: Any, tiny_card: Card
) -> None:
    embedder = ImageEmbedder(tiny_card, batch_size=3, threads=2)
    before = len(pickle.dumps(embedder))
    assert_same(embedder.fit_transform(paths), stored)
    assert len(pickle.dumps(embedder)) == before, "no session is kept in it"
    for other in (clone(embedder), pickle.loads(pickle.dumps(embedder))):
        assert other.get_params() == embedder.get_params()
        assert_same(other.transform(paths[:5]), stored[:5])
    assert "ImageEmbedder" in estimator_html_repr(make_pipeline(embedder, LinearProbe()))


def test_another_backbone_is_another_network(
    paths: list[str], stored: Any, tiny_card: Card, tmp_path: Path
) -> None:
    network = tiny_network()
    network.graph.initializer[1].raw_data = np.arange(TINY_DIM, dtype=np.float32).tobytes()
    onnx.save(network, tmp_path / "other.onnx")
    card = tmp_path / "other.toml"
    card.write_text(card_text(tmp_path / "other.onnx", name='"other.test"'), encoding="utf-8")
    embedder = ImageEmbedder(tiny_card)
    assert_same(embedder.transform(paths[:3]), stored[:3])
    embedder.set_params(backbone=card)
    assert np.abs(embedder.transform(paths[:3]) - stored[:3]).max() > 0.1
    embedder.set_params(backbone=tiny_card)
    assert_same(embedder.transform(paths[:3]), stored[:3])


def test_embeddings_become_a_table_with_names(paths: list[str], tiny_card: Card) -> None:
    embedder = ImageEmbedder(tiny_card).set_output(transform="pandas")
    table = embedder.transform(paths[:4])
    assert list(table.columns) == [f"imageembedder{i}" for i in range(TINY_DIM)]
    assert list(embedder.get_feature_names_out()) == list(table.columns)
    probe = LinearProbe().fit(embedder.transform(paths), [Path(p).parent.name for p in paths])
    assert list(probe.feature_names_in_) == list(table.columns)


def test_pipeline_and_search(paths: list[str], labels: list[str], tiny_card: Card) -> None:
    pipe = Pipeline([("embed", ImageEmbedder(tiny_card)), ("probe", LinearProbe(cv=3))])
    assert cross_val_score(pipe, paths, labels, cv=3).min() >= 0.9
    grid = {"probe__C": [1e-6, 1.0], "probe__scaling": ["raw", "standardised"]}
    search = GridSearchCV(pipe, grid, cv=2, scoring="neg_log_loss").fit(paths, labels)
    assert search.best_params_["probe__C"] == 1.0
    assert search.best_estimator_["probe"].C_ == 1.0
    assert search.predict(np.array(paths)[[0, 20, 40]]).tolist() == ["blue", "green", "red"]
    again = pickle.loads(pickle.dumps(search))
    assert_allclose(again.predict_proba(paths), search.predict_proba(paths))


def test_a_search_over_backbones(paths: list[str], labels: list[str], tiny_card_path: Path) -> None:
    pipe = make_pipeline(ImageEmbedder(), LinearProbe(C=1.0, scaling="raw", cv=2))
    backbones = [str(tiny_card_path), "efficientnet-lite0"]
    few = [*range(4), *range(15, 19), *range(30, 34)]
    search = GridSearchCV(pipe, {"imageembedder__backbone": backbones}, cv=2)
    search.fit([paths[i] for i in few], [labels[i] for i in few])
    assert search.cv_results_["mean_test_score"].shape == (2,)
    assert search.best_estimator_[1].n_features_in_ in (TINY_DIM, 1280)


def test_processes_embed_too(paths: list[str], labels: list[str], tiny_card: Card) -> None:
    pipe = make_pipeline(ImageEmbedder(tiny_card, threads=1), LinearProbe(C=1.0, cv=2))
    assert cross_val_score(pipe, paths, labels, cv=2, n_jobs=2).min() >= 0.9


# The linear probe.


def iris() -> tuple[Any, Any]:
    data = load_iris()
    return data.data.astype(np.float32), data.target_names[data.target]


def test_the_probe_chooses_what_train_head_chooses() -> None:
    from tlpipe.stages.head import train

    x, y = iris()
    labels = np.unique(y, return_inverse=True)[1].astype(np.int32)
    head = train(x, labels, np.arange(150), plan_folds(x, labels, None, 5, 0))
    probe = LinearProbe().fit(x, y)
    assert (probe.C_, probe.scaling_, probe.n_folds_) == (head.c, head.scaling, 5)
    assert probe.temperature_ == head.temperature
    assert_allclose(probe.predict_proba(x), head.probabilities(x), atol=1e-6)
    assert probe.score(x, y) > 0.95


@pytest.mark.parametrize("scaling", ["raw", "standardised"])
@pytest.mark.parametrize("classes", [2, 3])
def test_given_settings_are_kept(scaling: Any, classes: int) -> None:
    x, y = iris()
    x, y = x[: 50 * classes], y[: 50 * classes]
    weights = {"setosa": 2.0, "versicolor": 0.5, "virginica": 1.0}
    weights = {k: v for k, v in weights.items() if k in y}
    probe = LinearProbe(C=0.3, scaling=scaling, class_weight=weights).fit(x, y)
    assert (probe.C_, probe.scaling_) == (0.3, scaling)
    mean, scale = (x.mean(0), x.std(0)) if scaling == "standardised" else (0, 1)
    model = LogisticRegression(C=0.3, class_weight=weights, tol=1e-8, max_iter=5000)
    scaled = (x.astype(np.float64) - mean) / scale
    model.fit(scaled, y)
    logits = model.decision_function(scaled)
    assert probe.coef_.shape == model.coef_.shape
    shift = probe.decision_function(x) * probe.temperature_ - logits
    if classes > 2:  # logits of a softmax count up to a number for each row
        shift = shift - shift.mean(axis=1, keepdims=True)
    assert np.abs(shift).max() < 2e-3
    assert_array_equal(probe.predict(x), model.predict(scaled))
    assert_allclose(probe.predict_log_proba(x), np.log(probe.predict_proba(x)))


def test_a_scaling_that_is_given_has_its_own_best_c() -> None:
    x, y = iris()
    x = x[50:] * np.array([1, 1, 100, 0.01], np.float32)
    raw = LinearProbe(scaling="raw", cv=2).fit(x, y[50:])
    standardised = LinearProbe(scaling="standardised", cv=2).fit(x, y[50:])
    assert (raw.scaling_, standardised.scaling_) == ("raw", "standardised")
    assert raw.C_ != standardised.C_


def test_class_weights_move_the_decision() -> None:
    x, y = make_classification(400, 5, weights=[0.95], class_sep=0.5, random_state=1)
    plain = LinearProbe(C=1.0).fit(x, y).predict(x)
    balanced = LinearProbe(C=1.0, class_weight="balanced").fit(x, y).predict(x)
    assert balanced.mean() > 3 * plain.mean()


def test_probabilities_are_calibrated_on_rows_held_out() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 200)).astype(np.float32)
    y = (x[:, 0] + rng.normal(size=300) > 0).astype(int)
    probe = LinearProbe(C=100.0, scaling="raw").fit(x[:150], y[:150])
    assert probe.temperature_ > 2, "it is far too sure of itself"
    loss = -np.log(probe.predict_proba(x[150:])[np.arange(150), y[150:]]).mean()
    logits = probe.decision_function(x[150:]) * probe.temperature_
    unscaled = np.log1p(np.exp(-np.where(y[150:], logits, -logits))).mean()
    assert loss < unscaled / 2


@pytest.mark.parametrize("counts", [(1, 1), (1, 1, 1), (2, 1), (2, 2, 2), (3, 20, 1)])
def test_few_images_of_a_class(counts: tuple[int, ...]) -> None:
    y = np.repeat([f"class {k}" for k in range(len(counts))], counts)
    rng = np.random.default_rng(2)
    x = 5 * np.eye(len(counts))[np.repeat(np.arange(len(counts)), counts)]
    x = x + rng.normal(0, 0.1, x.shape)
    probe = LinearProbe().fit(x, y)
    assert probe.n_folds_ == (0 if max(counts) == 1 else min(5, max(counts)))
    assert_array_equal(probe.predict(x), y)
    assert np.isfinite(probe.predict_proba(x)).all()


def test_folds_hold_each_row_out_once_and_spread_the_classes() -> None:
    labels = np.repeat(np.arange(3), (50, 12, 1)).astype(np.int32)
    folds = plan_folds(labels, labels, None, 5, 0)
    held = np.concatenate([rows for _, rows in folds])
    assert_array_equal(np.sort(held), np.arange(62)), "but for the only row of the third class"
    for train, rows in folds:
        assert set(labels[train]) == {0, 1, 2}
        assert not set(train) & set(rows)
        assert np.bincount(labels[rows])[:2].tolist() in ([10, 2], [10, 3])
    again, other = (plan_folds(labels, labels, None, 5, seed) for seed in (0, 1))
    assert all((a[1] == b[1]).all() for a, b in zip(folds, again, strict=True))
    assert any(
        a[1].size != b[1].size or (a[1] != b[1]).any() for a, b in zip(folds, other, strict=True)
    )


def test_no_group_is_on_both_sides_of_a_fold() -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(20), 5)
    labels = np.repeat(rng.integers(0, 2, 20), 5).astype(np.int32)
    labels[:5] = 2  # a class of one group always trains
    folds = plan_folds(labels, labels, groups, 4, 0)
    assert len(folds) == 4
    for train, held in folds:
        assert not set(groups[train]) & set(groups[held])
        assert 0 in groups[train]
    # The same feature in all rows of a group: without groups, folds would know the answers.
    x = np.repeat(rng.normal(size=(20, 40)), 5, axis=0)
    y = np.repeat(np.arange(2), 50)
    known = LinearProbe().fit(x, y)
    unknown = LinearProbe().fit(x, y, groups=groups)
    assert unknown.temperature_ > known.temperature_ or known.C_ > unknown.C_


def test_folds_of_the_users_own() -> None:
    x, y = iris()
    groups = np.tile(np.arange(3), 50)
    own = list(LeaveOneGroupOut().split(x, y, groups))
    assert LinearProbe(1.0, scaling="raw", cv=own).fit(x, y).n_folds_ == 3
    assert (
        LinearProbe(1.0, scaling="raw", cv=LeaveOneGroupOut()).fit(x, y, groups=groups).n_folds_
        == 3
    )
    assert LinearProbe(1.0, scaling="raw", cv=iter(own)).fit(x, y).n_folds_ == 3
    with pytest.raises(OptionError, match="cv cannot be used"):
        LinearProbe(cv="five").fit(x, y)
    with pytest.raises(TrainingDataError, match="rows that are not among the 150"):
        LinearProbe(cv=[([0, 60, 120], [150])]).fit(x, y)


@pytest.mark.parametrize("kind", [str, object, int, bool, np.float64])
def test_labels_of_any_kind(kind: Any) -> None:
    x, _ = iris()
    values = {str: ["a", "b"], object: ["a", "b"], int: [7, -2], bool: [True, False]}
    y = np.array(values.get(kind, [0.0, 1.0]), kind)[np.repeat([0, 1], 50)]
    probe = LinearProbe(C=1.0, scaling="raw", cv=2).fit(x[:100].astype(np.float64), y)
    assert_array_equal(probe.predict(x[:100]), y)
    assert probe.predict(x[:100]).dtype == y.dtype
    assert_array_equal(probe.classes_, np.unique(y))


def test_same_data_same_weights() -> None:
    x, y = iris()
    first, second = LinearProbe(cv=2).fit(x[50:], y[50:]), LinearProbe(cv=2).fit(x[50:], y[50:])
    assert_array_equal(first.coef_, second.coef_)
    assert first.temperature_ == second.temperature_


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"C": 0}, "C is 0"),
        ({"C": "1"}, "C is '1'"),
        ({"C": True}, "C is True"),
        ({"C": float("inf")}, "C is inf"),
        ({"C": float("nan")}, "C is nan"),
        ({"scaling": "unit-cube"}, "'unit-cube' is unknown"),
        ({"cv": 1}, "cv is 1"),
        ({"cv": True}, "cv cannot be used"),
        ({"class_weight": "heavy"}, "class_weight"),
    ],
)
def test_wrong_parameters_of_the_probe(parameters: dict[str, Any], message: str) -> None:
    x, y = iris()
    with pytest.raises(ValueError, match=message):
        LinearProbe(**parameters).fit(x, y)


def test_wrong_inputs_of_the_probe() -> None:
    x, y = iris()
    with pytest.raises(TrainingDataError, match="one class, 'setosa'"):
        LinearProbe().fit(x[:50], y[:50])
    with pytest.raises(TypeError, match=r"[Ss]parse"):
        LinearProbe().fit(csr_array(x), y)
    with pytest.raises(ValueError, match="inconsistent"):
        LinearProbe().fit(x, y, groups=[1, 2])
    with pytest.raises(ValueError, match="NaN"):
        LinearProbe().fit(np.where(x == x[0, 0], np.nan, x), y)
    with pytest.raises(NotFittedError):
        LinearProbe().predict(x)
    probe = LinearProbe(C=1.0, cv=2).fit(x, y)
    with pytest.raises(ValueError, match="expecting 4 features"):
        probe.predict(x[:, :2])
