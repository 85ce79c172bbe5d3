"""Writes a feature file from a source and from what earlier runs left."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tlpipe.card import Card
from tlpipe.errors import BackboneError, SourceError
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
    feature_writer,
    rows_of,
)
from tlpipe.types import (
    Content,
    Item,
    Network,
    Outcome,
    Progress,
    ProgressCallback,
    Reason,
    Reject,
    Stage,
    Twin,
)
from tlpipe.workflows.common import RunOptions, pixels_of
from tlpipe.workflows.earlier import Earlier

if TYPE_CHECKING:
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
    fresh: int | None
    """Items to be read, as far as that is known."""


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
        self._root = _identity(job.source.path)
        known = self._known
        self.contents = Contents(
            known.contents(),
            lambda place: place >= known.count or known.intact(place),  # the former are this run's
        )

    def write(self, writer: FeatureWriter) -> None:
        """Write all rows, in the source's order."""
        job = self._job
        results: Generator[Outcome | Rows, None, None] = run(
            self._plan(),
            self._loader(),
            job.network,
            batch_size=job.options.batch_size,
            settle=self.contents.settle,
        )
        with quiet_pillow(), contextlib.closing(results):
            for result in results:
                if isinstance(result, Rows):
                    self.tally.kept += len(result)
                    writer.add(result)
                    continue
                self._take(result, writer)
                if self._progress is not None:
                    self._done += 1
                    self._progress(Progress("embed", self._done, job.fresh, self._rejects))

    def _plan(self) -> Iterator[Item | Rows | Outcome]:
        """Items to embed, rows that are taken over, and what is known to be a reject, in order."""
        known, source = self._known, self._job.source
        known.rewind()
        met = None if source.unique_keys else DigestIndex()
        with contextlib.closing(met) if met is not None else contextlib.nullcontext():
            for block in source.scan(stats=known.count > 0):
                twice = set() if met is None else _twice(block.keys, met)
                for start, count, rows in known.split(block, without=twice):
                    if rows is not None:
                        at = slice(start, start + count)
                        rows = replace(rows, labels=block.labels[at])
                        if not self._assigned:
                            rows = replace(rows, splits=np.array(block.splits[at], np.int8))
                        yield rows
                        continue
                    for index in range(start, start + count):
                        item = block.item(index)
                        yield _twice_rejected(item) if index in twice else item

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
            self._check_source(outcome.item, reject)
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
            like = self._known.row(twin.place)
            assert like.vectors is not None, "rows are read with their vectors"
            values = {"embeddings": like.vectors[0]}
        else:
            assert twin.place is not None, "a twin has a place or is pending"
            values = {"embeddings": writer.vector(twin.place - self._known.count)}
        self.tally.copied += 1
        return Outcome(outcome.item, outcome.content, values), like

    def _check_source(self, item: Item, reject: Reject) -> None:
        """Tell an image that is missing from a source that is."""
        if reject.stage is not Stage.SOURCE or reject.reason is Reason.DUPLICATE_KEY:
            return
        source = self._job.source
        gone = _identity(source.path) != self._root
        if source.unique_keys and not gone:  # a folder, which listed it a moment ago
            gone = _identity(item.path.parent) is None
        if gone:
            raise SourceError(
                f"The source {str(source.path)!r} went away while it was read, at {item.key!r}"
                f" ({reject.detail})",
                hint="Connect or mount it again, and run the same command.",
            )


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file or folder from another one of the same name; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


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
