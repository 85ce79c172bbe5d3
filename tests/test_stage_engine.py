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

from tlpipe.errors import BackboneError
from tlpipe.stages.engine import run, usable_cores
from tlpipe.types import Content, FileStat, Item, Reason, Reject, Stage

CONTENT = Content(b"0" * 32, FileStat(1, 2))


def items(count: int) -> list[Item]:
    return [Item(str(number), Path(str(number))) for number in range(count)]


class Fake:
    """A network that gives each image's first value; counts its calls."""

    provider = "CPUExecutionProvider"
    batch_sizes = (4,)

    def __init__(self, fail_at: int | None = None) -> None:
        self.sizes: list[int] = []
        self._fail_at = fail_at

    def run(self, images: np.ndarray) -> dict[str, Any]:
        self.sizes.append(len(images))
        values = images[:, 0, 0, 0].astype(np.float32)
        if self._fail_at is not None and self._fail_at in values:
            raise BackboneError("It failed.")
        values[values == 99] = np.nan
        return {"value": values}


def load(item: Item) -> tuple[np.ndarray, Content] | Reject:
    number = int(item.key)
    time.sleep(0.0005 * (number * 7 % 5))
    if number % 10 == 3:
        return Reject(Stage.DECODE, Reason.EMPTY, "It is.")
    return np.full((2, 2, 3), number % 256, np.uint8), CONTENT


@settings(deadline=None, max_examples=25)
@given(count=st.integers(0, 60), batch=st.integers(1, 9), workers=st.integers(1, 5))
def test_outcomes_come_in_order_whatever_the_timing(count: int, batch: int, workers: int) -> None:
    outcomes = list(run(items(count), load, Fake(), batch_size=batch, workers=workers))
    assert [outcome.item.key for outcome in outcomes] == [str(n) for n in range(count)]
    for number, outcome in enumerate(outcomes):
        if number % 10 == 3:
            assert outcome.reject is not None
            assert outcome.reject.reason is Reason.EMPTY
        else:
            assert outcome.content is CONTENT
            assert outcome.values["value"] == number


def test_a_batch_of_rejects_alone_does_not_call_the_network() -> None:
    network = Fake()
    rejects = [Item("3", Path("3")), Item("13", Path("13"))]
    outcomes = list(run(rejects, load, network, batch_size=2))
    assert [o.reject is not None for o in outcomes] == [True, True]
    assert network.sizes == []


def test_a_vector_that_is_not_finite_is_a_reject() -> None:
    (outcome,) = run([Item("99", Path("99"))], load, Fake())
    assert outcome.reject == Reject(
        Stage.BACKBONE,
        Reason.NON_FINITE,
        "The network gave NaN or infinity in ['value'].",
        CONTENT.stat,
    )


def test_the_batch_size_follows_the_network() -> None:
    network = Fake()
    list(run([i for i in items(140) if int(i.key) % 10 != 3], load, network, workers=1))
    assert set(network.sizes[:-1]) == {4}
    network.batch_sizes = (64,)
    network.sizes = []
    list(run([i for i in items(140) if int(i.key) % 10 != 3], load, network, workers=1))
    assert network.sizes == [64, 62]


def test_a_failure_ends_the_run_and_its_threads() -> None:
    before = threading.active_count()
    stream = run(items(1000), load, Fake(fail_at=20), batch_size=2, workers=2)
    with pytest.raises(BackboneError, match="It failed"):
        list(stream)
    assert threading.active_count() == before


def test_few_items_are_under_way_however_many_there_are() -> None:
    taken = 0

    def endless() -> Iterator[Item]:
        nonlocal taken
        for number in itertools.count():
            taken += 1
            yield Item(str(number), Path(str(number)))

    stream = run(endless(), load, Fake(), batch_size=4, workers=2)
    for _ in range(100):
        next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert taken <= 100 + 2 * 4 * 4 + 4


def test_what_is_done_is_given_at_once() -> None:
    """And not only when as much is under way as may be: a crash would take it."""
    taken = 0

    def slow() -> Iterator[Item]:
        nonlocal taken
        for item in items(400):
            taken += 1
            time.sleep(0.01)
            yield item

    stream = run(slow(), load, Fake(), batch_size=4, workers=8)
    next(stream)
    stream.close()
    assert taken < 8 * 4 * 4


def test_the_cores_are_counted() -> None:
    assert usable_cores() >= 1
