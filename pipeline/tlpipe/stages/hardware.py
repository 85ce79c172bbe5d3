"""Hardware: what processor and memory the machine has.

Takes nothing, gives facts. Imports nothing of tlpipe.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from pathlib import Path

_MATTER = (
    "avx2",
    "avx512f",
    "avx_vnni",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_int8",
    "amx_bf16",
    "amx_fp16",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
)
"""Extensions of processors that the libraries' kernels for networks are made for, as Linux calls
them. Source: Linux, arch/x86/include/asm/cpufeatures.h and Documentation/arch/arm64/elf_hwcaps."""

_LIMITS = ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes")
"""A container's limit, of cgroup versions 2 and 1. Source: Linux, admin-guide/cgroup-v2 and -v1."""


def processor(root: Path = Path("/")) -> tuple[str, list[str]]:
    """Name of the processor, and those of its extensions that matter, as far as they are known.

    Parameters
    ----------
    root : pathlib.Path
        Where ``proc`` is.
    """
    facts: dict[str, str] = {}
    with contextlib.suppress(OSError):  # not Linux
        for line in (root / "proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            key, _, value = line.partition(":")
            facts.setdefault(key.strip(), value.strip())
    name = facts.get("model name") or platform.processor() or platform.machine()
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    return name, [flag for flag in _MATTER if flag in flags]


def memory_bytes(root: Path = Path("/")) -> int | None:
    """Memory that this process may use at most; None where the system does not say.

    Parameters
    ----------
    root : pathlib.Path
        Where ``sys`` is.
    """
    found = []
    with contextlib.suppress(ValueError, OSError):
        if sys.platform != "win32":
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for name in _LIMITS:
        with contextlib.suppress(ValueError, OSError):  # there is none, or it is "max"
            found.append(int((root / name).read_text()))
    return min(found, default=None)
