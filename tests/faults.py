"""Makes chosen calls of a run fail, as a full disk, a broken one or a revoked permission would."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tlpipe.stages.store import guard

RAW = ("write", "truncate", "close", "readinto")
"""Calls of the file below HDF5."""

CALLS: dict[str, tuple[Any, str]] = {
    "os.open": (os, "open"),
    "fsync": (os, "fsync"),
    "replace": (os, "replace"),
    "mkdir": (os, "mkdir"),
    "unlink": (os, "unlink"),
    "rmdir": (os, "rmdir"),
    "touch": (Path, "touch"),
    "write-text": (Path, "write_text"),
    "path-open": (Path, "open"),
    "iterdir": (Path, "iterdir"),
}


@dataclass
class Faults:
    """Counts calls, and fails those from the `number`-th on, `times` of them.

    `error` is an errno, or an exception, or "short" for a write of a part of what it should write.
    """

    call: str = ""
    number: int = 0
    error: Any = "short"
    times: int = 1
    counts: Counter[str] = field(default_factory=Counter)

    def due(self, call: str) -> bool:
        self.counts[call] += 1
        first = self.number
        return call == self.call and first <= self.counts[call] < first + self.times

    def strike(self) -> None:
        if isinstance(self.error, int):
            raise OSError(self.error, os.strerror(self.error))
        raise self.error

    def install(self, patch: pytest.MonkeyPatch, folder: Path) -> None:
        """Watch all calls that have to do with paths in `folder`, or with open files."""
        for call, (owner, name) in CALLS.items():
            original = getattr(owner, name)
            patch.setattr(owner, name, self._watched(call, original, str(folder)))
        begin = guard.GuardedFile.__init__

        def opened(guarded: Any, *args: Any) -> None:
            begin(guarded, *args)
            guarded._file = _Raw(guarded._file, self)

        patch.setattr(guard.GuardedFile, "__init__", opened)

    def _watched(self, call: str, original: Any, folder: str) -> Callable[..., Any]:
        @functools.wraps(original)
        def watched(*args: Any, **more: Any) -> Any:
            path = args[0]
            if (isinstance(path, int) or str(path).startswith(folder)) and self.due(call):
                self.strike()
            return original(*args, **more)

        return watched


class _Raw:
    """The file below a ``GuardedFile``."""

    def __init__(self, file: Any, faults: Faults) -> None:
        self._file, self._faults = file, faults

    def __getattr__(self, name: str) -> Any:
        original = getattr(self._file, name)
        if name not in RAW:
            return original

        def watched(*args: Any) -> Any:
            if not self._faults.due(name):
                return original(*args)
            if name == "close":
                original()  # as systems do, whatever they say
            if self._faults.error != "short":
                self._faults.strike()
            half = memoryview(args[0])
            return original(half[: max(1, len(half) // 2)])

        return watched
