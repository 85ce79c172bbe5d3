"""``classify --unknown`` and ``--sets``, and classifiers that have neither."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import tlpipe
from conftest import Trained, write_classes, write_image
from stored import write_predictions
from tlpipe.card import Card
from tlpipe.cli.main import cli
from tlpipe.errors import ClassifierError, ExportError
from tlpipe.graph.io import load_model, metadata
from tlpipe.label_cells import joined
from tlpipe.stages.classifier import read_metadata
from tlpipe.stages.predictions import Columns
from tlpipe.types import Content, FileStat, Item, Outcome, Reason, Reject, Stage
from tlpipe.workflows import knowing as knowing_module
from tlpipe.workflows.classifier import open_classifier


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Images of the classes, one of none of them, and a file that is no image."""
    root = write_classes(tmp_path / "in", 4, seed=77)
    write_image(root / "strange.png", 5, (255, 255, 255))
    (root / "zzz.png").write_text("no image")
    return root


def without_extras(trained: Trained, path: Path) -> Path:
    """The classifier as an earlier version wrote it: a Gemm and a Softmax, and no word of more."""
    model = onnx.load(trained.classifier)
    outputs = {"probabilities", "embeddings"}
    kept = {"tlpipe/head/logits", "tlpipe/head/softmax"}
    for part, stays in (
        (model.graph.node, lambda n: not n.name.startswith("tlpipe/head/") or n.name in kept),
        (model.graph.output, lambda v: v.name in outputs),
        (model.metadata_props, lambda p: p.key not in ("unknown", "sets")),
        (
            model.graph.initializer,
            lambda t: (
                not t.name.startswith("tlpipe/head/") or t.name.endswith(("weights", "/bias"))
            ),
        ),
    ):
        entries = [entry for entry in part if stays(entry)]
        del part[:]
        part.extend(entries)
    for tensor in [t for t in model.graph.initializer if t.name == "tlpipe/head/closeness/bias"]:
        model.graph.initializer.remove(tensor)
    onnx.save(model, path)
    return path


def test_csv_tells_what_is_of_no_class_and_what_it_may_be(
    trained: Trained, mixed: Path, tmp_path: Path
) -> None:
    plain, full = tmp_path / "plain.csv", tmp_path / "full.csv"
    tlpipe.classify(trained.classifier, mixed, plain)
    done = CliRunner().invoke(
        cli,
        ["classify", str(trained.classifier), str(mixed), "-o", str(full), "--unknown", "--sets"],
    )
    assert done.exit_code == 0, done.output
    before, rows = rows_of(plain), rows_of(full)
    assert list(rows[0]) == [
        "key", "status", "class", "probability", "unknown", "unknown_score", "set", "reason",
        "detail",
    ]  # fmt: skip
    added = ("unknown", "unknown_score", "set")
    assert [{k: v for k, v in row.items() if k not in added} for row in rows] == before
    assert [row["key"] for row in rows][-2:] == ["strange.png", "zzz.png"]
    assert [rows[-1][name] for name in added] == ["", "", ""]
    threshold = read_metadata(metadata(load_model(trained.classifier)), "it").unknown
    assert threshold is not None
    for row in rows[:-1]:
        assert (float(row["unknown_score"]) > threshold.threshold) == (row["unknown"] == "true")
        assert row["set"].split("|")[0] == row["class"]
    assert rows[-2]["unknown"] == "true"
    count = sum(row["unknown"] == "true" for row in rows)
    assert f"None of the classes: {count} image" in done.output
    assert 1 <= count < 6


def test_json_lines_tell_the_same(trained: Trained, mixed: Path, tmp_path: Path) -> None:
    table, lines = tmp_path / "p.csv", tmp_path / "p.jsonl"
    for path in (table, lines):
        result = tlpipe.classify(trained.classifier, mixed, path, columns=Columns(2, True, True))
    rows = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    assert result.unknown == sum(row.get("unknown", False) for row in rows)
    for row, other in zip(rows, rows_of(table), strict=True):
        if row["status"] == "rejected":
            assert not {"unknown", "unknown_score", "set"} & set(row)
            continue
        assert str(row["unknown"]).lower() == other["unknown"]
        assert row["unknown_score"] == float(other["unknown_score"])
        assert "|".join(row["set"]) == other["set"]


def test_each_is_told_alone_and_only_where_it_is_asked_for(
    trained: Trained, photos: Path, tmp_path: Path
) -> None:
    path = tmp_path / "p.csv"
    result = tlpipe.classify(trained.classifier, photos, path, columns=Columns(sets=True))
    assert result.unknown is None
    assert list(rows_of(path)[0]) == [
        "key", "status", "class", "probability", "set", "reason", "detail",
    ]  # fmt: skip
    opened = open_classifier(trained.classifier)
    assert opened.network.shapes()[1:] == ((3,),)
    assert len(opened.saying(Columns(unknown=True)).network.shapes()) == 4


def test_names_in_a_set_stay_apart() -> None:
    def split(text: str) -> Iterator[str]:
        name, escaped = "", False
        for sign in text:
            if escaped or sign not in "\\|":
                name, escaped = name + sign, False
            elif sign == "\\":
                escaped = True
            else:
                yield name
                name = ""
        yield name

    assert joined(["a", "b"]) == "a|b"
    names = ["a|b", "c\\", "|", "\\|", "d,e", 'f"']
    assert list(split(joined(names))) == names
    assert joined(["a|b"]) != joined(["a", "b"])


def test_a_set_lists_the_likeliest_first(tmp_path: Path) -> None:
    values = {
        "probabilities": np.array([0.2, 0.5, 0.3], np.float32),
        "prediction_set": np.array([True, True, False]),
        "unknown": np.bool_(True),
        "unknown_score": np.float32(1.25),
    }
    outcomes = [
        Outcome(Item("a", "a"), Content(b"", FileStat()), values),
        Outcome(Item("b", "b"), reject=Reject(Stage.DECODE, Reason.EMPTY, "Empty.")),
    ]
    columns = Columns(1, unknown=True, sets=True)
    summary = write_predictions(tmp_path / "p.csv", ["x", "y|", "z"], columns, outcomes)
    assert summary.unknown == 1
    assert (tmp_path / "p.csv").read_text().splitlines()[1:] == [
        r"a,ok,y|,0.500000,true,1.250000,y\||x,,",
        "b,rejected,,,,,,empty,Empty.",
    ]


# -- classifiers without ---------------------------------------------------------------------------


def test_an_earlier_classifier_is_read_and_proved_and_says_what_it_lacks(
    trained: Trained, photos: Path, tmp_path: Path
) -> None:
    earlier = without_extras(trained, tmp_path / "earlier.onnx")
    assert tlpipe.verify(earlier).frozen
    assert tlpipe.inspect(earlier).facts["unknown"] is None
    for classifier, name in ((earlier, "a.csv"), (trained.classifier, "b.csv")):
        tlpipe.classify(classifier, photos, tmp_path / name)
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()
    for columns, lacks in (
        (Columns(unknown=True), "no model of what is none of its classes, which --unknown needs"),
        (Columns(sets=True), "no threshold for sets of classes, which --sets needs"),
    ):
        with pytest.raises(ClassifierError, match=lacks):
            tlpipe.classify(earlier, photos, tmp_path / "c.csv", columns=columns)
    assert not (tmp_path / "c.csv").exists()


def test_a_graph_that_lacks_what_its_metadata_state_is_refused(
    trained: Trained, photos: Path, tmp_path: Path
) -> None:
    broken = without_extras(trained, tmp_path / "broken.onnx")
    model = onnx.load(broken)
    model.metadata_props.extend(
        p for p in onnx.load(trained.classifier).metadata_props if p.key in ("unknown", "sets")
    )
    onnx.save(model, broken)
    with pytest.raises(ClassifierError, match="is damaged: its graph lacks the output 'unknown'"):
        tlpipe.classify(broken, photos, tmp_path / "c.csv", columns=Columns(unknown=True))


def test_too_few_images_leave_both_out_and_say_so(tiny_card: Card, tmp_path: Path) -> None:
    tlpipe.embed(write_classes(tmp_path / "in", 4), tmp_path / "f.h5", backbone=tiny_card)
    result = tlpipe.train_head(tmp_path / "f.h5", tmp_path / "c.onnx")
    said = " ".join(result.notices)
    assert "to tell what belongs to no class with 5% false alarms" in said
    info = read_metadata(metadata(load_model(tmp_path / "c.onnx")), "it")
    assert info.unknown is None
    assert tlpipe.verify(tmp_path / "c.onnx").frozen
    assert ("cannot answer --sets" in said) == (info.sets is None)


def test_facts_are_in_the_file_and_survive_it(trained: Trained) -> None:
    info = read_metadata(metadata(load_model(trained.classifier)), "it")
    assert info.unknown is not None
    assert info.sets is not None
    assert info.unknown.false_alarms == 0.05
    assert info.unknown.held_out == info.sets.held_out >= 20
    assert read_metadata(info.to_metadata(), "it") == info
    found = tlpipe.inspect(trained.classifier).facts
    assert found["unknown"]["threshold"] == info.unknown.threshold
    assert found["sets"]["coverage"] == info.sets.coverage
    for name in ("unknown", "sets"):
        with pytest.raises(ClassifierError, match="is damaged"):
            read_metadata(info.to_metadata() | {name: '{"method": "x"}'}, "it")


def test_a_graph_that_gives_other_distances_is_not_written(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = knowing_module.novelty.scores
    monkeypatch.setattr(
        knowing_module.novelty, "scores", lambda model, vectors: 1.01 * original(model, vectors)
    )
    with pytest.raises(ExportError, match="The classifier's distances are"):
        tlpipe.train_head(trained.features, tmp_path / "c.onnx")
    assert list(tmp_path.iterdir()) == []
