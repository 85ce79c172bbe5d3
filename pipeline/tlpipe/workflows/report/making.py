"""report: one page that shows what a classifier does, and where it fails."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tlpipe.files import check_output
from tlpipe.stages.closest import closest
from tlpipe.stages.metrics import reading
from tlpipe.stages.page import CurvePoint, Images, Projection, Report, report_page
from tlpipe.stages.projection import load_umap, principal, umap
from tlpipe.stages.report import write_page
from tlpipe.stages.source import Source
from tlpipe.stages.store import Features, read_features
from tlpipe.types import PAGE_SUFFIXES, ProgressCallback, Split
from tlpipe.workflows.common import now
from tlpipe.workflows.report.by_classifier import Given, given_classifier, judged_by_classifier
from tlpipe.workflows.report.by_heads import judged_by_heads, unjudged
from tlpipe.workflows.report.by_labels import judged_by_labels
from tlpipe.workflows.report.figures import figures_of, matrix_of, rows_of
from tlpipe.workflows.report.findings import find
from tlpipe.workflows.report.judgement import Answers, Judgement
from tlpipe.workflows.report.options import ReportOptions, ReportResult
from tlpipe.workflows.report.pictures import Pictures, pictures_of
from tlpipe.workflows.report.provenance import provenance_of, rejects_of
from tlpipe.workflows.report.sample import chosen
from tlpipe.workflows.row_checks import Checked, check_labels, find_alike

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import Float32Array

    Ints = NDArray[np.int64]

NEIGHBOURS = 6


def report(
    features: str | Path,
    output: str | Path,
    *,
    classifier: str | Path | None = None,
    source: Source | str | Path | None = None,
    options: ReportOptions | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> ReportResult:
    """Write one HTML file that shows a data set, what a classifier makes of it, and where it fails.

    All embeddings are in memory meanwhile, and the text of the page.

    Parameters
    ----------
    features : str or pathlib.Path
        A feature file.
    output : str or pathlib.Path
        The page to write (.html).
    classifier : str or pathlib.Path, optional
        One that was trained on such embeddings, which is judged on the images that were kept apart
        for that. Without one, heads are trained for the report, and judged in cross-validation.
    source : Source, str or pathlib.Path, optional
        Where the images are, for their pictures; by default where the feature file says.
    options : ReportOptions, optional
    overwrite : bool
        Whether an existing output may be replaced.
    progress : callable, optional

    Returns
    -------
    ReportResult

    Raises
    ------
    FeatureFileError, DamagedFileError
        `features` is no feature file, or a damaged one.
    ClassifierError
        `classifier` is none of tlpipe, or has no head that can be run alone.
    StaleFeaturesError
        The embeddings are not made as the classifier makes them.
    SourceError
        `source` is no source. Where the one that the feature file names is away, there are no
        pictures, and the page says so.
    OptionError
        A UMAP was asked for and cannot be made.
    OutputError
        The output cannot be written.
    """
    options = options or ReportOptions()
    features, output = Path(features), Path(output)
    inputs = [features, *([] if classifier is None else [Path(classifier)])]
    check_output(output, overwrite=overwrite, suffixes=PAGE_SUFFIXES, inputs=inputs)
    if options.map_kind == "umap":
        load_umap()  # says at once where it is missing
    found = gathered(features, classifier, source, options, progress)
    write_page(output, report_page(found))
    return ReportResult(
        path=output,
        size_bytes=output.stat().st_size,
        count=found.count,
        shown=len(found.images.keys),
        pictured=int((found.images.tiles >= 0).sum()),
        judged_on=found.judged_on,
        notices=found.notices,
    )


def gathered(
    features: Path,
    classifier: str | Path | None,
    source: Source | str | Path | None,
    options: ReportOptions,
    progress: ProgressCallback | None = None,
) -> Report:
    """All that the page shows; for parameters and errors see ``report``."""
    data = read_features(features)
    given = None if classifier is None else given_classifier(Path(classifier), data, features)
    alike = find_alike(data, options.near, progress)
    checked, judgement, notices = _judged(data, given, options.seed, progress)
    findings = find(data, judgement, checked, alike, options.near)
    listed = findings.rows()
    rows = chosen(listed, judgement.mistakes, judgement.judged, options.images, options.seed)
    place = np.full(len(data.keys), -1)
    place[rows] = np.arange(rows.size)
    if rows.size < len(data.keys):
        notices.append(
            f"The page holds {rows.size:,} of {len(data.keys):,} images: those of its lists, then"
            " mistakes, then images that judge, then others. Counts and figures are of all."
        )
    vectors = data.vectors if rows.size == len(data.keys) else data.vectors[rows]
    projections = _projections(vectors, options)
    trains = judgement.trains[rows]
    pictures = pictures_of(data, rows, place[listed], source, options, progress)
    numbered = findings.numbered(place)
    learning = judgement.learning
    return Report(
        title=f"Report on {features.name}" if given is None else f"Report on {given.path.name}",
        features=features.name,
        classifier="" if given is None else given.path.name,
        made_at=now(),
        count=len(data.keys),
        classes=judgement.classes,
        multilabel=judgement.multilabel,
        judged_on=judgement.judged_on,
        figures=figures_of(judgement.metrics),
        matrix=matrix_of(judgement.metrics),
        rows=rows_of(judgement),
        reliability=judgement.curves,
        learning=[CurvePoint(p.count, p.accuracy, p.low, p.high) for p in learning],
        learning_note=reading(learning) if learning else "",
        projections=projections,
        images=_images(data, rows, judgement, closest(vectors, trains, NEIGHBOURS), pictures),
        mistakes=numbered.mistakes,
        suspects=numbered.suspects,
        near_duplicates=numbered.near_duplicates,
        leaks=numbered.leaks,
        provenance=provenance_of(features, data, judgement, given),
        rejects=rejects_of(features),
        notices=[*judgement.notices, *notices, *alike.notices, *pictures.notices],
    )


def _judged(
    data: Features, given: Given | None, seed: int, progress: ProgressCallback | None
) -> tuple[Checked | None, Judgement, list[str]]:
    """What heads say of the labels, and what is judged; the heads are trained once for both."""
    if given is not None and given.info.multilabel:
        return None, judged_by_labels(given, data, progress), []
    checked, notices = check_labels(data, seed, progress)
    if given is not None:
        return checked, judged_by_classifier(given, data, checked), notices
    if checked is None:
        return None, unjudged(data.classes, Answers.none(data.labels.astype(np.int64))), notices
    numbers = np.arange(len(data.classes))
    return checked, judged_by_heads(data, checked, data.classes, numbers), notices


def _projections(vectors: Float32Array, options: ReportOptions) -> list[Projection]:
    plane = principal(vectors)
    kept = "" if plane.kept is None else f", which hold {plane.kept:.0%} of all differences"
    note = (
        "Each point is an image. The map shows the two directions in which the embeddings, brought"
        f" to the same length, differ most{kept}: what lies apart differs, what lies together may"
        " still differ in other directions."
    )
    found = [Projection("PCA", plane.points, note)]
    if options.map_kind == "umap":
        note = (
            "Each point is an image, beside those whose embeddings are most like its own. Groups"
            " mean something; their sizes and the distances between them do not."
        )
        found.insert(0, Projection("UMAP", umap(vectors, options.seed).points, note))
    return found


def _images(
    data: Features,
    rows: Ints,
    judgement: Judgement,
    neighbours: NDArray[np.int32],
    pictures: Pictures,
) -> Images:
    names = {int(split): split.name.lower() for split in Split} | {int(Split.NONE): ""}
    return Images(
        keys=[data.keys[row] for row in rows.tolist()],
        labels=_sets(judgement.labels[rows]),
        guesses=_sets(judgement.guesses[rows]),
        splits=[names[split] for split in data.splits[rows].tolist()],
        judged=judgement.judged[rows],
        confidences=judgement.confidences[rows],
        own=judgement.own[rows],
        neighbours=neighbours,
        tiles=pictures.tiles,
        sheets=pictures.sheets,
        larger=pictures.larger,
    )


def _sets(numbers: NDArray[np.int64] | NDArray[np.bool_]) -> list[tuple[int, ...]]:
    """Numbers of classes of each row, from one number or from a mask of classes."""
    if numbers.ndim == 2:
        return [tuple(np.flatnonzero(row).tolist()) for row in numbers]
    return [(number,) if number >= 0 else () for number in numbers.tolist()]
