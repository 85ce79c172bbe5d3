"""Headline numbers, each with a sentence that says what it means; the table by class."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tlpipe.stages.metrics import Metrics, MultilabelMetrics, verdict
from tlpipe.stages.page import ClassRow, Figure, Matrix
from tlpipe.workflows.report.judgement import Judgement

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Limits = tuple[float, float] | None

_MOST_CONFUSED = 20
_NO_ERROR = 5e-4  # reads as 0.0 points


def figures_of(metrics: Metrics | MultilabelMetrics | None) -> list[Figure]:
    """The headline numbers, the most important first."""
    if metrics is None:
        return []
    if isinstance(metrics, MultilabelMetrics):
        return _of_several(metrics)
    return _of_one(metrics)


def _of_one(metrics: Metrics) -> list[Figure]:
    found = [accuracy_figure(metrics)]
    limits = metrics.intervals.get
    found.append(
        _figure(
            "balanced accuracy",
            metrics.balanced_accuracy,
            limits("balanced_accuracy"),
            "Where each class counts the same, however many images it has,"
            f" {_of_100(metrics.balanced_accuracy)} of 100 are right"
            f"{_between(limits('balanced_accuracy'), _of_100)}.",
        )
    )
    found += _gain(metrics)
    found.append(
        _figure(
            "macro-F1",
            metrics.macro_f1,
            limits("macro_f1"),
            "How well the classes are found and how rarely they are named in vain, as a mean over"
            f" classes: 1 is perfect{_between(limits('macro_f1'), _plain)}.",
        )
    )
    if metrics.top_5_accuracy is not None:
        found.append(
            _figure(
                "top-5 accuracy",
                metrics.top_5_accuracy,
                limits("top_5_accuracy"),
                f"For {_of_100(metrics.top_5_accuracy)} of 100 images the right class is among the"
                f" five likeliest{_between(limits('top_5_accuracy'), _of_100)}.",
            )
        )
    found.append(log_loss_figure(metrics))
    found.append(
        _figure(
            "Brier score",
            metrics.brier,
            limits("brier"),
            "The mean squared distance of the probabilities from the truth, 0 to 2: 0 is perfect"
            f"{_between(limits('brier'), _plain)}.",
        )
    )
    error, reach = metrics.calibration_error, _between(limits("calibration_error"), _points)
    said = f"A stated probability is off by {_points(error)} in the mean{reach}."
    if error < _NO_ERROR:
        said = f"The stated probabilities are as true as so few images can tell{reach}."
    found.append(
        _figure(
            "calibration error",
            error,
            limits("calibration_error"),
            f"{said} Where it is 0, of all images that it is 90 % sure of 90 % are right; what"
            " chance does on so few images is taken off.",
        )
    )
    return found


def accuracy_figure(metrics: Metrics) -> Figure:
    """The share that is right."""
    limits = metrics.intervals.get("accuracy")
    said = f"Right for {round(metrics.accuracy * metrics.count):,} of {metrics.count:,} images"
    if limits is not None:
        low, high = map(_of_100, limits)
        said += f"; for between {low} and {high} of 100 new ones like these, with 95 % certainty"
    return _figure("accuracy", metrics.accuracy, limits, f"{said}.")


def log_loss_figure(metrics: Metrics) -> Figure:
    """What the probabilities are worth."""
    limits = metrics.intervals.get("log_loss")
    reach = None if limits is None else (math.exp(-limits[1]), math.exp(-limits[0]))
    return _figure(
        "log loss",
        metrics.log_loss,
        limits,
        f"The right class gets a probability of {math.exp(-metrics.log_loss):.3f}, as the geometric"
        f" mean over images{_between(reach, _plain)}. The loss is its"
        " logarithm: 0 is perfect, and sure mistakes cost most.",
    )


def _gain(metrics: Metrics) -> list[Figure]:
    majority = metrics.majority
    if majority is None:
        return []
    limits = (majority.gain_low, majority.gain_high)
    said = verdict(metrics) or (
        f"Right for {100 * majority.gain:.1f} more of 100 images than always answering"
        f" {majority.name!r}{_between(limits, lambda v: f'{100 * v:.1f}')}."
    )
    return [_figure("gain over the most frequent class", majority.gain, limits, said)]


def _of_several(metrics: MultilabelMetrics) -> list[Figure]:
    limits = metrics.intervals.get
    found = []
    if metrics.mean_average_precision is not None:
        found.append(
            _figure(
                "mean average precision",
                metrics.mean_average_precision,
                limits("mean_average_precision"),
                "How well each label's images stand before all others when sorted by its"
                " probability, as a mean over labels: 1 is perfect"
                f"{_between(limits('mean_average_precision'), _plain)}.",
            )
        )
    found.append(
        _figure(
            "micro-F1",
            metrics.micro_f1,
            limits("micro_f1"),
            "How well labels are found and how rarely they are given in vain, over all answers: 1"
            f" is perfect{_between(limits('micro_f1'), _plain)}.",
        )
    )
    if metrics.macro_f1 is not None:
        found.append(
            _figure(
                "macro-F1",
                metrics.macro_f1,
                limits("macro_f1"),
                "The same where each label counts alike, however rare it is"
                f"{_between(limits('macro_f1'), _plain)}.",
            )
        )
    found.append(
        _figure(
            "subset accuracy",
            metrics.subset_accuracy,
            limits("subset_accuracy"),
            f"For {_of_100(metrics.subset_accuracy)} of 100 new images like these, all labels are"
            f" right{_between(limits('subset_accuracy'), _of_100)}.",
        )
    )
    found.append(
        _figure(
            "Hamming loss",
            metrics.hamming_loss,
            limits("hamming_loss"),
            f"Of 100 answers, one for each label and image, {_of_100(metrics.hamming_loss)} are"
            f" wrong{_between(limits('hamming_loss'), _of_100)}.",
        )
    )
    return found


def _figure(name: str, value: float, limits: Limits, meaning: str) -> Figure:
    low, high = (None, None) if limits is None else limits
    return Figure(name, float(value), low, high, meaning)


def _of_100(share: float) -> str:
    """A share as a number of 100, with as many digits as tell it from 0 and 100."""
    text = f"{100 * share:.1f}"
    if text in ("0.0", "100.0") and share not in (0, 1):
        text = f"{100 * share:.2f}"
    return text.removesuffix(".0")


def _plain(value: float) -> str:
    return f"{value:.3f}"


def _points(value: float) -> str:
    return f"{100 * value:.1f} points"


def _between(limits: Limits, said: Callable[[float], str]) -> str:
    """The interval in words; nothing where there is none."""
    if limits is None:
        return ""
    return f"; with 95 % certainty between {said(limits[0])} and {said(limits[1])}"


def matrix_of(metrics: Metrics | MultilabelMetrics | None) -> Matrix | None:
    """Who is taken for whom, where an image has one label."""
    if not isinstance(metrics, Metrics):
        return None
    return Matrix(metrics.confusion, metrics.mistakes(_MOST_CONFUSED))


def rows_of(judgement: Judgement) -> list[ClassRow]:
    """The table by class."""
    trains, metrics = _counts(judgement, judgement.trains), judgement.metrics
    if metrics is None:
        return [
            ClassRow(name, int(count), 0)
            for name, count in zip(judgement.classes, trains, strict=True)
        ]
    if isinstance(metrics, MultilabelMetrics):
        return [
            ClassRow(
                c.name,
                int(count),
                c.support,
                c.precision,
                c.recall,
                c.f1,
                average_precision=c.average_precision,
                threshold=c.threshold,
            )
            for c, count in zip(metrics.per_class, trains, strict=True)
        ]
    return [
        ClassRow(c.name, int(count), 0)
        if not c.support
        else ClassRow(
            c.name, int(count), c.support, c.precision, c.recall, c.f1, c.recall_low, c.recall_high
        )
        for c, count in zip(metrics.per_class, trains, strict=True)
    ]


def _counts(judgement: Judgement, among: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Images of each class among some rows (N,)."""
    labels = judgement.labels[among]
    if judgement.multilabel:
        return np.asarray(labels.sum(axis=0), np.int64)
    return np.bincount(labels[labels >= 0], minlength=len(judgement.classes))
