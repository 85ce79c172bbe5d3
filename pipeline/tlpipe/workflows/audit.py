"""audit: what is wrong with a data set, as its cached embeddings tell."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tlpipe.errors import OptionError
from tlpipe.files import check_output
from tlpipe.stages.label_errors import LabelErrors, find_label_errors
from tlpipe.stages.neighbours import Pairs
from tlpipe.stages.outliers import Distances, distances_from_classes
from tlpipe.stages.report import write_report
from tlpipe.stages.store import Features, read_features
from tlpipe.types import DEFAULT_SEED, ProgressCallback, Split
from tlpipe.workflows.audit_result import (
    AuditResult,
    ClassExamples,
    Example,
    Image,
    LabelCheck,
    LabelError,
    Leaks,
    NearDuplicates,
    Outlier,
    Outliers,
    Pair,
)
from tlpipe.workflows.row_checks import (
    MOST_PAIRS,
    NEAR,
    Alike,
    Checked,
    check_labels,
    clusters_of,
    find_alike,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

EXAMPLES = 10
LEAST_OUTLIERS = 20

FORMAT = "tlpipe-audit"
FORMAT_VERSION = 1


def audit(
    features: str | Path,
    output: str | Path | None = None,
    *,
    near: float = NEAR,
    seed: int = DEFAULT_SEED,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> AuditResult:
    """Look for label errors, duplicates, leaks between splits and outliers.

    Nothing is changed. Images without a label take part in the search for duplicates, leaks and
    outliers. Labels are checked in all splits: each is judged by a head that its image, others of
    the same content, and others of its group did not train.

    Parameters
    ----------
    features : str or pathlib.Path
        A feature file.
    output : str or pathlib.Path, optional
        A JSON file to write.
    near : float
        Images are nearly the same whose embeddings have at least this cosine; above 0, at most 1.
    seed : int
        Another seed makes other folds.
    overwrite : bool
        Whether an existing output may be replaced.
    progress : callable, optional

    Returns
    -------
    AuditResult

    Raises
    ------
    OptionError
        `near` makes no sense.
    FeatureFileError, DamagedFileError
        `features` is no feature file, or a damaged one.
    OutputError
        The output cannot be written.
    """
    if not 0 < near <= 1:
        raise OptionError(f"near is {near!r}; it must be above 0 and at most 1.")
    features = Path(features)
    target = None if output is None else Path(output)
    if target is not None:
        check_output(target, overwrite=overwrite, suffixes=(".json",), inputs=[features])
    data = read_features(features)
    rows = _Rows(data)
    alike = find_alike(data, near, progress)
    duplicates, leaks = _duplicates(rows, near, alike)
    distances = distances_from_classes(data.vectors, data.labels)
    checked, unchecked = check_labels(data, seed, progress)
    judged, found = _label_errors(checked)
    result = AuditResult(
        path=None,
        features=features,
        count=len(data.keys),
        labelled=int((data.labels >= 0).sum()),
        labels=None if found is None else _label_check(rows, judged, found),
        exact_duplicates=[rows.images(cluster) for cluster in clusters_of(alike.contents)],
        near=duplicates,
        leaks=leaks,
        outliers=_outliers(rows, distances),
        classes=_classes(rows, distances, judged, found),
        notices=[*alike.notices, *unchecked],
    )
    if target is not None:
        write_report(
            target, {**result.to_dict(), "format": FORMAT, "format_version": FORMAT_VERSION}
        )
        result = replace(result, path=target)
    return result


class _Rows:
    """The rows of a feature file, and how they are told to a user."""

    def __init__(self, data: Features) -> None:
        self.data = data

    def image(self, row: int) -> Image:
        label, split = int(self.data.labels[row]), Split(int(self.data.splits[row]))
        return Image(
            self.data.keys[row],
            self.data.classes[label] if label >= 0 else None,
            None if split == Split.NONE else split.name.lower(),
        )

    def images(self, rows: Ints) -> list[Image]:
        return [self.image(row) for row in rows.tolist()]

    def pairs(self, found: Pairs) -> list[Pair]:
        both = zip(found.rows.tolist(), found.cosines.tolist(), strict=True)
        return [Pair(self.image(a), self.image(b), cosine) for (a, b), cosine in both]


def _duplicates(rows: _Rows, near: float, alike: Alike) -> tuple[NearDuplicates, Leaks]:
    found = alike.near
    exact = [Pair(rows.image(a), rows.image(b), 1.0) for a, b in alike.shared[:MOST_PAIRS]]
    clusters = [rows.images(cluster) for cluster in alike.clusters]
    return (
        NearDuplicates(near, found.pairs.count, rows.pairs(found.pairs), clusters),
        Leaks(len(alike.shared), found.across.count, exact, rows.pairs(found.across)),
    )


def _label_errors(checked: Checked | None) -> tuple[Ints, LabelErrors | None]:
    """Rows that were judged, and what was found; suggestions are numbers of classes."""
    if checked is None:
        return np.empty(0, np.int64), None
    found = find_label_errors(checked.probabilities, checked.labels)
    return checked.rows, replace(found, suggested=checked.present[found.suggested])


def _label_check(rows: _Rows, judged: Ints, found: LabelErrors) -> LabelCheck:
    errors = [
        LabelError(
            rows.image(int(judged[at])),
            rows.data.classes[int(found.suggested[at])],
            float(found.self_confidence[at]),
            float(found.self_confidence[at] - found.margin[at]),
        )
        for at in found.rows.tolist()
    ]
    return LabelCheck(int(judged.size), found.estimated, errors)


def _outliers(rows: _Rows, distances: Distances) -> Outliers:
    """The farthest images, with distances as multiples of the median."""
    nearest = np.where(np.isfinite(distances.nearest), distances.nearest, -1)
    usual = _usual(distances)
    beyond = int((nearest > distances.limit).sum())
    order = np.argsort(-nearest, kind="stable")[: max(beyond, LEAST_OUTLIERS)]
    ranked = [
        Outlier(rows.image(row), float(nearest[row]) / usual)
        for row in order.tolist()
        if nearest[row] >= 0
    ]
    limit = distances.limit / usual if math.isfinite(distances.limit) else 0.0
    return Outliers(limit, beyond, ranked)


def _usual(distances: Distances) -> float:
    """Median distance, and 1 where all are 0."""
    finite = distances.nearest[np.isfinite(distances.nearest)]
    return float(np.median(finite)) if finite.size and np.median(finite) > 0 else 1.0


def _classes(
    rows: _Rows, distances: Distances, judged: Ints, found: LabelErrors | None
) -> list[ClassExamples]:
    data, usual = rows.data, _usual(distances)
    result = []
    for label, name in enumerate(data.classes):
        mine = np.flatnonzero(data.labels == label)
        mine = mine[np.isfinite(distances.own[mine])]
        nearest = mine[np.argsort(distances.own[mine], kind="stable")[:EXAMPLES]]
        typical = [Example(data.keys[r], None, float(distances.own[r]) / usual) for r in nearest]
        least_sure, most_wrong = [], []
        if found is not None:
            at = np.flatnonzero(data.labels[judged] == label)
            at = at[np.argsort(found.margin[at], kind="stable")]
            for index in at[found.margin[at] < 0][:EXAMPLES].tolist():
                guess = data.classes[int(found.suggested[index])]
                key = data.keys[int(judged[index])]
                most_wrong.append(Example(key, guess, float(found.margin[index])))
            for index in at[found.margin[at] >= 0][:EXAMPLES].tolist():
                key = data.keys[int(judged[index])]
                least_sure.append(Example(key, name, float(found.margin[index])))
        count = int((data.labels == label).sum())
        result.append(ClassExamples(name, count, typical, least_sure, most_wrong))
    return result
