"""Writes a feature file from a source and from what earlier runs left."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tlpipe.card import Card
from tlpipe.errors import BackboneError
from tlpipe.seams import Network
from tlpipe.stages.decode import quiet_pillow, read_file
from tlpipe.stages.engine import Loader, run
from tlpipe.stages.source import Source
from tlpipe.stages.store import (
    SPLITS_FROM_SOURCE,
    Contents,
    DigestIndex,
    FeatureHeader,
    FeatureSummary,
    FeatureWriter,
    Parts,
    Rows,
    Run,
    feature_writer,
    rows_of,
)
from tlpipe.types import (
    Block,
    Content,
    Item,
    Outcome,
    Progress,
    ProgressCallback,
    Reason,
    Reject,
    Stage,
    Twin,
)
from tlpipe.workflows.common import pixels_of
from tlpipe.workflows.earlier import Comparison, Earlier
from tlpipe.workflows.run_options import RunOptions
from tlpipe.workflows.source_watch import SourceWatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import UInt8Array


@dataclass
class Tally:
    """How the rows of a file came about, in numbers of rows."""

    embedded: int = 0
    kept: int = 0
    copied: int = 0


@dataclass(frozen=True)
class Job:
    """What a feature file is made of."""

    source: Source
    earlier: Earlier
    card: Card
    network: Network
    options: RunOptions
    found: Comparison
    still_there: Callable[[int], None] = lambda vanished: None
    """Called when all is written, before it replaces what was there, with the number of images that
    vanished since they were listed; may raise ``SourceError``."""


def write_update(
    output: Path,
    header: FeatureHeader,
    parts: Parts,
    job: Job,
    progress: ProgressCallback | None,
) -> tuple[FeatureSummary, Tally]:
    """Write a feature file; rows that earlier runs left are taken over, the others embedded.

    Raises
    ------
    SourceError, BackboneError, FeatureFileError, OutputError
        As from ``embed``. What was embedded is in `parts`, but for rows not yet in a finished part.
    """
    update = _Update(header, parts, job, progress)
    dim = job.card.output.dim
    try:
        with feature_writer(output, header, dim, temporary=parts.temporary) as writer:
            update.write(writer)
            job.still_there(update.watch.vanished)
            job.earlier.known.close()  # some systems replace no file that is open
        return writer.summary, update.tally
    finally:
        update.contents.close()


class _Update:
    def __init__(
        self,
        header: FeatureHeader,
        parts: Parts,
        job: Job,
        progress: ProgressCallback | None,
    ) -> None:
        self.tally = Tally()
        self._job, self._parts, self._progress = job, parts, progress
        self._known = job.earlier.known
        self._assigned = header.splits_from != SPLITS_FROM_SOURCE
        self._done = self._rejects = 0
        self.watch = SourceWatch(job.source)
        self.contents = Contents(self._known.contents(), self._known.intact)

    def write(self, writer: FeatureWriter) -> None:
        """Write all rows, in the source's order."""
        job = self._job
        results: Generator[Outcome | Rows, None, None] = run(
            self._plan(),
            self._loader(),
            job.network,
            batch_size=job.options.batch_size,
            workers=job.options.threads,
            settle=self.contents.settle,
        )
        with quiet_pillow(), contextlib.closing(results):
            for result in results:
                if isinstance(result, Rows):
                    self.tally.kept += len(result)
                    writer.add(result)
                    self._parts.keep_time()
                    continue
                self._take(result, writer)
                if self._progress is not None:
                    self._done += 1
                    self._progress(Progress("embed", self._done, job.found.fresh, self._rejects))

    def _plan(self) -> Iterator[Item | Rows | Outcome]:
        """Items to embed, rows that are taken over, and what is known to be a reject, in order."""
        known, source = self._known, self._job.source
        known.rewind()
        met = None if source.unique_keys else DigestIndex()
        with contextlib.closing(met) if met is not None else contextlib.nullcontext():
            for block, runs in self._blocks():
                twice = set() if met is None else _twice(block.keys, met)
                for start, count, rows in known.split(block, runs, without=twice):
                    if rows is not None:
                        if not self._assigned:
                            rows = replace(rows, splits=_splits(block, start, count))
                        yield rows
                        continue
                    for index in range(start, start + count):
                        item = block.item(index)
                        yield _twice_rejected(item) if index in twice else item

    def _blocks(self) -> Iterable[tuple[Block, list[Run] | None]]:
        """Blocks of the source, with what was found of them already."""
        if self._job.found.plan is not None:
            return self._job.found.plan
        return ((block, None) for block in self._job.source.scan(stats=self._known.count > 0))

    def _loader(self) -> Loader:
        card = self._job.card
        pixels = pixels_of(card.image_size, card.arithmetic)
        contents = self.contents

        def load(item: Item) -> tuple[UInt8Array | Twin, Content] | Reject:
            read = read_file(item.path)
            if isinstance(read, Reject):
                return read
            raw, content = read
            twin = contents.ask(content.sha256)
            if twin is not None:
                return twin, content
            try:
                loaded = pixels(raw, content)
            except BaseException as exc:
                contents.settle(content.sha256, exc)
                raise
            if isinstance(loaded, Reject):
                contents.settle(content.sha256, Outcome(item, reject=loaded))
            return loaded

        return load

    def _take(self, outcome: Outcome, writer: FeatureWriter) -> None:
        """Write what became of an item."""
        outcome, like = self._resolved(outcome, writer)
        if outcome.reject is not None or outcome.content is None:
            reject = outcome.reject
            assert reject is not None, "an outcome has content or a reject"
            self.watch.check(outcome.item, reject)
            self._rejects += 1
            writer.reject(outcome.item.key, reject)
            return
        rows = rows_of([outcome])
        if rows.vectors is None or rows.vectors.shape[1] != self._job.card.output.dim:
            raise _other_dim(self._job.card, outcome)
        if self._assigned and like is not None:
            rows = replace(rows, splits=like.splits, groups=like.groups)
        place = self._known.count + writer.summary.count
        writer.add(rows)
        self._parts.add(rows)
        self.contents.place(outcome.content.sha256, place)

    def _resolved(self, outcome: Outcome, writer: FeatureWriter) -> tuple[Outcome, Rows | None]:
        """An outcome with the vector of its twin, and the twin's row if an earlier run left it."""
        twin = outcome.twin
        if twin is None or outcome.content is None:
            self.tally.embedded += outcome.reject is None
            return outcome, None
        like = None
        if twin.pending is not None:
            other = twin.pending.result()
            if other.reject is not None:
                reject = replace(other.reject, stat=outcome.content.stat)
                return Outcome(outcome.item, reject=reject), None
            values = other.values
        elif twin.place is not None and twin.place < self._known.count:
            like = self._known.rows(twin.place)
            assert like.vectors is not None, "rows are read with their vectors"
            values = {"embeddings": like.vectors[0]}
        else:
            assert twin.place is not None, "a twin has a place or is pending"
            values = {"embeddings": writer.vector(twin.place - self._known.count)}
        self.tally.copied += 1
        return Outcome(outcome.item, outcome.content, values), like


def _splits(block: Block, start: int, count: int) -> NDArray[np.int8]:
    """Splits of some items of a block; mostly they are all the same."""
    splits = block.splits[start : start + count]
    if splits.count(splits[0]) == count:
        return np.full(count, splits[0], np.int8)
    return np.array(splits, np.int8)


def _twice(keys: list[str], met: DigestIndex) -> set[int]:
    """Positions of the keys that were met before."""
    digests = (hashlib.blake2b(key.encode(), digest_size=16).digest() for key in keys)
    return {index for index, digest in enumerate(digests) if met.met(digest)}


def _twice_rejected(item: Item) -> Outcome:
    detail = "An earlier item of the source has the same key; that one is kept."
    return Outcome(item, reject=Reject(Stage.SOURCE, Reason.DUPLICATE_KEY, detail))


def _other_dim(card: Card, outcome: Outcome) -> BackboneError:
    return BackboneError(
        f"The backbone {card.name!r} gave an embedding of shape"
        f" {outcome.values['embeddings'].shape}, not ({card.output.dim},).",
        hint="Correct 'tensor', 'pooling' or 'dim' under [output] in its card.",
    )
