"""Comparing backbones: which images, how sure, at what cost; on embeddings made up."""

from __future__ import annotations

import hashlib
import json
import re
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

from conftest import tiny_network, with_header
from feature_files import header_of
from tlpipe import compare
from tlpipe.card import Card
from tlpipe.cli.main import cli
from tlpipe.errors import FeatureFileError, OptionError, OutputError, TrainingDataError
from tlpipe.stages.metrics import Difference, PerImage, joint_level, judge_each, paired
from tlpipe.stages.store import Rows, declared_backbone, feature_writer, read_features
from tlpipe.stages.store.rows import stats_of
from tlpipe.types import Split
from tlpipe.workflows import compare as workflow
from tlpipe.workflows import costs, cross_judging
from tlpipe.workflows.cross_judging import plan_judging
from tlpipe.workflows.matching import described, match, vectors_at
from tlpipe.workflows.recommend import Candidate, best_of, recommend

ROOT = Path(__file__).parents[1]
DIM = 8
NAMES = ("ant", "bee", "cow")


def rows_of(count: int = 240, noise: float = 0.6, seed: int = 0) -> Rows:
    """Images of three classes; with more `noise`, embeddings tell less of them."""
    numbers = np.arange(count) % 3
    keys = [f"{NAMES[k]}/{i:04d}.png" for i, k in enumerate(numbers)]
    contents = b"".join(hashlib.sha256(key.encode()).digest() for key in keys)
    random = np.random.default_rng(seed).normal(size=(count, DIM))
    return Rows(
        keys=keys,
        content_sha256=np.frombuffer(contents, np.uint8).reshape(count, 32),
        stat=stats_of([(1, 1)] * count),
        labels=[NAMES[k] for k in numbers],
        splits=np.full(count, Split.NONE, np.int8),
        groups=np.full(count, -1, np.int64),
        vectors=(np.eye(3, DIM)[numbers] + noise * random).astype(np.float32),
    )


def taken(rows: Rows, at: Any) -> Rows:
    """Some rows, in the order of `at`."""
    at = np.asarray(at)
    assert rows.vectors is not None
    return replace(
        rows,
        keys=[rows.keys[i] for i in at],
        content_sha256=rows.content_sha256[at],
        stat=rows.stat[at],
        labels=[rows.labels[i] for i in at],
        splits=rows.splits[at],
        groups=rows.groups[at],
        vectors=rows.vectors[at],
    )


@pytest.fixture
def write(tmp_path: Path, tiny_card: Card) -> Any:
    def written(name: str, rows: Rows, **changes: str) -> Path:
        path = tmp_path / name
        with feature_writer(path, replace(header_of(tiny_card), **changes), DIM) as writer:
            writer.add(rows)
        return path

    return written


def run(*arguments: object) -> Any:
    return CliRunner().invoke(cli, ["compare", *map(str, arguments)])


# How sure a difference is


def test_differences_by_definition() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 50)
    one, other = (rng.dirichlet(np.ones(3), 50) for _ in range(2))
    a, b = judge_each(one, labels), judge_each(other, labels)
    accuracy, loss = paired(a, b, 0.95)
    right = [(p.argmax(axis=1) == labels).mean() for p in (one, other)]
    losses = [-np.log(p[np.arange(50), labels]) for p in (one, other)]
    assert accuracy.value == pytest.approx(right[0] - right[1])
    assert loss.value == pytest.approx(losses[0].mean() - losses[1].mean())
    expected = stats.ttest_rel(*losses).confidence_interval(0.95)
    assert (loss.low, loss.high) == pytest.approx(tuple(expected), abs=1e-4)
    assert accuracy.low < accuracy.value < accuracy.high


@pytest.mark.parametrize("level", [0.95, 0.99])
def test_intervals_cover_what_they_say(level: float) -> None:
    """Two classifiers that are right in 92 and 90 %, mostly on the same images, of 150."""
    rng, covered = np.random.default_rng(1), np.zeros(2)
    for _ in range(1500):
        kind = rng.choice(4, 150, p=[0.88, 0.04, 0.02, 0.06])  # both, one, other, neither
        hard = rng.gamma(0.5, 1, 150)  # skewed, as losses are
        a = PerImage((kind == 0) | (kind == 1), hard + rng.gamma(0.3, 0.5, 150))
        b = PerImage((kind == 0) | (kind == 2), hard + rng.gamma(0.3, 0.4, 150))
        found = paired(a, b, level)
        covered += [d.low <= t <= d.high for d, t in zip(found, (0.02, 0.03), strict=True)]
    assert np.all(np.abs(covered / 1500 - level) < 0.02)


def test_intervals_of_all_pairs_hold_at_once() -> None:
    assert joint_level(2) == pytest.approx(0.95)
    assert joint_level(4) == pytest.approx(1 - 0.05 / 6)


def test_noise_is_no_winner(write: Any) -> None:
    """Of five files that are equally good, none is told from the best but by rare chance."""
    told = 0
    for trial in range(2):
        files = [write(f"{trial}-{i}.h5", rows_of(seed=10 * trial + i)) for i in range(5)]
        result = compare(files, speed=False)
        told += sum(f.accuracy is not None and f.accuracy.distinguishable for f in result.files)
    assert told == 0


def test_a_large_difference_is_found(write: Any) -> None:
    good, bad = write("good.h5", rows_of(noise=0.4)), write("bad.h5", rows_of(noise=2))
    result = compare([bad, good], speed=False)
    assert (result.best, result.recommended) == (1, 1)
    accuracy, loss = result.files[0].accuracy, result.files[0].log_loss
    assert accuracy is not None
    assert loss is not None
    assert accuracy.high < -0.1
    assert loss.low > 0.1
    assert result.files[1].accuracy is None
    low, high = result.files[0].metrics.intervals["accuracy"]
    assert low < result.files[0].metrics.accuracy < high
    assert "is distinguishably less accurate" in result.recommendation


# Which images


def test_order_and_missing_rows_do_not_matter(write: Any) -> None:
    rows = rows_of()
    order = np.random.default_rng(0).permutation(240)[:200]
    whole, part = write("whole.h5", rows), write("part.h5", taken(rows, order))
    result = compare([whole, part], speed=False)
    assert [file.left_out for file in result.files] == [40, 0]
    assert result.common == result.judged == 200
    other = result.files[1]
    assert other.accuracy is not None
    assert other.log_loss is not None
    assert other.accuracy.value == other.log_loss.value == 0
    assert not other.accuracy.distinguishable
    assert not other.log_loss.distinguishable
    assert result.files[0].metrics == other.metrics
    assert "40 of 240 images are left out" in result.notices[0]


def test_vectors_come_in_the_order_asked_for(write: Any) -> None:
    path = write("a.h5", rows_of())
    at = np.random.default_rng(0).permutation(240)[:100]
    np.testing.assert_array_equal(vectors_at(path, at), read_features(path).vectors[at])


def test_the_first_file_says_what_an_image_is(write: Any) -> None:
    rows = rows_of()
    labels = ["bee", "bee", *rows.labels[2:]]
    splits = rows.splits.copy()
    splits[:5] = Split.VALIDATION
    groups = rows.groups.copy()
    groups[10:14] = 7
    a = write("a.h5", rows)
    b = write("b.h5", replace(rows, labels=labels, splits=splits, groups=groups))
    notices = compare([a, b], speed=False).notices
    assert "another label than" in notices[0]
    assert "for 1 images, such as 'ant/0000.png' ('bee', not 'ant')" in notices[0]
    assert "another split than" in notices[1]
    assert "for 5 images" in notices[1]
    assert "another group than" in notices[2]
    assert "for 4 images" in notices[2]


def test_groups_of_other_numbers_are_the_same_groups(write: Any) -> None:
    rows = replace(rows_of(), groups=np.arange(240, dtype=np.int64) // 2)
    a, b = write("a.h5", rows), write("b.h5", replace(rows, groups=500 - rows.groups))
    assert match([described(a), described(b)]).notices == []


def test_nothing_in_common(write: Any) -> None:
    rows = rows_of(60)
    a = write("a.h5", rows)
    changed = write("changed.h5", replace(rows, content_sha256=rows.content_sha256[::-1]))
    renamed = write("renamed.h5", replace(rows, keys=[f"x/{key}" for key in rows.keys]))
    with pytest.raises(FeatureFileError, match=r"have a key of the first.*have changed since"):
        compare([a, changed])
    with pytest.raises(FeatureFileError, match=r"a content of the first.*the same source"):
        compare([a, renamed])
    halves = [write("0.h5", taken(rows, range(30))), write("1.h5", taken(rows, range(30, 60)))]
    with pytest.raises(FeatureFileError, match="No image stands in all 3"):
        compare([a, *halves])


def test_a_key_that_stands_there_twice(write: Any) -> None:
    rows = rows_of(60)
    twice = taken(rows, [*range(60), 3])
    common = match([described(write("a.h5", twice)), described(write("b.h5", twice))])
    assert common.rows[1].tolist() == list(range(61))


def test_classes_that_no_common_image_has(write: Any) -> None:
    rows = rows_of()
    kept = [i for i, label in enumerate(rows.labels) if label != "bee"]
    result = compare([write("a.h5", rows), write("b.h5", taken(rows, kept))], speed=False)
    assert result.classes == ["ant", "cow"]
    assert any("No common image is of ['bee']" in notice for notice in result.notices)


# What judges


def judging_of(write: Any, rows: Rows, judge_on: Any = "training") -> tuple[Any, Any]:
    common = match([described(write("j.h5", rows))])
    return common, plan_judging(common, judge_on, 0)


def test_each_image_is_judged_once_by_a_head_that_does_not_know_it(write: Any) -> None:
    rows = replace(rows_of(), groups=np.arange(240, dtype=np.int64) // 6)
    common, found = judging_of(write, rows)
    assert len(found.plans) == 6
    judged = np.concatenate([plan.judge for plan in found.plans])
    assert sorted(judged.tolist()) == found.rows.tolist() == list(range(240))
    for plan in found.plans:
        assert not set(common.groups[plan.judge]) & set(common.groups[plan.fit])
        assert plan.fit.size + plan.judge.size == 240
        for chosen, scored in plan.folds:
            assert not np.isin(np.concatenate([chosen, scored]), plan.judge).any()
    assert any("Images of a group stay together" in notice for notice in found.notices)


def test_the_test_split_is_not_used(write: Any) -> None:
    splits = (np.arange(240) % 8 == 0) * int(Split.TEST)
    rows = replace(rows_of(), splits=splits.astype(np.int8))
    assert rows.vectors is not None
    vectors = rows.vectors.copy()
    vectors[splits == Split.TEST] = 1e3
    a, b = write("a.h5", rows), write("b.h5", replace(rows, vectors=vectors))
    result = compare([a, b], speed=False)
    assert result.judged == 210
    assert "the test split is not used" in result.judged_on
    assert result.files[0].metrics == result.files[1].metrics
    on_test = compare([a, b], judge_on="test", speed=False)
    assert (on_test.judged, on_test.heads) == (30, 1)
    assert on_test.judged_on == "the source's test split"
    assert on_test.files[0].metrics != on_test.files[1].metrics


@pytest.mark.parametrize(
    ("validation", "judged_on"), [(True, "the source's validation"), (False, "about a fifth")]
)
def test_of_many_images_a_part_judges(
    write: Any, monkeypatch: pytest.MonkeyPatch, validation: bool, judged_on: str
) -> None:
    monkeypatch.setattr(cross_judging, "MANY", 200)
    splits = np.where(np.arange(240) % 7 < validation, Split.VALIDATION, Split.NONE)
    splits[::8] = Split.TEST
    common, found = judging_of(write, replace(rows_of(), splits=splits.astype(np.int8)))
    assert len(found.plans) == 1
    assert found.judged_on.startswith(judged_on)
    assert not (common.splits[found.rows] == Split.TEST).any()
    assert 20 < found.rows.size < 80


def test_images_without_a_label_or_alone_in_their_class(write: Any) -> None:
    rows = rows_of(61)
    labels = [None, *rows.labels[1:60], "dodo"]
    _, found = judging_of(write, replace(rows, labels=labels))
    assert found.rows.tolist() == list(range(1, 60))
    assert "1 common images have no label" in found.notices[0]
    assert "No image of ['dodo'] was left" in found.notices[1]


def test_too_few_images(write: Any) -> None:
    rows = rows_of(3)
    a = write("a.h5", rows)
    with pytest.raises(TrainingDataError, match="No class has two images"):
        compare([a, a])
    with pytest.raises(TrainingDataError, match="None of the 3 embeddings has a label"):
        compare([write("b.h5", replace(rows, labels=[None] * 3))] * 2)
    tested = replace(rows_of(60), splits=np.where(np.arange(60) == 1, 2, 0).astype(np.int8))
    with pytest.raises(TrainingDataError, match="1 common images can be judged"):
        compare([write("c.h5", tested)] * 2, judge_on="test")


# What it costs


def test_each_network_is_timed_once(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    timed = []

    def seconds(network: Any, images: Any, seconds: float) -> tuple[float, int]:
        assert network.run(images)["embeddings"].shape == (1, DIM)
        timed.append(seconds)
        return 0.002 * len(timed), 4

    monkeypatch.setattr(costs, "cpu_seconds", seconds)
    files = [write("a.h5", rows_of()), write("b.h5", rows_of(), decoder="draft2-fir-1")]
    result = compare(files)
    assert timed == [workflow._SPEED_S]
    for file in result.files:
        assert (file.cost.inference_s, file.cost.device) == (0.002, "cpu")
        assert file.cost.network_bytes is not None
        last_layer = 4 * 5 * (DIM + 1)
        size = len(tiny_network().SerializeToString())
        assert 1000 < file.cost.network_bytes < size - last_layer + 2000
        assert file.cost.head_s > 0
        assert file.cost.stored_bytes == file.path.stat().st_size / 240


def test_a_network_is_timed(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow, "_SPEED_S", 0.01)
    path = write("a.h5", rows_of(60))
    first, second = compare([path, path]).files
    assert first.cost.inference_s == second.cost.inference_s
    assert first.cost.inference_s is not None
    assert 0 < first.cost.inference_s < 0.1


def test_costs_that_are_not_known(write: Any) -> None:
    backbone, fingerprint = declared_backbone("CLIP")
    a = write("a.h5", rows_of())
    b = write("b.h5", rows_of(seed=1), backbone=backbone, fingerprint=fingerprint)
    card = json.loads(header_of_file(a).backbone)
    card["weights"] |= {"file": "/nowhere/else.onnx", "sha256": "0" * 64}  # not prepared before
    c = write("c.h5", rows_of(seed=2), backbone=json.dumps(card))
    d = write("d.h5", rows_of(seed=3), precision="fp8/abacus")
    result = compare([a, b, c, d], speed=False)
    assert [file.cost.network_bytes is None for file in result.files] == [False, True, True, True]
    assert result.files[1].backbone == "CLIP"
    unknown = [notice for notice in result.notices if "is not known of" in notice]
    assert len(unknown) == 3
    assert "made elsewhere, by 'CLIP'" in unknown[0]
    assert "no such file" in unknown[1]
    assert "'fp8/abacus', which is unknown" in unknown[2]
    assert "embeddings of 8 numbers" in result.recommendation


def header_of_file(path: Path) -> Any:
    return described(path).header


def test_one_files_vectors_are_in_memory_at_a_time(
    write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[weakref.ref[Any]] = []

    def watched(path: Path, rows: Any) -> Any:
        assert all(ref() is None for ref in alive)
        vectors = vectors_at(path, rows)
        alive.append(weakref.ref(vectors))
        return vectors

    monkeypatch.setattr(workflow, "vectors_at", watched)
    compare([write(f"{i}.h5", rows_of(60, seed=i)) for i in range(3)], speed=False)
    assert len(alive) == 3


# What is recommended


def candidate(name: str, accuracy: float, low: float | None, cost: float, **more: Any) -> Candidate:
    best = low is None
    difference = (
        None if low is None else Difference(accuracy - 0.9, low, 2 * (accuracy - 0.9) - low)
    )
    fields = {"inference_s": cost, "size_bytes": int(1e6 * cost), "dim": 8} | more
    loss = more.pop("log_loss_difference", None if best else Difference(0.0, -0.1, 0.1))
    fields["log_loss_difference"] = loss
    return Candidate(name, accuracy, 0.3, difference, **fields)


@pytest.mark.parametrize(
    ("candidates", "index", "words"),
    [
        (
            [candidate("A", 0.9, None, 9), candidate("B", 0.895, -0.015, 5)],
            1,
            ["Use B: it costs less (5000.00 ms per image) than A (9000.00", "-0.50 points of"],
        ),
        (
            [candidate("A", 0.9, None, 9), candidate("B", 0.88, -0.05, 5)],
            1,
            ["(-5.00 to +1.00)", "More images would tell"],
        ),
        (
            [candidate("A", 0.9, None, 9), candidate("B", 0.8, -0.15, 5)],
            0,
            ["Use A: the other, B, is distinguishably less accurate: -10.00 points"],
        ),
        (
            [candidate("A", 0.9, None, 5.2), candidate("B", 0.895, -0.015, 5)],
            0,
            ["Use A: it is the most accurate (0.9000)", "B cannot be told from it, but does not"],
        ),
        (
            [
                candidate("A", 0.9, None, 9),
                candidate("B", 0.895, -0.015, 5),
                candidate("C", 0.8, -0.15, 1),
            ],
            1,
            ["Use B", "The cheapest, C (1000.00 ms per image), is worse: -10.00 points"],
        ),
        (
            [
                candidate("A", 0.9, None, 9),
                candidate("B", 0.895, -0.015, 5, inference_s=None),
            ],
            1,
            ["a network of 5.0 MB"],
        ),
        (
            [
                candidate("A", 0.9, None, 9),
                candidate("B", 0.895, -0.015, 5, log_loss_difference=Difference(0.02, 0.01, 0.03)),
            ],
            1,
            ["the log loss is higher by 0.0200 (0.0100 to 0.0300)"],
        ),
    ],
)
def test_the_recommendation(candidates: list[Candidate], index: int, words: list[str]) -> None:
    found = recommend(candidates, 0)
    assert found.index == index
    for some in words:
        assert some in found.text


def test_the_best() -> None:
    assert best_of([0.8, 0.9, 0.9, 0.9], [0.1, 0.5, 0.4, 0.4]) == 2


# The command, and the file


def test_the_json_file_is_as_specified(write: Any, tmp_path: Path) -> None:
    a, b = write("a.h5", rows_of()), write("b.h5", rows_of(noise=2))
    result = compare([a, b], tmp_path / "c.json", speed=False)
    found = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    marks = {"format": "tlpipe-comparison", "format_version": 1}
    assert found == json.loads(json.dumps(marks | result.to_dict()))
    text = (ROOT / "docs" / "how-to" / "compare.md").read_text(encoding="utf-8")
    table = text.split("## From Python")[1]
    named = set(re.findall(r"`([a-z0-9_]+)`", table))
    nested = [found["files"][1]["cost"], found["files"][1]["difference"]]
    fields = {*found, *found["files"][0], *(key for part in nested for key in part)}
    assert fields <= named
    assert found["files"][0]["difference"] is None
    difference = found["files"][1]["difference"]["accuracy"]
    assert set(difference) == {"value", "low", "high", "distinguishable"}
    assert difference["distinguishable"] is True
    assert found["files"][0]["metrics"]["count"] == found["judged"] == 240


def test_the_same_twice(write: Any) -> None:
    files = [write("a.h5", rows_of()), write("b.h5", rows_of(seed=1))]
    one, other = (compare(files, speed=False, seed=3).to_dict() for _ in range(2))
    for found in (one, other):
        for file in found["files"]:
            file["cost"].pop("head_s")
    assert one == other


def test_the_command(write: Any, tmp_path: Path) -> None:
    files = [write(name, rows_of(seed=i)) for i, name in enumerate(("lite0.h5", "lite1.h5"))]
    result = run(*files, "--no-speed", "-o", tmp_path / "c.json")
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines()[:-1])) <= 100
    assert "6-fold cross-validation: 240 images of 240 in common, 3 classes" in result.stdout
    assert "Use 'lite" in result.stdout
    found = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    for file in found["files"]:
        assert f"{file['metrics']['accuracy']:.4f}" in result.stdout
    assert "exists" in run(*files, "-o", tmp_path / "c.json").output


def test_files_of_one_name_are_told_by_their_folder(write: Any, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    files = [write("a.h5", rows_of(60)), write("x/a.h5", rows_of(60))]
    assert [f.name for f in compare(files, speed=False).files] == [str(path) for path in files]


def test_wrong_usage(write: Any, tmp_path: Path, tiny_card: Card) -> None:
    a = write("a.h5", rows_of(60))
    with pytest.raises(OptionError, match="two or more feature files to compare, not 1"):
        compare([a])
    with pytest.raises(OptionError, match="no labelled test split"):
        compare([a, a], judge_on="test")
    with pytest.raises(OptionError, match="'all', which is unknown"):
        compare([a, a], judge_on="all")  # type: ignore[arg-type]
    with pytest.raises(OutputError, match=r"must end in \.json"):
        compare([a, a], tmp_path / "c.txt")
    with pytest.raises(FeatureFileError):
        compare([a, tmp_path / "missing.h5"])
    assert run(a).exit_code == 1
    assert run().exit_code == 2
    assert run(a, a, "--judge-on", "all").exit_code == 2
    (tmp_path / "no.h5").write_bytes(b"no feature file")
    result = run(a, tmp_path / "no.h5")
    assert result.exit_code == 1
    assert "no.h5" in result.output
    with_header(a, backbone="{}")
    with pytest.raises(FeatureFileError, match="damaged"):
        compare([a, a])
