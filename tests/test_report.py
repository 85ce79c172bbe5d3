"""Reports: what is gathered for a page, with and without a classifier, and what is said of it."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from playwright.sync_api import Browser

import tlpipe
from browser import page_of, serious
from conftest import Trained, aged, with_header, write_classes, write_image
from feature_files import write_features
from refusals import refused
from test_audit import blobs, write
from tlpipe.card import Card
from tlpipe.cli.main import cli
from tlpipe.errors import (
    ClassifierError,
    OptionError,
    OutputError,
    SourceError,
    StaleFeaturesError,
)
from tlpipe.files import sha256_file
from tlpipe.stages.head import probabilities_of
from tlpipe.stages.metrics import measure_calibration, reliability
from tlpipe.stages.page import Report
from tlpipe.stages.projection import umap
from tlpipe.stages.store import FeatureFile, feature_writer, read_features
from tlpipe.types import Reason, Reject, Stage
from tlpipe.workflows.report import making, options, pictures
from tlpipe.workflows.report.by_classifier import given_classifier
from tlpipe.workflows.report.comparing import comparison_of
from tlpipe.workflows.report.judgement import curves_of
from tlpipe.workflows.report.making import NEIGHBOURS, gathered
from tlpipe.workflows.report.options import ReportOptions
from tlpipe.workflows.report.sample import chosen

PLAIN = ReportOptions(pictures=False)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def stored_metrics(classifier: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(classifier.with_suffix(".metrics.json").read_text())
    return found["metrics"]


def figures(report: Report) -> dict[str, float]:
    return {figure.name: figure.value for figure in report.figures}


def notices(report: Report) -> str:
    return "\n".join(report.notices)


def relabelled(path: Path, change: Any) -> None:
    """Write a feature file again with labels that `change` makes of row and label."""
    with FeatureFile(path) as file:
        header, rows = file.header, file.rows(0, file.count, vectors=True)
    labels = [change(row, label) for row, label in enumerate(rows.labels)]
    with feature_writer(path, header, rows.vectors.shape[1]) as writer:
        writer.add(replace(rows, labels=labels))


@pytest.fixture(scope="module")
def whole(trained: Trained) -> Report:
    """The report of ``trained``, pictures and all."""
    return gathered(trained.features, trained.classifier, None, ReportOptions())


# -- with a classifier -----------------------------------------------------------------------------


def test_the_figures_are_those_of_training(whole: Report, trained: Trained) -> None:
    stored = stored_metrics(trained.classifier)
    found = figures(whole)
    for ours, name in (
        ("accuracy", "accuracy"),
        ("balanced accuracy", "balanced_accuracy"),
        ("macro-F1", "macro_f1"),
    ):
        assert found[ours] == stored[name]
    assert found["log loss"] == pytest.approx(stored["log_loss"], rel=1e-4)
    assert found["Brier score"] == pytest.approx(stored["brier"], rel=1e-4, abs=1e-6)
    assert whole.matrix is not None
    assert whole.matrix.counts == stored["confusion"]
    assert [row.judged for row in whole.rows] == [c["support"] for c in stored["per_class"]]
    count = stored["count"]
    words = "about a fifth of each class, held out of training, by the classifier"
    assert whole.judged_on == f"{count} images: {words}"
    assert "not those that the classifier states" not in notices(whole)


def test_each_figure_says_what_it_means(whole: Report) -> None:
    for figure in whole.figures:
        assert figure.meaning.endswith(".")
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low <= figure.value <= figure.high
    assert whole.matrix is not None
    assert whole.matrix.counts is not None
    counts = np.array(whole.matrix.counts)
    right, count = int(np.trace(counts)), int(counts.sum())
    assert whole.figures[0].meaning.startswith(f"Right for {right} of {count} images; for between")


def test_counts_of_the_matrix_are_counts_of_the_images(whole: Report) -> None:
    images = whole.images
    assert whole.matrix is not None
    counted = np.zeros((3, 3), int)
    for label, guess, judged in zip(images.labels, images.guesses, images.judged, strict=True):
        if judged:
            counted[label[0], guess[0]] += 1
    assert counted.tolist() == whole.matrix.counts
    assert sum(row.train for row in whole.rows) + int(images.judged.sum()) == whole.count == 45


def test_guesses_are_those_of_classify(whole: Report, trained: Trained, tmp_path: Path) -> None:
    tlpipe.classify(trained.classifier, trained.features, tmp_path / "p.csv")
    with (tmp_path / "p.csv").open(encoding="utf-8") as stream:
        rows = {row["key"]: row for row in csv.DictReader(stream)}
    for number, key in enumerate(whole.images.keys):
        (guess,) = whole.images.guesses[number]
        assert rows[key]["class"] == whole.classes[guess]
        assert float(rows[key]["probability"]) == pytest.approx(
            whole.images.confidences[number], abs=1e-5
        )


def test_the_curves_are_those_that_training_measured(whole: Report, trained: Trained) -> None:
    stored = stored_metrics(trained.classifier)
    before, after = whole.reliability
    assert (before.name, after.name) == ("before calibration", "after calibration")
    assert before.error == pytest.approx(stored["temperature"]["before"]["value"], abs=1e-4)
    assert after.error == pytest.approx(stored["temperature"]["after"]["value"], abs=1e-4)
    assert [p.count for p in whole.learning] == [p["count"] for p in stored["learning_curve"]]
    assert whole.learning_note


def test_neighbours_are_images_that_train(whole: Report, trained: Trained) -> None:
    images = whole.images
    vectors = read_features(trained.features).vectors
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert images.neighbours.shape == (45, NEIGHBOURS)
    for number, row in enumerate(images.neighbours.tolist()):
        assert number not in row
        assert not images.judged[row].any()
        cosines = unit[row] @ unit[number]
        assert (np.diff(cosines) <= 1e-6).all()


def test_every_image_has_its_own_picture(whole: Report, photos: Path) -> None:
    images = whole.images
    assert sorted(images.tiles.tolist()) == list(range(45))
    (sheet,) = images.sheets
    assert (sheet.media_type, sheet.count) == ("image/webp", 45)
    drawn = np.asarray(Image.open(io.BytesIO(sheet.data)).convert("RGB"))
    for number, key in enumerate(images.keys):
        row, column = divmod(int(images.tiles[number]), sheet.columns)
        px = sheet.tile_px
        tile = drawn[row * px : (row + 1) * px, column * px : (column + 1) * px]
        original = np.asarray(Image.open(photos / key).convert("RGB"))
        assert np.abs(tile.mean(axis=(0, 1)) - original.mean(axis=(0, 1))).max() < 8


def test_provenance_names_what_made_what(whole: Report, trained: Trained) -> None:
    sections = {name: dict(rows) for name, rows in whole.provenance}
    header = read_features(trained.features).header
    assert sections["Backbone"]["name"] == "tiny.test"
    assert sections["Embeddings"]["fingerprint"] == header.fingerprint
    assert sections["Embeddings"]["source"] == header.source
    assert sections["Images"]["that judge"] == str(int(whole.images.judged.sum()))
    assert sections["Classifier"]["SHA-256"] == sha256_file(trained.classifier)
    assert sections["Versions of tlpipe"]["of this report"] == tlpipe.__version__
    assert (whole.features, whole.classifier) == ("features.h5", "classifier.onnx")


def test_every_reason_has_a_meaning() -> None:
    assert {reason for reason in Reason if reason.meaning.endswith(".")} == set(Reason)


def copied(trained: Trained, folder: Path) -> Path:
    return Path(shutil.copy(trained.features, folder / "features.h5"))


def test_features_that_were_updated_since_are_told(trained: Trained, tmp_path: Path) -> None:
    path = copied(trained, tmp_path)
    with_header(path, created_at="2027-01-01T00:00:00+00:00")
    found = gathered(path, trained.classifier, None, PLAIN)
    assert "or on these before they were updated" in notices(found)
    assert "2027-01-01" in notices(found)


def test_figures_that_have_changed_are_told(trained: Trained, tmp_path: Path) -> None:
    path = copied(trained, tmp_path)
    relabelled(path, lambda row, label: {"red": "blue", "blue": "red"}.get(label, label))
    found = gathered(path, trained.classifier, None, PLAIN)
    stored = stored_metrics(trained.classifier)
    assert figures(found)["accuracy"] < stored["accuracy"]
    assert f"not {stored['accuracy']:.4f}" in notices(found)


def test_labels_unknown_to_the_classifier_are_not_judged(trained: Trained, tmp_path: Path) -> None:
    path = copied(trained, tmp_path)
    relabelled(path, lambda row, label: "pink" if row % 9 == 0 else label)
    found = gathered(path, trained.classifier, None, PLAIN)
    assert found.classes == ["blue", "green", "red", "pink"]
    assert "5 images have labels that are no classes of the classifier" in notices(found)
    pink = [label == (3,) for label in found.images.labels]
    assert sum(pink) == 5
    assert not found.images.judged[pink].any()
    assert np.isnan(found.images.own[pink]).all()
    assert found.rows[3].judged == 0
    assert found.matrix is not None
    assert np.shape(found.matrix.counts) == (4, 4)


def test_other_heads_say_nothing_of_a_classifier_of_other_classes(
    trained: Trained, tmp_path: Path
) -> None:
    path = copied(trained, tmp_path)
    relabelled(path, lambda row, label: f"not {label}")
    found = gathered(path, trained.classifier, None, PLAIN)
    assert "are no classes of the classifier, and are not judged" in notices(found)
    assert "how good it is, nobody knows" in notices(found)
    assert found.figures == []
    assert found.matrix is None
    assert found.judged_on == ""
    assert not found.images.judged.any()
    assert [row.train for row in found.rows] == [0] * 6
    assert {guess for (guess,) in found.images.guesses} <= {0, 1, 2}


def test_embeddings_of_another_network_are_refused(
    trained: Trained, tmp_path: Path, tiny_card: Card
) -> None:
    vectors, labels = blobs(30)
    other = write(tmp_path / "o.h5", tiny_card, vectors, [f"c{label}" for label in labels])
    with_header(other, fingerprint="0" * 64)
    with pytest.raises(StaleFeaturesError, match="holds other embeddings"):
        gathered(other, trained.classifier, None, PLAIN)
    with pytest.raises(ClassifierError, match="does not exist"):
        gathered(trained.features, tmp_path / "none.onnx", None, PLAIN)
    wrong = trained.classifier.with_name("clasifier.onnx")
    with pytest.raises(ClassifierError, match=f"Did you mean {str(trained.classifier)!r}"):
        gathered(trained.features, wrong, None, PLAIN)


@pytest.mark.parametrize("kind", ["centroid", "knn"])
def test_baselines_are_reported_as_well(trained: Trained, tmp_path: Path, kind: Any) -> None:
    classifier = tmp_path / "c.onnx"
    tlpipe.train_head(trained.features, classifier, options=tlpipe.TrainOptions(head=kind))
    found = gathered(trained.features, classifier, None, PLAIN)
    stored = stored_metrics(classifier)
    assert figures(found)["accuracy"] == stored["accuracy"]
    assert figures(found)["log loss"] == pytest.approx(stored["log_loss"], rel=1e-3)
    assert [curve.name for curve in found.reliability] == (
        ["probabilities"]
        if stored["temperature"] is None
        else ["before calibration", "after calibration"]
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_curve", [{"count": 1}]),
        ("learning_curve", [7, None]),
        (
            "learning_curve",
            [dict.fromkeys(("count", "accuracy", "low", "high", "log_loss"), "many")],
        ),
        ("learning_curve", "steep"),
        ("accuracy", "fine"),
        ("count", None),
    ],
)
def test_what_a_classifier_states_may_make_no_sense(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, name: str, value: Any
) -> None:
    stated = stored_metrics(trained.classifier) | {name: value}

    def tampered(path: Path, data: Any, features: Path) -> Any:
        given = given_classifier(path, data, features)
        info = replace(
            given.info, metrics=stated, training={"temperature": float("inf"), "seed": []}
        )
        return replace(given, info=info)

    monkeypatch.setattr(making, "given_classifier", tampered)
    found = gathered(trained.features, trained.classifier, None, PLAIN)
    assert found.figures
    assert (len(found.learning) == 0) == (name == "learning_curve")
    assert [curve.name for curve in found.reliability] == ["probabilities"]


def test_where_nothing_was_kept_apart_other_heads_judge(tmp_path: Path, tiny_card: Card) -> None:
    photos = write_classes(tmp_path / "photos", 3)
    tlpipe.embed(photos, tmp_path / "f.h5", backbone=tiny_card)
    tlpipe.train_head(tmp_path / "f.h5", tmp_path / "c.onnx")
    found = gathered(tmp_path / "f.h5", tmp_path / "c.onnx", None, PLAIN)
    assert "No image was kept apart to judge the classifier on" in notices(found)
    assert "trained for this report" in found.judged_on
    assert found.images.judged.all()
    assert figures(found)["accuracy"] == pytest.approx(
        np.mean([a == b for a, b in zip(found.images.labels, found.images.guesses, strict=True)])
    )


def test_a_classifier_on_unlabelled_images_guesses(trained: Trained, tmp_path: Path) -> None:
    path = copied(trained, tmp_path)
    relabelled(path, lambda row, label: None)
    found = gathered(path, trained.classifier, None, PLAIN)
    assert found.figures == []
    assert found.matrix is None
    assert found.mistakes is None
    assert found.judged_on == ""
    assert "how good it is, nobody knows" in notices(found)
    assert all(len(guess) == 1 for guess in found.images.guesses)
    assert np.isfinite(found.images.confidences).all()
    assert np.isnan(found.images.own).all()


# -- without a classifier --------------------------------------------------------------------------


def test_without_a_classifier_heads_judge_in_cross_validation(trained: Trained) -> None:
    found = gathered(trained.features, None, None, PLAIN)
    assert found.classifier == ""
    assert found.judged_on.startswith("all labelled images, each by a head")
    assert found.images.judged.all()
    assert sum(map(sum, found.matrix.counts)) == 45  # type: ignore[union-attr, arg-type]
    assert len(found.reliability) == 2
    assert found.learning == []
    assert "chosen on the images that judge them" in notices(found)


def test_suspects_and_pairs_are_those_of_the_audit(tmp_path: Path, tiny_card: Card) -> None:
    vectors, labels = blobs(90)
    vectors[40] = vectors[7] * 1.001  # on the other side
    names: list[str | None] = [f"c{label}" for label in labels]
    names[3], names[77] = "c1", None
    contents = [min(i, 88) for i in range(90)]
    splits = [(i % 2, 2)[i == 89] for i in range(90)]
    path = write(tmp_path / "f.h5", tiny_card, vectors, names, contents=contents, splits=splits)
    found = gathered(path, None, None, PLAIN)
    audit = tlpipe.audit(path)
    keys = found.images.keys
    assert audit.labels is not None
    assert found.suspects is not None
    assert found.suspects.count == len(audit.labels.errors)
    assert [
        (keys[s.image], found.classes[s.suggested], s.self_confidence, s.suggested_probability)
        for s in found.suspects.suspects
    ] == [
        (e.image.key, e.suggested, e.self_confidence, e.suggested_probability)
        for e in audit.labels.errors
    ]
    assert "00003.png" in [keys[s.image] for s in found.suspects.suspects]
    near, leaks = found.near_duplicates, found.leaks
    assert near is not None
    assert leaks is not None
    assert near.count == audit.near.count + 1
    assert (keys[near.pairs[0].first], keys[near.pairs[0].second]) == ("00088.png", "00089.png")
    assert near.pairs[0].cosine is None
    assert [(keys[p.first], keys[p.second], p.cosine) for p in near.pairs[1:]] == [
        (p.first.key, p.second.key, p.cosine) for p in audit.near.pairs
    ]
    assert leaks.count == audit.leaks.exact + audit.leaks.near
    assert [(keys[p.first], keys[p.second], p.cosine) for p in leaks.pairs] == [
        ("00088.png", "00089.png", None),
        *((p.first.key, p.second.key, p.cosine) for p in audit.leaks.near_pairs),
    ]
    assert ("00007.png", "00040.png") in {(keys[p.first], keys[p.second]) for p in leaks.pairs}


def test_mistakes_come_with_the_surest_first(tmp_path: Path, tiny_card: Card) -> None:
    vectors, labels = blobs(150, seed=4)
    vectors += 3 * np.random.default_rng(4).normal(size=vectors.shape)
    path = write(tmp_path / "f.h5", tiny_card, vectors, [f"c{label}" for label in labels])
    found = gathered(path, None, None, PLAIN)
    assert found.mistakes is not None
    assert found.matrix is not None
    assert found.matrix.counts is not None
    wrong = np.sum(found.matrix.counts) - np.trace(found.matrix.counts)
    assert found.mistakes.count == wrong > 3
    images = found.images
    sure = images.confidences[found.mistakes.images]
    assert (np.diff(sure) <= 0).all()
    assert all(images.labels[i] != images.guesses[i] for i in found.mistakes.images)
    assert found.leaks is None  # there are no splits


def test_unlabelled_features_have_a_map_and_pairs(tmp_path: Path, tiny_card: Card) -> None:
    vectors, _ = blobs(40)
    vectors[5] = vectors[6]
    path = write(tmp_path / "f.h5", tiny_card, vectors, [None] * 40)
    found = gathered(path, None, None, replace(PLAIN, near=0.999))
    assert found.classes == []
    assert found.figures == []
    assert found.rows == []
    assert found.judged_on == ""
    assert found.suspects is None
    assert found.near_duplicates is not None
    assert found.near_duplicates.count == 1
    assert found.projections[0].points.shape == (40, 2)
    assert "there are no labels" in notices(found)
    assert (found.images.neighbours == -1).all()


@pytest.mark.parametrize("count", [1, 2])
def test_hardly_any_image_is_enough_for_a_report(
    tmp_path: Path, tiny_card: Card, count: int
) -> None:
    path = write(tmp_path / "f.h5", tiny_card, np.ones((count, 8)), ["a", "b"][:count])
    found = gathered(path, None, None, PLAIN)
    assert found.count == count
    assert found.figures == []
    assert np.allclose(found.projections[0].points, 0.5)
    assert [row.train for row in found.rows] == [1] * count


def test_rejects_come_with_their_meaning(tmp_path: Path, tiny_card: Card) -> None:
    path = write_features(tmp_path / "f.h5", tiny_card, 60)
    found = gathered(path, None, None, PLAIN)
    assert found.rejects == [("empty", 5, "The file has no bytes.")]


# -- several labels per image ----------------------------------------------------------------------


def several(path: Path, card: Card, count: int = 120, **columns: Any) -> Path:
    """Three directions, each of which gives a label; some images have none of them."""
    rng = np.random.default_rng(11)
    has = rng.random((count, 3)) < 0.4
    vectors = np.zeros((count, 8), np.float32)
    vectors[:, :3] = 3 * has
    vectors += rng.normal(0, 0.8, vectors.shape)
    cells = ["|".join(np.array(["a", "b", "c"])[row]) or "|" for row in has]
    return write(path, card, vectors, list(cells), **columns)


@pytest.fixture
def labelled(tmp_path: Path, tiny_card: Card) -> tuple[Path, Path]:
    features, classifier = several(tmp_path / "f.h5", tiny_card), tmp_path / "c.onnx"
    tlpipe.train_head(features, classifier, options=tlpipe.TrainOptions(multi_label=True))
    return features, classifier


def test_several_labels_are_judged_as_in_training(labelled: tuple[Path, Path]) -> None:
    found = gathered(*labelled, None, PLAIN)
    stored = stored_metrics(labelled[1])
    assert found.multilabel
    assert found.classes == ["a", "b", "c"]
    assert figures(found)["micro-F1"] == stored["micro_f1"]
    assert figures(found)["subset accuracy"] == stored["subset_accuracy"]
    assert [row.average_precision for row in found.rows] == pytest.approx(
        [c["average_precision"] for c in stored["per_class"]]
    )
    assert found.matrix is None
    assert found.reliability == []
    assert found.suspects is None
    assert found.judged_on.endswith("by the classifier")


def test_sets_of_labels_and_guesses(labelled: tuple[Path, Path]) -> None:
    found = gathered(*labelled, None, PLAIN)
    data = read_features(labelled[0])
    for number, label in enumerate(found.images.labels):
        cell = data.classes[data.labels[number]]
        assert "|".join(found.classes[k] for k in label) == cell.strip("|")
    thresholds = [row.threshold for row in found.rows]
    images = found.images
    for number, guess in enumerate(images.guesses):
        if guess:
            assert images.confidences[number] >= min(thresholds[k] for k in guess)  # type: ignore[type-var]
        else:
            assert np.isnan(images.confidences[number])
    assert found.mistakes is not None
    wrong = [i for i in np.flatnonzero(images.judged) if images.labels[i] != images.guesses[i]]
    assert sorted(found.mistakes.images) == wrong
    assert wrong


def test_labels_that_were_not_learned_are_told(labelled: tuple[Path, Path]) -> None:
    relabelled(labelled[0], lambda row, label: label + "|x" if row == 5 else label)
    found = gathered(*labelled, None, PLAIN)
    assert "1 labels are none that the classifier learned, and are not judged: ['x']" in notices(
        found
    )
    assert found.classes == ["a", "b", "c"]


def test_several_labels_without_images_kept_apart(tmp_path: Path, tiny_card: Card) -> None:
    # Three groups: of so few, none is kept apart from training.
    features = several(tmp_path / "f.h5", tiny_card, groups=[i % 3 for i in range(120)])
    classifier = tmp_path / "c.onnx"
    tlpipe.train_head(features, classifier, options=tlpipe.TrainOptions(multi_label=True))
    found = gathered(features, classifier, None, PLAIN)
    assert found.judged_on.startswith("80 of 120 training images, each by a head")
    assert found.images.judged.sum() == 80
    assert figures(found)["micro-F1"] == pytest.approx(
        stored_metrics(classifier)["micro_f1"], abs=1e-6
    )


# -- pictures --------------------------------------------------------------------------------------


def embedded(folder: Path, card: Card, count: int = 5) -> tuple[Path, Path]:
    source = aged(write_classes(folder / "photos", count))
    tlpipe.embed(source, folder / "f.h5", backbone=card)
    return source, folder / "f.h5"


def pictured(report: Report) -> set[str]:
    return {k for k, tile in zip(report.images.keys, report.images.tiles, strict=True) if tile >= 0}


def test_images_that_changed_or_went_have_no_picture(tmp_path: Path, tiny_card: Card) -> None:
    source, path = embedded(tmp_path, tiny_card)
    write_image(source / "red" / "000.png", 999)
    (source / "red" / "001.png").unlink()
    (source / "blue" / "002.png").rename(source / "blue" / "new.png")
    found = gathered(path, None, None, ReportOptions())
    assert set(found.images.keys) - pictured(found) == {
        "red/000.png",
        "red/001.png",
        "blue/002.png",
    }
    assert "3 of 15 images have no picture" in notices(found)
    assert "1 changed since it was embedded" in notices(found)
    assert "2 no longer in the source" in notices(found)
    assert sorted(t for t in found.images.tiles.tolist() if t >= 0) == list(range(12))


def test_a_source_that_has_moved_is_named(tmp_path: Path, tiny_card: Card) -> None:
    source, path = embedded(tmp_path, tiny_card)
    moved = source.rename(tmp_path / "moved")
    lost = gathered(path, None, None, ReportOptions())
    assert pictured(lost) == set()
    assert lost.images.sheets == []
    assert "name the place with --source" in notices(lost)
    assert len(pictured(gathered(path, None, moved, ReportOptions()))) == 15
    with pytest.raises(SourceError, match="does not exist"):
        gathered(path, None, tmp_path / "nowhere", ReportOptions())


def test_pictures_may_be_left_out(trained: Trained) -> None:
    found = gathered(trained.features, None, None, PLAIN)
    assert found.images.sheets == []
    assert found.images.larger == {}
    assert (found.images.tiles == -1).all()
    assert "picture" not in notices(found)


@pytest.mark.parametrize("address", ["https://example.org/photos.zip", "s3://bucket/photos"])
def test_a_network_is_not_read_unless_that_is_asked_for(
    tmp_path: Path, tiny_card: Card, address: str
) -> None:
    _, path = embedded(tmp_path, tiny_card)
    with_header(path, source=address)
    found = gathered(path, None, None, ReportOptions())
    assert f"The images are on a network ({address})" in notices(found)
    assert "--fetch reads them" in notices(found)
    assert pictured(found) == set()


def test_addresses_of_a_manifest_are_not_read_either(tmp_path: Path, tiny_card: Card) -> None:
    _, path = embedded(tmp_path, tiny_card)
    manifest = tmp_path / "list.csv"
    rows = [f"photos/{key}" for key in read_features(path).keys[:-1]]
    manifest.write_text("\n".join(["path", *rows, "http://127.0.0.1:9/x.png"]))
    with FeatureFile(path) as file:
        header, found = file.header, file.rows(0, file.count, vectors=True)
    keys = [*rows, "http://127.0.0.1:9/x.png"]
    with feature_writer(path, replace(header, source=str(manifest)), 8) as writer:
        writer.add(replace(found, keys=keys))
    report = gathered(path, None, None, ReportOptions())
    assert len(pictured(report)) == 14
    assert "1 kept on a network. --fetch reads those on a network." in notices(report)


def test_a_file_cannot_have_standard_input_read(tmp_path: Path, tiny_card: Card) -> None:
    _, path = embedded(tmp_path, tiny_card)
    with_header(path, source="-")
    assert "does not say where they are" in notices(gathered(path, None, None, ReportOptions()))


def test_damaged_images_are_counted_by_reason(
    tmp_path: Path, tiny_card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, path = embedded(tmp_path, tiny_card)
    bad = Reject(Stage.DECODE, Reason.TRUNCATED, "cut")
    monkeypatch.setattr(pictures, "decode", lambda raw, stat, reduce: bad)
    found = gathered(path, None, None, ReportOptions())
    assert "15 of 15 images have no picture: 15 truncated." in notices(found)


@pytest.mark.parametrize("kind", ["zip", "manifest"])
def test_every_kind_of_source_gives_pictures(tmp_path: Path, tiny_card: Card, kind: str) -> None:
    photos = write_classes(tmp_path / "photos", 4)
    if kind == "zip":
        source = Path(shutil.make_archive(str(tmp_path / "a"), "zip", photos))
    else:
        source = tmp_path / "list.csv"
        files = sorted(photos.rglob("*.png"))
        lines = [f"{file.relative_to(tmp_path).as_posix()},{file.parent.name}" for file in files]
        source.write_text("\n".join(["path,label", *lines]))
    tlpipe.embed(source, tmp_path / "f.h5", backbone=tiny_card)
    assert len(pictured(gathered(tmp_path / "f.h5", None, None, ReportOptions()))) == 12


def test_merged_features_have_the_pictures_of_all_parts(tmp_path: Path, tiny_card: Card) -> None:
    parts = []
    for name in ("one", "two"):
        photos = write_classes(tmp_path / name / "photos" / name, 2, seed=len(parts))
        parts.append(tmp_path / f"{name}.h5")
        tlpipe.embed(photos.parent, parts[-1], backbone=tiny_card)
    tlpipe.merge(parts, tmp_path / "all.h5")
    found = gathered(tmp_path / "all.h5", None, None, ReportOptions())
    assert found.count == len(pictured(found)) == 12
    assert sorted(found.images.tiles.tolist()) == list(range(12))


def test_images_of_lists_have_larger_pictures(tmp_path: Path, tiny_card: Card) -> None:
    _, path = embedded(tmp_path, tiny_card, 8)
    relabelled(path, lambda row, label: "red" if row == 2 else label)
    found = gathered(path, None, None, ReportOptions())
    assert found.mistakes is not None
    assert 2 in found.mistakes.images
    lists = {*found.mistakes.images}
    for suspect in found.suspects.suspects:  # type: ignore[union-attr]
        lists.add(suspect.image)
    for pair in found.near_duplicates.pairs:  # type: ignore[union-attr]
        lists |= {pair.first, pair.second}
    assert set(found.images.larger) == lists
    with Image.open(io.BytesIO(found.images.larger[2])) as image:
        assert (image.format, image.size) == ("WEBP", (96, 96))


def test_what_has_no_room_is_told(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "SHEETS_BYTES", 200)
    found = gathered(trained.features, None, None, ReportOptions())
    assert "45 too many for the page" in notices(found)
    assert found.images.sheets == []


# -- samples ---------------------------------------------------------------------------------------


def test_a_sample_holds_first_what_is_listed() -> None:
    judged = np.arange(1000) % 5 == 0
    listed, mistakes = np.array([3, 4, 999]), np.array([10, 20, 999])
    for most in (3, 5, 100, 205, 900):
        rows = chosen(listed, mistakes, judged, most, 0)
        assert rows.size == most
        assert (np.diff(rows) > 0).all()
        assert set(listed) <= set(rows.tolist())
        rest = set(rows.tolist()) - set(listed.tolist())
        if most >= 5:
            assert {10, 20} <= rest
        if most == 205:
            assert set(np.flatnonzero(judged)) <= set(rows.tolist())
    assert np.array_equal(
        chosen(listed, mistakes, judged, 300, 1), chosen(listed, mistakes, judged, 300, 1)
    )
    assert not np.array_equal(
        chosen(listed, mistakes, judged, 300, 1), chosen(listed, mistakes, judged, 300, 2)
    )
    assert chosen(listed, mistakes, judged, 1000, 0).tolist() == list(range(1000))


def test_a_page_of_a_sample_counts_all(tmp_path: Path, tiny_card: Card) -> None:
    vectors, labels = blobs(1500)
    vectors += 2 * np.random.default_rng(4).normal(size=vectors.shape)
    path = write(tmp_path / "f.h5", tiny_card, vectors, [f"c{label}" for label in labels])
    part = gathered(path, None, None, replace(PLAIN, images=1000))
    whole = gathered(path, None, None, PLAIN)
    assert (part.count, len(part.images.keys)) == (1500, 1000)
    assert "The page holds 1,000 of 1,500 images" in notices(part)
    assert part.figures == whole.figures
    assert part.matrix == whole.matrix
    assert part.mistakes is not None
    assert whole.mistakes is not None
    names = [[r.images.keys[i] for i in r.mistakes.images] for r in (part, whole)]  # type: ignore[union-attr]
    assert names[0] == names[1]
    assert part.projections[0].points.shape == (1000, 2)
    assert part.images.neighbours.shape == (1000, NEIGHBOURS)
    assert part.images.neighbours.max() < 1000


@pytest.mark.parametrize(
    "wrong", [{"images": 10}, {"images": 10**6}, {"map_kind": "tsne"}, {"near": 0.0}]
)
def test_options_that_make_no_sense(wrong: Any) -> None:
    with pytest.raises(OptionError):
        ReportOptions(**wrong)


# -- curves ----------------------------------------------------------------------------------------


def test_the_curve_before_is_that_of_the_logits() -> None:
    rng = np.random.default_rng(0)
    logits = 4 * rng.normal(size=(400, 3))
    labels = np.array([rng.choice(3, p=p) for p in probabilities_of(logits / 2, multilabel=False)])
    scaled = probabilities_of(logits / 1.8, multilabel=False)
    before, after = curves_of(scaled.astype(np.float32), labels, 1.8)
    measured = measure_calibration(logits, labels, 1.8)
    assert before.error == pytest.approx(measured.before.value, abs=1e-5)
    assert after.error == pytest.approx(measured.after.value, abs=1e-5)
    assert before.error > after.error
    whole = probabilities_of(logits, multilabel=False)
    expected, _ = reliability(whole.max(axis=1), whole.argmax(axis=1) == labels)
    assert [b.confidence for b in before.bins] == pytest.approx([b.confidence for b in expected])


def test_bins_hold_all_images() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.3, 1, 500)
    right = rng.random(500) < confidence
    bins, error = reliability(confidence, right)
    assert sum(b.count for b in bins) == 500
    assert sum(b.count * b.accuracy for b in bins) == pytest.approx(right.sum())
    assert sum(b.count * b.confidence for b in bins) == pytest.approx(confidence.sum())
    assert all(b.low <= b.accuracy <= b.high for b in bins)
    assert [b.confidence for b in bins] == sorted(b.confidence for b in bins)
    assert error.low <= error.value <= error.high


# -- comparisons, and the command ------------------------------------------------------------------


def test_a_comparison_says_what_compare_says(tmp_path: Path, tiny_card: Card) -> None:
    vectors, labels = blobs(120)
    names = [f"c{label}" for label in labels]
    paths = [
        write(tmp_path / "good.h5", tiny_card, vectors, names),
        write(tmp_path / "bad.h5", tiny_card, vectors / 6 + blobs(120, seed=9)[0] % 1, names),
    ]
    result = tlpipe.compare(paths, speed=False)
    found = comparison_of(result)
    assert [c.name for c in found.contenders] == ["good.h5", "bad.h5"]
    assert [c.recommended for c in found.contenders] == [i == result.recommended for i in range(2)]
    for ours, theirs in zip(found.contenders, result.files, strict=True):
        assert ours.accuracy.value == theirs.metrics.accuracy
        assert ours.log_loss.value == theirs.metrics.log_loss
        assert (ours.difference is None) == (theirs.accuracy is None)
        if ours.difference is not None:
            assert theirs.accuracy is not None
            assert ours.difference.low == theirs.accuracy.low
            assert ours.difference.meaning.startswith("Right for ")
            alike = "cannot be told apart" in ours.difference.meaning
            assert alike != theirs.accuracy.distinguishable
    assert found.rows == [
        (name, [f.metrics.per_class[k].recall for f in result.files])
        for k, name in enumerate(result.classes)
    ]
    assert found.recommendation == result.recommendation


def test_the_command_writes_a_page(trained: Trained, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    result = run("report", trained.features, trained.classifier, "-o", page)
    assert result.exit_code == 0, result.output
    assert "Report on classifier.onnx" in page.read_text(encoding="utf-8")
    assert result.stdout == ""
    assert "The page holds 45 of 45 images, 45 with a picture." in result.stderr
    assert ": about a fifth of each class" in result.stderr
    assert f"Wrote {str(page)!r} (" in result.stderr
    again = run("report", trained.features, trained.classifier, "-o", page)
    assert again.exit_code == 1
    assert "exists already" in again.stderr
    assert run("report", trained.features, "-o", page, "--overwrite").exit_code == 0


def test_the_page_of_a_real_run_opens_in_a_browser(
    trained: Trained, tmp_path: Path, browser: Browser
) -> None:
    page = tmp_path / "report.html"
    tlpipe.report(trained.features, page, classifier=trained.classifier)
    with page_of(browser, page) as seen:
        assert seen.page.get_by_role("heading", level=1).inner_text() == "Report on classifier.onnx"
        assert serious(seen.page) == []
        assert (seen.errors, seen.requests) == ([], [])


def test_programs_get_the_facts_as_json(trained: Trained, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    result = run("--log-format", "json", "report", trained.features, "-o", page, "--no-images")
    assert result.exit_code == 0, result.output
    events = [json.loads(line) for line in result.stderr.splitlines()]
    (written,) = [event for event in events if event["event"] == "result"]
    assert written["size_bytes"] == page.stat().st_size
    assert (written["count"], written["shown"], written["pictured"]) == (45, 45, 0)


def test_the_command_compares_feature_files(trained: Trained, tmp_path: Path) -> None:
    other, page = copied(trained, tmp_path), tmp_path / "c.html"
    result = run("report", trained.features, other, "-o", page, "--no-speed")
    assert result.exit_code == 0, result.output
    assert "2 backbones compared" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["c.onnx"], "a report needs the feature file"),
        (["f.h5", "x.csv"], "'x.csv' is neither a feature file"),
        (["f.h5", "c.onnx", "d.onnx"], "1 feature file and 2 classifiers"),
        (["f.h5", "g.h5", "c.onnx"], "2 feature files and 1 classifier"),
        (["f.h5", "g.h5", "--no-images"], "--no-images does not apply to a comparison"),
        (["f.h5", "g.h5", "--images", "2000"], "--images does not apply"),
        (["f.h5", "--no-speed"], "--no-speed does not apply to the report of one"),
        (["f.h5", "--images", "10"], "Invalid value for '--images'"),
        ([], "Missing argument"),
    ],
)
def test_arguments_that_make_no_report(files: list[str], said: str) -> None:
    result = run("report", *files, "-o", "r.html")
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())


def test_a_page_must_have_its_suffix_and_destroy_nothing(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"must end in \.html"):
        tlpipe.report(trained.features, tmp_path / "r.pdf")
    with pytest.raises(OutputError, match="does not exist"):
        tlpipe.report(trained.features, tmp_path / "none" / "r.html")
    features = tmp_path / "f.html"
    features.symlink_to(trained.features)
    with pytest.raises(OutputError, match="a file that this command reads"):
        tlpipe.report(trained.features, features, overwrite=True)


def test_a_map_that_cannot_be_made_is_told_before_the_work(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    monkeypatch.setattr(making, "read_features", lambda path: pytest.fail("work began"))
    result = run("report", trained.features, "-o", tmp_path / "r.html", "--map", "umap")
    assert result.exit_code == 1
    assert "pip install 'tlpipe[umap]'" in result.stderr


def test_a_map_of_too_few_images_is_refused() -> None:
    with refused(OptionError, "A UMAP of 9 images says nothing", "10", "Leave out --map umap"):
        umap(np.zeros((9, 4), np.float32), 0)


def test_a_umap_is_the_first_of_two_maps(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = SimpleNamespace(fit_transform=lambda vectors: vectors[:, :2])
    library = SimpleNamespace(UMAP=lambda **settings: fake)
    monkeypatch.setitem(sys.modules, "umap", library)
    found = gathered(trained.features, None, None, replace(PLAIN, map_kind="umap"))
    assert [p.name for p in found.projections] == ["UMAP", "PCA"]


def test_training_writes_a_page_too(trained: Trained, tmp_path: Path) -> None:
    page, classifier = tmp_path / "r.html", tmp_path / "c.onnx"
    result = run("train-head", trained.features, "-o", classifier, "--report", page)
    assert result.exit_code == 0, result.output
    assert "Report on c.onnx" in page.read_text(encoding="utf-8")
    assert result.stderr.index(str(classifier)) < result.stderr.index(str(page))


def test_a_page_that_cannot_be_written_is_told_before_training(
    trained: Trained, photos: Path, tmp_path: Path
) -> None:
    for command, source in (("train-head", trained.features), ("train", photos)):
        result = run(command, source, "-o", tmp_path / "c.onnx", "--report", tmp_path / "r.txt")
        assert result.exit_code == 1
        assert "must end in .html" in result.stderr
    assert not list(tmp_path.iterdir())


def test_train_reports_on_the_source_it_was_given(
    photos: Path, tiny_card_path: Path, tmp_path: Path
) -> None:
    page = tmp_path / "r.html"
    result = run(
        *("train", photos, "-o", tmp_path / "c.onnx", "--backbone", tiny_card_path),
        *("--report", page),
    )
    assert result.exit_code == 0, result.output
    assert "45 with a picture" in result.stderr
    assert page.stat().st_size > 0


def test_the_documented_limits_are_those_of_the_code() -> None:
    text = (Path(__file__).parents[1] / "docs" / "how-to" / "report.md").read_text(encoding="utf-8")
    for number in (options.MOST_IMAGES, options.MOST_SAMPLED, options.FEWEST_SAMPLED):
        assert f"{number:,}" in text
