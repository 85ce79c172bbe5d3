"""split: assigns the rows of a feature file to train, validation and test."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.errors import FeatureFileError
from tlpipe.files import check_output, is_file
from tlpipe.lock import writer_lock
from tlpipe.near import no_file
from tlpipe.stages.splits import assign_splits
from tlpipe.stages.store import (
    SPAN_ROWS,
    FeatureFile,
    Parts,
    feature_writer,
    rows_per_file,
)
from tlpipe.types import FEATURE_SUFFIXES, Split
from tlpipe.workflows.groups import groups_of
from tlpipe.workflows.leaks import Shared, content_heads, content_numbers, shared_between_splits
from tlpipe.workflows.split_options import SplitOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class SplitReport:
    """How the rows of a feature file are split.

    Attributes
    ----------
    splits_from : str
        "source", or the recipe as JSON.
    counts : Counter of (str or None, Split)
        Rows by label and split.
    groups : int
        Distinct groups.
    shared : Shared
        Contents that stand in more than one split.
    """

    splits_from: str
    counts: Counter[tuple[str | None, Split]]
    groups: int
    shared: Shared


@dataclass(frozen=True)
class SplitResult:
    """What ``split`` did.

    Attributes
    ----------
    path : pathlib.Path
    kept, assigned : int
        Rows that have the split which this recipe gave them before, and rows that got one now.
    replaced : bool
        Whether splits of another recipe, or of the source, were replaced.
    ungrouped : int or None
        Rows that the pattern or the file of groups gives no group; None where neither was asked.
    unchanged : bool
        Whether the file was right already and was not touched.
    report : SplitReport
    """

    path: Path
    kept: int
    assigned: int
    replaced: bool
    ungrouped: int | None
    unchanged: bool
    report: SplitReport


def split(
    features: str | Path,
    output: str | Path | None = None,
    *,
    options: SplitOptions | None = None,
    overwrite: bool = False,
) -> SplitResult:
    """Assign the rows of a feature file to splits: by class, whole groups, identical images too.

    The assignment depends on the seed and on the images alone, not on their order. Rows that have a
    split of the same recipe keep it: after an update only new rows are assigned.

    Parameters
    ----------
    features : str or pathlib.Path
    output : str or pathlib.Path, optional
        A feature file to write; by default `features` is replaced, whole or not at all.
    options : SplitOptions, optional
    overwrite : bool
        Whether an existing `output` may be replaced.

    Returns
    -------
    SplitResult

    Raises
    ------
    FeatureFileError, DamagedFileError
        `features` is no feature file, or a damaged one.
    TableError
        The file of groups cannot be read.
    LockedError, OutputError
        The output cannot be written.
    """
    options, features = options or SplitOptions(), Path(features)
    target = features if output is None else Path(output)
    inputs = [] if output is None else [features]
    if output is None and not is_file(features):
        message, hint = no_file(features, "The feature file")
        raise FeatureFileError(message, hint=hint)
    check_output(
        target, overwrite=overwrite or output is None, suffixes=FEATURE_SUFFIXES, inputs=inputs
    )
    with writer_lock(target):
        with FeatureFile(features) as file:
            result = _assign(file, target, options, in_place=output is None)
        if output is not None:
            Parts(target).remove()  # of a run that was to write what stood there
    with FeatureFile(target) as file:
        return replace(result, report=_report(file))


def check_splits(features: str | Path) -> SplitReport:
    """Tell how a feature file is split, and which images stand on two sides.

    Raises
    ------
    FeatureFileError, DamagedFileError
        `features` is no feature file, or a damaged one.
    """
    with FeatureFile(Path(features)) as file:
        return _report(file)


def _assign(
    file: FeatureFile, target: Path, options: SplitOptions, *, in_place: bool
) -> SplitResult:
    """Assign splits, and write the file where something changes."""
    recipe = options.recipe()
    same = file.header.splits_from == recipe and not options.anew
    before = _column(file, "splits", np.int8)
    stored = _column(file, "groups", np.int64)
    groups = groups_of(file, options, stored)
    heads = content_heads(file)
    kept = before if same else np.full(file.count, Split.NONE, np.int8)
    splits = assign_splits(
        kept,
        _column(file, "labels", np.int32),
        groups,
        content_numbers(heads),
        heads,
        options.fractions(),
        options.seed,
    )
    given = options.group_pattern is not None or options.groups is not None
    kept_count = int((kept != Split.NONE).sum())
    unchanged = same and np.array_equal(splits, before) and np.array_equal(groups, stored)
    result = SplitResult(
        path=target,
        kept=kept_count,
        assigned=file.count - kept_count,
        replaced=not same and bool((before != Split.NONE).any()),
        ungrouped=int((groups < 0).sum()) if given else None,
        unchanged=unchanged and in_place,
        report=SplitReport("", Counter(), 0, Shared(0, [])),
    )
    if result.unchanged:
        return result
    header = replace(file.header, splits_from=recipe)
    most = rows_per_file(None, file)
    with feature_writer(target, header, file.dim, set_above=most) as writer:
        for start in range(0, file.count, SPAN_ROWS):
            at = slice(start, min(start + SPAN_ROWS, file.count))
            rows = file.rows(at.start, at.stop, vectors=True)
            writer.add(replace(rows, splits=splits[at], groups=groups[at]))
        for start in range(0, file.reject_count, SPAN_ROWS):
            for key, reject in file.rejects(start, start + SPAN_ROWS):
                writer.reject(key, reject)
        file.close()  # some systems replace no file that is open
    return result


def _column(file: FeatureFile, name: str, dtype: Any) -> NDArray[Any]:
    """One number of each row."""
    values = np.full(file.count, -1, dtype)
    for start in range(0, file.count if name in file.columns else 0, SPAN_ROWS):
        stop = min(start + SPAN_ROWS, file.count)
        values[start:stop] = file.read(name, start, stop)
    return values


def _report(file: FeatureFile) -> SplitReport:
    counts: Counter[tuple[str | None, Split]] = Counter()
    for start in range(0, file.count, SPAN_ROWS):
        stop = min(start + SPAN_ROWS, file.count)
        rows = file.rows(start, stop)
        counts.update(zip(rows.labels, map(Split, rows.splits.tolist()), strict=True))
    groups = _column(file, "groups", np.int64)
    return SplitReport(
        file.header.splits_from,
        counts,
        len(np.unique(groups[groups >= 0])),
        shared_between_splits(file),
    )
