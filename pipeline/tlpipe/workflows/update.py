"""Writes a feature file from a source and from what earlier runs left."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tlpipe.card import Card
from tlpipe.errors import BackboneError
from tlpipe.seams import Network
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
    ProgressCallback,
    Reject,
    Twin,
)
from tlpipe.workflows.earlier import Comparison, Earlier
from tlpipe.workflows.listed import met_before, splits_of, twice_rejected
from tlpipe.workflows.pixels import fetching, interrupting, pixels_of
from tlpipe.workflows.run_options import RunOptions
from tlpipe.workflows.running import Reporter, planned
from tlpipe.workflows.source_watch import SourceWatch

if TYPE_CHECKING:
    from tlpipe.types import UInt8Array


ROWS_AT_ONCE = 16
"""Rows that are written together: one by one costs 0.1 ms each, and those that wait are lost to a
crash."""


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
    options: RunOptions
    found: Comparison
    set_above: int
    still_there: Callable[[int], None] = lambda vanished: None
    """Called when all is written, before it replaces what was there, with the number of images that
    vanished since they were listed; may raise ``SourceError``."""


def write_update(
    output: Path,
    header: FeatureHeader,
    parts: Parts,
    job: Job,
    update: Update,
) -> tuple[FeatureSummary, Tally]:
    """Write a feature file; rows that earlier runs left are taken over, the others embedded.

    `update` does it, in this process or elsewhere.

    Raises
    ------
    SourceError, BackboneError, FeatureFileError, OutputError
        As from ``embed``. What was embedded is in `parts`, but for rows not yet in a finished part.
    """
    dim = job.card.output.dim
    try:
        with feature_writer(
            output, header, dim, temporary=parts.temporary, set_above=job.set_above
        ) as writer:
            update.write(writer)
            job.still_there(update.watch.vanished)
            job.earlier.known.close()  # some systems replace no file that is open
        return writer.summary, update.tally
    finally:
        update.contents.close()


class Keeps(Protocol):
    """Takes the rows that were embedded, so that a crash cannot; see ``Parts``."""

    def add(self, rows: Rows, /) -> None:
        """Take rows."""

    def keep_time(self) -> None:
        """Put on disk what was taken, if it is time."""


class Update:
    """Writes rows of all items, in the source's order: the way of this process."""

    def __init__(
        self,
        header: FeatureHeader,
        parts: Keeps,
        job: Job,
        progress: ProgressCallback | None,
        *,
        network: Network | None = None,
        contents: Contents | None = None,
    ) -> None:
        self.tally = Tally()
        self._network = network
        self._job, self._parts = job, parts
        self._report = Reporter(progress, "embed", job.found.fresh)
        self._known = job.earlier.known
        self._assigned = header.splits_from != SPLITS_FROM_SOURCE
        self._ready: list[Outcome] = []  # embedded, and not written yet
        self._decoder = header.decoder
        self.watch = SourceWatch(job.source)
        self.contents = contents or Contents(self._known.contents(), self._known.intact)

    def write(self, writer: FeatureWriter) -> None:
        """Write all rows, in the source's order."""
        network = self._network
        assert network is not None, "it is run here"
        with planned(self._job.options, network, self._report, self.contents.settle) as plan:
            results: Generator[Outcome | Rows, None, None] = run(
                self._plan(), self._loader(), network, plan
            )
            with contextlib.closing(results):
                try:
                    self._write(results, writer)
                except BaseException:
                    self._keep()
                    raise

    def _write(self, results: Iterable[Outcome | Rows], writer: FeatureWriter) -> None:
        for result in results:
            if isinstance(result, Rows):
                self._flush(writer)
                self.tally.kept += len(result)
                writer.add(result)
                self._parts.keep_time()
                continue
            self._report.count(reject=self._take(result, writer))
        self._flush(writer)

    def _plan(self) -> Iterator[Item | Rows | Outcome]:
        """Items to embed, rows that are taken over, and what is known to be a reject, in order."""
        known, source = self._known, self._job.source
        known.rewind()
        met = None if source.walked else DigestIndex()
        with contextlib.closing(met) if met is not None else contextlib.nullcontext():
            for block, runs in self._blocks():
                twice = set() if met is None else met_before(block.keys, met)
                for start, count, rows in known.split(block, runs, without=twice):
                    if rows is not None:
                        if not self._assigned:
                            rows = replace(rows, splits=splits_of(block, start, count))
                        yield rows
                        continue
                    for index in range(start, start + count):
                        item = block.item(index)
                        yield twice_rejected(item) if index in twice else item

    def _blocks(self) -> Iterable[tuple[Block, list[Run] | None]]:
        """Blocks of the source, with what was found of them already."""
        if self._job.found.plan is not None:
            return self._job.found.plan
        return ((block, None) for block in self._job.source.scan(stats=self._known.count > 0))

    def _loader(self) -> Loader:
        card = self._job.card
        pixels = pixels_of(card.image_size, card.arithmetic, self._decoder)
        contents = self.contents

        def prepare(item: Item, raw: bytes, content: Content) -> UInt8Array | Twin | Reject:
            twin = contents.ask(content.sha256)
            if twin is not None:
                return twin
            try:
                loaded = pixels(raw, content)
            except BaseException as exc:
                contents.settle(content.sha256, exc)
                raise
            if isinstance(loaded, Reject):
                contents.settle(content.sha256, Outcome(item, reject=loaded))
            return loaded

        reader = self._job.source.reader
        return Loader(fetching(reader), prepare, interrupting(reader))

    def _take(self, outcome: Outcome, writer: FeatureWriter) -> bool:
        """Write what became of an item, those that were embedded several at once.

        Whether it is a reject.
        """
        if outcome.reject is None and outcome.twin is None:
            if outcome.values["embeddings"].shape != (self._job.card.output.dim,):
                raise _other_dim(self._job.card, outcome)
            self._ready.append(outcome)
            if len(self._ready) >= ROWS_AT_ONCE:
                self._flush(writer)
            return False
        self._flush(writer)
        outcome, like = self._resolved(outcome, writer)
        if outcome.reject is not None:
            self.watch.check(outcome.item, outcome.reject)
            self.leave_out(outcome.item, outcome.reject, writer)
            return True
        rows = rows_of([outcome])
        if self._assigned and like is not None:
            rows = replace(rows, splits=like.splits, groups=like.groups)
        self._parts.add(rows)
        self._place(rows, writer)
        return False

    def leave_out(self, item: Item, reject: Reject, writer: FeatureWriter) -> None:
        """Note an item that has no row."""
        writer.reject(item.key, reject)

    def _flush(self, writer: FeatureWriter) -> None:
        """Write what was embedded and is not written yet."""
        rows = self._keep()
        if rows is not None:
            self._place(rows, writer)

    def _keep(self) -> Rows | None:
        """Keep what was embedded and is not written yet, for the next run if need be."""
        if not self._ready:
            return None
        ready, self._ready = self._ready, []
        self.tally.embedded += len(ready)
        rows = rows_of(ready)
        self._parts.add(rows)
        return rows

    def _place(self, rows: Rows, writer: FeatureWriter) -> None:
        place = self._known.count + writer.summary.count
        writer.add(rows)
        for number, digest in enumerate(rows.content_sha256):
            self.contents.place(digest.tobytes(), place + number)

    def _resolved(self, outcome: Outcome, writer: FeatureWriter) -> tuple[Outcome, Rows | None]:
        """An outcome with the vector of its twin, and the twin's row if an earlier run left it."""
        twin = outcome.twin
        if twin is None or outcome.content is None:
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


def _other_dim(card: Card, outcome: Outcome) -> BackboneError:
    return BackboneError(
        f"The backbone {card.name!r} gave an embedding of shape"
        f" {outcome.values['embeddings'].shape}, not ({card.output.dim},).",
        hint="Correct 'tensor', 'pooling' or 'dim' under [output] in its card.",
    )
