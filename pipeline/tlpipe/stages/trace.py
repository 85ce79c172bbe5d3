"""Trace: writes what each thread spends its time on, for the viewers of Chrome and Perfetto.

Takes spans as they come, gives a JSON file. Imports ``errors`` and ``files``.

Source of the format: "Trace Event Format" (Google), the JSON object with "traceEvents"; complete
events ("ph": "X") with times in microseconds, and thread names as metadata events ("ph": "M").
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TextIO

from tlpipe.errors import OutputError

_BEGINNING = '{"displayTimeUnit": "ms", "traceEvents": ['


class Timed(Protocol):
    """A stretch of time: the engine's ``Span``."""

    @property
    def kind(self) -> str:
        """What it was spent on."""

    @property
    def start_s(self) -> float:
        """When it began, by ``time.perf_counter``."""

    @property
    def stop_s(self) -> float:
        """When it ended."""

    @property
    def thread(self) -> int:
        """Identifier of the thread."""

    @property
    def images(self) -> int:
        """How many images it was spent on."""


class TraceFile:
    """A trace that is being written; call it with spans, from any thread.

    It is written as it goes, so that it takes no memory, and is complete when the context is left,
    whatever the reason.

    Parameters
    ----------
    path : pathlib.Path
        It is replaced where it is a trace already, or empty.

    Raises
    ------
    OutputError
        It cannot be written, or it is a file that is no trace: it may be an image of the source.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._start = time.perf_counter()
        self._pid = os.getpid()
        self._threads: dict[int, int] = {}
        self._stream: TextIO | None = None

    def __enter__(self) -> Self:
        try:
            if self._is_another():
                raise OutputError(
                    f"{str(self._path)!r} exists and is no trace: it is not written over.",
                    hint="Choose another file for --profile.",
                )
            self._stream = self._path.open("w", encoding="utf-8")
        except OutputError:  # it is an OSError too
            raise
        except (OSError, ValueError) as exc:
            raise self._unwritable(exc) from exc
        self._write(_BEGINNING + "\n")
        self._event({"name": "process_name", "ph": "M", "args": {"name": "tlpipe"}}, first=True)
        return self

    def __call__(self, spans: Sequence[Timed]) -> None:
        """Write spans."""
        with self._lock:
            for span in spans:
                self._event(
                    {
                        "name": span.kind,
                        "cat": span.kind,
                        "ph": "X",
                        "ts": round((span.start_s - self._start) * 1e6, 1),
                        "dur": round((span.stop_s - span.start_s) * 1e6, 1),
                        "tid": self._thread(span),
                        "args": {"images": span.images},
                    }
                )

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        with self._lock:
            stream, self._stream = self._stream, None
            if stream is None:
                return
            try:
                stream.write("\n]}\n")
                stream.close()
            except OSError as error:
                if exc is None:
                    raise self._unwritable(error) from error

    def _is_another(self) -> bool:
        """Whether something is there that is no trace: it may be what the run reads."""
        if not self._path.is_file():
            return self._path.exists()  # a folder, or a pipe that nobody reads
        with self._path.open("rb") as stream:
            begun = stream.read(len(_BEGINNING))
        return begun not in (b"", _BEGINNING.encode())

    def _thread(self, span: Timed) -> int:
        """Number of a thread in the trace; it is named when it is first met."""
        if span.thread not in self._threads:
            number = self._threads[span.thread] = len(self._threads) + 1
            name = "writes" if span.kind == "write" else "loads and infers"
            self._event({"name": "thread_name", "ph": "M", "tid": number, "args": {"name": name}})
        return self._threads[span.thread]

    def _event(self, event: dict[str, Any], *, first: bool = False) -> None:
        text = json.dumps({"pid": self._pid, "tid": 0, **event})
        self._write(text if first else ",\n" + text)

    def _write(self, text: str) -> None:
        if self._stream is None:  # the run has ended; what threads still had under way is not told
            return
        try:
            self._stream.write(text)
        except OSError as exc:
            raise self._unwritable(exc) from exc

    def _unwritable(self, exc: Exception) -> OutputError:
        why = getattr(exc, "strerror", None) or str(exc)
        return OutputError(
            f"The trace {str(self._path)!r} cannot be written: {why}.",
            hint="Choose another file for --profile.",
        )
