"""What figures depend on: the machine, and what else it does meanwhile."""

from __future__ import annotations

import datetime
import os
import platform
import time
from pathlib import Path
from typing import Any

from insides import usable_cores

import tlpipe

MUCH = 0.1
"""Cores that others may have before a figure is in doubt: threads that spin lose far more by it."""


def conditions() -> dict[str, Any]:
    """Names and values, for a person to read; the load is that of the moment of the call."""
    return {
        "date": datetime.date.today().isoformat(),
        "system": f"{platform.system()}, Python {platform.python_version()}",
        "processor": _processor(),
        "cores": usable_cores(),
        "tlpipe": tlpipe.__version__,
        "load before": f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown",
    }


class Others:
    """How much of the machine went to processes other than this one and those it has waited for."""

    def __init__(self) -> None:
        self._start, self._busy, self._own = time.monotonic(), _busy_s(), _own_s()

    def told(self) -> str:
        """Cores that others had on average since this object was made, in words."""
        busy, start = _busy_s(), self._busy
        if busy is None or start is None:
            return "unknown"
        others = (busy - start) - (_own_s() - self._own)
        cores = max(0.0, others / (time.monotonic() - self._start))
        warning = "; THE MACHINE WAS NOT IDLE: these figures tell little" if cores > MUCH else ""
        return f"{cores:.2f} cores{warning}"


def _busy_s() -> float | None:
    """Core-seconds that the machine has worked or waited for its host, on Linux; else None."""
    try:
        first = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    except OSError:
        return None
    user, nice, system, _, _, interrupts, soft, stolen = map(int, first[1:9])
    return (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    own = os.times()
    return own.user + own.system + own.children_user + own.children_system


def _processor() -> str:
    """The processor's name, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
