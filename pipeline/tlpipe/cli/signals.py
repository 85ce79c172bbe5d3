"""What signals do to a run: the first one has it put away what is done, a second Ctrl-C ends it.

Owns the handlers of SIGINT, SIGTERM and SIGHUP.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import select
import signal
import sys
import threading
import time
from typing import Any

from tlpipe.cli.show import say

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and the number of SIGINT, as shells have it."""

_SAME_PRESS_S = 0.3
"""Programs that start others pass Ctrl-C on, which the terminal has sent already: two signals so
near to each other are one press."""

_LONG_S = 1.0
"""After this it is said that the run is being stopped: it may be within a long computation."""

_stopping = False
"""Whether the process ends because of a signal: a second one must not cut short what the first one
has finish. Schedulers send several."""

_interrupted_at: float | None = None
_own = threading.Event()  # set where the next SIGINT is this module's, and nobody's press


def install() -> None:
    """Take the signals over; one that is ignored, as below ``nohup``, stays ignored."""
    sys.unraisablehook = raise_again
    sys.excepthook = _shown_if_wrong
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _terminated)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)
        if sys.platform != "win32":
            _watch_presses()


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
        _end()


def _watch_presses() -> None:
    """Have a thread see each press at once: Python's handlers wait until compiled code returns."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_presses, args=(reader,), name="ctrl-c", daemon=True).start()


def _presses(reader: int) -> None:
    """End the process at the second press; say what is going on where the first takes long."""
    first: float | None = None
    told = False
    while True:
        if first is not None and not told and not select.select([reader], [], [], _LONG_S)[0]:
            told = True
            text = "Stopping, as soon as what is being computed allows. Ctrl-C again ends at once."
            say(text, level="warning")
        for number in os.read(reader, 64):
            if number != signal.SIGINT:
                continue
            if _own.is_set():
                _own.clear()
            elif first is None:
                first = time.monotonic()
            elif time.monotonic() - first > _SAME_PRESS_S:
                _end()


def _end() -> None:
    """End the process at once."""
    with contextlib.suppress(OSError, ValueError):
        if sys.__stderr__ is not None and sys.__stderr__.isatty():
            os.write(2, b"\x1b[?25h\n")  # the cursor, which a progress bar hides
    os._exit(INTERRUPTED)


def _shown_if_wrong(kind: Any, exc: BaseException, traceback: Any) -> None:
    """Show an exception that nobody caught; of compiled code that prints Ctrl-C, show nothing."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, exc, traceback)


def was_interrupted() -> bool:
    """Whether Ctrl-C was pressed: compiled code that it interrupts may fail in a way of its own."""
    return _interrupted_at is not None


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
        if number == signal.SIGINT:
            _own.set()
        os.kill(os.getpid(), number)
