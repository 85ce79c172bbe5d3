"""Shows what was measured of a classifier, as tables on standard output.

Takes the records of the stage ``metrics``; all numbers stand in the report file as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tlpipe.cli.show import screen_width, show_line, show_table
from tlpipe.quantities import counted

if TYPE_CHECKING:
    from tlpipe.stages.metrics import Estimate, Metrics, MultilabelMetrics

_MOST_COLUMNS = 20  # of a confusion matrix that is still readable
_MOST_WIDTH = 100  # of one with names over its columns, where no screen sets a limit
_MOST_MISTAKES = 20

_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "top_5_accuracy": "top-5 accuracy",
    "log_loss": "log loss",
    "brier": "Brier score",
    "calibration_error": "calibration error",
}
_MULTILABEL_NAMES = {
    "mean_average_precision": "mean average precision",
    "micro_f1": "micro-F1",
    "macro_f1": "macro-F1",
    "hamming_loss": "Hamming loss",
    "subset_accuracy": "subset accuracy",
}


def show_metrics(
    metrics: Metrics | MultilabelMetrics, classes: Sequence[str], judged_on: str
) -> None:
    """What was measured, of whichever kind the classifier is."""
    from tlpipe.stages.metrics import MultilabelMetrics

    if isinstance(metrics, MultilabelMetrics):
        show_multilabel_metrics(metrics, judged_on)
    else:
        _show_single_label(metrics, classes, judged_on)


def _show_single_label(metrics: Metrics, classes: Sequence[str], judged_on: str) -> None:
    """Each number with its interval, calibration, per-class table, confusion, learning curve."""
    from tlpipe.stages.metrics import verdict

    _show_headline(metrics, judged_on, _NAMES)
    said = verdict(metrics)
    if said is not None:
        show_line(said)
    _show_calibration(metrics)
    rows = [
        [
            *(c.name, f"{c.precision:.3f}", f"{c.recall:.3f}"),
            f"{c.recall_low:.3f} to {c.recall_high:.3f}" if c.support else "",
            *(f"{c.f1:.3f}", f"{c.support:,}"),
        ]
        for c in metrics.per_class
    ]
    show_table(["class", "precision", "recall", "95 % interval", "F1", "images"], rows)
    _show_confusion(metrics, classes)
    _show_learning(metrics)


def show_multilabel_metrics(metrics: MultilabelMetrics, judged_on: str) -> None:
    """Each number with its interval, and the table by class."""
    _show_headline(metrics, judged_on, _MULTILABEL_NAMES)
    rows = [
        [
            c.name,
            "." if c.average_precision is None else f"{c.average_precision:.3f}",
            *(f"{value:.3f}" for value in (c.precision, c.recall, c.f1, c.threshold)),
            f"{c.support:,}",
        ]
        for c in metrics.per_class
    ]
    header = ["class", "average precision", "precision", "recall", "F1", "threshold", "images"]
    show_table(header, rows)


def _show_headline(
    metrics: Metrics | MultilabelMetrics, judged_on: str, names: dict[str, str]
) -> None:
    show_line(f"Judged on {judged_on}: {counted(metrics.count, 'image')}")
    rows = []
    for name, said in names.items():
        value, limits = getattr(metrics, name), metrics.intervals.get(name)
        if value is not None:
            interval = "" if limits is None else f"{limits[0]:.4f} to {limits[1]:.4f}"
            rows.append([said, f"{value:.4f}", interval])
    majority = getattr(metrics, "majority", None)
    if majority is not None:
        interval = f"{majority.low:.4f} to {majority.high:.4f}"
        rows.append([f"always {majority.name!r}: accuracy", f"{majority.accuracy:.4f}", interval])
    show_table(["metric", "value", "95 % interval"], rows)


def _show_calibration(metrics: Metrics) -> None:
    bins = counted(metrics.calibration_bins, "bin")
    show_line(
        "The calibration error is corrected for what chance does on so few images; without that,"
        f" in {bins}, it is {metrics.calibration_error_plain:.4f}."
    )
    scaled = metrics.temperature
    if scaled is not None:
        show_line(
            f"The temperature {scaled.temperature:.3f} took the calibration error from"
            f" {_said(scaled.before)} to {_said(scaled.after)}, and the log loss from"
            f" {scaled.log_loss_before:.4f} to {scaled.log_loss_after:.4f}."
        )


def _said(estimate: Estimate) -> str:
    return f"{estimate.value:.4f} ({estimate.low:.4f} to {estimate.high:.4f})"


def _show_confusion(metrics: Metrics, classes: Sequence[str]) -> None:
    """The matrix, where it fits, with numbers for the names over its columns where these do not."""
    matrix = metrics.confusion
    if matrix is not None and len(classes) <= _MOST_COLUMNS:
        cells = [[f"{n:,}" if n else "." for n in row] for row in matrix]
        numbers = [str(k) for k in range(1, len(classes) + 1)]
        numbered = [f"{k} {name}" for k, name in zip(numbers, classes, strict=True)]
        for names, columns, most in (
            (classes, classes, _MOST_WIDTH),
            (numbered, numbers, screen_width()),
        ):
            headers = ["true \\ predicted", *columns]
            rows = [[name, *row] for name, row in zip(names, cells, strict=True)]
            if _width([headers, *rows]) <= min(most, screen_width()):
                show_table(headers, rows)
                return
    rows = [
        [classes[true], classes[guess], f"{n:,}"]
        for true, guess, n in metrics.mistakes(_MOST_MISTAKES)
    ]
    if rows:
        show_table(["most confused: true", "predicted", "images"], rows)


def _width(lines: Sequence[Sequence[str]]) -> int:
    """The columns of a screen that a table needs."""
    return sum(max(map(len, column)) + 3 for column in zip(*lines, strict=True)) - 1


def _show_learning(metrics: Metrics) -> None:
    if not metrics.learning_curve:
        return
    from tlpipe.stages.metrics import reading

    rows = [
        [
            f"{p.count:,}",
            f"{p.accuracy:.4f}",
            f"{p.low:.4f} to {p.high:.4f}",
            f"{p.log_loss:.4f}",
        ]
        for p in metrics.learning_curve
    ]
    show_table(["training images", "accuracy", "95 % interval", "log loss"], rows)
    show_line(reading(metrics.learning_curve))
