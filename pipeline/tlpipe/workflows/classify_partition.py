"""What a worker of a cluster does for ``classify``: classifies a partition, and writes a part.

A part is as those of local runs: whoever finds it after a crash goes on from it, with either
engine. Imports neither scikit-learn, onnx nor h5py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tlpipe.seams import Network
from tlpipe.stages.classifier import ClassifierInfo
from tlpipe.stages.engine import run
from tlpipe.stages.predictions import Form, Row, write_part
from tlpipe.types import Outcome
from tlpipe.workflows.partitions import Partition
from tlpipe.workflows.pixels import loader
from tlpipe.workflows.run_options import RunOptions
from tlpipe.workflows.running import Reporter, planned
from tlpipe.workflows.sent import SentNetwork, SentSource, opened_on_worker
from tlpipe.workflows.source_watch import SourceWatch


@dataclass(frozen=True)
class Classified:
    """What became of a partition.

    Attributes
    ----------
    path : pathlib.Path
        The part, with a row for each item.
    count, rejects : int
        Number of rows, and of those that are rejects.
    """

    path: Path
    count: int
    rejects: int


@dataclass(frozen=True)
class ClassifyJob:
    """All that a worker must know (see ``partitions.Job``).

    Attributes
    ----------
    source : SentSource
    network : SentNetwork
    folder : pathlib.Path
        Of the parts.
    job, run : str
        As for ``PredictionParts``.
    info : ClassifierInfo
    form : Form
    options : RunOptions
    """

    source: SentSource
    network: SentNetwork
    folder: Path
    job: str
    run: str
    info: ClassifierInfo
    form: Form
    options: RunOptions

    def start(self, cores: int) -> tuple[str, Callable[[Partition], Classified]]:
        """Open the network.

        Raises
        ------
        ClusterError, SourceError
            As from ``SentSource.check_node``.
        DeviceError, BackboneError, OptionError
        """
        network, here = opened_on_worker(self.source, self.network, self.options, cores)
        return network.provider, _Classifying(replace(self, options=here), network)


@dataclass(frozen=True)
class _Classifying:
    """A worker's open network, called with one partition after the other."""

    job: ClassifyJob
    network: Network

    def __call__(self, partition: Partition) -> Classified:
        """Classify a partition.

        Raises
        ------
        ClusterError
            The run that wants it has ended.
        SourceError, BackboneError, OutputError
            As from ``classify``.
        """
        job = self.job
        job.source.shared.check()
        rows = self._rows(partition)
        job.source.shared.check()  # another run may have begun in the meantime
        path = write_part(job.folder, partition.number, rows, job.job, job.run)
        return Classified(path, len(rows), sum(row.reject is not None for row in rows))

    def _rows(self, partition: Partition) -> list[Row]:
        job, block, info = self.job, partition.block, self.job.info
        load = loader(job.source.reader, info.image_size, info.preprocess, info.decoder)
        watch = SourceWatch(job.source.opened())
        items = map(block.item, range(len(block)))
        rows = []
        with planned(job.options, self.network, Reporter(None, "classify", len(block))) as plan:
            for outcome in run(items, load, self.network, plan):
                assert isinstance(outcome, Outcome), "only items were given"
                if outcome.reject is not None:
                    watch.check(outcome.item, outcome.reject)
                    job.source.check_reject(outcome.reject)
                rows.append(job.form.row(outcome))
        return rows
