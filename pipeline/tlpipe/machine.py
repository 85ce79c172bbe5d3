"""Machine: how many cores this process may use.

Imports nothing of tlpipe.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP_OF_PROCESS = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Number of cores this process may use: by its affinity, and by its container's CPU quota.

    A quota of one and a half cores counts as two: what one thread leaves the other takes.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def cpu_quota(process: Path = _CGROUP_OF_PROCESS, root: Path = _CGROUPS) -> float | None:
    """Cores that the control groups of this process allow it; None where they set no limit.

    Parameters
    ----------
    process : pathlib.Path
        The file that names the groups of this process.
    root : pathlib.Path
        Where the groups' files are.

    Notes
    -----
    Source: Linux, Documentation/admin-guide/cgroup-v2.rst ("cpu.max": quota and period in
    microseconds, or "max") and scheduler/sched-bwc.rst ("cpu.cfs_quota_us", -1 for none). A group's
    limit holds for all below it, so the smallest on the way to the root counts.
    """
    quotas = []
    for controllers, name in _groups(process):
        if "" in controllers:  # version 2
            folder, read = root, _quota_2
        elif "cpu" in controllers:
            folder, read = root / ",".join(controllers), _quota_1
            folder = folder if folder.is_dir() else root / "cpu"
        else:
            continue
        group = folder / name.lstrip("/")
        # A container may show its own group as the root, and then the path leads nowhere.
        quotas += [read(place) for place in (group, *group.parents) if place.is_relative_to(folder)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _groups(process: Path) -> list[tuple[list[str], str]]:
    """Controllers and name of each group of this process; no controller stands for version 2."""
    try:
        lines = process.read_text().splitlines()
    except OSError:  # no such thing on this system
        return []
    parts = [line.split(":", 2) for line in lines]
    return [(part[1].split(","), part[2]) for part in parts if len(part) == 3]


def _quota_2(group: Path) -> float | None:
    try:
        quota, period = (group / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_1(group: Path) -> float | None:
    try:
        quota = int((group / "cpu.cfs_quota_us").read_text())
        return None if quota < 0 else quota / int((group / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError, ZeroDivisionError):
        return None
