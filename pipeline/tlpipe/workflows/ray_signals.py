"""Keeps signals what they are while Ray is at work: it has handlers and exits of its own."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextlib.contextmanager
def own_signals() -> Iterator[None]:
    """Have SIGTERM do what it did: ray.init puts a handler of its own, which exits with 15."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as exc:
        if exc.code == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM) from exc
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def named_signals() -> Iterator[None]:
    """Have an exit that a signal asked for say so: while it waits, Ray makes it an exit with 1."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def remembered(number: int, frame: Any) -> None:
        caught.append(number)
        handler = before[number]
        if callable(handler):
            handler(number, frame)

    for number, handler in before.items():
        if callable(handler):
            signal.signal(number, remembered)
    try:
        yield
    except SystemExit as exc:
        if caught:
            exc.code = 128 + caught[0]
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
