"""Where an embedding is done: in this process, or on the nodes of a Ray cluster.

Gives the ``Update`` that does it; the rest of ``embed`` is the same.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from tlpipe.lock import writer_note
from tlpipe.seams import Network
from tlpipe.stages.store import FeatureHeader, Parts
from tlpipe.types import ProgressCallback
from tlpipe.workflows.earlier import continued
from tlpipe.workflows.embed_partition import EmbedJob
from tlpipe.workflows.precision import Arithmetic
from tlpipe.workflows.ray_crew import ray_crew
from tlpipe.workflows.sent import SentNetwork, SentSource
from tlpipe.workflows.update import Job, Update
from tlpipe.workflows.update_on_cluster import ClusterUpdate

MakeUpdate = Callable[[FeatureHeader, Parts, Job, ProgressCallback | None], Update]


@dataclass(frozen=True)
class Engine:
    """What embeds.

    Attributes
    ----------
    provider : str
        What runs the backbone.
    update : callable
        Gives what writes a feature file.
    """

    provider: str
    update: MakeUpdate


@contextlib.contextmanager
def engine(
    output: Path,
    parts: Parts,
    header: FeatureHeader,
    job: Job,
    arithmetic: Arithmetic,
    opened: Callable[[], Network],
) -> Iterator[Engine]:
    """Start the engine that the job's options name.

    Parameters
    ----------
    output : pathlib.Path
        Its lock is held.
    parts : Parts
    header : FeatureHeader
        Of the file, but for the provider.
    job : Job
    arithmetic : Arithmetic
        Settled, but where not one image could be read.
    opened : callable
        Gives the network, for use in this process.

    Raises
    ------
    ClusterError
        There is no such cluster, or it does not do the work.
    TlpipeError
        As from ``embed``.
    """
    options = job.options
    if options.engine == "local" or arithmetic.unsettled:
        network = opened()
        yield Engine(network.provider, functools.partial(Update, network=network))
        return
    work = EmbedJob(
        source=SentSource.of(job.source, writer_note(output)),
        network=cast("SentNetwork", arithmetic.opened(SentNetwork.of)),
        folder=parts.folder.absolute(),
        card=job.card,
        options=options,
        header=continued(header, "", job.earlier),
        known=tuple(file.path.absolute() for file in job.earlier.known.files),
    )
    gpu = arithmetic.execution.device != "cpu"
    with ray_crew(work, options.address, gpu=gpu, threads=options.threads) as crew:
        yield Engine(crew.provider, functools.partial(ClusterUpdate, crew))
