"""The engine with a fake network: order, bounds, rejects, failures."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlpipe import machine
from tlpipe.errors import BackboneError
from tlpipe.machine import cpu_quota, usable_cores
from tlpipe.stages.engine import KINDS, Fetched, Loader, Plan, Span, ahead, run
from tlpipe.types import Content, FileStat, Item, Reason, Reject, Stage

CONTENT = Content(b"0" * 32, FileStat(1, 2))


def items(count: int) -> list[Item]:
    return [Item(str(number), str(number)) for number in range(count)]


class Fake:
    """A network that gives each image's first value; counts its calls."""

    provider = "CPUExecutionProvider"
    lanes = 0

    def __init__(self, *batch_sizes: int, fail_at: int | None = None) -> None:
        self.batch_sizes: tuple[int, ...] = batch_sizes or (4,)
        self.sizes: list[int] = []
        self._fail_at = fail_at

    def run(self, images: np.ndarray) -> dict[str, Any]:
        self.sizes.append(len(images))
        values = images[:, 0, 0, 0].astype(np.float32)
        if self._fail_at is not None and self._fail_at in values:
            raise BackboneError("It failed.")
        values[values == 99] = np.nan
        return {"value": values}


def fetch(item: Item) -> Fetched:
    number = int(item.key)
    time.sleep(0.0005 * (number * 7 % 5))
    if number % 10 == 3:
        return Reject(Stage.DECODE, Reason.EMPTY, "It is.")
    return b"", CONTENT


def prepare(item: Item, raw: bytes, content: Content) -> np.ndarray:
    return np.full((2, 2, 3), int(item.key) % 256, np.uint8)


LOAD = Loader(fetch, prepare)


def outcomes_of(stream: Any, network: Any, workers: int = 2, load: Loader = LOAD) -> Any:
    return run(stream, load, network, Plan(workers))


@settings(deadline=None, max_examples=25)
@given(count=st.integers(0, 60), batch=st.integers(1, 9), workers=st.integers(1, 5))
def test_outcomes_come_in_order_whatever_the_timing(count: int, batch: int, workers: int) -> None:
    outcomes = list(outcomes_of(items(count), Fake(batch), workers))
    assert [outcome.item.key for outcome in outcomes] == [str(n) for n in range(count)]
    for number, outcome in enumerate(outcomes):
        if number % 10 == 3:
            assert outcome.reject is not None
            assert outcome.reject.reason is Reason.EMPTY
        else:
            assert outcome.content is CONTENT
            assert outcome.values["value"] == number


def test_a_batch_of_rejects_alone_does_not_call_the_network() -> None:
    network = Fake(2)
    rejects = [Item("3", "3"), Item("13", "13")]
    outcomes = list(outcomes_of(rejects, network))
    assert [o.reject is not None for o in outcomes] == [True, True]
    assert network.sizes == []


def test_a_vector_that_is_not_finite_is_a_reject() -> None:
    (outcome,) = outcomes_of([Item("99", "99")], Fake())
    assert outcome.reject == Reject(
        Stage.BACKBONE,
        Reason.NON_FINITE,
        "The network gave NaN or infinity in ['value'].",
        CONTENT.stat,
    )


def test_the_batch_size_follows_the_network() -> None:
    network = Fake()
    list(outcomes_of([i for i in items(140) if int(i.key) % 10 != 3], network, 1))
    assert set(network.sizes[:-1]) == {4}
    network.batch_sizes = (64,)
    network.sizes = []
    list(outcomes_of([i for i in items(140) if int(i.key) % 10 != 3], network, 1))
    assert network.sizes == [64, 62]


def test_a_failure_ends_the_run_and_its_threads() -> None:
    before = threading.active_count()
    stream = outcomes_of(items(1000), Fake(2, fail_at=20))
    with pytest.raises(BackboneError, match="It failed"):
        list(stream)
    assert threading.active_count() == before


def test_few_items_are_under_way_however_many_there_are() -> None:
    taken = 0

    def endless() -> Iterator[Item]:
        nonlocal taken
        for number in itertools.count():
            taken += 1
            yield Item(str(number), str(number))

    stream = outcomes_of(endless(), Fake())
    for _ in range(100):
        next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert taken <= 100 + 2 * 4 * 8 + 8


def test_what_is_done_is_given_at_once() -> None:
    """And not only when as much is under way as may be: a crash would take it."""
    taken = 0

    def slow() -> Iterator[Item]:
        nonlocal taken
        for item in items(400):
            taken += 1
            time.sleep(0.01)
            yield item

    stream = outcomes_of(slow(), Fake(), 8)
    next(stream)
    stream.close()
    assert taken < 8 * 4 * 4


class Timed(Fake):
    """A network whose calls cost something each, and more per image when they are large."""

    def run(self, images: np.ndarray) -> dict[str, Any]:
        count = len(images)
        time.sleep(0.004 + 0.001 * count + (0.05 if count == 8 else 0))
        return super().run(images)


def test_the_batch_size_that_takes_least_time_is_found() -> None:
    network = Timed(1, 2, 4, 8)
    list(outcomes_of([i for i in items(890) if int(i.key) % 10 != 3], network, 1))
    assert {1, 2, 4, 8} <= set(network.sizes[:80])
    assert set(network.sizes[-80:-1]) == {4}


def slow_fetch(item: Item) -> Fetched:
    time.sleep(0.03)
    return bytes(1000), CONTENT


def test_a_slow_source_is_read_ahead() -> None:
    """Two workers that read by themselves would read 67 a second."""
    network = Fake(4)
    start = time.perf_counter()
    found = list(outcomes_of(items(600), network, 2, Loader(slow_fetch, prepare)))
    elapsed = time.perf_counter() - start
    assert [o.item.key for o in found] == [str(n) for n in range(600)]
    assert elapsed < 600 * 0.03 / 2 / 2
    assert threading.active_count() < 10


def test_what_is_read_ahead_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "_MOST_BYTES", 5000)
    monkeypatch.setattr(ahead, "_USUAL_BYTES", 1000)
    held, most, lock = 0, 0, threading.Lock()

    def fetch(item: Item) -> Fetched:
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held)
        time.sleep(0.002)
        return bytes(1000), CONTENT

    reader = ahead.ReadAhead(fetch, 2)
    reader.adapt(0.05)
    assert reader.readers == 0
    reader.adapt(0.5)
    assert reader.readers == 8
    results = [reader.start(item) for item in items(100)]
    for result in results:
        time.sleep(0.001)
        result()
        with lock:
            held -= 1
    reader.close()
    assert 2 <= most <= 5


@pytest.mark.parametrize("size", [1, 900, 4000, 9000])
def test_reading_ahead_never_stands_still(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Whatever the sizes, and whichever items fail: each result comes."""
    monkeypatch.setattr(ahead, "_MOST_BYTES", 5000)
    monkeypatch.setattr(ahead, "_USUAL_BYTES", 10)

    def fetch(item: Item) -> Fetched:
        number = int(item.key)
        if number % 7 == 0:
            return Reject(Stage.SOURCE, Reason.MISSING, "It is.")
        if number % 11 == 0:
            raise OSError("It fails.")
        return bytes(size * (1 + number % 3)), CONTENT

    reader = ahead.ReadAhead(fetch, 2)
    for _ in range(6):
        reader.adapt(1.0)
    assert reader.readers == 64
    results = [reader.start(item) for item in items(300)]
    got: list[object] = [None] * 300

    def use(first: int) -> None:
        for number in range(first, 300, 3):
            try:
                got[number] = results[number]()
            except OSError as exc:
                got[number] = exc

    threads = [threading.Thread(target=use, args=(first,), daemon=True) for first in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert None not in got
    reader.close()


def test_reading_ahead_ends_with_the_run() -> None:
    before = threading.active_count()
    stream = outcomes_of(items(10_000), Fake(), 2, Loader(slow_fetch, prepare))
    for _ in range(150):
        next(stream)
    stream.close()
    assert threading.active_count() == before


def test_every_span_is_told() -> None:
    spans: list[Span] = []
    plan = Plan(2, listener=spans.extend)
    list(run(items(50), LOAD, Fake(), plan))
    by_kind = {kind: sum(s.images for s in spans if s.kind == kind) for kind in KINDS}
    assert by_kind["read"] == 50
    assert by_kind["decode"] == by_kind["infer"] == 45
    assert by_kind["write"] > 0
    assert all(span.stop_s >= span.start_s for span in spans)


def test_the_shares_of_the_time_are_told() -> None:
    told: list[dict[str, float]] = []
    plan = Plan(2, busy=told.append)
    list(run(items(1000), Loader(slow_fetch, prepare), Timed(4), plan))
    assert told
    for shares in told:
        assert sum(shares[kind] for kind in ("read", "decode", "infer", "wait")) == pytest.approx(
            1, abs=0.2
        )
    assert told[0]["read"] > 0.5
    assert told[-1]["read"] < told[0]["read"]


def test_the_cores_are_counted() -> None:
    assert usable_cores() >= 1


@pytest.mark.parametrize(
    ("limits", "quota"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"app/job/cpu.max": "max 100000\n", "app/cpu.max": "50000 100000\n"}, 0.5),
        ({"app/job/cpu.max": "odd\n"}, None),
    ],
)
def test_a_containers_quota_is_found(
    tmp_path: Path, limits: dict[str, str], quota: float | None
) -> None:
    root = tmp_path / "cgroup"
    (root / "app" / "job").mkdir(parents=True)
    for name, text in limits.items():
        (root / name).write_text(text)
    process = tmp_path / "self"
    process.write_text("0::/app/job\n")
    assert cpu_quota(process, root) == quota


def test_a_quota_of_the_older_control_groups_is_found(tmp_path: Path) -> None:
    group = tmp_path / "cpu,cpuacct" / "app"
    group.mkdir(parents=True)
    (group / "cpu.cfs_quota_us").write_text("250000\n")
    (group / "cpu.cfs_period_us").write_text("100000\n")
    process = tmp_path / "self"
    process.write_text("5:memory:/app\n4:cpu,cpuacct:/app\n")
    assert cpu_quota(process, tmp_path) == 2.5
    (group / "cpu.cfs_quota_us").write_text("-1\n")
    assert cpu_quota(process, tmp_path) is None
    assert cpu_quota(tmp_path / "none", tmp_path) is None


def test_cores_are_no_more_than_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cpu_quota", lambda: 0.5)
    assert usable_cores() == 1


def test_memory_is_for_the_images_there_are() -> None:
    outcomes = list(outcomes_of(items(3), Fake(10**15)))
    assert [outcome.values["value"] for outcome in outcomes] == [0, 1, 2]
