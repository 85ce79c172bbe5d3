"""One worker of a cluster: does a job's work in a process of its own, and says how it went.

Runs on the cluster's nodes. Knows no cluster library.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from typing import Any

from tlpipe.errors import TlpipeError
from tlpipe.workflows.partitions import Job, Partition

Said = tuple[Any, TlpipeError | None, list[tuple[str, int, str]], float]
"""What a worker says: its answer or its error, what it logged, and how long it took."""


class _Records(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[tuple[str, int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append((record.name, record.levelno, record.getMessage()))


class Worker:
    """The actor: does a job's work in a process of its own."""

    def __init__(self) -> None:
        self._work: Callable[[Partition], Any] | None = None

    def start(self, job: Job[Any], cores: int) -> Said:
        """Open the network; answers with its provider and the name of the node."""

        def started() -> tuple[str, str]:
            provider, self._work = job.start(cores)
            return provider, socket.gethostname()

        return _said(started)

    def work(self, partition: Partition) -> Said:
        """Do a partition."""
        work = self._work
        assert work is not None, "it is started first"
        return _said(lambda: work(partition))


def _said(do: Callable[[], Any]) -> Said:
    records = _Records()
    logger = logging.getLogger("tlpipe")
    logger.addHandler(records)
    begun = time.perf_counter()
    answer, error = None, None
    try:
        answer = do()
    except TlpipeError as exc:
        error = exc
    finally:
        logger.removeHandler(records)
    return answer, error, records.kept, time.perf_counter() - begun
