"""What a process under torture does: an embedding that is killed at a chosen step.

Run in a process of its own, which it may change as it likes and which may die at any instant.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import signal
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import tlpipe
from tlpipe.card import Card
from tlpipe.stages.source import folder
from tlpipe.stages.store import (
    cursor,
    features,
    growing,
    guard,
    known,
    layout,
    one,
    parts,
    read,
    structure,
    write,
)
from tlpipe.workflows import embed as workflow
from tlpipe.workflows import update
from tlpipe.workflows.run_options import RunOptions, UpdateOptions

CHUNK_ROWS, SPAN_ROWS, BLOCK_ITEMS, PART_ROWS, MANY, ROWS_AT_ONCE = 4, 8, 16, 5, 3, 2

STEPS: dict[str, tuple[Any, str]] = {
    "open": (guard.GuardedFile, "__init__"),
    "write": (guard.GuardedFile, "write"),
    "half-write": (guard.GuardedFile, "write"),
    "truncate": (guard.GuardedFile, "truncate"),
    "close": (guard.GuardedFile, "close"),
    "fsync": (os, "fsync"),
    "replace": (os, "replace"),
    "mkdir": (os, "mkdir"),
    "unlink": (os, "unlink"),
    "rmdir": (os, "rmdir"),
    "touch": (Path, "touch"),
    "write-text": (Path, "write_text"),
}


@dataclass(frozen=True)
class Kill:
    """Where a process kills itself: at the `number`-th call of a step, before or after it."""

    step: str
    number: int
    after: bool


def small_everything(change: Callable[[Any, str, int], None] = setattr) -> None:
    """Make chunks, spans, blocks and parts so small that a few images fill many of them."""
    for module in (layout, one, read, features, structure, growing, write, known, parts, cursor):
        for name, value in (("CHUNK_ROWS", CHUNK_ROWS), ("SPAN_ROWS", SPAN_ROWS), ("MANY", MANY)):
            if hasattr(module, name):
                change(module, name, value)
    change(folder, "BLOCK_ITEMS", BLOCK_ITEMS)
    change(update, "ROWS_AT_ONCE", ROWS_AT_ONCE)
    change(parts, "PART_BYTES", PART_ROWS * 8 * 4)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _watch(step: str, kill: Kill | None, counts: Counter[str]) -> None:
    owner, name = STEPS[step]
    original: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(original)
    def watched(*args: Any, **more: Any) -> Any:
        counts[step] += 1
        hit = kill is not None and kill.step == step and kill.number == counts[step]
        if hit and step == "half-write":
            original(args[0], memoryview(args[1]).cast("B")[: len(args[1]) // 2])
        if hit and kill is not None and not kill.after:
            _die()
        result = original(*args, **more)
        if hit:
            _die()
        return result

    setattr(owner, name, watched)


def _log_pixels(path: Path, poison: float) -> None:
    """Note the pixels of every image that the network runs over; maybe give wrong vectors."""

    open_network = workflow.open_network

    def logged(model: Any, execution: Any) -> Any:
        network = open_network(model, execution)
        run = network.run

        def logging_run(images: Any) -> dict[str, Any]:
            lines = [hashlib.sha256(image.tobytes()).hexdigest() + "\n" for image in images]
            with path.open("a") as stream:
                stream.write("".join(lines))
            return {k: v + np.float32(poison) for k, v in run(images).items()}

        network.run = logging_run
        return network

    workflow.open_network = logged


@dataclass(frozen=True)
class Task:
    """One run of ``embed``."""

    source: Path
    output: Path
    card: Card
    log: Path
    overwrite: bool = False
    poison: float = 0.0
    kill: Kill | None = None
    set_above: int | None = None


def work(task: Task) -> None:
    """Run a task, and end the process: with 0 when it went well, else with 1."""
    counts: Counter[str] = Counter()
    status = 1
    try:
        small_everything()
        _log_pixels(task.log, task.poison)
        for step in STEPS if task.kill is None else [task.kill.step]:
            if step != "half-write" or task.kill is not None:
                _watch(step, task.kill, counts)
        tlpipe.embed(
            task.source,
            task.output,
            backbone=task.card,
            options=RunOptions(batch_size=2),
            overwrite=task.overwrite,
            update=UpdateOptions(set_above=task.set_above),
        )
        task.log.with_suffix(".counts").write_text(json.dumps(counts))
        status = 0
    except BaseException:
        task.log.with_suffix(".error").write_text(traceback.format_exc())
    finally:
        os._exit(status)


def start(task: Task) -> int:
    """Run a task in a fork of this process, which must have no threads; gives its id."""
    child = os.fork()
    if child == 0:
        work(task)
    return child
