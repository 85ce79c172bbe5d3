"""Classifies the images of a source on the workers of a cluster.

The driver lists the source, and writes the rows of the workers' parts in its order while the rest
is under way. Imports neither scikit-learn, onnx nor h5py.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlpipe.lock import writer_note
from tlpipe.stages.predictions import Columns, PredictionParts, Row, SavedRows, rows_of_part
from tlpipe.stages.session import settled
from tlpipe.stages.source import Source
from tlpipe.types import FileStat
from tlpipe.workflows.classifier import execution_of
from tlpipe.workflows.classify_partition import Classified, ClassifyJob
from tlpipe.workflows.dispatch import Dispatch
from tlpipe.workflows.partitions import Crashed, Crew, Fresh, Piece
from tlpipe.workflows.ray_crew import ray_crew
from tlpipe.workflows.running import Reporter
from tlpipe.workflows.sent import SentNetwork, SentSource

if TYPE_CHECKING:
    from tlpipe.workflows.classify_run import Job


@contextmanager
def images_on_ray(
    job: Job, source: Source, saved: SavedRows, parts: PredictionParts, report: Reporter
) -> Iterator[tuple[str, ClusterImages]]:
    """Start workers on a Ray cluster; what runs the classifier there, and what gives the rows.

    Raises
    ------
    TlpipeError
        As from ``ray_crew``.
    """
    classifier, options, columns = job.classifier, job.options, job.form.columns
    execution = settled(execution_of(classifier.info, options))
    network: SentNetwork = SentNetwork.of(classifier.path, execution)
    work = ClassifyJob(
        source=SentSource.of(source, writer_note(job.output)),
        network=network.only(classifier.outputs_of(columns)),
        folder=parts.folder.absolute(),
        job=parts.job,
        run=parts.run,
        info=classifier.info,
        form=job.form,
        options=options,
    )
    gpu = execution.device != "cpu"
    with ray_crew(work, options.address, gpu=gpu, threads=options.threads) as crew:
        yield crew.provider, ClusterImages(crew, source, columns, saved, parts, report)


@dataclass(frozen=True, slots=True)
class _Saved:
    """The row of an item that was classified before."""

    row: Row

    def __len__(self) -> int:
        return 1


class ClusterImages:
    """The images of a source on their way to rows.

    Attributes
    ----------
    kept : int
        Rows taken over from a run that was cut short.
    """

    def __init__(
        self,
        crew: Crew[Classified],
        source: Source,
        columns: Columns,
        saved: SavedRows,
        parts: PredictionParts,
        report: Reporter,
    ) -> None:
        self.kept = 0
        self._crew, self._source, self._columns = crew, source, columns
        self._saved, self._parts, self._report = saved, parts, report
        self._cells: deque[tuple[str, ...]] = deque()  # of what is listed and not taken yet
        self._read: tuple[Classified, list[Row]] | None = None

    def rows(self) -> Iterator[tuple[Row, Sequence[str]]]:
        """Rows of all items, in order, and the values that each takes over from its source.

        Raises
        ------
        ClusterError
            Workers die again and again.
        TlpipeError
            As from ``classify``.
        """
        work = Dispatch[Classified, _Saved](
            self._stream(),
            self._crew,
            self._source.survey.count,
            itertools.count(self._parts.next),
            self._heard,
        )
        for found in work:
            for row in [found.row] if isinstance(found, _Saved) else self._rows_of(found):
                yield row, self._cells.popleft() if self._columns.keep else ()

    def _stream(self) -> Iterator[Fresh | _Saved]:
        columns = self._columns
        for block in self._source.scan(stats=bool(self._saved), columns=columns.of_source):
            start = 0
            for index in range(len(block)):
                if columns.keep:
                    self._cells.append(columns.kept(block.item(index)))
                if not self._saved:
                    continue
                row = self._saved.find(block.keys[index], block.stats[index])
                if row is None:
                    continue
                if start < index:
                    yield Fresh(block, start, index)
                start = index + 1
                self.kept += 1
                self._report.count(reject=row.reject is not None)
                yield _Saved(row)
            if start < len(block):
                yield Fresh(block, start, len(block))

    def _heard(self, answer: Classified | Crashed) -> None:
        """Count what a worker has done, as soon as it has."""
        if isinstance(answer, Crashed):
            self._report.add(1, 1)
            return
        self._report.add(answer.count, answer.rejects)
        self._parts.kept += answer.count

    def _rows_of(self, piece: Piece[Classified]) -> list[Row]:
        """Rows of some items; the part that was read last stays in memory."""
        answer = piece.answer
        if isinstance(answer, Crashed):
            reject = (str(answer.reject.reason), answer.reject.detail)
            return [Row(answer.item.key, FileStat(), reject=reject)]
        if self._read is None or self._read[0] is not answer:
            self._read = answer, rows_of_part(answer.path)
        return self._read[1][piece.start : piece.stop]
