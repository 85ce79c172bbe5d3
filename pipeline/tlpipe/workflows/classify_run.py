"""What ``classify`` does with images, with stored embeddings, and with both."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tlpipe.errors import OptionError
from tlpipe.files import check_output, sha256_file
from tlpipe.lock import writer_lock
from tlpipe.stages.engine import run
from tlpipe.stages.predictions import (
    Columns,
    Form,
    PredictionParts,
    PredictionSummary,
    Row,
    SavedRows,
    prediction_writer,
)
from tlpipe.stages.source import Source, Survey
from tlpipe.types import FEATURE_SUFFIXES, Item, Outcome, ProgressCallback
from tlpipe.workflows.classifier import Classifier
from tlpipe.workflows.classify_on_cluster import images_on_ray
from tlpipe.workflows.common import Surveyed
from tlpipe.workflows.pixels import loader
from tlpipe.workflows.run_options import RunOptions
from tlpipe.workflows.running import Reporter, planned
from tlpipe.workflows.source_watch import SourceWatch
from tlpipe.workflows.work_kept import work_kept

if TYPE_CHECKING:
    from tlpipe.workflows.embed_result import EmbedResult


@dataclass(frozen=True)
class ClassifyResult:
    """What ``classify`` did.

    Attributes
    ----------
    path : pathlib.Path
        The file of predictions.
    count : int
        Number of rows, N.
    classes : Counter of str
        Images by most probable class; or by label, where an image may have several.
    without : int or None
        Images that have none of the labels; None where an image is of one class.
    rejects : Counter of str
        Rows of what could not be read, by reason.
    unknown : int or None
        Rows of images that are of none of the classes; None where that was not asked for.
    too_many_rejects : bool
        Whether they are more than was allowed, or all of the rows.
    kept : int
        Rows taken over from a run that was cut short.
    survey : Survey or None
        What the source holds; None where it is a feature file.
    provider : str
        The ONNX Runtime execution provider that ran the classifier, or its head.
    elapsed_s : float
        Wall time, start-up left out.
    embedded : EmbedResult or None
        How the embeddings were made or updated, where they are kept.
    """

    path: Path
    count: int
    classes: Counter[str]
    without: int | None
    rejects: Counter[str]
    unknown: int | None
    too_many_rejects: bool
    kept: int
    survey: Survey | None
    provider: str
    elapsed_s: float
    embedded: EmbedResult | None = None


def form_of(classifier: Classifier, columns: Columns) -> Form:
    """What rows say.

    Raises
    ------
    OptionError
        `columns.top_k` makes no sense, or two columns would have the same name.
    """
    classes = classifier.info.classes
    if columns.top_k is not None and not 1 <= columns.top_k <= len(classes):
        raise OptionError(
            f"--top-k is {columns.top_k}; it must be from 1 to {len(classes)}, the number of"
            " classes."
        )
    form = Form(classes, columns, classifier.info.multilabel)
    twice = [name for name, count in Counter(form.header()).items() if count > 1]
    if twice:
        raise OptionError(
            f"The predictions would have several columns of the names {twice}.",
            hint="Rename the columns of the manifest, or leave them out of --columns.",
        )
    return form


@dataclass(frozen=True)
class Job:
    """What is to be said of whatever images, and where it is written."""

    classifier: Classifier
    form: Form
    options: RunOptions
    output: Path
    progress: ProgressCallback | None

    def of_images(self, source: Source) -> ClassifyResult:
        """Run the classifier over the images of a source."""
        with writer_lock(self.output):
            parts = PredictionParts(self.output, self._identity(source))
            earlier = parts.open()
            saved = SavedRows(earlier, parts.run, by_key=not source.walked)
            report = Reporter(self.progress, "classify", source.survey.count)
            with self._engine(source, saved, parts, report) as (provider, images):
                parts.begin(earlier)
                start = time.perf_counter()
                with (
                    work_kept(parts, "predictions"),
                    prediction_writer(
                        self.output, self.form, parts.temporary, parts.complete
                    ) as writer,
                ):
                    for row, cells in images.rows():
                        writer.add(row, cells)
            parts.remove()
        return self.result(writer.summary, source.survey, provider, start, kept=images.kept)

    @contextlib.contextmanager
    def _engine(
        self, source: Source, saved: SavedRows, parts: PredictionParts, report: Reporter
    ) -> Iterator[tuple[str, Images]]:
        """What runs the classifier, and what gives the rows."""
        if self.options.engine == "local":
            yield self.classifier.network.provider, _Images(self, source, saved, parts, report)
            return
        with images_on_ray(self, source, saved, parts, report) as (provider, images):
            yield provider, images

    def of_features(self, path: Path) -> ClassifyResult:
        """Run the head over stored embeddings."""
        from tlpipe.workflows.classify_features import rows_of_features, stored_for

        if self.form.columns.keep:
            raise OptionError(
                f"A feature file has no columns to keep: {list(self.form.columns.keep)}.",
                hint="Leave --columns out, or classify the images with --embeddings FILE.",
            )
        start = time.perf_counter()
        with (
            writer_lock(self.output),
            stored_for(self.classifier, path, self.form) as stored,
            prediction_writer(self.output, self.form) as writer,
        ):
            report = Reporter(self.progress, "classify", stored.count)
            for row in rows_of_features(stored):
                report.count(reject=row.reject is not None)
                writer.add(row)
        return self.result(writer.summary, None, stored.provider, start)

    def with_embeddings(
        self, source: Source, path: Path, surveyed: Surveyed | None
    ) -> ClassifyResult:
        """Make or update a feature file of a source, and run the head over it."""
        from tlpipe.workflows.classify_features import embedded_by, rows_of_source, stored_for

        inputs = [self.classifier.path, *source.paths]
        check_output(path, overwrite=True, suffixes=FEATURE_SUFFIXES, inputs=inputs)
        start = time.perf_counter()
        with writer_lock(self.output):
            embedded = embedded_by(
                self.classifier, source, path, self.options, self.progress, surveyed
            )
            with (
                stored_for(self.classifier, path, self.form) as stored,
                prediction_writer(self.output, self.form) as writer,
            ):
                report = Reporter(self.progress, "classify", source.survey.count)
                for row, item in rows_of_source(stored, source, self.form.columns):
                    report.count(reject=row.reject is not None)
                    writer.add(row, self.form.columns.kept(item))
        found = self.result(writer.summary, source.survey, embedded.provider, start)
        return replace(found, embedded=embedded)

    def result(
        self,
        summary: PredictionSummary,
        survey: Survey | None,
        provider: str,
        start: float,
        kept: int = 0,
    ) -> ClassifyResult:
        """What was done."""
        rejected = summary.rejects.total()
        count = summary.images + rejected
        return ClassifyResult(
            path=self.output,
            count=count,
            classes=summary.classes,
            without=summary.without if self.form.multilabel else None,
            rejects=summary.rejects,
            unknown=summary.unknown if self.form.columns.unknown else None,
            too_many_rejects=self.options.too_many(rejected, count) or rejected == count,
            kept=kept,
            survey=survey,
            provider=provider,
            elapsed_s=time.perf_counter() - start,
        )

    def _identity(self, source: Source) -> str:
        """What stands for all that determines a row but its image."""
        columns = asdict(self.form.columns)
        del columns["keep"]  # taken from the source anew
        about = {
            "classifier": sha256_file(self.classifier.path),
            "columns": columns,
            "precision": self.options.precision,
            "runtime": self.options.runtime,
            "source": source.text,
        }
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


class Images(Protocol):
    """The images of a source on their way to rows."""

    @property
    def kept(self) -> int:
        """Rows taken over from a run that was cut short."""

    def rows(self) -> Iterator[tuple[Row, Sequence[str]]]:
        """Rows of all items, in order, and the values that each takes over from its source."""


class _Images:
    """They are classified here."""

    def __init__(
        self,
        job: Job,
        source: Source,
        saved: SavedRows,
        parts: PredictionParts,
        report: Reporter,
    ) -> None:
        self.kept = 0
        self._job, self._source, self._saved, self._parts = job, source, saved, parts
        self._report = report

    def rows(self) -> Iterator[tuple[Row, Sequence[str]]]:
        """Rows of earlier runs where they are good, and others."""
        job, report = self._job, self._report
        info, network = job.classifier.info, job.classifier.network
        load = loader(self._source.reader, info.image_size, info.preprocess, info.decoder)
        watch = SourceWatch(self._source)
        with planned(job.options, network, report) as plan:
            results = run(self._planned(), load, network, plan)
            with contextlib.closing(results):
                for result in results:
                    if isinstance(result, Outcome):
                        if result.reject is not None:
                            watch.check(result.item, result.reject)
                        row, item = job.form.row(result), result.item
                        self._parts.add(row)
                    else:
                        row, item = result
                        self.kept += 1
                        self._parts.keep_time()
                    report.count(reject=row.reject is not None)
                    yield row, job.form.columns.kept(item)

    def _planned(self) -> Iterator[Item | tuple[Row, Item]]:
        """Items to classify, and rows of those that were before."""
        columns = self._job.form.columns.of_source
        for block in self._source.scan(stats=bool(self._saved), columns=columns):
            for index in range(len(block)):
                item = block.item(index)
                row = self._saved.find(item.key, block.stats[index]) if self._saved else None
                yield item if row is None else (row, item)
