"""Writes a feature file whose new rows come from the workers of a cluster.

The driver lists the source and compares it with what earlier runs left, as in a local run; the
items that have no row go to the workers, whose parts are taken up in the source's order while the
rest is under way. One pass over the source, in constant memory.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from tlpipe.stages.store import (
    SPAN_ROWS,
    DigestIndex,
    FeatureFile,
    FeatureHeader,
    FeatureWriter,
    Parts,
    Rows,
    Run,
)
from tlpipe.types import Block, Item, ProgressCallback
from tlpipe.workflows.dispatch import Dispatch
from tlpipe.workflows.embed_partition import Embedded
from tlpipe.workflows.listed import met_before, splits_of, twice_rejected
from tlpipe.workflows.partitions import Crashed, Crew, Fresh, Piece
from tlpipe.workflows.update import Job, Update


@dataclass(frozen=True, slots=True)
class _Kept:
    """Items of a block that have rows; their vectors are read when it is their turn."""

    block: Block
    run: Run
    twice: Collection[int]

    def __len__(self) -> int:
        return self.run.count


@dataclass(frozen=True, slots=True)
class _Twice:
    """An item whose key an earlier one has."""

    item: Item

    def __len__(self) -> int:
        return 1


class ClusterUpdate(Update):
    """Writes rows of all items, in the source's order; a crew makes those that are new."""

    def __init__(
        self,
        crew: Crew[Embedded],
        header: FeatureHeader,
        parts: Parts,
        job: Job,
        progress: ProgressCallback | None,
    ) -> None:
        super().__init__(header, parts, job, progress)
        self._dispatch = Dispatch[Embedded, _Kept | _Twice](
            self._stream(), crew, job.found.fresh, itertools.count(parts.next), self._heard
        )
        self._all_parts = parts
        self._read = contextlib.ExitStack()  # the part that is being read
        self._part: FeatureFile | None = None

    def write(self, writer: FeatureWriter) -> None:
        """Write all rows."""
        with self._read:
            for found in self._dispatch:
                if isinstance(found, Piece):
                    self._take_piece(found, writer)
                elif isinstance(found, _Kept):
                    self._take_kept(found, writer)
                else:
                    self._take(twice_rejected(found.item), writer)

    def _stream(self) -> Iterator[Fresh | _Kept | _Twice]:
        """All items, in order, without reading what is known of them."""
        known, source = self._known, self._job.source
        known.rewind()
        met = None if source.walked else DigestIndex()
        with contextlib.closing(met) if met is not None else contextlib.nullcontext():
            for block, runs in self._blocks():
                twice = set() if met is None else met_before(block.keys, met)
                if runs is None:
                    whole = [Run(0, len(block), None)]
                    runs = whole if known.rehash else list(known.match(block))
                for run in runs:
                    if run.place is not None:
                        yield _Kept(block, run, twice)
                    else:
                        yield from _without(block, run, twice)

    def _heard(self, answer: Embedded | Crashed) -> None:
        """Count what a worker has done, as soon as it has."""
        if isinstance(answer, Crashed):
            self._report.add(1, 1)
            return
        self._report.add(answer.count + len(answer.rejects), len(answer.rejects))
        self._all_parts.kept += answer.count
        self.tally.embedded += answer.tally.embedded
        self.tally.copied += answer.tally.copied
        self.watch.vanished += answer.vanished

    def _take_kept(self, kept: _Kept, writer: FeatureWriter) -> None:
        """Write rows that earlier runs left; have those embedded that prove to be damaged."""
        block = kept.block
        for start, count, rows in self._known.split(block, [kept.run], without=kept.twice):
            if rows is not None:
                if not self._assigned:
                    rows = replace(rows, splits=splits_of(block, start, count))
                self.tally.kept += len(rows)
                writer.add(rows)
                continue
            for found in _without(block, Run(start, count, None), kept.twice):
                if isinstance(found, _Twice):
                    self._take(twice_rejected(found.item), writer)
                    continue
                for piece in self._dispatch.now(found):
                    self._take_piece(piece, writer)

    def _take_piece(self, piece: Piece[Embedded], writer: FeatureWriter) -> None:
        """Write what a worker made of some items."""
        answer = piece.answer
        if isinstance(answer, Crashed):
            self.leave_out(answer.item, answer.reject, writer)
            return
        before = sum(number < piece.start for number, _, _ in answer.rejects)
        here = [entry for entry in answer.rejects if piece.start <= entry[0] < piece.stop]
        first = piece.start - before
        last = piece.stop - before - len(here)
        for start in range(first, last, SPAN_ROWS):
            self._add(self._rows(answer, start, min(start + SPAN_ROWS, last)), writer)
        for _, key, reject in here:
            writer.reject(key, reject)

    def _rows(self, answer: Embedded, start: int, stop: int) -> Rows:
        """Rows of a part; the one that was read last stays open."""
        assert answer.path is not None, "what has rows has a part"
        if self._part is None or self._part.path != answer.path:
            self._read.close()
            self._part = self._read.enter_context(FeatureFile(answer.path))
        return self._part.rows(start, stop, vectors=True)

    def _add(self, rows: Rows, writer: FeatureWriter) -> None:
        if not (self._assigned and self._known.count):
            writer.add(rows)
            return
        splits, groups = rows.splits.copy(), rows.groups.copy()
        for number, digest in enumerate(rows.content_sha256):
            twin = self.contents.ask(digest.tobytes())
            if twin is not None and twin.place is not None and twin.place < self._known.count:
                like = self._known.rows(twin.place)
                splits[number], groups[number] = like.splits[0], like.groups[0]
        self._place(replace(rows, splits=splits, groups=groups), writer)


def _without(block: Block, run: Run, twice: Collection[int]) -> Iterator[Fresh | _Twice]:
    """Items that must be embedded, but for those whose key was met before."""
    start, stop = run.start, run.start + run.count
    for index in sorted(index for index in twice if start <= index < stop):
        if start < index:
            yield Fresh(block, start, index)
        yield _Twice(block.item(index))
        start = index + 1
    if start < stop:
        yield Fresh(block, start, stop)
