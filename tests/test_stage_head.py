"""The head against scikit-learn used plainly."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from tlpipe.errors import ConvergenceError, TrainingDataError
from tlpipe.stages.head import GAP, SCALINGS, Head, train


def blobs(classes: int, count: int, dim: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, dim))
    labels = np.arange(count) % classes
    scales = np.geomspace(0.1, 10, dim)  # so that standardising matters
    vectors = (centres[labels] + rng.normal(size=(count, dim))) * scales
    return vectors.astype(np.float32), labels.astype(np.int32)


def folds(count: int, k: int = 3) -> list[tuple[np.ndarray, np.ndarray]]:
    rows = np.arange(count)
    return [(rows[rows // 4 % k != f], rows[rows // 4 % k == f]) for f in range(k)]


def trained(classes: int, count: int = 240) -> tuple[Head, np.ndarray, np.ndarray]:
    vectors, labels = blobs(classes, count)
    return train(vectors, labels, np.arange(count), folds(count)), vectors, labels


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_folded_weights_give_scikit_learns_probabilities(classes: int) -> None:
    head, vectors, _ = trained(classes)
    assert head.weights.shape == (6, classes)
    assert head.bias.shape == (classes,)
    logits = vectors.astype(np.float64) @ head.weights + head.bias
    np.testing.assert_allclose(softmax(logits), head.probabilities(vectors), rtol=0, atol=1e-10)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_chosen_setting_is_trained_as_scikit_learn_would(classes: int) -> None:
    head, vectors, labels = trained(classes)
    model = LogisticRegression(C=head.c, max_iter=2000, tol=1e-7)
    first = {"raw": [], "standardised": [StandardScaler()], "unit": [Normalizer()]}
    pipeline = make_pipeline(*first[head.scaling], model)
    pipeline.fit(vectors.astype(np.float64), labels)
    logits = pipeline.decision_function(vectors)
    logits = np.column_stack([-logits, logits]) / 2 if classes == 2 else logits
    ours = head.logits(vectors) * head.temperature
    ours -= ours.mean(axis=1, keepdims=True) - logits.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(ours, logits, rtol=0, atol=2e-3 * np.abs(logits).max())
    assert head.gap <= GAP


def test_the_least_log_loss_is_chosen_and_bracketed() -> None:
    head, _, _ = trained(3)
    best = min(head.trials, key=lambda trial: trial.log_loss)
    (chosen,) = [t for t in head.trials if (t.scaling, t.c) == (head.scaling, head.c)]
    assert chosen.log_loss <= 1.01 * best.log_loss + 1e-4
    for scaling in SCALINGS:
        losses = [
            t.log_loss for t in sorted(head.trials, key=lambda t: t.c) if t.scaling == scaling
        ]
        good = [loss <= 1.01 * min(losses) + 1e-4 for loss in losses].index(True)
        assert 0 < good < len(losses) - 1, f"the best C of {scaling} lies on an edge"


def test_images_that_a_line_separates_do_not_drive_c_to_its_limit() -> None:
    labels = (np.arange(60) % 2).astype(np.int32)
    vectors = np.where(labels[:, np.newaxis] == 1, 1.0, -1.0) * np.ones((60, 4))
    head = train(vectors.astype(np.float32), labels, np.arange(60), folds(60))
    assert head.c <= 1000


def test_trials_are_scored_on_rows_that_did_not_train_them() -> None:
    vectors, labels = blobs(3, 240)
    rows = folds(240)
    head = train(vectors, labels, np.arange(240), rows)
    trial = next(t for t in head.trials if t.scaling == "raw")
    losses = []
    for fit, held in rows:
        model = LogisticRegression(C=trial.c, max_iter=2000).fit(vectors[fit], labels[fit])
        p = model.predict_proba(vectors[held])[np.arange(held.size), labels[held]]
        losses += list(-np.log(p))
    assert trial.log_loss == pytest.approx(np.mean(losses), rel=1e-2)


def test_the_same_data_give_the_same_weights() -> None:
    first, second = trained(3)[0], trained(3)[0]
    np.testing.assert_array_equal(first.weights, second.weights)


def test_an_optimum_that_is_not_found_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlpipe.stages.head.optimum.GAP", 1e-300)
    monkeypatch.setattr("tlpipe.stages.head.optimum._MOST_EVALUATIONS", 3)
    with pytest.raises(ConvergenceError, match="optimum was not found"):
        trained(3)


def test_dimensions_that_never_vary_do_no_harm() -> None:
    vectors, labels = blobs(3, 120)
    vectors[:, 2] = 5.0
    vectors[:, 4] = 0.0
    head = train(vectors, labels, np.arange(120), folds(120))
    assert np.isfinite(head.weights).all()
    assert np.isfinite(head.probabilities(vectors)).all()


def test_progress_counts_the_trials() -> None:
    counts: list[int] = []
    vectors, labels = blobs(2, 60)
    head = train(vectors, labels, np.arange(60), folds(60), None, counts.append)
    assert counts == list(range(1, len(head.trials) + 1))


@pytest.mark.parametrize("number", [1e30, -1e30])
def test_numbers_whose_squares_are_out_of_range_are_refused(number: float) -> None:
    vectors = np.random.default_rng(0).normal(size=(120, 4)).astype(np.float32)
    vectors[7, 2] = number
    labels = np.arange(120, dtype=np.int32) % 2
    with pytest.raises(TrainingDataError, match=r"a number of size 1e\+30") as caught:
        train(vectors, labels, np.arange(120), folds(120))
    assert caught.value.hint is not None
    assert "Divide all embeddings" in caught.value.hint
