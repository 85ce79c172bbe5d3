from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlpipe.errors import TrainingDataError
from tlpipe.stages.splits import FOLDS, HOLD_OUT, MIN_TRAIN, Plan, plan_splits
from tlpipe.types import Split


def contents(names: list[str]) -> np.ndarray:
    digests = [hashlib.sha256(name.encode()).digest() for name in names]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)


def plan(
    labels: list[int],
    splits: list[int] | None = None,
    names: list[str] | None = None,
    seed: int = 0,
) -> Plan:
    names = names or [f"{label}-{i}" for i, label in enumerate(labels)]
    classes = [f"c{k}" for k in range(max([*labels, 0]) + 1)]
    return plan_splits(
        np.array(labels, np.int32),
        np.array(splits or [Split.NONE] * len(labels), np.int8),
        contents(names),
        classes,
        seed,
    )


def two_classes(count: int) -> tuple[list[int], list[str]]:
    labels = [0] * count + [1] * count
    return labels, [f"{label}/{i % count}" for i, label in enumerate(labels)]


def test_a_fifth_of_each_class_is_held_out() -> None:
    labels, names = two_classes(2000)
    found = plan(labels, names=names)
    held = np.array(labels)[found.judge]
    for label in (0, 1):
        assert abs((held == label).sum() / 2000 - HOLD_OUT) < 0.03
    assert np.intersect1d(found.fit, found.judge).size == 0
    assert found.fit.size + found.judge.size == 4000
    assert found.judged_on == "about a fifth of each class, held out of training"


@settings(deadline=None, max_examples=40)
@given(before=st.integers(5, 60), added=st.integers(1, 60), seed=st.integers(0, 5))
def test_adding_images_moves_none(before: int, added: int, seed: int) -> None:
    """But for classes so small that their last images must serve on one side or the other."""
    labels, names = two_classes(before + added)
    keep = [i for i, name in enumerate(names) if int(name.split("/")[1]) < before]
    small = plan([labels[i] for i in keep], names=[names[i] for i in keep], seed=seed)
    large = plan(labels, names=names, seed=seed)
    held_before = {names[keep[i]] for i in small.judge}
    held_after = {names[i] for i in large.judge}
    for label in (0, 1):
        was = {name for name in held_before if name.startswith(f"{label}/")}
        if len(was) > 1 and before - len(was) > MIN_TRAIN:
            kept = {names[i] for i in keep if names[i].startswith(f"{label}/")}
            assert held_after & kept == was


def test_the_side_depends_on_the_content_alone() -> None:
    labels, names = two_classes(50)
    first = {names[i] for i in plan(labels, names=names).judge}
    second = plan(labels[::-1], names=names[::-1])
    assert {names[::-1][i] for i in second.judge} == first
    third = plan(labels, names=names, seed=1)
    assert {names[i] for i in third.judge} != first


def test_identical_images_are_never_on_both_sides() -> None:
    labels, names = two_classes(40)
    names = [name.split("/")[0] + "/" + str(int(name.split("/")[1]) // 4) for name in names]
    found = plan(labels, names=names)
    assert not {names[i] for i in found.judge} & {names[i] for i in found.fit}
    for rows, held in found.folds:
        assert not {names[i] for i in rows} & {names[i] for i in held}


def test_folds_are_stratified_and_cover_each_training_row_once() -> None:
    labels, names = two_classes(100)
    found = plan(labels, names=names)
    assert len(found.folds) == FOLDS
    held = np.sort(np.concatenate([held for _, held in found.folds]))
    np.testing.assert_array_equal(held, found.fit)
    for rows, held in found.folds:
        assert set(np.array(labels)[rows]) == {0, 1}
        assert np.intersect1d(rows, held).size == 0
        assert np.intersect1d(rows, found.judge).size == 0


def test_the_smallest_class_that_is_taken() -> None:
    count = MIN_TRAIN + 1
    labels, names = two_classes(count)
    found = plan(labels, names=names)
    assert np.bincount(np.array(labels)[found.judge]).tolist() == [1, 1]
    for rows, _ in found.folds:
        assert set(np.array(labels)[rows]) == {0, 1}


def test_the_splits_of_the_source_are_kept() -> None:
    labels = [0, 1] * 12
    splits = [Split.TRAIN] * 12 + [Split.VALIDATION] * 6 + [Split.TEST] * 6
    found = plan(labels, splits)
    assert found.judge.tolist() == list(range(18, 24))
    assert found.fit.tolist() == list(range(18))
    ((rows, held),) = found.folds
    assert (rows.tolist(), held.tolist()) == (list(range(12)), list(range(12, 18)))
    assert found.judged_on == "the source's test split"
    assert found.chosen_on == "the source's validation split"


def test_a_validation_split_judges_where_there_is_no_test_split() -> None:
    labels = [0, 1] * 12
    found = plan(labels, [Split.TRAIN] * 18 + [Split.VALIDATION] * 6)
    assert found.judge.tolist() == list(range(18, 24))
    assert found.fit.tolist() == list(range(18))
    assert len(found.folds) == FOLDS
    assert found.judged_on == "the source's validation split"


def test_rows_without_a_split_train() -> None:
    labels = [0, 1] * 12
    found = plan(labels, [Split.TRAIN] * 10 + [Split.NONE] * 8 + [Split.TEST] * 6)
    assert found.fit.tolist() == list(range(18))


def test_rows_without_a_label_are_left_out() -> None:
    found = plan([0, 1] * 12 + [-1] * 3)
    assert found.unlabelled == 3
    assert max(found.fit.max(), found.judge.max()) < 24


@pytest.mark.parametrize(
    ("labels", "splits", "message"),
    [
        ([-1, -1], None, "None of the 2 embeddings has a label."),
        ([0] * 9, None, "All labelled embeddings are of the one class 'c0'."),
        (
            [0] * 9 + [1] * 2,
            [Split.TRAIN] * 5 + [Split.TEST] * 6,
            r"1 classes have no image to train with: \['c1'\]; their images are all in the split",
        ),
    ],
)
def test_too_little_data_is_refused(
    labels: list[int], splits: list[int] | None, message: str
) -> None:
    with pytest.raises(TrainingDataError, match=message):
        plan(labels, splits)


def test_identical_images_count_once() -> None:
    found = plan([0] * 9 + [1] * 9, names=[str(i) for i in range(9)] + ["same"] * 9)
    judged = np.array([0] * 9 + [1] * 9)[found.judge]
    assert set(judged) == {0}  # the one image of the other class trains
    for rows, held in found.folds:
        assert set(range(9, 18)) <= set(rows.tolist())
        assert not set(range(9, 18)) & set(held.tolist())


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_images_are_judged_in_cross_validation(count: int) -> None:
    labels, names = two_classes(count)
    found = plan(labels, names=names)
    assert found.fit.size == 2 * count
    assert found.judge.size == 0
    held = np.concatenate([held for _, held in found.folds]) if found.folds else np.array([])
    assert len(held) == (0 if count == 1 else 2 * count)
    for rows, _ in found.folds:
        assert set(np.array(labels)[rows]) == {0, 1}
    assert found.judged_on == "training images held out in cross-validation"


def test_many_images_need_one_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, names = two_classes(100)
    monkeypatch.setattr("tlpipe.stages.splits.plan.MANY", 100)
    found = plan(labels, names=names)
    assert len(found.folds) == 1
    assert found.chosen_on == "a fifth of the training images"


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 2), st.integers(-1, 12), st.integers(0, 25)),
        min_size=6,
        max_size=80,
    ),
    seed=st.integers(0, 3),
)
def test_no_group_and_no_content_stands_on_two_sides(
    rows: list[tuple[int, int, int]], seed: int
) -> None:
    labels = np.array([label for label, _, _ in rows], np.int32)
    groups = np.array([group for _, group, _ in rows], np.int64)
    names = [str(name) for _, _, name in rows]
    classes = ["c0", "c1", "c2"]
    try:
        found = plan_splits(
            labels, np.full(len(rows), Split.NONE, np.int8), contents(names), classes, seed, groups
        )
    except TrainingDataError:
        assert len(set(labels.tolist())) < 3
        return
    pairs = [(found.fit, found.judge), *found.folds]
    for ours, theirs in pairs:
        shared = set(groups[ours].tolist()) & set(groups[theirs].tolist())
        assert shared <= {-1}
        assert not {names[i] for i in ours} & {names[i] for i in theirs}
    assert set(labels[found.fit].tolist()) == set(labels.tolist())
    again = np.random.default_rng(seed).permutation(len(rows))
    moved = plan_splits(
        labels[again],
        np.full(len(rows), Split.NONE, np.int8),
        contents([names[i] for i in again]),
        classes,
        seed,
        groups[again],
    )
    assert {int(again[i]) for i in moved.judge} == set(found.judge.tolist())
