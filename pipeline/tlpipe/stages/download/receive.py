"""Receive: from one address into a part, with as many requests as that takes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tlpipe.stages.download.part import Expected, Part, WrongFileError
from tlpipe.types import Progress, ProgressCallback
from tlpipe.web import (
    FetchError,
    OtherRangeError,
    RangeRefusedError,
    Reply,
    UnreachableError,
    disguise,
    request,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Manner:
    """How to fetch; see ``download``."""

    progress: ProgressCallback | None
    pauses: Sequence[float]
    timeout: float

    def report(self, done: int, total: int | None) -> None:
        """Tell how many bytes of how many have arrived."""
        if self.progress is not None:
            self.progress(Progress("download", done, total, 0))


def receive(url: str, part: Part, expected: Expected, manner: Manner) -> Expected:
    """Make `part` whole and right, from one address.

    A wrong checksum of a file that came in pieces is given one more try, from the first byte.

    Returns
    -------
    Expected
        Size and SHA-256 of what arrived.

    Raises
    ------
    FetchError
        This address does not give the file. What has arrived is kept unless it was found wrong.
    OutputError
        The part cannot be written.
    """
    try:
        _complete(url, part, expected, manner)
        return part.check(expected)
    except WrongFileError as wrong:
        resumed = part.resumed
        part.restart()
        if not resumed:
            raise
        _log.warning(
            "What was resumed from %s is not right (%s): it is fetched once more, from its first"
            " byte.",
            url,
            wrong,
        )
    try:
        _complete(url, part, expected, manner)
        return part.check(expected)
    except WrongFileError:
        part.restart()
        raise


def _complete(url: str, part: Part, expected: Expected, manner: Manner) -> None:
    """Ask for what `part` lacks, again after failures that may pass, until it has all."""
    first = furthest = part.size
    pauses = iter(manner.pauses)
    while True:
        etag = part.etag if part.url == url else ""
        # Without a checksum or an ETag, nothing would show that two pieces do not fit together.
        offset = part.size if expected.sha256 or etag else 0
        if offset and offset == expected.size_bytes:
            return
        try:
            with request(url, offset, etag, manner.timeout) as reply:
                _take(reply, url, part, expected, manner.report)
            return
        except OtherRangeError:
            part.restart()
        except RangeRefusedError as refused:
            if expected.size_bytes is not None:
                _check_announced(refused.total, expected)
            elif refused.total == part.size:
                return
            part.restart()
        except FetchError as failure:
            if part.size > furthest:
                furthest, pauses = part.size, iter(manner.pauses)
            passing = failure.may_pass or (
                isinstance(failure, UnreachableError) and furthest > first
            )
            pause = next(pauses, None) if passing else None
            if pause is None:
                raise
            _log.info("%s: %s; trying again in %g s.", url, failure, pause)
            time.sleep(pause)


def _take(
    reply: Reply,
    url: str,
    part: Part,
    expected: Expected,
    report: Callable[[int, int | None], None],
) -> None:
    """Write an answer's body to `part`, once it was found to be of the file that is wanted."""
    if reply.start == 0 and (what := disguise(reply.head)):
        raise FetchError(f"the server sent {what} instead of the file")
    _check_announced(reply.total, expected)
    if expected == Expected() and not reply.framed:
        raise FetchError("the server does not tell how long it is, and no checksum of it is known")
    if reply.start == 0:
        part.restart(url, reply.etag, reply.total)
    elif part.url == url and None not in (part.total, reply.total) and part.total != reply.total:
        raise OtherRangeError("the file has changed")
    else:
        part.resumed = True
    total = expected.size_bytes if reply.total is None else reply.total
    report(part.size, total)
    for chunk in reply.chunks():
        if expected.size_bytes is not None and part.size + len(chunk) > expected.size_bytes:
            raise WrongFileError(f"it has more than the expected {expected.size_bytes:,} bytes")
        part.write(chunk)
        report(part.size, total)
    if not reply.framed and expected.size_bytes is not None and part.size < expected.size_bytes:
        raise FetchError(
            f"the connection ended after {part.size:,} of {expected.size_bytes:,} bytes",
            may_pass=True,
        )


def _check_announced(total: int | None, expected: Expected) -> None:
    """Refuse a file of another size than the expected one; what has arrived may still be right."""
    try:
        expected.check_size(total)
    except WrongFileError as wrong:
        raise FetchError(str(wrong)) from None
