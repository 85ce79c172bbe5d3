"""A crew of workers on a Ray cluster; the only module that imports ray.

One worker is an actor: a process that holds the cores (or the GPU) it asks for, and keeps its
network open. Workers come and go with the nodes. What they log is logged here; what they raise on
purpose is raised here, as the same error.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from tlpipe.errors import ClusterError
from tlpipe.machine import usable_cores
from tlpipe.workflows.cluster_needs import Needs, needs_of
from tlpipe.workflows.cluster_worker import Said, Worker
from tlpipe.workflows.partitions import Finished, Job, Lost, Partition
from tlpipe.workflows.ray_signals import named_signals, own_signals

_log = logging.getLogger(__name__)

A = TypeVar("A")

_SAME_CODE = (
    "Each node needs the same Python, tlpipe[ray] in the same version, and what else a reader of"
    " your own imports."
)

_AHEAD = 2  # partitions that a worker has, so that it never waits for the next one
_LOOK_S = 2.0  # until nodes are counted again
_MOST_ALONE_S = 300.0  # without any worker at work


@contextlib.contextmanager
def ray_crew(
    job: Job[A], address: str | None, *, gpu: bool, threads: int | None
) -> Iterator[RayCrew[A]]:
    """Connect to a cluster, or start one on this machine, and have workers for a job there.

    A connection that this process has already is used, and left as it is.

    Parameters
    ----------
    job : Job
    address : str or None
        See ``RunOptions``.
    gpu : bool
        Whether each worker needs a GPU.
    threads : int or None
        Cores of each worker; None for one, or with a GPU for its share of the node's.

    Raises
    ------
    ClusterError
        Ray is not installed, there is no such cluster, or it has no room for a worker.
    DeviceError
        No node of it has a GPU, where that is needed.
    TlpipeError
        As from ``job.start``.
    """
    try:
        import ray as library
    except ImportError as exc:
        raise ClusterError(
            f"Ray, which runs the work on a cluster, cannot be used: {exc}.",
            hint="Install it: pip install 'tlpipe[ray]'",
        ) from exc
    ray: Any = library  # it has types for a part of itself
    with _connected(ray, address):
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        needs = needs_of(nodes, gpu=gpu, threads=threads)
        crew = RayCrew(ray, job, needs)
        try:
            crew.begin()
            yield crew
        finally:
            crew.close()


@contextlib.contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anyone
    address = address or os.environ.get("RAY_ADDRESS")
    how: dict[str, Any] = {"address": address}
    if address is None:
        how = {"address": "local", "num_cpus": usable_cores(), "include_dashboard": False}
    try:
        _reach(address)
        with own_signals():
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **how)
    except (ConnectionError, ValueError, RuntimeError, OSError) as exc:
        raise ClusterError(
            f"There is no Ray cluster at {address or 'this machine'!r}: {exc}",
            hint="Start its head with 'ray start --head' and name it as --address HOST:PORT, or"
            " --address auto on one of its machines. Where it wants a token, as newer Ray does,"
            " set RAY_AUTH_MODE=token here.",
        ) from exc
    try:
        with named_signals():
            yield
    finally:
        ray.shutdown()


def _reach(address: str | None) -> None:
    """See that somebody listens at HOST:PORT: Ray itself would try for minutes."""
    host, colon, port = (address or "").rpartition(":")
    if colon and port.isdecimal():
        with socket.create_connection((host.strip("[]"), int(port)), timeout=10):
            pass


@dataclass(eq=False)
class _Member:
    """A worker, and what it has to do, the oldest first."""

    actor: Any
    starting: Any
    node: str = ""
    tasks: deque[tuple[Any, Partition]] = field(default_factory=deque)

    @property
    def awaited(self) -> Any:
        """Reference to what it will say next; None where it has nothing to do."""
        if self.starting is not None:
            return self.starting
        return self.tasks[0][0] if self.tasks else None


class RayCrew(Generic[A]):
    """See ``Crew``; made by ``ray_crew``.

    Attributes
    ----------
    provider : str
        What runs the network of the worker that was ready first.
    """

    def __init__(self, ray: Any, job: Job[A], needs: Needs) -> None:
        self._ray, self._needs = ray, needs
        self._job = ray.put(job)
        self._actor = ray.remote(num_cpus=needs.cpus, num_gpus=needs.gpus, max_restarts=0)(Worker)
        self._members: list[_Member] = []
        self._looked = self._alone_since = 0.0
        self._said_alone = False
        self._failed_starts = 0
        self.provider = ""

    def begin(self) -> None:
        """Start workers, and wait for the first that is ready."""
        self._alone_since = time.monotonic()
        while not self.provider:
            self.wait(1.0)

    @property
    def size(self) -> int:
        """How many workers there are, or are about to be."""
        return len(self._members)

    @property
    def has_room(self) -> bool:
        """Whether a worker would take a partition now."""
        return any(m.starting is None and len(m.tasks) < _AHEAD for m in self._members)

    def give(self, partition: Partition) -> None:
        """Give the worker that has least to do a partition."""
        ready = [member for member in self._members if member.starting is None]
        member = min(ready, key=lambda member: len(member.tasks))
        member.tasks.append((member.actor.work.remote(partition), partition))

    def wait(self, timeout_s: float) -> list[Finished[A] | Lost]:
        """What has happened to partitions; raises what workers raised on purpose."""
        self._look()
        awaited = {m.awaited: m for m in self._members if m.awaited is not None}
        if not awaited:
            time.sleep(timeout_s)
            return []
        ready, _ = self._ray.wait(list(awaited), timeout=timeout_s)
        return [event for ref in ready for event in self._heard(awaited[ref])]

    def _heard(self, member: _Member) -> list[Finished[A] | Lost]:
        """Take what a member has said, or find it dead."""
        try:
            said: Said = self._ray.get(member.awaited)
        except self._ray.exceptions.RayTaskError as exc:
            if member.starting is None:
                raise  # a mistake in the work itself, with its traceback there
            raise ClusterError(
                f"A worker cannot begin on the Ray cluster: {str(exc).splitlines()[-1]}",
                hint=_SAME_CODE,
            ) from exc
        except self._ray.exceptions.RayError as exc:  # it died, with its node or alone
            return self._buried(member, _short(exc))
        answer, error, records, elapsed_s = said
        for name, level, message in records:
            logging.getLogger(name).log(level, "%s (on node %s)", message, member.node or "?")
        if error is not None:
            raise error
        if member.starting is not None:
            member.starting = None
            provider, member.node = answer
            self.provider = self.provider or provider
            self._failed_starts = 0
            return []
        _, partition = member.tasks.popleft()
        return [Finished(partition, answer, elapsed_s)]

    def _buried(self, member: _Member, why: str) -> list[Finished[A] | Lost]:
        """Part with a member, and look at once whether another one can take its place."""
        self._members.remove(member)
        self._kill(member)
        self._looked = 0.0
        if member.starting is not None:
            self._failed_starts += 1
            if self._failed_starts > max(3, self.size):
                raise ClusterError(
                    f"Workers die on the Ray cluster before they begin: {why}",
                    hint=f"{_SAME_CODE} And each worker needs memory for the network.",
                )
        return [
            Lost(partition, why, suspect=number == 0)
            for number, (_, partition) in enumerate(member.tasks)
        ]

    def _look(self) -> None:
        """Have as many workers as the nodes that are alive have room for."""
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return
        self._looked = now
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        places = sum(map(self._needs.places, nodes))
        while len(self._members) < places:
            actor = self._actor.remote()
            starting = actor.start.remote(self._job, self._needs.cpus)
            self._members.append(_Member(actor, starting))
        for member in [m for m in self._members if m.starting is not None]:
            if len(self._members) > max(1, places):
                self._members.remove(member)
                self._kill(member)
        if any(member.starting is None for member in self._members):
            self._alone_since = now
        self._check_alone(now - self._alone_since, places)

    def _check_alone(self, alone_s: float, places: int) -> None:
        if alone_s > _MOST_ALONE_S:
            raise ClusterError(
                f"For {alone_s:.0f} s no worker could be started on the Ray cluster, which has room"
                f" for {places}.",
                hint="Others may hold its cores ('ray status' shows it). The same command goes on"
                " from what was done.",
            )
        if alone_s > 30 and not self._said_alone:
            self._said_alone = True
            _log.warning("Waiting for room on the Ray cluster, which has places for %d.", places)

    def _kill(self, member: _Member) -> None:
        with contextlib.suppress(self._ray.exceptions.RayError, ValueError):  # it is dead already
            self._ray.kill(member.actor)

    def close(self) -> None:
        """End all workers."""
        for member in self._members:
            self._kill(member)
        self._members = []


def _short(exc: Exception) -> str:
    """What Ray says of a death, in a line."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    told = next((line for line in lines if "dead because" in line or "exit detail" in line), None)
    text = told or (lines[0] if lines else type(exc).__name__)
    return text if len(text) <= 300 else f"{text[:300]}..."
