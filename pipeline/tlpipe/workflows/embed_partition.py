"""What a worker of a cluster does for ``embed``: embeds a partition, and writes it as a part.

The same code embeds there as in a local run. A part is as those of local runs: whoever finds it
after a crash goes on from it, with either engine.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tlpipe.card import Card
from tlpipe.seams import Network
from tlpipe.stages.store import (
    Contents,
    DigestIndex,
    FeatureFile,
    FeatureHeader,
    FeatureWriter,
    Known,
    Rows,
    Run,
    feature_writer,
    part_path,
)
from tlpipe.types import Item, Reject, Twin
from tlpipe.workflows.earlier import Comparison, Earlier
from tlpipe.workflows.partitions import Partition
from tlpipe.workflows.run_options import RunOptions
from tlpipe.workflows.sent import SentNetwork, SentSource, opened_on_worker
from tlpipe.workflows.update import Job, Tally, Update

MOST_LOOKED_UP = 1 << 21
"""Rows of earlier runs in which each worker looks for a content: 2 s, and 100 MB, when it starts.
Where there are more, an image whose content has a vector under another key is embedded again."""


@dataclass(frozen=True)
class Embedded:
    """What became of a partition.

    Attributes
    ----------
    path : pathlib.Path or None
        The part that holds the rows, in the items' order; None where all are rejects.
    count : int
        Number of its rows.
    rejects : list of (int, str, Reject)
        Number in the partition and key of each item that is none of them, in order.
    tally : Tally
    vanished : int
        Images that went away since they were listed.
    """

    path: Path | None
    count: int
    rejects: list[tuple[int, str, Reject]]
    tally: Tally
    vanished: int


@dataclass(frozen=True)
class EmbedJob:
    """All that a worker must know (see ``partitions.Job``).

    Attributes
    ----------
    source : SentSource
    network : SentNetwork
    folder : pathlib.Path
        Of the parts.
    card : Card
    options : RunOptions
    header : FeatureHeader
        Of the parts, but for the provider.
    known : tuple of pathlib.Path
        Feature files of earlier runs.
    """

    source: SentSource
    network: SentNetwork
    folder: Path
    card: Card
    options: RunOptions
    header: FeatureHeader
    known: tuple[Path, ...] = ()

    def start(self, cores: int) -> tuple[str, Callable[[Partition], Embedded]]:
        """Open the network and what earlier runs left.

        Raises
        ------
        ClusterError, SourceError
            As from ``SentSource.check_node``.
        DeviceError, BackboneError, OptionError, FeatureFileError
        """
        network, here = opened_on_worker(self.source, self.network, self.options, cores)
        return network.provider, _Embedding(replace(self, options=here), network)


class _Embedding:
    """A worker's open network and files, called with one partition after the other."""

    def __init__(self, job: EmbedJob, network: Network) -> None:
        self._job, self._network = job, network
        self._header = replace(job.header, provider=network.provider)
        self._source = job.source.opened()
        self._known = Known([FeatureFile(path) for path in job.known])
        self._index: DigestIndex | None = None
        if 0 < self._known.count <= MOST_LOOKED_UP:
            self._index = DigestIndex()
            for first, digests in self._known.contents():
                self._index.add(digests, first)

    def __call__(self, partition: Partition) -> Embedded:
        """Embed a partition.

        Raises
        ------
        ClusterError
            The run that wants it has ended.
        SourceError, BackboneError, OutputError
            As from ``embed``.
        """
        job, block = self._job, partition.block
        job.source.shared.check()
        found = Comparison(fresh=len(block), plan=[(block, [Run(0, len(block), None)])])
        earlier = Earlier(self._known, None, 0, self._header)
        update = _PartUpdate(
            self._header,
            _NoParts(),
            Job(self._source, earlier, job.card, job.options, found, len(block)),
            self._network,
            _Layered(self._known, self._index),
        )
        target = part_path(job.folder, partition.number)
        path: Path | None = target
        temporary = target.with_name(f"{target.stem}-{secrets.token_hex(4)}.tmp")
        try:
            dim = job.card.output.dim
            with feature_writer(target, self._header, dim, temporary=temporary) as writer:
                update.write(writer)
                for _, reject in update.left_out:
                    job.source.check_reject(reject)
                if not writer.summary.count:
                    raise _NoRows
                job.source.shared.check()  # another run may have begun in the meantime
        except _NoRows:
            path = None
        finally:
            update.contents.close()
        numbers = {key: number for number, key in enumerate(block.keys)}
        rejects = [(numbers[key], key, reject) for key, reject in update.left_out]
        count = len(block) - len(rejects)
        return Embedded(path, count, rejects, update.tally, update.watch.vanished)


class _NoRows(Exception):  # noqa: N818  (it is no error)
    """There is nothing to write."""


class _NoParts:
    """Stands for the parts of a local run: here the partition itself is one."""

    def add(self, rows: Rows) -> None:
        """Keep nothing."""

    def keep_time(self) -> None:
        """There is nothing to finish."""


class _Layered(Contents):
    """Contents of the partition, and behind them those of earlier runs, which stay indexed."""

    def __init__(self, known: Known, index: DigestIndex | None) -> None:
        super().__init__(())
        self._known, self._before = known, index

    def ask(self, digest: bytes) -> Twin | None:
        """As in ``Contents``."""
        place = None if self._before is None else self._before.get(digest)
        if place is not None and self._known.intact(place):
            return Twin(place=place)
        return super().ask(digest)


class _PartUpdate(Update):
    """Writes a part: the rejects go to the driver, so that no later run takes them for granted."""

    def __init__(
        self,
        header: FeatureHeader,
        parts: _NoParts,
        job: Job,
        network: Network,
        contents: Contents,
    ) -> None:
        super().__init__(header, parts, job, None, network=network, contents=contents)
        self.left_out: list[tuple[str, Reject]] = []

    def leave_out(self, item: Item, reject: Reject, writer: FeatureWriter) -> None:
        """Note a reject for the driver."""
        self.left_out.append((item.key, reject))
