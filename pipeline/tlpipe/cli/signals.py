"""What signals do to a run: the first one has it put away what is done, a second Ctrl-C ends it.

Owns the handlers of SIGINT, SIGTERM and SIGHUP.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import threading
import time
from typing import Any

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and the number of SIGINT, as shells have it."""

_SAME_PRESS_S = 0.3
"""Programs that start others pass Ctrl-C on, which the terminal has sent already: two signals so
near to each other are one press."""

_stopping = False
"""Whether the process ends because of a signal: a second one must not cut short what the first one
has finish. Schedulers send several."""

_interrupted_at: float | None = None


def install() -> None:
    """Take the signals over; one that is ignored, as below ``nohup``, stays ignored."""
    sys.unraisablehook = raise_again
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _terminated)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)


def _terminated(signum: int, _: object) -> None:
    global _stopping
    if _stopping:
        return
    _stopping = True
    sys.exit(128 + signum)  # unwinds, so that temporary files are removed


def _interrupted(_: int, __: object) -> None:
    """Unwind at the first Ctrl-C; at a later one end at once, as after ``kill -9``."""
    global _interrupted_at
    now = time.monotonic()
    if _interrupted_at is None:
        _interrupted_at = now
        raise KeyboardInterrupt
    if now - _interrupted_at > _SAME_PRESS_S:
        with contextlib.suppress(OSError, ValueError):
            if sys.__stderr__ is not None and sys.__stderr__.isatty():
                os.write(2, b"\x1b[?25h\n")  # the cursor, which a progress bar hides
        os._exit(INTERRUPTED)


def raise_again(unraisable: sys.UnraisableHookArgs) -> None:
    """Raise an interruption once more that came up where Python ignores exceptions.

    Such places are destructors and weak references' callbacks, of which h5py runs many. Without
    this, a run would go on as if nobody had stopped it.
    """
    global _stopping, _interrupted_at
    exc: Any = unraisable.exc_value
    if isinstance(exc, SystemExit) and isinstance(exc.code, int):
        number = exc.code - 128
    elif isinstance(exc, KeyboardInterrupt):
        number = int(signal.SIGINT)
    else:
        sys.__unraisablehook__(unraisable)
        return
    _stopping, _interrupted_at = False, None  # the first one was lost: it comes again
    threading.Timer(0.01, _interrupt, [number]).start()


def _interrupt(number: int) -> None:
    """Send this process a signal, as from outside, so that it ends waits where it can."""
    if sys.platform == "win32":
        _thread.interrupt_main(number)
    else:
        os.kill(os.getpid(), number)
