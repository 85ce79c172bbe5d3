"""Writes what is said on standard error: as text, or with ``--log-format json`` as JSON lines.

Owns which of the two it is, for the time of one command. With JSON every line on standard error is
one object with "time" (UTC, ISO 8601), "level", "event" and the fields of that event, whoever wrote
it: commands, Python's logging and warnings, other code that writes to ``sys.stderr``, and native
libraries that write to the process's standard error itself.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, TextIO

from tlpipe.cli.volume import Volume, volume

LogFormat = Literal["text", "json"]
LOG_FORMATS: tuple[LogFormat, ...] = ("text", "json")
LOG_FORMAT_VARIABLE = "TLPIPE_LOG_FORMAT"

Level = Literal["debug", "info", "warning", "error"]

_LAST_WORDS_S = 1.0
"""How long what native libraries wrote is waited for at the end: a child process may keep the pipe
open."""

_stream: TextIO | None = None  # where JSON lines go; None for text


def is_json() -> bool:
    """Whether this command writes JSON lines."""
    return _stream is not None


def emit(event: str, message: str = "", *, level: Level = "info", **more: Any) -> None:
    """Write one event; nothing where the format is text.

    With ``--quiet`` only warnings and errors are written, and not even "exit".

    Parameters
    ----------
    event : str
        What it is, such as "progress" or "error".
    message : str
        The same in words, as the text format has it; left out where it is empty.
    level : {"debug", "info", "warning", "error"}
    more
        What JSON can hold; paths and other objects become text.
    """
    stream = _stream
    if stream is None or (volume() is Volume.QUIET and level not in ("warning", "error")):
        return
    time = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    entry: dict[str, Any] = {"time": time, "level": level, "event": event}
    if message:
        entry["message"] = message
    # In one call: lines of several threads must not mix. ASCII, so that any terminal and any
    # half of a surrogate pair in a file's name can be written.
    try:
        stream.write(json.dumps(entry | _plain(more), default=str) + "\n")
        stream.flush()
    except BrokenPipeError:
        stop_writing(stream)


def stop_writing(stream: TextIO | None) -> None:
    """Send what is written from now on to nowhere: whoever read it has gone."""
    with contextlib.suppress(AttributeError, OSError, ValueError):  # it is no file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # type: ignore[union-attr]
        os.close(nowhere)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields with names as text, also those of tables in them."""
    return {
        str(name): _plain(value) if isinstance(value, Mapping) else value
        for name, value in values.items()
    }


def facts_of(result: Any) -> dict[str, Any]:
    """What of a workflow's result fits in an event: numbers, texts, paths and counts by name."""
    found = {field.name: getattr(result, field.name) for field in fields(result)}
    return {name: value for name, value in found.items() if _is_short(value)}


def _is_short(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(inner, int) for inner in value.values())
    if isinstance(value, list):
        return all(isinstance(inner, str) for inner in value)
    return value is None or isinstance(value, (str, int, float, Path))


@contextlib.contextmanager
def json_lines() -> Iterator[dict[str, Any]]:
    """Write JSON lines until the context is left.

    Yields
    ------
    dict
        To be filled with the fields of the last event, "exit".
    """
    global _stream
    last: dict[str, Any] = {}
    handler, root = _Handler(), logging.getLogger()
    with contextlib.ExitStack() as stack:
        stack.callback(_set, sys.stderr, threading.excepthook, None)
        _stream = _taken_over(sys.stderr, stack, last)
        sys.stderr, threading.excepthook = _Lines(), _uncaught_in_thread
        stack.callback(sys.stderr.close)  # what is left of a line
        root.addHandler(handler)
        stack.callback(root.removeHandler, handler)
        logging.captureWarnings(True)
        stack.callback(logging.captureWarnings, False)
        yield last


def _set(stderr: TextIO, in_threads: Any, stream: TextIO | None) -> None:
    global _stream
    sys.stderr, threading.excepthook, _stream = stderr, in_threads, stream


def emit_uncaught(exc: BaseException, exit_code: int) -> None:
    """Write an exception that nobody understood, with its traceback."""
    text = "".join(traceback.format_exception(exc))
    said = f"{type(exc).__name__}: {exc}"
    emit("error", said, level="error", exit_code=exit_code, traceback=text)


class _Handler(logging.Handler):
    """Python's logging, as events."""

    def emit(self, record: logging.LogRecord) -> None:
        level: Level = "debug"
        if record.levelno >= logging.WARNING:
            level = "error" if record.levelno >= logging.ERROR else "warning"
        elif volume() is not Volume.VERBOSE:
            return
        more: dict[str, Any] = {"logger": record.name}
        if record.exc_info:
            more["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        emit("log", record.getMessage().strip(), level=level, **more)


class _Lines(io.TextIOBase):
    """Stands for ``sys.stderr``: what is written there becomes events, a line each."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self) -> None:
        self._begun = ""
        self._lock = threading.Lock()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        with self._lock:
            *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            _foreign(line)
        return len(text)

    def flush(self) -> None:
        """A line that has no end yet is held back: it may get one."""

    def close(self) -> None:
        with self._lock:
            line, self._begun = self._begun, ""
        _foreign(line)


def _foreign(line: str) -> None:
    """An event for a line of somebody who knows nothing of events."""
    if line.strip():
        emit("output", line.rstrip(), level="warning")


def _taken_over(stream: TextIO, stack: contextlib.ExitStack, last: Mapping[str, Any]) -> TextIO:
    """Where JSON lines go, while what native libraries write to file 2 becomes events as well.

    When `stack` is closed, their last lines are read and "exit" is written with the fields `last`.
    Nothing is taken over where `stream` is not file 2 itself, as in tests.
    """
    try:
        real = stream.fileno() == 2
    except (OSError, ValueError):  # no file at all
        real = False
    if not real:
        stack.callback(lambda: emit("exit", **last))
        return stream
    kept = os.dup(2)
    own = stack.enter_context(open(kept, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
    stack.callback(lambda: emit("exit", **last))
    reader, writer = os.pipe()
    os.dup2(writer, 2)
    os.close(writer)
    thread = threading.Thread(target=_pump, args=(reader,), name="stderr", daemon=True)
    thread.start()

    def give_back() -> None:
        os.dup2(kept, 2)  # the pipe's last writer in this process: the thread comes to an end
        thread.join(_LAST_WORDS_S)

    stack.callback(give_back)
    return own


def _pump(reader: int) -> None:
    with open(reader, encoding="utf-8", errors="backslashreplace") as lines:
        for line in lines:
            _foreign(line)


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    text = "".join(traceback.format_exception(args.exc_type, args.exc_value, args.exc_traceback))
    emit("log", f"{args.exc_type.__name__}: {args.exc_value}", level="error", traceback=text)
