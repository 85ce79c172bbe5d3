"""How work is spread over a crew: order, sizes, deaths, and what a run may hold in memory."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tlpipe.errors import ClusterError
from tlpipe.types import Block, Reason, Split
from tlpipe.workflows import dispatch
from tlpipe.workflows.cluster_needs import Needs, needs_of
from tlpipe.workflows.dispatch import Dispatch, Sizes
from tlpipe.workflows.partitions import Crashed, Finished, Fresh, Lost, Partition, Piece
from tlpipe.workflows.ray_signals import named_signals


@dataclass
class FakeCrew:
    """Answers in any order with the keys of a partition; dies where `deadly` is in it."""

    seed: int = 0
    size: int = 3
    deadly: str = ""
    dies: float = 0.0
    most: int = 0
    sizes: list[int] = field(default_factory=list)
    waiting: list[Partition] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    @property
    def has_room(self) -> bool:
        return len(self.waiting) < 2 * self.size

    def give(self, partition: Partition) -> None:
        assert self.has_room
        self.waiting.append(partition)
        self.sizes.append(len(partition))

    def wait(self, timeout_s: float) -> list[Finished[list[str]] | Lost]:
        partition = self.waiting.pop(self.random.randrange(len(self.waiting)))
        if self.deadly in partition.block.keys or self.random.random() < self.dies:
            return [Lost(partition, "killed", suspect=True)]
        if self.random.random() < self.dies:
            return [Lost(partition, "killed", suspect=False)]
        return [Finished(partition, list(partition.block.keys), 0.1)]


def blocks(count: int, size: int) -> Iterator[Block]:
    for start in range(0, count, size):
        keys = [f"{n:05d}" for n in range(start, min(start + size, count))]
        yield Block(keys, keys, [None] * len(keys), [Split.NONE] * len(keys))


class Known(list[str]):
    """Keys that pass through."""


def stream(count: int, known: set[int], size: int = 40) -> Iterator[Fresh | Known]:
    for block in blocks(count, size):
        for is_known, group in itertools.groupby(
            range(len(block)), lambda n, block=block: int(block.keys[n]) in known
        ):
            numbers = list(group)
            if is_known:
                yield Known(block.keys[n] for n in numbers)
            else:
                yield Fresh(block, numbers[0], numbers[-1] + 1)


def taken(found: Piece[list[str]] | Known) -> list[str]:
    if isinstance(found, Known):
        return list(found)
    if isinstance(found.answer, Crashed):
        assert (found.start, found.stop) == (0, 1)
        return [f"crashed {found.answer.item.key}"]
    return found.answer[found.start : found.stop]


@pytest.mark.parametrize("seed", range(8))
def test_all_comes_out_once_and_in_order(seed: int) -> None:
    known = {n for n in range(1000) if random.Random(f"{seed} {n}").random() < seed / 9}
    crew = FakeCrew(seed, dies=0.1)
    heard: list[str] = []
    work = Dispatch[list[str], Known](
        stream(1000, known), crew, 1000 - len(known), itertools.count(), heard.extend
    )
    keys = [key for found in work for key in taken(found)]
    assert keys == [f"{n:05d}" for n in range(1000)]
    assert sorted(heard) == [f"{n:05d}" for n in range(1000) if n not in known]


def test_the_item_that_kills_is_found_alone(caplog: pytest.LogCaptureFixture) -> None:
    crew, crashed = FakeCrew(deadly="00123"), []
    work = Dispatch[list[str], Known](
        stream(300, set()), crew, 300, itertools.count(), crashed.append
    )
    keys = [key for found in work for key in taken(found)]
    assert keys == [f"{n:05d}" if n != 123 else "crashed 00123" for n in range(300)]
    (found,) = (answer for answer in crashed if isinstance(answer, Crashed))
    assert found.reject.reason is Reason.CRASHED
    assert "A worker died at the image '00123': killed" in caplog.text


def test_a_crew_that_always_dies_ends_the_run() -> None:
    work = Dispatch[list[str], Known](
        stream(300, set()), FakeCrew(dies=1.0), 300, itertools.count(), lambda answer: None
    )
    with pytest.raises(ClusterError, match=r"The workers die: 11 in a row, the last one at the"):
        list(work)


def test_nothing_is_rejected_where_no_work_was_ever_done() -> None:
    work = Dispatch[list[str], Known](
        stream(1, set()), FakeCrew(dies=1.0), 1, itertools.count(), lambda answer: None
    )
    with pytest.raises(ClusterError, match="3 in a row, the last one at the image '00000': killed"):
        list(work)


def test_items_that_must_be_done_now_do_not_wait_for_the_stream() -> None:
    crew = FakeCrew()
    work = Dispatch[list[str], Known](
        stream(1000, {0, 500}), crew, 998, itertools.count(), lambda answer: None
    )
    keys: list[str] = []
    more = next(blocks(200, 200))
    for found in work:
        keys += taken(found)
        if isinstance(found, Known):
            keys += [
                f"now {key}" for piece in work.now(Fresh(more, 20, 180)) for key in taken(piece)
            ]
    now = [f"now {n:05d}" for n in range(20, 180)]
    rest = [f"{n:05d}" for n in range(1000)]
    assert keys == [*rest[:1], *now, *rest[1:501], *now, *rest[501:]]


def test_what_is_listed_ahead_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "MOST_PASSING", 100)
    listed = 0

    def counted() -> Iterator[Fresh | Known]:
        nonlocal listed
        for found in stream(100_000, {n for n in range(100_000) if n % 1000}):
            listed += len(found) if isinstance(found, Known) else found.stop - found.start
            yield found

    crew = FakeCrew()
    work = Dispatch[list[str], Known](counted(), crew, 100, itertools.count(), lambda answer: None)
    done = 0
    for found in work:
        done += len(taken(found))
        assert listed - done <= 100 + 40
    assert done == 100_000


def test_partitions_are_seconds_of_work_and_small_at_the_end() -> None:
    sizes = Sizes(100_000)
    assert sizes.next(4) == dispatch.FIRST
    sizes.took(64, 0.64)
    assert sizes.next(4) == 100 * dispatch.AIM_S
    sizes.took(1000, 0.001)
    assert sizes.next(4) == dispatch.MOST
    sizes.given(99_200)
    assert sizes.next(4) == 100
    sizes.given(800)
    assert sizes.next(4) == dispatch.LEAST


def test_places_on_nodes() -> None:
    assert Needs(2).places({"CPU": 5.0}) == 2
    assert Needs(2, 1).places({"CPU": 16.0, "GPU": 4.0}) == 4
    assert Needs(2, 1).places({"CPU": 16.0}) == 0
    nodes = [{"CPU": 8.0}, {"CPU": 16.0, "GPU": 2.0}, {"CPU": 12.0, "GPU": 2.0}]
    assert needs_of(nodes, gpu=False, threads=None) == Needs(1)
    assert needs_of(nodes, gpu=True, threads=None) == Needs(6, 1)
    assert needs_of(nodes, gpu=True, threads=3) == Needs(3, 1)
    with pytest.raises(
        ClusterError, match=r"room for a worker of 32 core\(s\); the largest one has"
    ):
        needs_of(nodes, gpu=False, threads=32)


def test_an_exit_that_a_signal_asked_for_says_so() -> None:
    def terminated(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, terminated)
    try:
        with pytest.raises(SystemExit) as caught, named_signals():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)
            except SystemExit:
                raise SystemExit(1) from None  # as Ray has it, while it waits
        assert caught.value.code == 143
        with pytest.raises(SystemExit) as caught, named_signals():
            raise SystemExit(1)
        assert caught.value.code == 1
        assert signal.getsignal(signal.SIGTERM) is terminated
    finally:
        signal.signal(signal.SIGTERM, before)
