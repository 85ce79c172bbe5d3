"""Runs a network over a source: the engine, with progress and a trace of what it does."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator, Iterable, Iterator

from tlpipe.errors import OptionError
from tlpipe.machine import usable_cores
from tlpipe.seams import Network
from tlpipe.stages.decode import quiet_pillow
from tlpipe.stages.engine import Loader, Plan, Settle, run
from tlpipe.stages.trace import TraceFile
from tlpipe.types import Item, Outcome, Progress, ProgressCallback
from tlpipe.workflows.run_options import RunOptions

_log = logging.getLogger(__name__)


class Reporter:
    """Counts outcomes, and tells the progress.

    Parameters
    ----------
    progress : callable or None
    stage : str
        What the progress calls this job.
    total : int
        N as surveyed.
    """

    def __init__(self, progress: ProgressCallback | None, stage: str, total: int) -> None:
        self._progress, self._stage, self._total = progress, stage, total
        self._done = self._rejects = 0
        self._busy: dict[str, float] = {}

    def busy(self, shares: dict[str, float]) -> None:
        """Take note of what the threads are busy with."""
        self._busy = shares

    def count(self, *, reject: bool) -> None:
        """Count one outcome."""
        self.add(1, int(reject))

    def add(self, done: int, rejects: int) -> None:
        """Count several outcomes, some of them rejects."""
        self._done += done
        self._rejects += rejects
        if self._progress is not None:
            self._progress(
                Progress(self._stage, self._done, self._total, self._rejects, self._busy)
            )


@contextlib.contextmanager
def planned(
    options: RunOptions,
    network: Network,
    report: Reporter,
    settle: Settle = lambda digest, result: None,
) -> Iterator[Plan]:
    """How the engine runs; a trace is written until the context is left."""
    workers = options.threads or usable_cores() + network.lanes
    _log.info(
        "%d threads on %d usable cores; images per call of the network: %s.",
        workers,
        usable_cores(),
        " or ".join(map(str, sorted(network.batch_sizes)))
        + (", as it turns out faster" if len(network.batch_sizes) > 1 else ""),
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(quiet_pillow())
        trace = None
        if options.profile is not None:
            trace = stack.enter_context(TraceFile(options.profile))
        yield Plan(workers, settle, trace, report.busy)


def run_over(
    items: Iterable[Item],
    total: int,
    network: Network,
    load: Loader,
    options: RunOptions,
    progress: ProgressCallback | None,
    stage: str,
) -> Generator[Outcome, None, None]:
    """Outcomes of all items in order, with progress reported along the way.

    Parameters
    ----------
    total : int
        N as surveyed, for the progress.
    stage : str
        What the progress calls this job.

    Raises
    ------
    OptionError
        Another engine was asked for.
    """
    if options.engine != "local":
        raise OptionError(
            f"The engine {options.engine!r} is for 'embed' and 'classify'.",
            hint="Leave --engine and --address out here.",
        )
    report = Reporter(progress, stage, total)
    with planned(options, network, report) as plan:
        for outcome in run(items, load, network, plan):
            report.count(reject=outcome.reject is not None)
            yield outcome
