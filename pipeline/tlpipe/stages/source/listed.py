"""Standard input as a source: a list of paths and addresses, one per line or ended by NUL each.

It is the user's own list, so what it names may lie anywhere.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from typing import BinaryIO

from tlpipe.addresses import scheme_of
from tlpipe.errors import OptionError, SourceError
from tlpipe.stages.source.addressed import Address, named
from tlpipe.stages.source.spool import Spool
from tlpipe.stages.source.survey import BLOCK_ITEMS, Asked, Source, Survey, file_stat, printable
from tlpipe.types import Block, Split

STANDARD_INPUT = "-"
"""What stands for it where a path is asked for."""

MOST_BYTES = 1 << 20
"""Of one path or address."""

_CHUNK_BYTES = 1 << 20
_NAME = "standard input"


def open_listed(stream: BinaryIO | None = None) -> Source:
    """Take standard input, or another stream, as a list of images; it is read by the first scan.

    Raises
    ------
    OptionError
        Standard input is a terminal, or closed.
    """
    if stream is None:
        if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
            raise OptionError(
                "The source is '-', standard input, and nothing is connected to it.",
                hint="Send it a list of paths: find photos -name '*.jpg' -print0 | tlpipe ... -",
            )
        stream = sys.stdin.buffer
    folder = os.getcwd()  # noqa: PTH109  (as text; the working folder may change)
    lines = _Lines(stream)

    def blocks(survey: Survey, asked: Asked) -> Iterator[Block]:
        survey.layout = "a list on standard input"
        block = Block()
        for number, line in enumerate(lines, 1):
            if not line:
                survey.skipped["blank line"] += 1
                continue
            place = _place(line, folder, f"Line {number} of {_NAME}")
            block.keys.append(printable(line))
            block.places.append(place)
            block.labels.append(None)
            block.splits.append(Split.NONE)
            if asked.stats:
                block.stats.append(file_stat(place))
            survey.labels[Split.NONE, None] += 1
            if len(block) == BLOCK_ITEMS:
                yield block
                block = Block()
        if len(block):
            yield block

    return Source(_NAME, blocks)


def _place(line: str, folder: str, where: str) -> str | Address:
    if "\0" in line:
        raise SourceError(
            f"{where} holds a NUL character.",
            hint="End either each path with NUL, as find -print0 does, or each with a line's end.",
        )
    if scheme_of(line):
        try:
            return named(line)
        except SourceError as exc:
            raise SourceError(f"{where}: {exc.message}", hint=exc.hint) from exc
    return os.path.join(folder, line)  # noqa: PTH118  (a Path for each line is slow)


class _Lines:
    """The lines of a stream that can be read once, any number of times."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._spool: Spool | None = None

    def __iter__(self) -> Iterator[str]:
        spool = self._spooled()
        start, done, rest = spool.read(0, _CHUNK_BYTES), 0, b""
        mark = b"\0" if b"\0" in start else b"\n"
        chunk = start.removeprefix(b"\xef\xbb\xbf")
        done = len(start)
        while chunk:
            *whole, rest = (rest + chunk).split(mark)
            for line in whole:
                yield _text(line, mark)
            if len(rest) > MOST_BYTES:
                break
            chunk = spool.read(done, _CHUNK_BYTES)
            done += len(chunk)
        if rest:
            yield _text(rest, mark)

    def _spooled(self) -> Spool:
        with self._lock:
            if self._spool is None:
                spool = Spool()
                try:
                    while chunk := self._stream.read(_CHUNK_BYTES):
                        spool.add(chunk)
                except (OSError, ValueError) as exc:  # ValueError: it was closed
                    raise SourceError(
                        f"Standard input cannot be read: {exc}.",
                        hint="Run the same command again, with a list that comes to its end.",
                    ) from exc
                self._spool = spool
            return self._spool


def _text(line: bytes, mark: bytes) -> str:
    """A line as a path, which may be any bytes."""
    if len(line) > MOST_BYTES:
        raise SourceError(
            f"A line of {_NAME} has more than {MOST_BYTES:,} bytes.",
            hint="Each line is the path or the address of an image.",
        )
    if mark == b"\n":
        line = line.removesuffix(b"\r")
    return os.fsdecode(line)
