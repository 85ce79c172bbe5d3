"""What the labels of a source mean to a classifier that is judged on them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.errors import SourceError
from tlpipe.label_cells import DEFAULT_SEPARATOR, names_in
from tlpipe.stages.classifier import ClassifierInfo
from tlpipe.stages.metrics import Metrics, MultilabelMetrics, measure, measure_multilabel
from tlpipe.workflows.common import some_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


def truth_of(
    info: ClassifierInfo, cells: Collection[str], where: str
) -> tuple[dict[str, Any], list[str]]:
    """Number of the class that each label names; or a bool array (K,), where it may name several.

    Parameters
    ----------
    info : ClassifierInfo
    cells : collection of str
        Distinct labels.
    where : str
        What messages call the source.

    Returns
    -------
    truth : dict of str to int or bool array
    notices : list of str
        What a user would want to know of labels that are not judged.

    Raises
    ------
    SourceError
        A label is no class of the classifier.
    """
    number = {name: k for k, name in enumerate(info.classes)}
    if not info.multilabel:
        _check({name for name in cells if name not in number}, info.classes, where)
        return {name: number[name] for name in cells}, []
    separator = info.training.get("label_separator", DEFAULT_SEPARATOR)
    left_out = info.training.get("labels_left_out", {})
    truth: dict[str, Any] = {}
    unknown: set[str] = set()
    passed: set[str] = set()
    for cell in cells:
        row = np.zeros(len(number), np.bool_)
        for name in names_in(cell, str(separator)):
            if name in number:
                row[number[name]] = True
            else:
                (passed if name in left_out else unknown).add(name)
        truth[cell] = row
    _check(unknown, info.classes, where)
    if not passed:
        return truth, []
    said = f"{len(passed)} labels were left out of training and are not judged"
    return truth, [f"{said}: {some_of(sorted(passed))}."]


def _check(unknown: set[str], classes: Sequence[str], where: str) -> None:
    if unknown:
        more = " and more" if len(classes) > 10 else ""
        raise SourceError(
            f"{where} has the labels {sorted(unknown)[:10]}, which are no classes of the"
            f" classifier; those are {list(classes[:10])}{more}.",
            hint="Judge it on images of its own classes, in folders or labels of the same names.",
        )


def judged(
    info: ClassifierInfo, probabilities: NDArray[Any], truth: NDArray[Any]
) -> Metrics | MultilabelMetrics:
    """Metrics of probabilities (N, K) against labels (N,), or (N, K) where there may be several."""
    classes = list(info.classes)
    if info.multilabel:
        return measure_multilabel(probabilities, truth, np.array(info.thresholds), classes)
    majority = _majority(info.training, classes)
    return measure(probabilities, truth.astype(np.int32), classes, majority=majority)


def _majority(training: Mapping[str, Any], classes: list[str]) -> int | None:
    """The class that most training images had, where the classifier says so."""
    counts = training.get("count_by_class")
    if not isinstance(counts, dict):
        return None
    found = [counts.get(name) for name in classes]
    numbers = [count for count in found if isinstance(count, int)]
    return numbers.index(max(numbers)) if len(numbers) == len(classes) else None
