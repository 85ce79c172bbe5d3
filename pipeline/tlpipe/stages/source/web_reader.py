"""Reads images from web addresses, each with an end to its size, its time and its tries."""

from __future__ import annotations

import datetime
import email.utils
import threading
import time
from collections.abc import Sequence

from tlpipe.addresses import asked, server_of, shown
from tlpipe.errors import SourceError
from tlpipe.stages.source.addressed import Address
from tlpipe.stages.source.calls import Call, Calls, Interrupted, LateError, RefusedError
from tlpipe.stages.source.reading import MAX_FILE_BYTES, too_large
from tlpipe.stages.source.servers import Servers
from tlpipe.types import FileStat, Reason, Reject, Stage
from tlpipe.web import FetchError, Reply, UnreachableError, UntrustedError, disguise, request

MOST_S = 120.0
"""Seconds that one image may take, all tries and pauses together."""

TIMEOUT_S = 20.0
"""Seconds to wait for an answer, and then for each piece of it."""

PAUSES_S = (0.5, 1.0, 2.0, 4.0)
"""Before each new try after a failure that may pass."""

MOST_PAUSE_S = 60.0
"""The longest pause that a server may ask for."""

_LARGE = 16 << 20
"""Bytes of an image from which on one at a time is read: memory has an end, whatever is sent."""

_MOST_PARTS = 2
"""New tries after answers that began and did not end: it may be the item's fault."""

_GONE = frozenset({404, 410})


class WebReader:
    """Reads ``Address`` places of the web; see ``Reader``.

    Parameters
    ----------
    pauses : sequence of float
    most_s, timeout_s : float
        See ``PAUSES_S``, ``MOST_S`` and ``TIMEOUT_S``.
    """

    def __init__(
        self,
        pauses: Sequence[float] = PAUSES_S,
        most_s: float = MOST_S,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._options = (pauses, most_s, timeout_s)
        self._pauses, self._most_s, self._timeout_s = self._options
        self._calls, self._servers = Calls(), Servers()
        self._large = threading.Lock()

    def __reduce__(self) -> tuple[type[WebReader], tuple[Sequence[float], float, float]]:
        return WebReader, self._options

    def interrupt(self) -> None:
        """End all reading that is under way: it raises ``Interrupted``."""
        self._calls.interrupt()

    def read(self, place: Address, /) -> tuple[bytes, FileStat] | Reject:
        """Content of what an address gives; its time of change is not known.

        Raises
        ------
        SourceError
            The server is away, see ``Servers``; or the address lies inside, and the user did not
            name it.
        Interrupted
            The run has ended.
        """
        name = shown(place.url)
        try:
            url, server = asked(place.url), server_of(place.url)
        except (ValueError, UnicodeError):
            return _reject(Reason.UNREADABLE, f"{name} is not a valid http or https address")
        left_out = self._servers.left_out(server)
        if left_out is not None:
            return left_out
        with self._calls.call(inside=place.inside, most_s=self._most_s) as call:
            try:
                found = self._tried(url, server, call)
            except FetchError as failure:
                if call.interrupted:
                    raise Interrupted("the run has ended") from failure
                if isinstance(failure, RefusedError) and failure.named:
                    raise SourceError(
                        f"The address {name!r} may not be read: {failure}.",
                        hint=f"If it shall be, allow it with --allow-outside {server}/",
                    ) from failure
                if _blames_server(failure):
                    self._servers.failed(server, str(failure))
                return _reject(_reason(failure), f"{name}: {failure}")
        self._servers.answered(server)
        return found

    def _tried(self, url: str, server: str, call: Call) -> tuple[bytes, FileStat] | Reject:
        """What comes, after as many tries as it takes and as may be."""
        pauses, part = iter(self._pauses), 0
        while True:
            call.pause(self._servers.wait_s(server))
            try:
                with request(url, 0, "", self._timeout_s, call) as reply:
                    try:
                        return self._body(reply, call)
                    except FetchError as failure:
                        call.check()
                        raise _PartError(str(failure), may_pass=failure.may_pass) from failure
            except FetchError as failure:
                call.check()
                asked_for = _seconds(failure.retry_after)
                pause = next(pauses, None)
                part += isinstance(failure, _PartError)
                passing = failure.may_pass or isinstance(failure, UnreachableError)
                if asked_for > MOST_PAUSE_S:
                    raise FetchError(
                        f"{failure} and wants to be left alone for {asked_for:.0f} s", may_pass=True
                    ) from failure
                if pause is None or not passing or part > _MOST_PARTS:
                    raise
                if asked_for:
                    self._servers.leave_alone(server, asked_for)
                call.pause(max(pause, asked_for))

    def _body(self, reply: Reply, call: Call) -> tuple[bytes, FileStat] | Reject:
        if what := disguise(reply.head):
            detail = f"The server sent {what} instead of an image."
            return Reject(Stage.DECODE, Reason.NOT_AN_IMAGE, detail)
        if reply.total is not None and reply.total > MAX_FILE_BYTES:
            return too_large(reply.total, FileStat(reply.total))
        raw = bytearray()
        alone = False
        try:
            for chunk in reply.chunks():
                call.check()
                raw += chunk
                if len(raw) > MAX_FILE_BYTES:
                    return Reject(
                        Stage.DECODE,
                        Reason.TOO_LARGE,
                        f"More than {MAX_FILE_BYTES} bytes came, which is the limit.",
                    )
                if len(raw) > _LARGE and not alone:
                    alone = self._wait_alone(call)
            call.check()  # a head that was cut off by us reads like one without a length
        finally:
            if alone:
                self._large.release()
        return bytes(raw), FileStat(len(raw))

    def _wait_alone(self, call: Call) -> bool:
        """Wait until no other large image is being read; that time does not count."""
        while not self._large.acquire(timeout=0.1):
            call.prolong(0.1)
            call.check()
        return True


class _PartError(FetchError):
    """The answer began, and did not end well: maybe the fault of this item alone."""


def _blames_server(failure: FetchError) -> bool:
    """Whether a failure says something of the server, not of one item."""
    if isinstance(failure, _PartError):
        return False
    return failure.may_pass or isinstance(failure, LateError | UnreachableError | UntrustedError)


def _reason(failure: FetchError) -> Reason:
    if failure.status in _GONE:
        return Reason.MISSING
    passing = failure.may_pass or isinstance(failure, LateError | UnreachableError)
    return Reason.UNREACHABLE if passing else Reason.UNREADABLE


def _reject(reason: Reason, detail: str) -> Reject:
    return Reject(Stage.SOURCE, reason, f"{detail}.")


def _seconds(retry_after: str) -> float:
    """What Retry-After asks for: seconds, or a date (RFC 9110, section 10.2.3); 0 for neither."""
    text = retry_after.strip()
    if text.isdecimal():
        return float(min(int(text[:12]), 10**9))
    try:
        until = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    if until.tzinfo is None:
        until = until.replace(tzinfo=datetime.UTC)
    return max(0.0, until.timestamp() - time.time())
