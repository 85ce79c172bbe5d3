"""Audits: label errors, duplicates, leaks, outliers, and what is said where little can be."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

import tlpipe
from feature_files import header_of
from tlpipe.card import Card
from tlpipe.cli.main import cli
from tlpipe.errors import FeatureFileError, OptionError, OutputError
from tlpipe.stages import neighbours
from tlpipe.stages.label_errors import class_thresholds, confident_joint, find_label_errors
from tlpipe.stages.neighbours import joined, near_pairs
from tlpipe.stages.outliers import distances_from_classes
from tlpipe.stages.splits import FOLDS, stratified_folds
from tlpipe.stages.store import Rows, feature_writer
from tlpipe.stages.store.rows import stats_of
from tlpipe.types import Split
from tlpipe.workflows.row_checks import clusters_of


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def write(
    path: Path,
    card: Card,
    vectors: Any,
    labels: list[str | None],
    **columns: Any,
) -> Path:
    """A feature file; `contents`, `splits`, `groups` and `keys` where they matter."""
    count = len(vectors)
    keys = columns.get("keys", [f"{i:05d}.png" for i in range(count)])
    contents = columns.get("contents", range(count))
    digests = b"".join(hashlib.sha256(str(c).encode()).digest() for c in contents)
    rows = Rows(
        keys=keys,
        content_sha256=np.frombuffer(digests, np.uint8).reshape(count, 32),
        stat=stats_of([(i, i) for i in range(count)]),
        labels=labels,
        splits=np.array(columns.get("splits", [-1] * count), np.int8),
        groups=np.array(columns.get("groups", [-1] * count), np.int64),
        vectors=np.asarray(vectors, np.float32),
    )
    with feature_writer(path, header_of(card), vectors.shape[1]) as writer:
        writer.add(rows)
    return path


def blobs(count: int, dim: int = 8, classes: int = 3, seed: int = 0) -> tuple[Any, Any]:
    """Vectors of well separated classes, and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = 6 * np.eye(classes, dim)
    return (centres[labels] + rng.normal(size=(count, dim))).astype(np.float32), labels


# Label errors, against the definition


PROBABILITIES = np.array(
    [
        [0.9, 0.1, 0.0],  # label 0
        [0.8, 0.1, 0.1],
        [0.1, 0.8, 0.1],  # label 0, surely 1
        [0.2, 0.7, 0.1],  # label 1
        [0.1, 0.8, 0.1],
        [0.0, 0.4, 0.6],  # label 1, between 1 and 2
        [0.1, 0.1, 0.8],  # label 2
        [0.4, 0.4, 0.2],  # label 2, no class reaches its threshold
    ]
)
LABELS = np.array([0, 0, 0, 1, 1, 1, 2, 2])


def test_the_thresholds_are_mean_self_confidences() -> None:
    found = class_thresholds(PROBABILITIES, LABELS)
    assert found == pytest.approx([1.8 / 3, 1.9 / 3, 0.5])


def test_the_confident_joint_counts_by_hand() -> None:
    thresholds = class_thresholds(PROBABILITIES, LABELS)
    joint = confident_joint(PROBABILITIES, LABELS, thresholds)
    assert joint.tolist() == [[2, 1, 0], [0, 2, 1], [0, 0, 1]]


def test_the_estimate_scales_the_joint_to_all_labels() -> None:
    # Of class 2, one of two rows is counted, on the diagonal: it stands for two right labels.
    found = find_label_errors(PROBABILITIES, LABELS)
    assert found.estimated == 2
    assert found.joint.sum() == 7
    assert found.margin[2] == pytest.approx(0.1 - 0.8)
    assert found.suggested[[2, 5]].tolist() == [1, 2]
    # The label's probability by its threshold: 0.1 / 0.6 in row 2, 0.2 / 0.5 in row 7, and more in
    # all others. Both are below twice what strangers get: (0.2 + 0.1 + 0 + 0.1 + 0.4) / 5 for class
    # 0, and (0 + 0.1 + 0.1 + 0.1 + 0.1 + 0.6) / 6 for class 2.
    assert found.rows.tolist() == [2, 7]


def test_a_label_that_fits_better_than_strangers_is_not_suspect() -> None:
    probabilities = np.array([[0.9, 0.1]] * 6 + [[0.45, 0.55]] + [[0.02, 0.98]] * 6)
    labels = np.array([0] * 7 + [1] * 6)
    found = find_label_errors(probabilities, labels)
    assert found.margin[6] < 0
    assert found.rows.size == 0  # 0.45 is far above what class 1's rows give class 0


def test_a_row_of_probabilities_that_are_equal_has_another_class_suggested() -> None:
    found = find_label_errors(np.full((4, 2), 0.5), np.array([0, 1, 0, 1]))
    assert found.suggested.tolist() == [1, 0, 1, 0]
    assert found.rows.size == 0


def test_a_class_without_rows_is_never_confident() -> None:
    probabilities = np.array([[0.1, 0.1, 0.8], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1]])
    labels = np.array([0, 0, 1])
    thresholds = class_thresholds(probabilities, labels)
    assert thresholds[2] == np.inf
    assert confident_joint(probabilities, labels, thresholds)[:, 2].sum() == 0
    assert find_label_errors(probabilities, labels).suggested[0] == 2


# Folds


def folds_of(labels: Any, groups: Any, seed: int = 0, least: int = 3) -> Any:
    """For each row the fold that holds it out; -1 where none does."""
    labels, groups = np.array(labels, np.int32), np.array(groups, np.int64)
    digests = b"".join(hashlib.sha256(str(row).encode()).digest() for row in range(len(labels)))
    contents = np.frombuffer(digests, np.uint8).reshape(-1, 32)
    found = np.full(len(labels), -1)
    for fold, (train, held) in enumerate(
        stratified_folds(labels, groups, contents, seed, least=least)
    ):
        assert (found[held] == -1).all()
        assert sorted([*train, *held]) == np.flatnonzero(labels >= 0).tolist()
        found[held] = fold
    return found


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 25)), min_size=1, max_size=80),
    st.integers(0, 3),
    st.integers(2, 4),
)
@settings(deadline=None)
def test_units_stay_together_and_every_class_always_trains(
    rows: list[tuple[int, int]], seed: int, least: int
) -> None:
    labels, groups = np.array(rows).T
    folds = folds_of(labels, groups, seed, least)
    for group in np.unique(groups):
        assert len(set(folds[groups == group].tolist())) == 1
    for fold in set(folds.tolist()) - {-1}:
        assert set(labels[folds != fold].tolist()) == set(labels.tolist())
    for label in np.unique(labels):
        if len(set(groups[labels == label].tolist())) < least:
            assert (folds[labels == label] == -1).all()


def test_each_class_is_spread_evenly() -> None:
    labels, alone = np.repeat([0, 1, 2, -1], [100, 13, 5, 4]), np.full(122, -1)
    folds = folds_of(labels, alone)
    for label in range(3):
        counts = np.bincount(folds[labels == label], minlength=FOLDS)
        assert counts.max() - counts.min() <= 1
    assert (folds[labels == -1] == -1).all()
    assert not np.array_equal(folds, folds_of(labels, alone, seed=1))
    assert np.array_equal(folds, folds_of(labels, alone))


def test_groups_are_spread_too() -> None:
    labels, groups = np.repeat([0, 1], 60), np.arange(120) // 4
    folds = folds_of(labels, groups)
    for label in range(2):
        assert np.bincount(folds[labels == label], minlength=FOLDS).tolist() == [12] * FOLDS


# Near-duplicates


def found_pairs(vectors: Any, threshold: float, same: Any = None, sides: Any = None) -> Any:
    count = len(vectors)
    same = np.arange(count) if same is None else np.array(same)
    sides = np.zeros(count, np.int8) if sides is None else np.array(sides, np.int8)
    return near_pairs(np.asarray(vectors, np.float32), threshold, same, sides, most=1000)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("factor", [1e30, 1e-25])
def test_cosines_are_right_whatever_the_lengths(factor: float) -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32)
    vectors[9] = vectors[5]
    vectors[[3, 5, 9]] *= np.float32(factor)
    assert found_pairs(vectors, 0.95).pairs.rows.tolist() == [[5, 9]]


def all_pairs(vectors: Any, threshold: float) -> set[tuple[int, int]]:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    first, second = np.nonzero(np.triu(unit @ unit.T >= threshold, 1))
    return set(zip(first.tolist(), second.tolist(), strict=True))


@pytest.mark.parametrize("bound", [False, True])
@pytest.mark.parametrize("threshold", [0.7, 0.95])
def test_every_pair_is_found_also_across_blocks(
    bound: bool, threshold: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "_BLOCK", 16)
    monkeypatch.setattr(neighbours, "_WORTH", 8 if bound else 1000)
    monkeypatch.setattr(neighbours, "BASIS", 6)
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(70, 24)) * 10 ** rng.uniform(-3, 3, size=(70, 1))
    for near, of in ((17, 3), (69, 15), (16, 15), (60, 59), (5, 4)):
        vectors[near] = 5 * vectors[of] + 0.1 * np.abs(vectors[of]).mean() * rng.normal(size=24)
    expected = all_pairs(vectors, threshold)
    assert {(3, 17), (15, 69), (59, 60)} <= expected
    found = found_pairs(vectors, threshold)
    assert set(map(tuple, found.pairs.rows.tolist())) == expected
    assert found.pairs.count == len(expected)
    assert (np.diff(found.pairs.cosines) <= 0).all()


def test_the_bound_rules_pairs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    computed = []
    monkeypatch.setattr(neighbours, "_BLOCK", 64)
    monkeypatch.setattr(neighbours, "_WORTH", 8)
    monkeypatch.setattr(neighbours, "BASIS", 8)
    whole = neighbours._cosines
    monkeypatch.setattr(
        neighbours, "_cosines", lambda v, i, rows: computed.append(len(rows)) or whole(v, i, rows)
    )
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(200, 8)) @ rng.normal(size=(8, 64))
    vectors[150] = vectors[3]
    found = found_pairs(vectors + 1e-3 * rng.normal(size=(200, 64)), 0.999)
    assert found.pairs.rows.tolist() == [[3, 150]]
    assert len(computed) == 10
    assert sum(computed) < 20


def test_equal_vectors_reach_a_cosine_of_one_and_zeros_are_near_nothing() -> None:
    vectors = np.random.default_rng(0).normal(size=(6, 1280))
    vectors[4], vectors[1], vectors[2] = vectors[3], 0, 0
    found = found_pairs(vectors, 1.0)
    assert found.pairs.rows.tolist() == [[3, 4]]
    assert found.pairs.cosines[0] <= 1


def test_the_same_content_is_no_near_pair_but_speaks_once_for_each_side() -> None:
    vectors = np.ones((5, 4))
    same, sides = [0, 0, 0, 1, 2], [0, 0, 2, 2, 2]
    found = found_pairs(vectors, 0.9, same, sides)
    # Row 1 is row 0 again, on the same side.
    assert sorted(map(tuple, found.pairs.rows.tolist())) == [(0, 3), (0, 4), (2, 3), (2, 4), (3, 4)]
    assert sorted(map(tuple, found.across.rows.tolist())) == [(0, 3), (0, 4)]
    assert found.across.count == 2


def test_only_the_best_pairs_are_kept_but_all_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_BLOCK", 8)
    rng = np.random.default_rng(0)
    vectors = (1 + 0.1 * rng.normal(size=(40, 4))).astype(np.float32)
    whole = found_pairs(vectors, 0.5)
    few = near_pairs(vectors, 0.5, np.arange(40), np.zeros(40, np.int8), most=3)
    assert whole.pairs.count == few.pairs.count == 40 * 39 // 2
    assert few.pairs.rows.tolist() == whole.pairs.rows[:3].tolist()
    assert (few.clusters == 0).all()


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=40), st.integers(1, 40))
@settings(deadline=None)
def test_chains_become_clusters(pairs: list[tuple[int, int]], step: int) -> None:
    roots = np.arange(20)
    for start in range(0, len(pairs), step):
        roots = joined(roots, np.array(pairs[start : start + step]).reshape(-1, 2))
    expected = list(range(20))
    for a, b in pairs * 20:
        expected[a] = expected[b] = min(expected[a], expected[b])
    assert roots.tolist() == expected


def test_clusters_are_listed_by_size() -> None:
    found = clusters_of(np.array([5, 1, 5, 2, 1, 1]))
    assert [part.tolist() for part in found] == [[1, 4, 5], [0, 2]]


# Outliers


def test_what_is_far_from_all_classes_is_an_outlier() -> None:
    vectors, labels = blobs(300)
    vectors[7] = [0, 0, 0, 0, 0, 9, 0, 0]
    labels[8] = -1
    found = distances_from_classes(vectors, labels.astype(np.int32))
    assert found.nearest.argmax() == 7
    assert found.nearest[7] > found.limit
    assert np.isnan(found.own[8])
    assert found.nearest[8] < found.limit
    assert (np.delete(found.nearest, 8) <= np.delete(found.own, 8) * (1 + 1e-5)).all()


def test_a_row_is_not_near_to_itself_for_being_alone_in_its_class() -> None:
    vectors, labels = blobs(90)
    vectors[4], labels[4] = [0, 0, 0, 0, 0, 9, 0, 0], 3
    found = distances_from_classes(vectors, labels.astype(np.int32))
    assert found.nearest.argmax() == 4
    assert found.own[4] == np.inf


@pytest.mark.parametrize("count", [1, 3])
def test_few_rows_without_labels_have_distances(count: int) -> None:
    vectors = np.eye(3, 4, dtype=np.float32)[:count]
    found = distances_from_classes(vectors, np.full(count, -1, np.int32))
    assert np.isfinite(found.nearest).all() == (count > 1)
    assert np.isnan(found.own).all()


# The whole


@pytest.fixture
def planted(tmp_path: Path, tiny_card: Card) -> tuple[Path, list[int]]:
    """Blobs with wrong labels, exact and near-duplicates in two splits, and an outlier."""
    vectors, labels = blobs(300)
    rng = np.random.default_rng(1)
    wrong = sorted(rng.choice(200, 15, replace=False).tolist())
    given = labels.copy()
    given[wrong] = (given[wrong] + 1 + rng.integers(0, 2, 15)) % 3
    names: list[str | None] = [f"class{label}" for label in given]
    contents, splits = list(range(300)), [0] * 250 + [2] * 50
    vectors[299], contents[299], names[299] = vectors[240], 240, names[240]
    vectors[298] = vectors[241] * 2 + 0.01
    vectors[245], contents[245] = vectors[244], 244
    vectors[247] = [0, 0, 0, 0, 0, 9, 0, 0]
    names[248] = names[249] = None
    path = tmp_path / "features.h5"
    write(path, tiny_card, vectors, names, contents=contents, splits=splits)
    return path, wrong


def test_what_was_planted_is_found(planted: tuple[Path, list[int]]) -> None:
    path, wrong = planted
    result = tlpipe.audit(path, near=0.999)
    assert result.labels is not None
    found = {int(error.image.key[:5]) for error in result.labels.errors}
    assert len(found & set(wrong)) >= 12  # of 15
    assert len(found - set(wrong)) <= 3  # row 245 has the vector of another class
    assert result.labels.checked == 298
    for error in result.labels.errors:
        assert error.suggested != error.image.label
        assert error.self_confidence < error.suggested_probability
    assert [[i.key for i in c] for c in result.exact_duplicates] == [
        ["00240.png", "00299.png"],
        ["00244.png", "00245.png"],
    ]
    assert (result.near.count, len(result.near.clusters)) == (1, 1)
    assert (result.leaks.exact, result.leaks.near) == (1, 1)
    (exact,), (near,) = result.leaks.exact_pairs, result.leaks.near_pairs
    assert (exact.first.key, exact.first.split) == ("00240.png", "train")
    assert (exact.second.key, exact.second.split) == ("00299.png", "test")
    assert (near.first.key, near.second.key) == ("00241.png", "00298.png")
    assert result.outliers.ranked[0].image.key == "00247.png"
    assert result.outliers.count >= 1
    assert result.notices == []


def test_examples_are_of_their_class(planted: tuple[Path, list[int]]) -> None:
    result = tlpipe.audit(planted[0])
    assert [c.name for c in result.classes] == ["class0", "class1", "class2"]
    for found in result.classes:
        assert len(found.typical) == len(found.least_sure) == 10
        assert [e.score for e in found.typical] == sorted(e.score for e in found.typical)
        assert all(0 <= e.score < 1 for e in found.least_sure)
        assert all(e.score < 0 and e.guess != found.name for e in found.most_wrong)
        assert found.most_wrong
    assert sum(c.count for c in result.classes) == result.labelled == 298


def test_the_json_holds_all(planted: tuple[Path, list[int]], tmp_path: Path) -> None:
    output = tmp_path / "audit.json"
    done = run("audit", planted[0], "-o", output, "--near", 0.999, "--most", 2)
    assert done.exit_code == 0, done.output
    found = json.loads(output.read_text())
    assert (found.pop("format"), found.pop("format_version")) == ("tlpipe-audit", 1)
    assert found == json.loads(json.dumps(tlpipe.audit(planted[0], near=0.999).to_dict()))
    document = (Path(__file__).parents[1] / "docs" / "reference" / "audit.md").read_text(
        encoding="utf-8"
    )
    for name, value in found.items():
        assert f"`{name}`" in document
        for inner in value if isinstance(value, dict) else ():
            assert f"`{name}.{inner}`" in document
    assert "JSON" not in done.stdout
    assert run("audit", planted[0], "-o", output).exit_code == 1
    assert run("audit", planted[0], "-o", output, "--overwrite").exit_code == 0


def test_the_tables_fit_eighty_columns(planted: tuple[Path, list[int]]) -> None:
    done = run("audit", planted[0], "--near", 0.999, "--most", 3)
    assert done.exit_code == 0, done.output
    assert max(map(len, done.stdout.splitlines()[1:])) <= 80  # the first has the path
    for word in ("Label errors", "Exact dup", "Near-dup", "Leaks", "Outliers", "Typical", "Hard"):
        assert word in done.stdout
    assert "2 contents in several images" in done.stdout
    assert "00240.png [train]" in done.stdout


def test_long_names_fit_eighty_columns_too(tmp_path: Path, tiny_card: Card) -> None:
    vectors, labels = blobs(60, classes=2)
    labels[:2] = 1 - labels[:2]
    vectors[50], vectors[51] = vectors[0], vectors[1]
    names: list[str | None] = [f"{label}-of-a-class-with-a-long-name" for label in labels]
    keys = [f"train/a folder/with a name/{'x' * 40}{i:03d}.jpeg" for i in range(60)]
    splits = [2 if i >= 50 else 0 for i in range(60)]
    path = write(tmp_path / "f.h5", tiny_card, vectors, names, keys=keys, splits=splits)
    done = run("audit", path, "--near", 0.9999)
    assert done.exit_code == 0, done.output
    assert max(map(len, done.stdout.splitlines()[1:])) <= 80
    assert "...xxx000.jpeg (1-of-...) [train]   ...xxxx050.jpeg (0-of-...) [test]" in done.stdout


def test_a_group_does_not_vouch_for_its_own_label(tmp_path: Path, tiny_card: Card) -> None:
    """Twelve pictures of one object, all labelled wrong, in a corner of their own."""
    vectors, labels = blobs(240, classes=2)
    rng = np.random.default_rng(5)
    object_at = np.array([6, 0, 0, 0, 4, 0, 0, 0])
    vectors[:12] = object_at + 0.1 * rng.normal(size=(12, 8))
    names: list[str | None] = [f"class{label}" for label in labels]
    names[:12] = ["class1"] * 12
    groups = [7] * 12 + [-1] * 228
    apart = write(tmp_path / "a.h5", tiny_card, vectors, names)
    together = write(tmp_path / "b.h5", tiny_card, vectors, names, groups=groups)
    lone, grouped = (tlpipe.audit(path).labels for path in (apart, together))
    assert lone is not None
    assert grouped is not None

    def doubted(check: Any) -> int:
        return sum(int(error.image.key[:5]) < 12 for error in check.errors)

    assert doubted(lone) == 0
    assert doubted(grouped) == 12


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([None] * 3, "there are no labels"),
        (["a"] * 3, "there is one class only"),
        (["a", "a", "b"], "not checked: 3, of classes with fewer than 3"),
    ],
)
def test_little_data_has_clear_words(
    names: list[str | None], said: str, tmp_path: Path, tiny_card: Card
) -> None:
    vectors = np.eye(3, 8, dtype=np.float32)
    path = write(tmp_path / "few.h5", tiny_card, vectors, names)
    done = run("audit", path, "-o", tmp_path / "few.json")
    assert done.exit_code == 0, done.output
    assert said in done.stderr
    assert "Label errors: not looked for" in done.stdout
    found = json.loads((tmp_path / "few.json").read_text())
    assert found["labels"] is None
    assert "NaN" not in (tmp_path / "few.json").read_text()
    assert "Infinity" not in (tmp_path / "few.json").read_text()


def test_one_row(tmp_path: Path, tiny_card: Card) -> None:
    path = write(tmp_path / "f.h5", tiny_card, np.eye(1, 8, dtype=np.float32), ["a"])
    done = run("audit", path, "-o", tmp_path / "f.json")
    assert done.exit_code == 0, done.output
    assert ": 1 image\n" in done.stdout
    assert json.loads((tmp_path / "f.json").read_text())["near"]["count"] == 0


def test_several_labels_of_an_image_are_said_to_be_taken_as_one(
    tmp_path: Path, tiny_card: Card
) -> None:
    vectors, labels = blobs(60, classes=2)
    names: list[str | None] = [("cat|outdoor", "cat")[label] for label in labels]
    result = tlpipe.audit(write(tmp_path / "f.h5", tiny_card, vectors, names), near=0.9999)
    (notice,) = result.notices
    assert "Each is taken as one class" in notice


def test_a_zero_vector_is_near_to_nothing_and_damage_is_named(
    tmp_path: Path, tiny_card: Card
) -> None:
    vectors, labels = blobs(60)
    names: list[str | None] = [f"class{label}" for label in labels]
    vectors[3] = 0
    result = tlpipe.audit(write(tmp_path / "f.h5", tiny_card, vectors, names))
    assert not any("00003.png" in (p.first.key, p.second.key) for p in result.near.pairs)
    vectors[5] = np.nan
    done = run("audit", write(tmp_path / "g.h5", tiny_card, vectors, names))
    assert done.exit_code == 1
    assert "NaN" in done.stderr


def test_a_scarce_class_trains_but_is_not_judged(tmp_path: Path, tiny_card: Card) -> None:
    vectors, labels = blobs(62, classes=2)
    names: list[str | None] = [f"class{label}" for label in labels]
    names[60] = names[61] = "scarce"
    result = tlpipe.audit(write(tmp_path / "f.h5", tiny_card, vectors, names))
    assert result.labels is not None
    assert result.labels.checked == 60
    (notice,) = result.notices
    assert "not checked: 2, of classes with fewer than 3" in notice


def test_embeddings_that_are_all_alike_are_said_to_be(tmp_path: Path, tiny_card: Card) -> None:
    vectors = 100 + np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    result = tlpipe.audit(write(tmp_path / "f.h5", tiny_card, vectors, ["a", "b"] * 15))
    assert any("30 of 30 images" in notice for notice in result.notices)


def test_names_do_not_steer_the_terminal(tmp_path: Path, tiny_card: Card) -> None:
    vectors, labels = blobs(60, classes=2)
    names: list[str | None] = [f"class\x1b[2J{label}" for label in labels]
    keys = [f"{i:05d}\x1b[31m.png" for i in range(60)]
    done = run("audit", write(tmp_path / "f.h5", tiny_card, vectors, names, keys=keys))
    assert done.exit_code == 0
    assert "\x1b[2J" not in done.output
    assert "\x1b[31m" not in done.output


def test_progress_is_told(planted: tuple[Path, list[int]]) -> None:
    seen: list[Any] = []
    tlpipe.audit(planted[0], progress=seen.append)
    assert {at.stage for at in seen} == {"near-duplicates", "train-head"}
    assert any(at.done == at.total == 300 for at in seen)


def test_wrong_arguments_are_refused(planted: tuple[Path, list[int]], tmp_path: Path) -> None:
    for near in (0.0, 1.1, -1.0, float("nan")):
        with pytest.raises(OptionError, match="near is"):
            tlpipe.audit(planted[0], near=near)
    with pytest.raises(FeatureFileError, match="does not exist"):
        tlpipe.audit(tmp_path / "none.h5")
    with pytest.raises(OutputError, match=r"\.json"):
        tlpipe.audit(planted[0], tmp_path / "audit.txt")
    assert run("audit", planted[0], "--near", "1.5").exit_code == 2
    assert run("audit", planted[0], "--near", "0").exit_code == 2
    assert run("audit", planted[0], "--most", "0").exit_code == 2
    assert run("audit", tmp_path / "none.h5").exit_code == 1


def test_the_same_seed_says_the_same(planted: tuple[Path, list[int]]) -> None:
    first, second = tlpipe.audit(planted[0], seed=3), tlpipe.audit(planted[0], seed=3)
    assert first == second == replace(second)
    assert Split.TEST.name.lower() in {pair.second.split for pair in first.leaks.exact_pairs}
