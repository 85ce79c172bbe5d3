"""Runs a command of the benchmark in a process of its own, timed, its memory watched."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

POLL_S = 0.05
SAMPLE_S = 1.0  # of the memory of several processes, which costs the kernel some milliseconds
CALM = {
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "PYTHONWARNINGS": "ignore",
}


class RunError(Exception):
    """A command that did not end well, with the last line that it said."""


@dataclass(frozen=True)
class Run:
    """What a command took.

    Attributes
    ----------
    seconds : float
        From the call to the end of the process.
    peak_bytes : int
        Most memory: of one process the kernel's high-water mark of what is resident; of several
        the largest sum of proportional shares (PSS), which counts what they share once. 0 where the
        system does not tell.
    figures : dict
        The JSON that it printed last, if any.
    """

    seconds: float
    peak_bytes: int
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def steady_rate(self) -> float:
        """Images per second, as the command told."""
        return float(self.figures["steady_images"] / self.figures["seconds_steady"])


def run(command: list[str], environment: dict[str, str] | None = None) -> Run:
    """Run a command to its end.

    Raises
    ------
    RunError
        It could not be started, or its exit code was not 0.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        start = time.monotonic()
        given = {**os.environ, **CALM, **(environment or {}), "BENCH_STARTED": repr(start)}
        try:
            process = subprocess.Popen(command, stdout=out, stderr=err, env=given)
        except OSError as exc:
            raise RunError(str(exc)) from exc
        try:
            peak = _watch(process)
        finally:  # an interrupt ends it as well
            process.kill()
        seconds = time.monotonic() - start
        out.seek(0)
        err.seek(0)
        if process.returncode != 0:
            said = (err.read().strip() or out.read().strip()).splitlines()
            raise RunError(
                f"exit code {process.returncode}: {said[-1] if said else 'it said nothing'}"
            )
        lines = [line for line in out.read().splitlines() if line.startswith("{")]
    figures = json.loads(lines[-1]) if lines else {}
    return Run(seconds, max(peak, int(figures.get("peak_bytes", 0))), figures)


def _watch(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process; most memory of it and of those it started."""
    peak, sampled = 0, 0.0
    while True:
        try:
            process.wait(POLL_S)
            return peak
        except subprocess.TimeoutExpired:
            others = _descendants(process.pid)
            if not others:
                peak = max(peak, _kernel_figure(process.pid, "status", "VmHWM:"))
            elif time.monotonic() - sampled > SAMPLE_S:
                family = [process.pid, *others]
                peak = max(peak, sum(_kernel_figure(pid, "smaps_rollup", "Pss:") for pid in family))
                sampled = time.monotonic()


def _descendants(pid: int) -> list[int]:
    found = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *_descendants(int(child))]
    except OSError:  # it has ended, or the system has no such folder
        pass
    return found


def _kernel_figure(pid: int, file: str, name: str) -> int:
    """Bytes that the kernel states of a process; 0 where it does not."""
    try:
        text = Path(f"/proc/{pid}/{file}").read_text()
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024  # the kernel counts in KiB
    return 0
