"""Keeps the finished work of a run that ends early, whatever the cause, and says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from tlpipe.errors import OutputError, TlpipeError


class KeptParts(Protocol):
    """The finished parts of a run."""

    @property
    def kept(self) -> int:
        """Rows in parts that this run has finished."""

    def names(self) -> list[Path]:
        """Finished parts."""

    def finish(self) -> None:
        """Finish a part of the rows taken so far."""

    def remove(self) -> None:
        """Remove all of them."""


@contextmanager
def work_kept(parts: KeptParts, what: str, command: str = "the same command") -> Iterator[None]:
    """Finish a last part when the run ends early; say how many of `what` are kept, and for whom."""
    try:
        yield
    except BaseException as exc:
        try:
            parts.finish()
        except Exception as second:  # the first one is to be heard
            text = second.message if isinstance(second, TlpipeError) else repr(second)
            exc.add_note(f"The last {what} could not be kept: {text}")
        with suppress(OutputError):  # the error is being raised already
            if not parts.names():
                parts.remove()  # it is empty
        if parts.kept:
            exc.add_note(
                f"{parts.kept:,} {what} of this run are kept; {command} goes on from there."
            )
        raise
