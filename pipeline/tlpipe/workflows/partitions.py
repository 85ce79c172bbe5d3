"""Partitions of a source and the crew that works on them: the seam between work and machines.

What is done with a partition, and what its answer holds, is the business of a ``Job``; how workers
are found on machines is that of a ``Crew``; ``dispatch`` has the ones do the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from tlpipe.types import Block, Item, Reject

A_co = TypeVar("A_co", covariant=True)
A = TypeVar("A")


class Passing(Protocol):
    """What is no fresh item, and keeps its place in the stream."""

    def __len__(self) -> int:
        """How many items it stands for."""


@dataclass(frozen=True, slots=True)
class Fresh:
    """Items of a block, from `start` to before `stop`, that must be worked on."""

    block: Block
    start: int
    stop: int


@dataclass(frozen=True)
class Partition:
    """Items for one worker, with a number that no other partition of the run has."""

    number: int
    block: Block

    def __len__(self) -> int:
        return len(self.block)

    def __str__(self) -> str:
        keys = self.block.keys
        if len(keys) == 1:
            return f"the image {keys[0]!r}"
        return f"the {len(keys)} images from {keys[0]!r} to {keys[-1]!r}"


class Job(Protocol[A_co]):
    """What is done with partitions. It is pickled, and sent to each worker once."""

    def start(self, cores: int) -> tuple[str, Callable[[Partition], A_co]]:
        """Called in each worker: what runs its network (a provider's name), and what works.

        Parameters
        ----------
        cores : int
            How many it may use.

        Raises
        ------
        TlpipeError
            The work cannot be done there; it ends the run.
        """


@dataclass(frozen=True)
class Finished(Generic[A]):
    """A worker has done a partition."""

    partition: Partition
    answer: A
    elapsed_s: float


@dataclass(frozen=True)
class Lost:
    """A worker died; `suspect` is whether it was at this partition."""

    partition: Partition
    why: str
    suspect: bool


class Crew(Protocol[A]):
    """Workers on some machines; what is wrong with the work itself is raised by ``wait``."""

    @property
    def size(self) -> int:
        """How many workers there are, or are about to be."""

    @property
    def has_room(self) -> bool:
        """Whether a worker would take a partition now."""

    def give(self, partition: Partition, /) -> None:
        """Have a partition worked on."""

    def wait(self, timeout_s: float, /) -> list[Finished[A] | Lost]:
        """What has happened; waits for something to happen, but not for longer than that."""


@dataclass(frozen=True)
class Crashed:
    """An item that no worker survived."""

    item: Item
    reject: Reject


@dataclass(frozen=True)
class Piece(Generic[A]):
    """Consecutive items of the stream: those of an answer's partition from `start` to `stop`."""

    answer: A | Crashed
    start: int
    stop: int
