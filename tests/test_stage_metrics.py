"""The metrics against scikit-learn's, and their intervals against simulated truth."""

from __future__ import annotations

import itertools
import json
import math
import time
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from tlpipe.stages.metrics import (
    LearningPoint,
    Metrics,
    learning_point,
    measure,
    measure_calibration,
    measure_multilabel,
    reading,
    verdict,
)
from tlpipe.stages.metrics.calibration import calibration_error
from tlpipe.stages.metrics.confusion import Confusion
from tlpipe.stages.metrics.intervals import of_gain, of_mean, of_mean_share, of_share, wilson


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def drawn(
    count: int, classes: int, seed: int, sharpness: float = 3.0
) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from their probabilities: perfectly calibrated."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, classes)) * sharpness
    below = softmax(logits).cumsum(axis=1) < rng.random(count)[:, np.newaxis]
    return logits, below.sum(axis=1).clip(0, classes - 1).astype(np.int32)


def names(classes: int) -> list[str]:
    return [f"c{k}" for k in range(classes)]


def measured(count: int, classes: int, seed: int = 0, **more: object) -> Metrics:
    logits, labels = drawn(count, classes, seed)
    return measure(softmax(logits), labels, names(classes), **more)  # type: ignore[arg-type]


# -- one label per image ---------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 50), classes=st.integers(2, 12))
def test_metrics_are_scikit_learns(seed: int, count: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities = softmax(rng.normal(size=(count, classes)) * 2)
    labels = rng.integers(0, classes, count).astype(np.int32)
    found = measure(probabilities, labels, names(classes))
    predicted = probabilities.argmax(axis=1)
    known = np.arange(classes)
    rows = reference.precision_recall_fscore_support(
        labels, predicted, labels=known, zero_division=0
    )
    for k, row in enumerate(found.per_class):
        expected = [column[k] for column in rows]
        assert [row.precision, row.recall, row.f1, row.support] == pytest.approx(expected)
    present = np.unique(labels)
    assert found.accuracy == pytest.approx(reference.accuracy_score(labels, predicted))
    assert found.log_loss == pytest.approx(reference.log_loss(labels, probabilities, labels=known))
    assert found.brier == pytest.approx(
        reference.brier_score_loss(labels, probabilities, labels=known, scale_by_half=False)
    )
    assert found.macro_f1 == pytest.approx(
        reference.f1_score(labels, predicted, labels=present, average="macro", zero_division=0)
    )
    assert found.balanced_accuracy == pytest.approx(
        reference.recall_score(labels, predicted, labels=present, average="macro")
    )
    if classes < 10:
        assert found.top_5_accuracy is None
    else:
        assert found.top_5_accuracy == pytest.approx(
            reference.top_k_accuracy_score(labels, probabilities, k=5, labels=known)
        )
    expected = reference.confusion_matrix(labels, predicted, labels=known).tolist()
    assert found.confusion == expected
    assert found.count == count


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 60),
    classes=st.integers(2, 12),
    sharpness=st.sampled_from([0.0, 1.0, 400.0]),  # all the same; usual; 0 and 1
    majority=st.booleans(),
)
def test_every_interval_holds_its_value_and_json_can_say_it(
    seed: int, count: int, classes: int, sharpness: float, majority: bool
) -> None:
    logits, labels = drawn(count, classes, seed, sharpness)
    found = measure(
        softmax(logits).astype(np.float32),
        labels,
        names(classes),
        majority=0 if majority else None,
    )
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["count"] == count
    for name, (low, high) in found.intervals.items():
        assert 0 <= low <= getattr(found, name) + 1e-12, name
        assert getattr(found, name) <= high + 1e-12, name
        assert high <= {"log_loss": np.inf, "brier": 2}.get(name, 1), name
    with_losses = {"log_loss", "brier"} <= set(found.intervals)
    assert with_losses == (count > 1), "the deviation of one image is not known"


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(2, 200))
def test_the_order_of_the_images_does_not_matter(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = drawn(count, 4, seed)
    probabilities = softmax(np.round(logits))  # ties of confidence, too
    order = rng.permutation(count)
    first = measure(probabilities, labels, names(4))
    second = measure(probabilities[order], labels[order], names(4))
    for name in ("accuracy", "macro_f1", "calibration_error", "calibration_error_plain", "brier"):
        assert getattr(first, name) == pytest.approx(getattr(second, name), abs=1e-9)
    assert first.calibration_bins == second.calibration_bins


def test_the_same_seed_gives_the_same_numbers() -> None:
    assert measured(80, 4, seed=3) == measured(80, 4, seed=3)
    logits, labels = drawn(80, 4, 3)
    other = measure(softmax(logits), labels, names(4), seed=1)
    assert other.intervals["log_loss"] != measured(80, 4, seed=3).intervals["log_loss"]
    assert other.log_loss == measured(80, 4, seed=3).log_loss


def test_a_probability_of_nought_does_not_make_the_log_loss_infinite() -> None:
    found = measure(np.array([[0.0, 1.0]]), np.array([0], np.int32), ["a", "b"])
    assert 80 < found.log_loss < 100


def test_classes_without_images_are_left_out_of_the_means() -> None:
    probabilities = np.eye(4)[[0, 0, 1, 3]]
    found = measure(probabilities, np.array([0, 0, 1, 1]), names(4))
    assert found.balanced_accuracy == pytest.approx((1 + 0.5) / 2)
    assert found.macro_f1 == pytest.approx((1 + 2 / 3) / 2)
    empty = found.per_class[2]
    assert (empty.support, empty.recall, empty.recall_low, empty.recall_high) == (0, 0, 0, 1)


def test_of_equal_probabilities_the_first_class_stands_first() -> None:
    probabilities = np.full((12, 12), 1 / 12)
    found = measure(probabilities, np.arange(12), names(12))
    assert found.accuracy == pytest.approx(1 / 12)
    assert found.top_5_accuracy == pytest.approx(5 / 12)


def test_where_all_is_right_the_intervals_still_have_a_lower_end() -> None:
    labels = np.arange(90) % 3
    found = measure(np.eye(3)[labels], labels, names(3))
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        low, high = found.intervals[name]
        assert 0.9 < low < 0.99, name
        assert high == 1, name
    assert found.calibration_error == 0
    assert 0.01 < found.intervals["calibration_error"][1] < 0.1


def test_many_classes_leave_the_matrix_and_keep_the_commonest_mistakes() -> None:
    classes = 150
    labels = np.repeat(np.arange(classes), 4)
    answers = labels.copy()
    answers[:3] = 7  # three images of class 0 are taken for class 7
    answers[4] = 9
    found = measure(np.eye(classes)[answers], labels, names(classes))
    assert found.confusion is None
    assert found.confused == [(0, 7, 3), (1, 9, 1)]
    assert found.mistakes(1) == [(0, 7, 3)]
    few = measure(np.eye(10)[answers[:8]], labels[:8], names(10))
    assert few.confused is None
    assert few.mistakes(5) == [(0, 7, 3), (1, 9, 1)]


def test_measuring_is_fast() -> None:
    logits, labels = drawn(10_000, 1000, 0)
    probabilities = softmax(logits).astype(np.float32)
    start = time.process_time()
    measure(probabilities, labels, names(1000))
    assert time.process_time() - start < 6  # 1.3 s on two cores at 2 GHz: room for a busy machine


# -- intervals -------------------------------------------------------------------------------------


def covered(intervals: list[tuple[float, float]], truth: float) -> float:
    return float(np.mean([low <= truth <= high for low, high in intervals]))


@pytest.mark.parametrize(("count", "share"), [(12, 0.9), (50, 0.5), (372, 0.9), (372, 0.985)])
def test_wilson_covers(count: int, share: float) -> None:
    hits = np.random.default_rng(0).binomial(count, share, 4000)
    low, high = wilson(hits, count)
    assert 0.92 <= np.mean((low <= share) & (share <= high)) <= 0.99


def test_wilson_is_the_published_one() -> None:
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3
    for hits, count, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        assert of_share(hits, count) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("classes", "per_class"), [(2, 40), (10, 12), (10, 3), (200, 10), (1000, 2)]
)
@pytest.mark.parametrize("centre", [0.9, 0.3])
def test_the_mean_recall_is_covered(classes: int, per_class: int, centre: float) -> None:
    rng = np.random.default_rng(0)
    recalls = rng.beta(8 * centre, 8 * (1 - centre), classes)
    counts = np.full(classes, per_class)
    found = [of_mean_share(rng.binomial(counts, recalls), counts) for _ in range(400)]
    assert covered(found, float(recalls.mean())) >= 0.9


@pytest.mark.parametrize("count", [20, 100, 372])
def test_the_log_loss_is_covered(count: int) -> None:
    logits, labels = drawn(200_000, 5, 0)
    losses = -np.log(softmax(logits)[np.arange(labels.size), labels])
    rng = np.random.default_rng(1)
    found = [of_mean(rng.choice(losses, count), rng) for _ in range(200)]
    assert covered(found, float(losses.mean())) >= 0.9


@pytest.mark.parametrize(("count", "classes"), [(60, 3), (372, 10), (200, 60)])
@pytest.mark.parametrize("sharpness", [2.0, 8.0])
def test_numbers_are_covered(count: int, classes: int, sharpness: float) -> None:
    # Truth of a mean over the classes that occur: what such a sample has on average.
    values: dict[str, list[float]] = {"balanced accuracy": [], "macro-F1": [], "Brier score": []}
    limits: dict[str, list[tuple[float, float]]] = {name: [] for name in values}
    rng = np.random.default_rng(1)
    for seed in range(1000):
        logits, labels = drawn(count, classes, seed, sharpness)
        table = Confusion.of(labels, logits.argmax(axis=1), classes)
        found = {"balanced accuracy": table.balanced_accuracy()}
        if seed < 200:
            brier = ((softmax(logits) - np.eye(classes)[labels]) ** 2).sum(axis=1)
            found["macro-F1"] = table.macro_f1(rng)
            found["Brier score"] = (float(brier.mean()), of_mean(brier, rng))
        for name, (value, interval) in found.items():
            values[name].append(value)
            limits[name].append(interval)
    for name, found_limits in limits.items():
        assert covered(found_limits, float(np.mean(values[name]))) >= 0.9, name


# -- calibration -----------------------------------------------------------------------------------


def errors(count: int, temperature: float, seeds: int) -> list[tuple[float, float, float, float]]:
    """Corrected error, its limits and the plain error, of probabilities too sure or too shy."""
    found = []
    for seed in range(seeds):
        logits, labels = drawn(count, 10, seed)
        probabilities = softmax(logits * temperature)
        right = probabilities.argmax(axis=1) == labels
        error = calibration_error(probabilities.max(axis=1), right)
        found.append((*astuple(error.corrected), error.plain))
    return found


def test_a_perfectly_calibrated_classifier_has_nearly_no_calibration_error() -> None:
    found = np.array(errors(372, 1.0, 200))
    assert found[:, 3].mean() > 0.05, "chance alone makes the plain one large"
    assert found[:, 0].mean() < 0.025
    assert np.median(found[:, 0]) < 0.02
    assert np.mean(found[:, 1] <= 0) >= 0.9, "the interval holds 0"
    many = np.array(errors(20_000, 1.0, 10))
    assert many[:, 0].mean() < 0.008


@pytest.mark.parametrize("temperature", [1.3, 1.6, 0.7])
def test_the_corrected_calibration_error_is_near_the_truth(temperature: float) -> None:
    (many,) = errors(200_000, temperature, 1)
    truth = many[3]  # so many images need no correction
    assert many[0] == pytest.approx(truth, rel=0.03)
    found = np.array(errors(372, temperature, 200))
    assert abs(found[:, 0].mean() - truth) < abs(found[:, 3].mean() - truth) + 0.005
    assert found[:, 0].mean() == pytest.approx(truth, abs=0.012)
    assert covered([(low, high) for _, low, high, _ in found], truth) >= 0.88


def test_bins_hold_equally_many_images_and_do_not_part_equal_confidences() -> None:
    confidence = np.array([0.5] * 30 + [0.9] * 30)
    right = np.array([True] * 15 + [False] * 15 + [True] * 30)
    found = calibration_error(confidence, right)
    assert found.bins == 2
    assert found.plain == pytest.approx(0.05)
    assert calibration_error(np.full(500, 0.8), np.arange(500) % 5 > 0).bins == 1
    assert calibration_error(np.linspace(0.4, 1, 500), np.ones(500, bool)).bins == 15


def test_plain_calibration_error_by_hand() -> None:
    confidence = np.linspace(0.3, 0.99, 400)
    right = np.random.default_rng(0).random(400) < confidence**2
    edges = np.round(np.linspace(0, 400, 16)).astype(int)
    groups = [np.arange(a, b) for a, b in itertools.pairwise(edges)]
    expected = sum(abs(right[g].mean() - confidence[g].mean()) * g.size for g in groups) / 400
    assert calibration_error(confidence, right).plain == pytest.approx(expected)


def test_the_right_temperature_mends_calibration() -> None:
    logits, labels = drawn(1000, 5, 0)
    found = measure_calibration(logits * 2, labels, 2.0)
    assert found.temperature == 2
    assert found.after.value < found.before.value / 3
    assert found.after_plain < found.before_plain
    assert found.log_loss_after < found.log_loss_before
    one = measure(softmax(logits), labels, names(5))
    assert found.after.value == pytest.approx(one.calibration_error)
    assert found.log_loss_after == pytest.approx(one.log_loss)
    same = measure_calibration(logits, labels, 1.0)
    assert (same.before, same.log_loss_before) == (same.after, same.log_loss_after)


# -- the majority class ----------------------------------------------------------------------------


def against_majority(right: list[bool], majority: list[bool]) -> Metrics:
    """Of three classes, 0 the majority; a wrong answer is class 2."""
    labels = np.where(majority, 0, 1)
    return measure(np.eye(3)[np.where(right, labels, 2)], labels, names(3), majority=0)


@pytest.mark.parametrize(
    ("more", "less", "both", "neither", "said"),
    [
        (60, 10, 30, 0, None),
        (10, 10, 70, 10, "cannot be told from always answering 'c0', which is right in 80.0%"),
        (0, 30, 50, 20, "is worse than always answering 'c0'"),
        (30, 5, 500, 465, "beats always answering 'c0', which is right in 50.5%, by little"),
    ],
)
def test_the_verdict(more: int, less: int, both: int, neither: int, said: str | None) -> None:
    right = [True] * more + [False] * less + [True] * both + [False] * neither
    majority = [False] * more + [True] * less + [True] * both + [False] * neither
    found = against_majority(right, majority)
    sentence = verdict(found)
    assert (sentence is None) if said is None else (said in str(sentence)), sentence
    assert found.majority is not None
    assert found.majority.gain == pytest.approx(found.accuracy - found.majority.accuracy)


def test_without_a_majority_class_there_is_no_verdict() -> None:
    found = measured(40, 3)
    assert found.majority is None
    assert verdict(found) is None


@pytest.mark.parametrize(("p", "q"), [(0.3, 0.1), (0.05, 0.05), (0.02, 0.0)])
def test_the_gain_is_covered(p: float, q: float) -> None:
    draws = np.random.default_rng(0).multinomial(150, [p, q, 1 - p - q], 2000)
    found = [of_gain(int(a), int(b), 150) for a, b, _ in draws]
    assert covered(found, p - q) >= 0.93


# -- learning curve --------------------------------------------------------------------------------


def curve(judged: int, error_of: dict[int, float], loss: float = 0.5) -> list[LearningPoint]:
    points = []
    for position, (count, error) in enumerate(error_of.items()):
        hits = round(judged * (1 - error))
        low, high = of_share(hits, judged)
        points.append(LearningPoint(count, hits / judged, low, high, loss * 0.9**position))
    return points


def power(first: float, exponent: float) -> dict[int, float]:
    return {n: first * (n / 100) ** -exponent for n in (100, 200, 400, 800, 1600)}


@pytest.mark.parametrize(
    ("judged", "errors_of", "said"),
    [
        (10_000, power(0.4, 0.5), "More images would help: twice as many (3,200)"),
        (100_000, power(0.1, 0.02), "would hardly help"),
        (40, power(0.3, 0.2), "More images may help"),
        (40, power(0.1, 0.02), "may hardly help"),
        (300, dict.fromkeys((100, 200, 400), 0.0), "no mistake is left"),
        (300, {100: 0.3, 200: 0.2}, "too few points"),
        (300, {100: 0.3, 110: 0.2, 120: 0.2}, "too few points"),
        (300, {}, "too few points"),
    ],
)
def test_the_reading(judged: int, errors_of: dict[int, float], said: str) -> None:
    points = curve(judged, errors_of)
    assert said in reading(points)
    assert reading(points[::-1]) == reading(points)


def test_the_reading_extrapolates_the_power_law() -> None:
    said = reading(curve(1_000_000, power(0.4, 0.5)))
    assert f"{0.4 * (16**-0.5 - 32**-0.5):+.1%} accuracy (now 90.0%)" in said


def test_a_curve_that_is_flat_may_still_win_in_log_loss() -> None:
    points = curve(100_000, power(0.1, 0.02))
    assert "the log loss falls" in reading(points)
    flat = [LearningPoint(p.count, p.accuracy, p.low, p.high, 0.3) for p in points]
    assert "log loss" not in reading(flat)


def test_a_learning_point_is_what_measuring_gives() -> None:
    logits, labels = drawn(200, 4, 0)
    whole = measure(softmax(logits), labels, names(4))
    point = learning_point(softmax(logits), labels, 77)
    assert (point.count, point.accuracy, point.log_loss) == (77, whole.accuracy, whole.log_loss)
    assert (point.low, point.high) == whole.intervals["accuracy"]


# -- several labels per image ----------------------------------------------------------------------


def several(count: int, classes: int, seed: int, digits: int = 9) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    probabilities = np.round(rng.random((count, classes)), digits)
    return probabilities, rng.random((count, classes)) < probabilities**2


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 40),
    classes=st.integers(1, 6),
    digits=st.sampled_from([1, 9]),  # with ties, and without
)
def test_multilabel_metrics_are_scikit_learns(
    seed: int, count: int, classes: int, digits: int
) -> None:
    probabilities, truth = several(count, classes, seed, digits)
    thresholds = np.linspace(0.3, 0.7, classes)
    found = measure_multilabel(probabilities, truth, thresholds, names(classes))
    given = probabilities >= thresholds
    rows = [
        reference.precision_recall_fscore_support(
            truth[:, k], given[:, k], average="binary", zero_division=0
        )
        for k in range(classes)
    ]
    occurs = truth.any(axis=0)
    for k, row in enumerate(found.per_class):
        assert (row.precision, row.recall, row.f1) == pytest.approx(rows[k][:3])
        assert (row.support, row.threshold) == (truth[:, k].sum(), thresholds[k])
        if occurs[k]:
            expected = reference.average_precision_score(truth[:, k], probabilities[:, k])
            assert row.average_precision == pytest.approx(expected)
        else:
            assert row.average_precision is None
    both = truth.sum() + given.sum()
    assert found.micro_f1 == pytest.approx(2 * (truth & given).sum() / both if both else 0)
    assert found.hamming_loss == pytest.approx((truth != given).mean())
    assert found.subset_accuracy == pytest.approx((truth == given).all(axis=1).mean())
    if occurs.any():
        precisions = [row.average_precision for row in found.per_class if row.support]
        assert found.mean_average_precision == pytest.approx(np.mean(precisions))
        assert found.macro_f1 == pytest.approx(np.mean([r[2] for r in np.array(rows)[occurs]]))
    else:
        assert found.mean_average_precision is None
        assert found.macro_f1 is None
        assert "macro_f1" not in found.intervals
    json.dumps(found.to_dict(), allow_nan=False)
    for name, (low, high) in found.intervals.items():
        assert 0 <= low - 0 <= getattr(found, name) + 1e-9, name
        assert getattr(found, name) - 1e-9 <= high <= 1, name


@pytest.mark.parametrize("count", [60, 400])
def test_multilabel_intervals_cover(count: int) -> None:
    thresholds = np.full(5, 0.6)
    found = [
        measure_multilabel(*several(count, 5, seed), thresholds, names(5)) for seed in range(300)
    ]
    big = measure_multilabel(*several(200_000, 5, 0), thresholds, names(5))
    for name in big.intervals:
        truth = getattr(big, name)
        if name == "mean_average_precision" and count < 100:  # it is too great on few images
            truth = float(np.mean([getattr(metrics, name) for metrics in found]))
        assert covered([metrics.intervals[name] for metrics in found], truth) >= 0.9, name


def test_the_influence_of_an_image_is_the_derivative() -> None:
    from tlpipe.stages.metrics.multi_label import _average_precisions, _f1_influence

    probabilities, truth = several(30, 3, 5, digits=1)
    given = probabilities >= 0.5
    occurs = truth.any(axis=0)
    assert occurs.all()
    _, mean, influence = _average_precisions(probabilities, truth, occurs)
    both = (truth.sum(axis=0) + given.sum(axis=0)).astype(float)
    f1 = 2 * (truth & given).sum(axis=0) / both
    of_f1 = _f1_influence(truth, given, f1, 1 / both / 3)
    many = 2000  # one image more among so many copies of all: a small change of weight
    for row in range(30):
        rows = np.concatenate([np.repeat(np.arange(30), many), [row]])
        again = _average_precisions(probabilities[rows], truth[rows], occurs)[1]
        assert (again - mean) * many == pytest.approx(influence[row], abs=2e-4)
        t, g = truth[rows], given[rows]
        f1_again = np.mean(2 * (t & g).sum(axis=0) / (t.sum(axis=0) + g.sum(axis=0)))
        assert (f1_again - f1.mean()) * many == pytest.approx(of_f1[row], abs=2e-4)
    assert math.isclose(influence.sum(), 0, abs_tol=1e-12)


def test_a_perfect_multilabel_classifier_is_not_certain() -> None:
    _, truth = several(50, 3, 0)
    found = measure_multilabel(truth.astype(float), truth, np.full(3, 0.5), names(3))
    assert (found.micro_f1, found.mean_average_precision, found.hamming_loss) == (1, 1, 0)
    for name in ("micro_f1", "macro_f1", "mean_average_precision", "subset_accuracy"):
        assert found.intervals[name] == pytest.approx(of_share(50, 50))
    assert found.intervals["hamming_loss"] == pytest.approx(of_share(0, 50))
