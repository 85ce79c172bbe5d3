"""Servers: which of them answer, so that one that is away costs neither hours nor rows.

What a run may do about a server that fails again and again: stop, where the server matters (it gave
a good part of what was read, or no server gave anything), since the images are not bad and a later
run would get them; else leave its items out, each with its reason, without waiting for each.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from tlpipe.errors import SourceError
from tlpipe.types import Reason, Reject, Stage

FAILURES = 5
"""Items in a row, each after all its tries, after which a server counts as away."""

LEFT_OUT_S = 60.0
"""How long items of a server that is away are left out before it is asked again."""

_MATTERS = 0.1  # of what was read
_MOST_KNOWN = 100_000


@dataclass(slots=True)
class _Server:
    answers: int = 0
    failures: int = 0
    out_until: float = 0.0
    wait_until: float = 0.0
    why: str = ""


class Servers:
    """What is known of each server; used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, _Server] = {}
        self._answers = 0

    def _of(self, name: str) -> _Server:
        found = self._known.get(name)
        if found is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()  # millions of servers: what is known of each matters little
            found = self._known[name] = _Server()
        return found

    def left_out(self, name: str) -> Reject | None:
        """Why an item of a server is not asked for; None where it is."""
        with self._lock:
            server = self._of(name)
            if time.monotonic() >= server.out_until:
                return None
            detail = (
                f"{name} is left out for now, after {FAILURES} failures in a row ({server.why})."
            )
        return Reject(Stage.SOURCE, Reason.UNREACHABLE, detail)

    def wait_s(self, name: str) -> float:
        """Seconds for which a server wants to be left alone."""
        with self._lock:
            return max(0.0, self._of(name).wait_until - time.monotonic())

    def leave_alone(self, name: str, seconds: float) -> None:
        """Take note that a server wants to be left alone for a while."""
        with self._lock:
            server = self._of(name)
            server.wait_until = max(server.wait_until, time.monotonic() + seconds)

    def answered(self, name: str) -> None:
        """Take note that a server answered."""
        with self._lock:
            server = self._of(name)
            server.answers, server.failures, server.out_until = server.answers + 1, 0, 0.0
            self._answers += 1

    def failed(self, name: str, why: str) -> None:
        """Take note that a server did not give an item, after all tries.

        Raises
        ------
        SourceError
            It is away, and matters.
        """
        with self._lock:
            server = self._of(name)
            server.failures, server.why = server.failures + 1, why
            if server.failures < FAILURES:
                return
            if self._answers and server.answers < _MATTERS * self._answers:
                server.out_until = time.monotonic() + LEFT_OUT_S
                return
            server.failures = 0  # a later run shall ask it again
        raise SourceError(
            f"{name} does not give its images{' any more' if server.answers else ''}: {FAILURES}"
            f" failures in a row, the last one: {why}.",
            hint="Run the same command when it is back. If it is gone for good, leave its images"
            " out of the source.",
        )
