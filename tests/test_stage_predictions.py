from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stored import write_predictions
from tlpipe.card import Card
from tlpipe.errors import ClassifierError
from tlpipe.stages.classifier import ClassifierInfo, read_metadata
from tlpipe.stages.predictions import Columns
from tlpipe.types import Content, FileStat, Item, Outcome, Reason, Reject, Stage

CLASSES = ["cat", 'do"g,', "ü"]


def good(key: str, *probabilities: float) -> Outcome:
    values = {"probabilities": np.array(probabilities, np.float32)}
    return Outcome(Item(key, key), Content(b"", FileStat()), values)


OUTCOMES = [
    good("a.png", 0.1, 0.7, 0.2),
    Outcome(Item("b,\n.png", Path("b")), reject=Reject(Stage.DECODE, Reason.TRUNCATED, "It ends.")),
    good("c.png", 0.25, 0.25, 0.5),
]


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    summary = write_predictions(path, CLASSES, Columns(2), OUTCOMES)
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    assert rows == [
        ["key", "status", "class", "probability", "class_2", "probability_2", "reason", "detail"],
        ["a.png", "ok", 'do"g,', "0.700000", "ü", "0.200000", "", ""],
        ["b,\n.png", "rejected", "", "", "", "", "truncated", "It ends."],
        ["c.png", "ok", "ü", "0.500000", "cat", "0.250000", "", ""],
    ]
    assert summary.classes == {'do"g,': 1, "ü": 1}
    assert summary.rejects == {"truncated": 1}


def test_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    write_predictions(path, CLASSES, Columns(2), OUTCOMES)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert rows == [
        {
            "key": "a.png",
            "status": "ok",
            "class": 'do"g,',
            "probability": 0.7,
            "top": [{"class": 'do"g,', "probability": 0.7}, {"class": "ü", "probability": 0.2}],
        },
        {
            "key": "b,\n.png",
            "status": "rejected",
            "reason": "truncated",
            "detail": "It ends.",
        },
        {
            "key": "c.png",
            "status": "ok",
            "class": "ü",
            "probability": 0.5,
            "top": [{"class": "ü", "probability": 0.5}, {"class": "cat", "probability": 0.25}],
        },
    ]


def test_one_class_per_row_needs_no_list(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    write_predictions(path, CLASSES, Columns(1), OUTCOMES[:1])
    assert "top" not in json.loads(path.read_text(encoding="utf-8"))


def labelled(key: str, labels: list[bool], *probabilities: float) -> Outcome:
    outcome = good(key, *probabilities)
    return replace(outcome, values={**outcome.values, "labels": np.array(labels)})


@pytest.mark.parametrize("top_k", [None, 1, 2])
def test_several_labels(tmp_path: Path, top_k: int | None) -> None:
    classes = ["a|b", "c\\", "d"]
    outcomes = [
        labelled("1", [True, True, False], 0.4, 0.9, 0.45),
        labelled("2", [False, False, False], 0.1, 0.2, 0.3),
        OUTCOMES[1],
    ]
    for name in ("p.csv", "p.jsonl"):
        summary = write_predictions(
            tmp_path / name, classes, Columns(top_k), outcomes, multilabel=True
        )
        assert (summary.images, summary.without) == (2, 1)
        assert summary.classes == {"a|b": 1, "c\\": 1}
        assert summary.rejects == {"truncated": 1}
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["labels"] for row in rows] == [r"c\\|a\|b", "", ""]
    assert [row["reason"] for row in rows] == ["", "", "truncated"]
    first = [rows[0].get(name) for name in ("class", "probability", "class_2", "probability_2")]
    cells = ["c\\", "0.900000", "d", "0.450000"]
    assert first == [*cells[: 2 * (top_k or 0)], *[None] * (4 - 2 * (top_k or 0))]
    lines = (tmp_path / "p.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    top = [{"class": "c\\", "probability": 0.9}, {"class": "d", "probability": 0.45}]
    expected = {"key": "1", "status": "ok", "labels": ["c\\", "a|b"]}
    assert found[0] == expected | ({"top": top[:top_k]} if top_k else {})
    assert found[1]["labels"] == []
    assert "labels" not in found[2]


def test_a_failure_leaves_nothing(tmp_path: Path, leftovers: Callable[[], list[str]]) -> None:
    def failing():
        yield OUTCOMES[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_predictions(tmp_path / "p.csv", CLASSES, Columns(1), failing())
    assert not (tmp_path / "p.csv").exists()
    assert leftovers() == []


@pytest.fixture
def info(tiny_card: Card) -> ClassifierInfo:
    return ClassifierInfo(
        classes=tuple(CLASSES),
        image_size=tiny_card.image_size,
        preprocess=tiny_card.preprocess,
        backbone=json.loads(tiny_card.to_json()),
        training={"C": 1.0},
        metrics={},
        tlpipe_version="1",
        created_at="now",
        fingerprint=tiny_card.fingerprint(precision="fp32", decoder="d"),
        precision="fp32",
        decoder="d",
        backbone_digest="e",
    )


def test_metadata_survive_the_file(info: ClassifierInfo) -> None:
    flat = info.to_metadata()
    assert all(isinstance(value, str) for value in flat.values())
    assert read_metadata(flat, "it") == info


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "it is an ONNX file, but no classifier of tlpipe"),
        ({"format_version": "2"}, "has the format version '2'; this tlpipe reads up to 1"),
        ({"format_version": "x"}, "has the format version 'x'"),
        ({"classes": "{"}, "it is damaged. Expecting"),
        ({"classes": "[" * 100_000}, "it is damaged. maximum recursion"),
        ({"fingerprint": None}, r"it is damaged. The metadata of it lacks \['fingerprint'\]"),
        ({"fingerprint": "0"}, "The preprocessing or fingerprint of it is not its card's"),
        ({"classes": "3"}, "'classes' is 3"),
        ({"classes": '["a", "a"]'}, r"The classes of it are \['a', 'a'\]"),
        ({"image_size": "[1]"}, r"'image_size' is \[1\]"),
        ({"image_size": "[16, 17]"}, "The preprocessing or fingerprint of it is not its card's"),
        ({"preprocess": "{}"}, "'preprocess' lacks"),
        ({"backbone": "[]"}, "it must be of type dict"),
        ({"backbone": "{}"}, "lacks 'schema'"),
        ({"metrics": "[]"}, "it must be of type dict"),
    ],
)
def test_wrong_metadata_are_refused(
    info: ClassifierInfo, changes: dict[str, str | None], message: str
) -> None:
    flat = {k: v for k, v in (info.to_metadata() | changes).items() if v is not None}
    with pytest.raises(ClassifierError, match=message):
        read_metadata(flat, "it")
