"""Several labels per image: from a manifest's cells to labels in the graph's output."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from PIL import Image
from sklearn.metrics import f1_score

import tlpipe
from conftest import TINY_SIZE, Trained
from feature_files import header_of
from refusals import refused
from tlpipe.card import Card
from tlpipe.cli.main import cli
from tlpipe.errors import (
    ClassifierError,
    ExportError,
    OptionError,
    SourceError,
    TrainingDataError,
)
from tlpipe.label_cells import joined, names_in, parted
from tlpipe.last_layer import LastLayer
from tlpipe.stages.classifier import read_metadata
from tlpipe.stages.label_sets import as_strata, labels_of, learnable, rarest_labels, table_of
from tlpipe.stages.metrics import MultilabelMetrics
from tlpipe.stages.predictions import Columns
from tlpipe.stages.store import Rows, feature_writer, read_features
from tlpipe.stages.store.rows import stats_of
from tlpipe.stages.thresholds import PRIOR_ROWS, best_logit, tune
from tlpipe.workflows import export_classifier

# -- cells and sets --------------------------------------------------------------------------------

SEVERAL = tlpipe.TrainOptions(multi_label=True)


@pytest.mark.parametrize(
    ("cell", "separator", "names"),
    [
        ("cat|outdoor", "|", ["cat", "outdoor"]),
        (" outdoor | cat |cat|", "|", ["cat", "outdoor"]),
        ("|", "|", []),
        (" | ", "|", []),
        ("cat|dog", ";", ["cat|dog"]),
        ("clear  primary road", " ", ["clear", "primary", "road"]),
        ("a, b::c", "::", ["a, b", "c"]),
    ],
)
def test_names_in_a_cell(cell: str, separator: str, names: list[str]) -> None:
    assert names_in(cell, separator) == names


@given(st.lists(st.text(alphabet="ab|\\ü", min_size=1)))
def test_joined_names_can_be_parted(names: list[str]) -> None:
    assert parted(joined(names)) == names


def test_which_labels_rows_have() -> None:
    table = table_of(["b|a", "|", "c"], "|")
    assert table.names == ["a", "b", "c"]
    found = labels_of(table, np.array([2, -1, 0, 1], np.int32))
    assert found.tolist() == [[0, 0, 1], [0, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert labels_of(table_of([], "|"), np.array([-1], np.int32)).shape == (1, 0)


def test_rare_labels_make_the_strata() -> None:
    labels = np.array([[1, 0, 1], [1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 0, 1]], np.bool_)
    every = np.ones(5, np.bool_)
    rarest = rarest_labels(labels, every)
    assert rarest.tolist() == [2, 0, 1, 3, 2]
    without_third = np.array([True, True, False, True, True])
    strata, meant = as_strata(rarest, without_third)
    assert meant == [0, 2, 3]
    assert strata.tolist() == [1, 0, 0, 2, 1]  # what label 1 has judges anyway


def test_what_can_be_learned() -> None:
    labels = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0], [1, 0, 1, 0]], np.bool_)
    every, even = np.arange(4), np.array([0, 2])
    assert learnable(labels, [every]).tolist() == [False, True, True, False]
    assert learnable(labels, [every, np.array([0, 1])]).tolist() == [False, True, True, False]
    assert not learnable(labels, [every, even]).any()


# -- thresholds ------------------------------------------------------------------------------------


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(2, 40), ties=st.booleans())
def test_no_threshold_has_a_greater_f1(seed: int, count: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    logits = np.clip(rng.normal(size=count) * 3, -11, 11)  # thresholds end at 12
    logits = np.round(logits) if ties else logits
    truth = rng.random(count) < 0.4
    truth[0] = True
    found = best_logit(logits, truth)
    reached = f1_score(truth, logits >= found, zero_division=0)
    tried = [f1_score(truth, logits >= at, zero_division=0) for at in logits]
    assert reached == pytest.approx(max(tried))
    # Of the thresholds half of the way between neighbours, none that is nearer to 0 does as well.
    ranked = np.unique(logits)
    cuts = [0.0 if low < 0 <= high else (low + high) / 2 for low, high in pairwise(ranked)]
    nearer = [at for at in (*cuts, ranked[0]) if abs(at) < abs(found) - 1e-9]
    others = [f1_score(truth, logits >= at, zero_division=0) for at in nearer]
    assert all(other < reached - 1e-12 for other in others)


def test_one_half_stays_where_it_does_as_well() -> None:
    logits = np.array([[3.0], [2.0], [-1.0], [-4.0]])
    truth = np.array([[True], [True], [False], [False]])
    assert tune(logits, truth).tolist() == [0.5]


def test_few_rows_draw_the_threshold_to_one_half() -> None:
    def threshold(times: int) -> float:
        logits = np.tile([[-2.0], [-4.0]], (times, 1))
        return float(tune(logits, np.tile([[True], [False]], (times, 1)))[0])

    told = PRIOR_ROWS
    assert threshold(told) == pytest.approx(1 / (1 + np.exp(1.5)), rel=1e-6)  # -3, half of the way
    assert threshold(1000 * told) == pytest.approx(1 / (1 + np.exp(3)), rel=1e-2)


def test_a_label_that_no_row_tells_of_is_given_from_one_half_on() -> None:
    logits = np.array([[-5.0, 5.0], [-3.0, 3.0]])
    assert tune(logits, np.array([[False, True], [False, True]])).tolist() == [0.5, 0.5]


def test_a_threshold_is_more_than_nought_and_less_than_one() -> None:
    truth = np.tile([[True], [False]], (5000, 1))
    for middle in (-1e5, 1e5):
        (found,) = tune(np.where(truth, middle + 1, middle - 1), truth)
        assert 0 < found < 1


# -- the road --------------------------------------------------------------------------------------

COLOURS = {"red": (200, 40, 40), "green": (40, 180, 60), "blue": (50, 60, 210)}


@dataclass(frozen=True)
class Several:
    """Images with several labels, and a classifier of them."""

    manifest: Path
    features: Path
    classifier: Path
    result: Any


def paint(path: Path, names: list[str], seed: int) -> None:
    """An image in stripes of its colours; grey where it has none."""
    rng = np.random.default_rng(seed)
    pixels = np.full((24, 24, 3), 128.0)
    for at, name in enumerate(names):
        pixels[:, at * 8 : at * 8 + 8] = COLOURS[name]
    pixels += rng.normal(0, 5, pixels.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)


def images(root: Path, times: int, separator: str = "|", **last: str) -> Path:
    """Each subset of the colours `times` times, and a manifest; further rows are `last`."""
    rows = ["path,label,split"]
    for number in range(8 * times):
        names = [name for bit, name in enumerate(COLOURS) if number >> bit & 1]
        paint(root / f"{number:03d}.png", names, number)
        split = "test" if number // 8 % 4 == 3 else "train"
        rows.append(f"{number:03d}.png,{separator.join(names) or separator},{split}")
    rows += [f"{name}.png,{label},test" for name, label in last.items()]
    for number, name in enumerate(last):
        paint(root / f"{name}.png", [], 1000 + number)
    path = root / "m.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory, tiny_card: Card) -> Several:
    root = tmp_path_factory.mktemp("several")
    manifest = images(root / "in", 12, odd="red|odd", plain="")
    features, classifier = root / "f.h5", root / "c.onnx"
    tlpipe.embed(manifest, features, backbone=tiny_card)
    result = tlpipe.train_head(features, classifier, options=SEVERAL)
    return Several(manifest, features, classifier, result)


def numpy_of(several: Several, embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels by NumPy, from the file's constants."""
    model = onnx.load(several.classifier)
    head = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    x = embeddings.astype(np.float64)
    (gemm,) = (node for node in model.graph.node if node.name == "tlpipe/head/logits")
    if gemm.input[0] != "embeddings":
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    logits = x @ head["tlpipe/head/weights"] + head["tlpipe/head/bias"]
    probabilities = 1 / (1 + np.exp(-logits))
    return probabilities, probabilities >= head["tlpipe/head/thresholds"]


def test_the_graph_is_what_numpy_says(several: Several) -> None:
    session = onnxruntime.InferenceSession(several.classifier, providers=["CPUExecutionProvider"])
    assert [o.name for o in session.get_outputs()] == [
        "probabilities",
        "embeddings",
        "labels",
        "unknown_score",
        "unknown",
    ]
    noise = np.random.default_rng(1).integers(0, 256, (40, TINY_SIZE, TINY_SIZE, 3), np.uint8)
    probabilities, embeddings, labels, *_ = session.run(None, {"image": noise})
    expected, given_labels = numpy_of(several, embeddings)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert labels.dtype == np.bool_
    assert labels.shape == (40, 3)
    np.testing.assert_array_equal(labels, given_labels)
    assert labels.any()
    assert not labels.all()


def test_what_training_says(several: Several) -> None:
    result = several.result
    assert result.classes == ["blue", "green", "red"]
    assert isinstance(result.metrics, MultilabelMetrics)
    assert result.metrics.micro_f1 > 0.9
    assert result.training["count"] == 72
    assert result.metrics.count == 25
    assert result.training["labels_left_out"] == {"odd": 1}
    assert any("'odd' (1)" in notice for notice in result.notices)
    assert any("1 embeddings have no label" in notice for notice in result.notices)
    report = json.loads(result.metrics_path.read_text(encoding="utf-8"))
    assert [row["name"] for row in report["metrics"]["per_class"]] == result.classes
    assert report["training"]["count_by_class"].keys() == set(result.classes)


def test_metadata_hold_kind_and_thresholds(several: Several, trained: Trained) -> None:
    def flat(path: Path) -> dict[str, str]:
        return {p.key: p.value for p in onnx.load(path).metadata_props}

    own = flat(several.classifier)
    info = read_metadata(own, "it")
    assert info.multilabel
    model = onnx.load(several.classifier)
    (stored,) = (t for t in model.graph.initializer if t.name == "tlpipe/head/thresholds")
    assert list(info.thresholds) == numpy_helper.to_array(stored).tolist()
    # A file that says nothing of it is of one label, as all older ones.
    single = flat(trained.classifier)
    assert not {"kind", "thresholds"} & single.keys()
    assert read_metadata(single, "it").kind == "single"
    for changes, message in (
        ({"kind": "single"}, "'single', with 3 thresholds for 3 classes"),
        ({"thresholds": "[0.5]"}, "'multi-label', with 1 thresholds for 3 classes"),
        ({"kind": "other"}, "'kind' is 'other'"),
    ):
        with pytest.raises(ClassifierError, match=message):
            read_metadata(own | changes, "it")


def test_verify_accepts_it(several: Several, tmp_path: Path) -> None:
    assert tlpipe.verify(several.classifier).frozen
    model = onnx.load(several.classifier)
    (node,) = (n for n in model.graph.node if n.op_type == "Less")
    node.input[0] = "embeddings"
    onnx.save(model, tmp_path / "c.onnx")
    assert not tlpipe.verify(tmp_path / "c.onnx").same_graph


def labels_by_numpy(several: Several) -> dict[str, set[str]]:
    data = read_features(several.features)
    _, labels = numpy_of(several, data.vectors)
    names = np.array(several.result.classes)
    return {key: set(names[row]) for key, row in zip(data.keys, labels, strict=True)}


def test_classify_lists_labels(several: Several, tmp_path: Path) -> None:
    source = several.manifest.parent
    result = tlpipe.classify(several.classifier, source, tmp_path / "p.csv")
    expected = labels_by_numpy(several)
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["key", "status", "labels", "reason", "detail"]
    assert {row["key"]: set(parted(row["labels"])) for row in rows} == expected
    assert result.count == len(expected)
    assert result.classes.total() == sum(map(len, expected.values()))
    assert result.without == sum(not labels for labels in expected.values()) > 0
    found = tlpipe.inspect(tmp_path / "p.csv").facts
    assert found["classes"] == dict(result.classes.most_common())

    columns = Columns(top_k=2)
    tlpipe.classify(several.classifier, source, tmp_path / "p.jsonl", columns=columns)
    lines = (tmp_path / "p.jsonl").read_text(encoding="utf-8").splitlines()
    for row in map(json.loads, lines):
        assert set(row["labels"]) == expected[row["key"]]
        first, second = row["top"]
        assert first["probability"] >= second["probability"]
        assert not row["labels"] or row["labels"][0] == first["class"]
        assert "class" not in row
    assert tlpipe.inspect(tmp_path / "p.jsonl").facts["classes"] == found["classes"]

    tlpipe.classify(several.classifier, source, tmp_path / "k.csv", columns=columns)
    header = (tmp_path / "k.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header == "key,status,labels,class,probability,class_2,probability_2,reason,detail"


def test_evaluate_reads_labels_as_training_did(several: Several, tmp_path: Path) -> None:
    result = tlpipe.evaluate(several.classifier, several.manifest, output=tmp_path / "e.json")
    assert isinstance(result.metrics, MultilabelMetrics)
    assert result.metrics.count == 25  # the one without a label is left out
    assert result.notices == ["1 labels were left out of training and are not judged: ['odd']."]
    expected = labels_by_numpy(several)
    with several.manifest.open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == "test" and row["label"]]
    truth = {row["path"]: row["label"] for row in rows}
    classes = result.classes
    y_true = [[name in cell.split("|") for name in classes] for cell in truth.values()]
    y_found = [[name in expected[key] for name in classes] for key in truth]
    assert result.metrics.micro_f1 == pytest.approx(f1_score(y_true, y_found, average="micro"))

    other = several.manifest.with_name("other.csv")
    other.write_text("path,label\n000.png,red|purple\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"has the labels \['purple'\], which are no classes"):
        tlpipe.evaluate(several.classifier, other)


def test_there_are_no_sets_of_several_labels(several: Several, tmp_path: Path) -> None:
    columns = Columns(unknown=True)
    tlpipe.classify(several.classifier, several.manifest, tmp_path / "p.csv", columns=columns)
    header = (tmp_path / "p.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header == "key,status,labels,unknown,unknown_score,reason,detail"
    with pytest.raises(ClassifierError, match="which --sets needs"):
        tlpipe.classify(
            several.classifier, several.manifest, tmp_path / "q.csv", columns=Columns(sets=True)
        )


def test_the_command_line(tmp_path: Path, tiny_card_path: Path) -> None:
    manifest = images(tmp_path / "in", 8, separator=";")
    run = CliRunner().invoke
    classifier = str(tmp_path / "c.onnx")
    common = ["train", str(manifest), "-o", classifier, "--backbone", str(tiny_card_path)]
    done = run(cli, [*common, "--label-separator", ";"])
    assert done.exit_code == 1
    assert "Add --multi-label" in done.output
    done = run(cli, [*common, "--multi-label", "--label-separator", ";"])
    assert done.exit_code == 0, done.output
    assert "of 3 labels" in done.output
    assert "micro-F1" in done.output
    output = str(tmp_path / "p.csv")
    done = run(cli, ["classify", classifier, str(manifest.parent), "-o", output])
    assert done.exit_code == 0, done.output
    assert "without a label" in done.output
    done = run(cli, ["evaluate", classifier, str(manifest)])
    assert done.exit_code == 0, done.output
    assert "subset accuracy" in done.output
    assert run(cli, ["verify", classifier]).exit_code == 0


# -- other data, and wrong uses --------------------------------------------------------------------


def test_folders_are_labels_too(trained: Trained, tmp_path: Path) -> None:
    result = tlpipe.train_head(trained.features, tmp_path / "c.onnx", options=SEVERAL)
    assert result.classes == ["blue", "green", "red"]
    assert result.metrics.micro_f1 > 0.9
    assert any("No image has more than one label" in notice for notice in result.notices)


def stored(
    path: Path, card: Card, cells: list[str | None], splits: list[int] | None = None
) -> Path:
    """A feature file whose embeddings tell the labels of its rows, with noise."""
    rng = np.random.default_rng(0)
    names = sorted({name for cell in cells if cell for name in names_in(cell, "|")})
    vectors = rng.normal(0, 0.3, (len(cells), 8)).astype(np.float32)
    for row, cell in enumerate(cells):
        for name in names_in(cell or "", "|"):
            vectors[row, names.index(name) % 8] += 2
    count = len(cells)
    rows = Rows(
        keys=[f"{i:04d}" for i in range(count)],
        content_sha256=rng.integers(0, 256, (count, 32), np.uint8),
        stat=stats_of([(1, 1)] * count),
        labels=cells,
        splits=np.array(splits or [-1] * count, np.int8),
        groups=np.full(count, -1, np.int64),
        vectors=vectors,
    )
    with feature_writer(path, header_of(card), 8) as writer:
        writer.add(rows)
    return path


def trained_on(tmp_path: Path, card: Card, cells: list[str | None], **more: Any) -> Any:
    features = stored(tmp_path / "f.h5", card, cells, **more)
    return tlpipe.train_head(features, tmp_path / "c.onnx", options=SEVERAL)


def test_labels_in_one_split_alone_are_left_out(tiny_card: Card, tmp_path: Path) -> None:
    cells = ["a", "b", "a|b", "|"] * 10 + ["a", "b", "a|new", "|"]
    result = trained_on(tmp_path, tiny_card, cells, splits=[0] * 40 + [2] * 4)
    assert result.classes == ["a", "b"]
    assert result.training["labels_left_out"] == {"new": 1}
    assert result.metrics.count == 4
    assert result.training["count_by_class"] == {"a": 20, "b": 20}


def test_a_label_of_every_image_cannot_be_learned(tiny_card: Card, tmp_path: Path) -> None:
    result = trained_on(tmp_path, tiny_card, ["all|a", "all"] * 15)
    assert result.classes == ["a"]
    assert result.training["labels_left_out"] == {"all": 30}


def test_one_label_is_enough(tiny_card: Card, tmp_path: Path) -> None:
    result = trained_on(tmp_path, tiny_card, ["a", "|"] * 30)
    assert result.classes == ["a"]
    assert result.metrics.micro_f1 == 1
    assert tlpipe.verify(tmp_path / "c.onnx").frozen


def test_a_rare_label_is_spread_over_the_folds(tiny_card: Card, tmp_path: Path) -> None:
    cells: list[str | None] = ["a", "b", "a|b", "|"] * 25
    cells[3] = cells[50] = "a|b|rare"
    result = trained_on(tmp_path, tiny_card, cells)
    assert result.classes == ["a", "b", "rare"]
    assert result.training["count_by_class"]["rare"] == 2


def test_few_images_judge_in_cross_validation(tiny_card: Card, tmp_path: Path) -> None:
    result = trained_on(tmp_path, tiny_card, ["a", "a|b", "b", "|", "a", "b", "|"])
    assert result.metrics.count > 0
    assert any("the F1 flatters" in notice for notice in result.notices)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([None] * 6, "None of the 6 embeddings has a label"),
        (["|"] * 6, "name nothing"),
        (["a|b"] * 6, "all have the same labels"),
    ],
)
def test_what_cannot_teach(
    tiny_card: Card, tmp_path: Path, cells: list[str | None], message: str
) -> None:
    with pytest.raises(TrainingDataError, match=message):
        trained_on(tmp_path, tiny_card, cells)
    assert not (tmp_path / "c.onnx").exists()


def test_the_separator_must_separate(trained: Trained, tmp_path: Path) -> None:
    for multi_label, separator, message in (
        (True, "", "is ''; it must be a text"),
        (False, ";", "';' separates nothing"),
    ):
        with pytest.raises(OptionError, match=message):
            tlpipe.train_head(
                trained.features,
                tmp_path / "c.onnx",
                options=tlpipe.TrainOptions(multi_label=multi_label, label_separator=separator),
            )


def test_train_refuses_a_source_that_names_nothing(tiny_card: Card, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,label\na.png,|\n", encoding="utf-8")
    with pytest.raises(TrainingDataError, match="which name nothing"):
        tlpipe.train(tmp_path / "m.csv", tmp_path / "c.onnx", backbone=tiny_card, head=SEVERAL)


def test_a_training_of_single_labels_tells_of_joined_ones(tiny_card: Card, tmp_path: Path) -> None:
    features = stored(tmp_path / "f.h5", tiny_card, ["a", "a|b"] * 15)
    result = tlpipe.train_head(features, tmp_path / "c.onnx")
    assert any("'a|b'" in n and "--multi-label" in n for n in result.notices)
    features = stored(tmp_path / "g.h5", tiny_card, ["a", "b", "a|b"], splits=[0, 0, 2])
    with pytest.raises(TrainingDataError, match=r"'a\|b'.*train with --multi-label"):
        tlpipe.train_head(features, tmp_path / "d.onnx")


def test_a_network_with_other_labels_is_not_written(
    several: Several, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = export_classifier.join_head

    def wrong(network: onnx.ModelProto, layer: LastLayer, *rest: Any) -> onnx.ModelProto:
        assert layer.thresholds is not None
        return original(network, replace(layer, thresholds=0 * layer.thresholds), *rest)

    monkeypatch.setattr(export_classifier, "join_head", wrong)
    with refused(ExportError, "labels are not those whose probabilities", "Train again"):
        tlpipe.train_head(several.features, tmp_path / "c.onnx", options=SEVERAL)
    assert not (tmp_path / "c.onnx").exists()
