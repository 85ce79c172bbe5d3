"""What figures depend on: the machine, and what else it is doing."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path
from typing import Any

from insides import usable_cores

import tlpipe


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


def _processor() -> str:
    """The processor's name, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
