"""Shows the progress of a job: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tlpipe.cli.log import emit, is_json
from tlpipe.cli.show import colour, say
from tlpipe.cli.volume import Volume, volume
from tlpipe.execution import PRECISIONS

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from tlpipe.types import Progress, ProgressCallback

_LINE_EVERY_S = 10.0
_REDRAWN_S = 0.1  # a bar that is drawn for every image takes time from the images
_SETTLED_S = 1.0  # until a rate means something

_VERBS = {
    "calibrate": "Calibrating",
    "near-duplicates": "Looking for near-duplicates",
    "check": "Checking",
    "compare": "Training and judging",
    "download": "Downloading",
    "embed": "Embedding",
    "train-head": "Training the head",
    "classify": "Classifying",
    "evaluate": "Evaluating",
    "render": "Rendering",
    "thumbnails": "Making thumbnails",
    **{f"run at {precision}": f"Comparing, {precision}" for precision in PRECISIONS},
}

_BOUND_BY = {
    "read": "reading files",
    "decode": "decoding",
    "infer": "the network",
    "wait": "the list of files",
    "write": "writing",
}

_UNITS = {"compare": "heads", "download": "bytes"}  # where it is not images that are counted


@contextlib.contextmanager
def progress() -> Iterator[ProgressCallback]:
    """Live progress on a terminal, a line now and then elsewhere; nothing with ``--quiet``."""
    if volume() is Volume.QUIET:
        yield _nothing
        return
    if is_json():
        yield _Events()
        return
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":  # which cannot redraw a line
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
    )

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.fields[busy]}"),
        TextColumn("{task.fields[rejects]}"),
        console=Console(stderr=True, no_color=colour() is False),
    )
    with bar:
        live = _Live(bar)
        yield live
        live.close()


def _nothing(_: Progress) -> None:
    """Of the progress of a quiet run."""


def bound_by(busy: Mapping[str, float]) -> str:
    """What a run waits for most, and which share of the time; nothing where that is not known."""
    if not busy:
        return ""
    kind = max(busy, key=lambda kind: busy[kind])
    return f"bound by {_BOUND_BY[kind]} ({busy[kind]:.0%})"


def duration(seconds: float) -> str:
    """Seconds as people say them: "48 s", "12 min", "3 h 05 min"."""
    minutes = round(seconds / 60)
    if seconds < 120:
        return f"{seconds:,.0f} s"
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def _rejects(count: int) -> str:
    return f"{count:,} rejected" if count else ""


class _Live:
    """Feeds a progress bar; a new bar for each stage."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._stage = ""
        self._task: Any = None
        self._start = self._next = 0.0

    def __call__(self, at: Progress) -> None:
        moment = time.monotonic()
        if at.stage == self._stage and moment < self._next and at.done != at.total:
            return
        self._next = moment + _REDRAWN_S
        if at.stage != self._stage:
            self._stage, self._start = at.stage, moment
            verb = _VERBS.get(at.stage, at.stage)
            self._task = self._bar.add_task(
                verb, total=at.total, rate="", left="", busy="", rejects=""
            )
        elapsed = moment - self._start
        if at.stage in _UNITS:
            rate, left = _UNITS[at.stage], ""
        elif at.total is None:
            rate, left = "settings tried", ""
        elif elapsed < _SETTLED_S and at.done < at.total:
            rate, left = "", ""  # the first few tell nothing
        else:
            per_s = at.done / max(elapsed, 1e-9)
            rate = f"{per_s:,.0f} images/s"
            left = f"{duration((at.total - at.done) / per_s)} left"
        self._bar.update(
            self._task,
            completed=at.done,
            rate=rate,
            left=left,
            busy=bound_by(at.busy),
            rejects=_rejects(at.rejects),
        )

    def close(self) -> None:
        """Show a stage of unknown length as done."""
        for task in self._bar.tasks:
            if task.total is None:
                self._bar.update(task.id, total=task.completed)


class _Pace:
    """When there is something to tell of a stage: every ten seconds."""

    def __init__(self) -> None:
        self._stage = ""
        self._start = self._last = 0.0
        self._done_at_start = 0

    def due(self, at: Progress) -> bool:
        """Whether ten seconds have passed since the last time, or since the stage began."""
        moment = time.monotonic()
        if at.stage != self._stage:
            self._stage, self._start, self._last = at.stage, moment, moment
            self._done_at_start = at.done
        if moment - self._last < _LINE_EVERY_S:
            return False
        self._last = moment
        return True

    def rate(self, at: Progress) -> float:
        """How many are done per second since the stage began."""
        elapsed = time.monotonic() - self._start
        return (at.done - self._done_at_start) / max(elapsed, 1e-9)


class _Events:
    """Writes an event every ten seconds, and one when all of a stage is done."""

    def __init__(self) -> None:
        self._pace = _Pace()

    def __call__(self, at: Progress) -> None:
        if not self._pace.due(at) and at.done != at.total:
            return
        rate = self._pace.rate(at)
        left = None if at.total is None or rate <= 0 else (at.total - at.done) / rate
        emit(
            "progress",
            stage=at.stage,
            done=at.done,
            total=at.total,
            unit=_UNITS.get(at.stage, "settings" if at.total is None else "images"),
            rejects=at.rejects,
            rate=round(rate, 1),
            seconds_left=None if left is None else round(left, 1),
            busy={kind: round(share, 3) for kind, share in at.busy.items()},
        )


class _Lines:
    """Writes a line every ten seconds."""

    def __init__(self) -> None:
        self._pace = _Pace()

    def __call__(self, at: Progress) -> None:
        if not self._pace.due(at):
            return
        rate = self._pace.rate(at)
        parts = [f"{_VERBS.get(at.stage, at.stage)}: {at.done:,}"]
        if at.stage in _UNITS:
            parts[0] += (
                f" of {at.total:,} {_UNITS[at.stage]}" if at.total else f" {_UNITS[at.stage]}"
            )
        elif at.total is None:
            parts[0] += " settings tried"
        else:
            parts[0] += f" of {at.total:,}"
            if rate > 0:
                parts += [f"{rate:,.1f}/s", f"{duration((at.total - at.done) / rate)} left"]
        if at.busy:
            parts.append(bound_by(at.busy))
        if at.rejects:
            parts.append(_rejects(at.rejects))
        say(", ".join(parts))
