"""Splits that are assigned: shares, groups, leaks, and that they stay."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import tlpipe
from conftest import write_classes
from tlpipe import SplitOptions
from tlpipe.card import Card
from tlpipe.cli.main import cli
from tlpipe.errors import (
    DamagedFileError,
    FeatureFileError,
    OptionError,
    OutputError,
    TableError,
)
from tlpipe.lock import writer_lock
from tlpipe.stages.splits import assign_splits, group_number
from tlpipe.stages.store import (
    FeatureFile,
    FeatureHeader,
    Rows,
    declared_backbone,
    feature_writer,
    read_features,
)
from tlpipe.stages.store.rows import stats_of
from tlpipe.types import Split
from tlpipe.workflows.leaks import content_numbers, shared_between_splits, shared_rows

TRAIN, VALIDATION, TEST, NONE = Split.TRAIN, Split.VALIDATION, Split.TEST, Split.NONE
FRACTIONS = {TRAIN: 0.7, VALIDATION: 0.1, TEST: 0.2}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


# The assignment itself


def assign(
    rows: list[tuple[int, int, int]],
    kept: list[int] | None = None,
    fractions: dict[Split, float] = FRACTIONS,
    seed: int = 0,
) -> list[int]:
    """Splits of rows of (label, group, content)."""
    labels, groups, names = (np.array(column) for column in zip(*rows, strict=True))
    heads = np.column_stack([names, names]).astype(np.uint64)
    found = assign_splits(
        np.array([NONE] * len(rows) if kept is None else kept, np.int8),
        labels.astype(np.int32),
        groups.astype(np.int64),
        content_numbers(heads),
        heads,
        fractions,
        seed,
    )
    return [int(split) for split in found]


ROWS = st.lists(
    st.tuples(st.integers(-1, 2), st.integers(-1, 12), st.integers(0, 40)), min_size=1, max_size=60
)
PARTS = st.sampled_from(
    [
        FRACTIONS,
        {TRAIN: 0.8, VALIDATION: 0.0, TEST: 0.2},
        {TRAIN: 0.5, VALIDATION: 0.5, TEST: 0.0},
        {TRAIN: 0.0, VALIDATION: 0.0, TEST: 1.0},
    ]
)


@given(ROWS, PARTS, st.integers(0, 3))
@settings(deadline=None)
def test_no_group_and_no_content_stands_on_two_sides(
    rows: list[tuple[int, int, int]], parts: dict[Split, float], seed: int
) -> None:
    sides: dict[tuple[str, int], set[int]] = {}
    for (_, group, content), split in zip(rows, assign(rows, None, parts, seed), strict=True):
        assert parts[Split(split)] > 0
        sides.setdefault(("content", content), set()).add(split)
        if group >= 0:
            sides.setdefault(("group", group), set()).add(split)
    assert all(len(found) == 1 for found in sides.values())


@given(ROWS, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_rows_does_not_matter(rows: list[tuple[int, int, int]], random: Any) -> None:
    before = assign(rows)
    order = list(range(len(rows)))
    random.shuffle(order)
    after = assign([rows[i] for i in order])
    assert [before[i] for i in order] == after


@given(ROWS, ROWS, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_added_rows_move_none(
    rows: list[tuple[int, int, int]], more: list[tuple[int, int, int]], random: Any
) -> None:
    before = assign(rows)
    both = [*zip(rows, before, strict=True), *((row, int(NONE)) for row in more)]
    random.shuffle(both)
    after = assign([row for row, _ in both], [split for _, split in both])
    for (_, split), now in zip(both, after, strict=True):
        assert split in (NONE, now)
        assert now != NONE
    # A new row follows its group; or, where that is new, its content.
    groups = {row[1]: split for row, split in zip(rows, before, strict=True) if row[1] >= 0}
    contents = {row[2]: split for row, split in zip(rows, before, strict=True)}
    for (row, split), now in zip(both, after, strict=True):
        if split != NONE:
            continue
        if row[1] in groups:
            assert now == groups[row[1]]
        elif row[2] in contents:  # whose other rows may have been parted by their groups
            others = {groups[r[1]] for r, _ in both if r[2] == row[2] and r[1] in groups}
            assert now in {contents[row[2]], *others}


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=4),
    st.lists(st.integers(1, 5), min_size=1, max_size=8),
    PARTS,
    st.integers(0, 5),
)
@settings(deadline=None)
def test_shares_are_met_within_one_group(
    classes: list[int], sizes: list[int], parts: dict[Split, float], seed: int
) -> None:
    rows, content = [], 0
    for label, groups in enumerate(classes):
        for group in range(groups):
            for _ in range(sizes[group % len(sizes)]):
                rows.append((label, label * 1000 + group, content))
                content += 1
    found = Counter(
        (row[0], split) for row, split in zip(rows, assign(rows, None, parts, seed), strict=True)
    )
    wanted = [split for split, part in parts.items() if part > 0]
    for label, groups in enumerate(classes):
        total = sum(found[label, split] for split in parts)
        if groups >= len(wanted):
            assert all(found[label, split] for split in wanted)
        for split in wanted:
            exact = parts[split] * total
            # The last groups of a class may have to fill splits that have none of it.
            reserved = (len(wanted) - 1) * max(sizes)
            assert exact - reserved - max(sizes) < found[label, split] < exact + max(sizes) + 1e-9


@given(st.integers(10, 200), st.integers(0, 5))
@settings(deadline=None)
def test_single_images_meet_the_shares_within_one(count: int, seed: int) -> None:
    found = Counter(assign([(0, -1, n) for n in range(count)], seed=seed))
    for split, part in FRACTIONS.items():
        assert abs(found[split] - part * count) < 1


@given(ROWS)
@settings(deadline=None)
def test_filling_up_meets_the_shares_too(rows: list[tuple[int, int, int]]) -> None:
    first = [(0, -1, n) for n in range(100)]
    grown = [*first, *((0, -1, 1000 + n) for n in range(len(rows)))]
    before = assign(first)
    found = Counter(assign(grown, [*before, *[int(NONE)] * len(rows)]))
    for split, part in FRACTIONS.items():
        assert abs(found[split] - part * len(grown)) < 1


def test_seeds_assign_otherwise() -> None:
    rows = [(0, -1, n) for n in range(100)]
    found = {tuple(assign(rows, seed=seed)) for seed in range(5)}
    assert len(found) == 5
    assert assign(rows, seed=3) == assign(rows, seed=3)


def test_groups_of_several_classes_share_out_both() -> None:
    rows = [(label, group, 2 * group + label) for group in range(50) for label in (0, 1)]
    found = Counter((row[0], split) for row, split in zip(rows, assign(rows), strict=True))
    for label in (0, 1):
        assert [found[label, split] for split in (TRAIN, VALIDATION, TEST)] == [35, 5, 10]


def test_the_number_of_a_group() -> None:
    assert group_number("cat 7") == group_number("cat 7") != group_number("cat 8")
    assert 0 <= group_number("") < 2**63


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(-1, 2)), max_size=40))
def test_shared_rows_by_definition(rows: list[tuple[int, int]]) -> None:
    contents = np.array([c for c, _ in rows], np.int64)
    splits = np.array([s for _, s in rows], np.int8)
    sides: dict[int, list[tuple[int, int]]] = {}
    for row, (content, split) in enumerate(rows):
        sides.setdefault(content, []).append((row, max(split, 0)))
    expected = []
    for found in sides.values():
        other = next((row for row, side in found if side != found[0][1]), None)
        if other is not None:
            expected.append((found[0][0], other))
    assume(len(rows) > 0)
    assert shared_rows(contents, splits) == sorted(expected)


# Files


def feature_file(path: Path, rows: list[tuple[str, str | None, int]], **changes: Any) -> Path:
    """A feature file of rows of (key, label, content)."""
    backbone, fingerprint = declared_backbone("the tests")
    header = FeatureHeader(
        "0", fingerprint, backbone, "CPU", "fp32", "none", "/photos", "2026-01-01T00:00:00+00:00"
    )
    count = len(rows)
    contents = [content.to_bytes(2, "big") * 16 for _, _, content in rows]
    splits = changes.pop("splits", [NONE] * count)
    groups = changes.pop("groups", [-1] * count)
    header = replace(header, **changes)
    with feature_writer(path, header, 2) as writer:
        writer.add(
            Rows(
                keys=[key for key, _, _ in rows],
                content_sha256=np.frombuffer(b"".join(contents), np.uint8).reshape(-1, 32),
                stat=stats_of([(1, 2)] * count),
                labels=[label for _, label, _ in rows],
                splits=np.array(splits, np.int8),
                groups=np.array(groups, np.int64),
                vectors=np.array([[n, content] for n, (_, _, content) in enumerate(rows)], "f4"),
            )
        )
    return path


def plain(count: int) -> list[tuple[str, str | None, int]]:
    return [(f"o{n // 4}_{n % 4}.jpg", "ab"[n // 4 % 2], n) for n in range(count)]


def splits_of(path: Path) -> dict[str, int]:
    data = read_features(path)
    return dict(zip(data.keys, data.splits.tolist(), strict=True))


def test_a_file_is_split_in_place(tmp_path: Path) -> None:
    path = feature_file(tmp_path / "f.h5", [*plain(100), ("x", None, 999)])
    before = read_features(path)
    result = tlpipe.split(path)
    assert (result.kept, result.assigned, result.replaced) == (0, 101, False)
    assert result.report.counts["a", TEST] == result.report.counts["b", TEST] == 10
    assert result.report.shared.count == 0
    data = read_features(path)
    assert data.vectors.tobytes() == before.vectors.tobytes()
    assert data.keys == before.keys
    assert data.header == replace(before.header, splits_from=data.header.splits_from)
    assert json.loads(data.header.splits_from) == {
        "seed": 0,
        "fractions": {"train": 0.8, "validation": 0.0, "test": 0.2},
        "groups": None,
    }
    stamp = path.stat()
    again = tlpipe.split(path)
    assert again.unchanged
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (stamp.st_ino, stamp.st_mtime_ns)


def test_another_recipe_assigns_anew(tmp_path: Path) -> None:
    path = feature_file(tmp_path / "f.h5", plain(100))
    tlpipe.split(path)
    first = splits_of(path)
    result = tlpipe.split(path, options=SplitOptions(seed=1))
    assert (result.replaced, result.assigned) == (True, 100)
    assert splits_of(path) != first
    tlpipe.split(path, options=SplitOptions())
    assert splits_of(path) == first
    assert tlpipe.split(path, options=SplitOptions(anew=True)).replaced
    assert splits_of(path) == first


def test_to_another_file(tmp_path: Path) -> None:
    path = feature_file(tmp_path / "f.h5", plain(40))
    raw = path.read_bytes()
    result = tlpipe.split(path, tmp_path / "g.h5", options=SplitOptions(validation=0.25))
    assert path.read_bytes() == raw
    assert Counter(splits_of(tmp_path / "g.h5").values()) == {TRAIN: 22, VALIDATION: 10, TEST: 8}
    assert result.path == tmp_path / "g.h5"
    with pytest.raises(OutputError, match="exists already"):
        tlpipe.split(path, tmp_path / "g.h5")
    with pytest.raises(OutputError, match="a file that this command reads"):
        tlpipe.split(path, path, overwrite=True)


def test_groups_by_a_pattern(tmp_path: Path) -> None:
    path = feature_file(tmp_path / "f.h5", [*plain(80), ("odd", "a", 500)])
    result = tlpipe.split(path, options=SplitOptions(group_pattern=r"(o\d+)_"))
    assert (result.report.groups, result.ungrouped) == (20, 1)
    data = read_features(path)
    assert data.groups[0] == group_number("o0") == data.groups[3]
    assert data.groups[-1] == -1
    for n in range(0, 80, 4):
        assert len(set(data.splits[n : n + 4].tolist())) == 1
    tlpipe.split(path, options=SplitOptions(group_pattern=r"^o\d+"))  # the whole match
    assert np.array_equal(read_features(path).groups, data.groups)


def test_groups_from_a_file(tmp_path: Path) -> None:
    path = feature_file(tmp_path / "f.h5", plain(40))
    table = tmp_path / "g.csv"
    lines = [f"{key},o{n // 8}" for n, (key, _, _) in enumerate(plain(40)) if n < 32]
    table.write_text("path,object\n" + "\n".join(lines) + "\nelsewhere.jpg,o1\n")
    result = tlpipe.split(path, options=SplitOptions(groups=f"{table}:object"))
    assert (result.report.groups, result.ungrouped) == (4, 8)
    assert json.loads(result.report.splits_from)["groups"] == {"column": "object"}
    assert len(set(read_features(path).splits[:8].tolist())) == 1
    with pytest.raises(TableError, match="no columns 'other'"):
        tlpipe.split(path, options=SplitOptions(groups=f"{table}:other"))
    with pytest.raises(TableError, match="does not exist"):
        tlpipe.split(path, options=SplitOptions(groups="nothing.csv:object"))
    table.write_text("path,object\na,1\na,2\n")
    with pytest.raises(TableError, match="two groups for 'a'"):
        tlpipe.split(path, options=SplitOptions(groups=f"{table}:object"))
    table.write_text("path,object\n" + "x" * 5_000_000)
    with pytest.raises(TableError, match="more than 4,194,304 characters"):
        tlpipe.split(path, options=SplitOptions(groups=f"{table}:object"))


def test_an_update_keeps_splits_and_split_fills_up(tmp_path: Path, tiny_card: Card) -> None:
    photos, path = write_classes(tmp_path / "photos", 10), tmp_path / "f.h5"
    tlpipe.embed(photos, path, backbone=tiny_card)
    tlpipe.split(path)
    before = splits_of(path)
    write_classes(tmp_path / "more", 10, seed=77)
    for image in (tmp_path / "more").rglob("*.png"):
        image.replace(photos / image.parent.name / f"new-{image.name}")
    tlpipe.embed(photos, path, backbone=tiny_card)
    after = splits_of(path)
    assert {key: after[key] for key in before} == before
    assert Counter(after.values())[NONE] == 30
    result = tlpipe.split(path)
    assert (result.kept, result.assigned) == (30, 30)
    after = splits_of(path)
    assert {key: after[key] for key in before} == before
    for label in ("red", "green", "blue"):
        assert result.report.counts[label, TEST] == 4
    trained = tlpipe.train_head(path, tmp_path / "c.onnx")
    assert trained.metrics.count == 12


def test_leaks_of_the_source_are_reported(tmp_path: Path) -> None:
    rows: list[tuple[str, str | None, int]] = [(f"k{n}", "a", n % 30) for n in range(60)]
    splits = [TRAIN] * 30 + [TEST] * 25 + [NONE] * 5
    path = feature_file(tmp_path / "f.h5", rows, splits=splits)
    raw = path.read_bytes()
    report = tlpipe.check_splits(path)
    assert (report.splits_from, report.shared.count) == ("source", 25)
    assert len(report.shared.pairs) == 20
    pair = report.shared.pairs[0]
    assert (pair.first, pair.first_split, pair.second, pair.second_split) == (
        "k0",
        TRAIN,
        "k30",
        TEST,
    )
    with FeatureFile(path) as file:
        assert len(shared_between_splits(file, most=3).pairs) == 3
    result = run("split", path, "--check")
    assert result.exit_code == 0, result.output
    assert "25 identical images stand in more than one split" in result.stderr
    assert "'k0' (train) = 'k30' (test)" in result.stderr
    assert "and 5 more" in result.stderr
    assert path.read_bytes() == raw
    assert tlpipe.split(path).report.shared.count == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test": 1.5}, "from 0 to 1"),
        ({"test": 0.6, "validation": 0.6}, "add up to 1"),
        ({"train": 0.5, "test": 0.2}, "add up to 1"),
        ({"test": float("nan")}, "from 0 to 1"),
        ({"seed": -1}, "at least 0"),
        ({"group_pattern": "("}, "no regular expression"),
        ({"groups": "file.csv"}, "no column"),
        ({"groups": "file.csv:"}, "no column"),
        ({"groups": "file.csv:a", "group_pattern": "a"}, "not from both"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        SplitOptions(**options)


def test_parts_that_are_left_out() -> None:
    assert list(SplitOptions(train=0.6, validation=0.1).fractions().values()) == [0.6, 0.1, 0.3]
    assert list(SplitOptions(test=0.1, validation=0.1).fractions().values()) == [0.8, 0.1, 0.1]


def test_whole_or_not_at_all(tmp_path: Path, leftovers: Callable[[], list[str]]) -> None:
    path = feature_file(tmp_path / "f.h5", plain(10))
    raw = bytearray(path.read_bytes())
    raw[raw.index(read_features(path).vectors.tobytes())] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DamagedFileError):
        tlpipe.split(path)
    assert path.read_bytes() == raw
    assert leftovers() == []
    with pytest.raises(FeatureFileError, match="does not exist"):
        tlpipe.split(tmp_path / "nothing.h5")
    with writer_lock(path):
        code = run_elsewhere(path)
    assert code == 1


def run_elsewhere(path: Path) -> int:
    """Exit code of a split in another process."""
    import subprocess
    import sys

    command = [sys.executable, "-m", "tlpipe", "split", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Another process is writing" in done.stderr
    return done.returncode


def test_the_command(tmp_path: Path) -> None:
    path = feature_file(tmp_path / "f.h5", [*plain(80), ("x", None, 900)])
    result = run("split", path, "--validation", 0.1, "--group-pattern", r"^(o\d+)_")
    assert result.exit_code == 0, result.output
    assert "81 rows were assigned" in result.stderr
    assert "Of no group, so each its own: 1 image." in result.stderr
    assert "20 groups." in result.stderr
    assert "No image stands in more than one split." in result.stderr
    lines = [line.split() for line in result.stdout.splitlines() if line.strip()]
    assert lines[0] == ["class", "train", "validation", "test"]
    assert lines[2] == ["a", "28", "4", "8"]
    assert lines[4][:2] == ["(no", "label)"]
    result = run("split", path, "--validation", 0.1, "--group-pattern", r"^(o\d+)_")
    assert "is up to date" in result.stderr
    result = run("split", path, "--seed", 5)
    assert "not of this recipe, were replaced" in result.stderr
    result = run("split", path, "--check", "--seed", 5)
    assert result.exit_code == 1
    assert "takes no --seed" in result.stderr


# Merging


def test_files_are_merged(tmp_path: Path) -> None:
    a = feature_file(tmp_path / "a.h5", [("x", "b", 1), ("y", None, 2)], provider="CUDA")
    b = feature_file(
        tmp_path / "b.h5",
        [("z", "a", 3), ("x", "b", 1), ("w", "c", 4)],
        splits=[TEST, TEST, TRAIN],
        created_at="2025-06-01T00:00:00+00:00",
        source="/more",
    )
    c = feature_file(tmp_path / "c.h5", [("v", "a", 5)])
    result = tlpipe.merge([a, b, c], tmp_path / "m.h5")
    assert (result.count, result.repeated, result.other_splits) == (5, 1, 1)
    assert result.classes == ["a", "b", "c"]
    data = read_features(tmp_path / "m.h5")
    assert data.keys == ["x", "y", "z", "w", "v"]
    assert data.labels.tolist() == [1, -1, 0, 2, 0]
    assert data.splits.tolist() == [-1, -1, TEST, TRAIN, -1]
    assert data.vectors[:, 1].tolist() == [1, 2, 3, 4, 5]
    assert data.header.provider == "CPU, CUDA"
    assert data.header.created_at == "2025-06-01T00:00:00+00:00"  # the oldest
    assert data.header.source == "/photos; /more"
    assert data.header.splits_from == "source"


def test_files_that_agree_in_how_they_are_split(tmp_path: Path) -> None:
    for name, rows in (
        ("a", plain(20)),
        ("b", [(f"p{k}", label, 50 + n) for k, label, n in plain(20)]),
    ):
        tlpipe.split(feature_file(tmp_path / f"{name}.h5", rows))
    tlpipe.merge([tmp_path / "a.h5", tmp_path / "b.h5"], tmp_path / "m.h5")
    assert read_features(tmp_path / "m.h5").header.splits_from == SplitOptions().recipe()


def test_a_key_that_means_two_things(tmp_path: Path) -> None:
    a = feature_file(tmp_path / "a.h5", [(f"k{n}", "b", n) for n in range(9)])
    b = feature_file(tmp_path / "b.h5", [(f"k{n}", "b", n + 100) for n in range(9)])
    with pytest.raises(FeatureFileError, match=r"9 keys .* content: 'k0', .* 'k4' and 4 more"):
        tlpipe.merge([a, b], tmp_path / "m.h5")
    c = feature_file(tmp_path / "c.h5", [("k0", "c", 0), ("k1", None, 1)])
    with pytest.raises(FeatureFileError, match=r"2 images .* 'k0' \('b' and 'c'\), 'k1' \('b' and"):
        tlpipe.merge([a, c], tmp_path / "m.h5")
    assert not (tmp_path / "m.h5").exists()


def test_other_fingerprints_are_refused(tmp_path: Path, tiny_card: Card) -> None:
    a = feature_file(tmp_path / "a.h5", [("x", "b", 1)])
    backbone, fingerprint = declared_backbone("others")
    b = feature_file(tmp_path / "b.h5", [("y", "b", 1)], backbone=backbone, fingerprint=fingerprint)
    with pytest.raises(FeatureFileError) as refused:
        tlpipe.merge([a, b], tmp_path / "m.h5")
    assert fingerprint[:12] in refused.value.message
    assert "backbone: 'the tests' -> 'others'" in refused.value.message
    with pytest.raises(OptionError, match="not 1"):
        tlpipe.merge([a], tmp_path / "m.h5")
    with pytest.raises(OutputError, match="this command reads"):
        tlpipe.merge([a, b], a, overwrite=True)


def test_rejects_are_merged_but_for_those_with_a_row(tmp_path: Path, tiny_card: Card) -> None:
    photos = write_classes(tmp_path / "photos", 2)
    bad = photos / "red" / "bad.png"
    for name, content in (("a", b""), ("b", b"no image"), ("c", None)):
        bad.write_bytes(
            content if content is not None else next(photos.rglob("*.png")).read_bytes()
        )
        (photos / "blue" / "worse.png").write_bytes(b"")
        tlpipe.embed(photos, tmp_path / f"{name}.h5", backbone=tiny_card)
    files = [tmp_path / f"{name}.h5" for name in "abc"]
    result = tlpipe.merge(files, tmp_path / "m.h5")
    assert (result.count, result.rejects, result.repeated) == (7, 1, 12)
    with FeatureFile(tmp_path / "m.h5") as file:
        assert [key for key, _ in file.rejects()] == ["blue/worse.png"]
    result = tlpipe.merge(files[:2], tmp_path / "n.h5")
    assert result.rejects == 2
    unchanged = tlpipe.embed(photos, tmp_path / "m.h5", backbone=tiny_card)
    assert unchanged.embedded == 0


def test_many_rows_with_many_in_both(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files = []
    for name, first in (("a", 0), ("b", 5_000)):
        numbers = np.arange(first, first + 20_000)
        vectors = np.column_stack([numbers, numbers % 7]).astype(np.float32)
        keys = np.array([f"k{n}" for n in rng.permutation(numbers)])
        order = np.array([int(key[1:]) - first for key in keys])
        np.savez(tmp_path / f"{name}.npz", vectors=vectors[order], keys=keys)
        tlpipe.import_features(tmp_path / f"{name}.npz", tmp_path / f"{name}.h5", declare="x")
        files.append(tmp_path / f"{name}.h5")
    result = tlpipe.merge(files, tmp_path / "m.h5")
    assert (result.count, result.repeated) == (25_000, 15_000)
    data = read_features(tmp_path / "m.h5")
    assert [int(v) for v in data.vectors[:, 0]] == [int(key[1:]) for key in data.keys]


def test_the_merge_command(tmp_path: Path) -> None:
    a = feature_file(tmp_path / "a.h5", [("x", "b", 1), ("y", None, 2)])
    b = feature_file(tmp_path / "b.h5", [("x", "b", 1), ("z", "a", 3)], splits=[TEST, TEST])
    result = run("merge", a, b, "-o", tmp_path / "m.h5")
    assert result.exit_code == 0, result.output
    assert "3 embeddings of 2 numbers, 2 classes, 0 rejected" in result.stderr
    assert "an earlier file has it: 1 row." in result.stderr
    assert "1 of them had another split" in result.stderr
