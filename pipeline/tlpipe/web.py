"""Web: one HTTP request for a file or for the rest of it, and in words why it failed.

Part of the vocabulary: downloads and sources meet here. Imports ``version``, ``addresses`` and
``web_opening``.

Sources: RFC 9110, sections 8.8.3 (ETag), 10.2.3 (Retry-After), 13.1.5 (If-Range), 14.2 (Range),
14.4 (Content-Range) and 15.5.17 (416); for the form of a Git LFS pointer, git-lfs's docs/spec.md.
"""

from __future__ import annotations

import contextlib
import http
import re
import socket
import ssl
import urllib.request
from collections.abc import Iterator
from email.message import Message
from http.client import HTTPException, HTTPResponse, IncompleteRead, InvalidURL
from typing import cast
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from tlpipe.addresses import is_web as is_web
from tlpipe.addresses import without_user
from tlpipe.version import __version__
from tlpipe.web_opening import Route, opener

_CHUNK_BYTES = 1 << 20
_HEAD_BYTES = 512  # enough to know a page or a pointer by
_MAY_PASS = frozenset({408, 425, 429, 500, 502, 503, 504})  # statuses worth another try
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", re.ASCII)
_POINTER = b"version https://git-lfs.github.com/spec/"
_PAGE = (b"<!doctype html", b"<html", b"<head", b"<body")


class FetchError(Exception):
    """Why one address did not give the file; never leaves the stage that asked.

    Parameters
    ----------
    cause : str
        A clause that can stand in brackets after the address.
    may_pass : bool
        Whether another try may succeed.
    status : int
        What the server answered; 0 where it is not the answer's status that is wrong.
    retry_after : str
        When the server wants to be asked again, as it says; empty where it does not.
    """

    def __init__(
        self, cause: str, *, may_pass: bool = False, status: int = 0, retry_after: str = ""
    ) -> None:
        super().__init__(cause)
        self.may_pass, self.status, self.retry_after = may_pass, status, retry_after


class UnreachableError(FetchError):
    """There is no way to the server: worth another try only if there was one a moment ago."""


class UntrustedError(FetchError):
    """The server could not show that it is the one that was asked."""


class RangeRefusedError(FetchError):
    """The file does not reach as far as the rest that was asked for.

    Parameters
    ----------
    total : int or None
        Its size, where the server told.
    """

    def __init__(self, total: int | None) -> None:
        super().__init__(_answered(http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE))
        self.total = total


class OtherRangeError(FetchError):
    """The server sent another range than the rest that was asked for."""


def disguise(head: bytes) -> str:
    """What a file is, by its first bytes, that was sent in place of another; empty if nothing."""
    if head.startswith(_POINTER):
        return "a Git LFS pointer"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_PAGE):
        return "an HTML page"
    return ""


class Reply:
    """A server's answer to a request for a file.

    Attributes
    ----------
    start : int
        Offset in the file of the first byte that comes: 0, or what was asked for.
    total : int or None
        Size of the whole file, where the server tells.
    etag : str
        Strong ETag; empty if there is none.
    framed : bool
        Whether the end of the body can be told from a dropped connection.
    head : bytes
        The first bytes that come.
    """

    def __init__(self, response: HTTPResponse, offset: int, timeout: float) -> None:
        self._response, self._timeout = response, timeout
        self.start, self.total = 0, response.length
        self.framed = response.chunked or response.length is not None
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise FetchError(f"the server sent it encoded as {encoding!r}, which was not asked for")
        if response.status == http.HTTPStatus.PARTIAL_CONTENT and offset:
            self.start, self.total = _content_range(response.headers)
            if self.total is None and response.length is not None:
                self.total = self.start + response.length  # the rest of the file was asked for
            if self.start != offset:
                raise OtherRangeError(
                    f"the server sent the bytes from {self.start}, not from {offset}"
                )
        elif response.status != http.HTTPStatus.OK:
            raise FetchError(_answered(response.status))
        etag = response.headers.get("ETag", "")
        self.etag = etag if etag.startswith('"') else ""  # W/"..." is weak: not for If-Range
        self._at = self.start
        self.head = self._read(_HEAD_BYTES)

    def _read(self, size: int = -1) -> bytes:
        """`size` bytes or all there are; by default what the connection has, at least one."""
        try:
            response = self._response
            chunk = response.read(size) if size >= 0 else response.read1(_CHUNK_BYTES)
        except TimeoutError:
            raise FetchError(_silent(self._timeout) + self._where(), may_pass=True) from None
        except (OSError, HTTPException) as exc:
            raise self._dropped() from exc
        self._at += len(chunk)
        return chunk

    def chunks(self) -> Iterator[bytes]:
        """All that comes, in pieces, as soon as it comes; to be read once.

        Raises
        ------
        FetchError
            The connection ended early.
        """
        chunk = self.head
        while chunk:
            yield chunk
            chunk = self._read()
        if self.total is not None and self._at < self.total:
            raise self._dropped()

    def _dropped(self) -> FetchError:
        return FetchError("the connection was dropped" + self._where(), may_pass=True)

    def _where(self) -> str:
        of = "" if self.total is None else f" of {self.total:,}"
        return f" after {self._at:,}{of} bytes"


@contextlib.contextmanager
def request(
    url: str, offset: int, etag: str, timeout: float, route: Route | None = None
) -> Iterator[Reply]:
    """Ask for a file from `offset` on.

    Parameters
    ----------
    url : str
    offset : int
        Bytes that are at hand already.
    etag : str
        ETag of the file these belong to: if it is another one now, all of it comes. Empty: no
        such condition.
    timeout : float
        Seconds to wait for a connection, and then for each piece.
    route : Route, optional
        By default a request may lead anywhere.

    Raises
    ------
    RangeRefusedError, OtherRangeError
        See there.
    FetchError
        The file does not come.
    """
    headers = {"User-Agent": f"tlpipe/{__version__}", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if etag:
            headers["If-Range"] = etag
    try:
        host = urlsplit(url).hostname
        if not is_web(url) or not host:
            raise ValueError(url)
        if route is not None:
            route.lead(url)
        url, credentials = without_user(url)
        asked = urllib.request.Request(url, headers=headers)
        if credentials:
            asked.add_unredirected_header("Authorization", credentials)
        response = cast(HTTPResponse, opener(route).open(asked, timeout=timeout))
    except HTTPError as exc:
        with exc:
            raise _refused(exc, offset) from None
    except (OSError, HTTPException, ValueError) as exc:
        raise _unanswered(exc, url, timeout) from exc
    with response:
        yield Reply(response, offset, timeout)


def _content_range(headers: Message) -> tuple[int, int | None]:
    """Offset and total size that Content-Range states; -1 for an offset it does not state."""
    found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
    if not found:
        return -1, None
    start, total = found.groups()
    return -1 if start is None else int(start), None if total == "*" else int(total)


def _answered(status: int) -> str:
    with contextlib.suppress(ValueError):
        return f"the server answered {status} ({http.HTTPStatus(status).phrase})"
    return f"the server answered {status}"


def _silent(timeout: float) -> str:
    return f"nothing came for {timeout:g} s"


def _refused(exc: HTTPError, offset: int) -> FetchError:
    """The failure that an answer other than 2xx stands for."""
    if exc.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and offset:
        return RangeRefusedError(_content_range(exc.headers)[1])
    if http.HTTPStatus.MULTIPLE_CHOICES <= exc.code < http.HTTPStatus.BAD_REQUEST:
        return FetchError(
            f"{_answered(exc.code)} with a redirect that is not followed: a loop, or to something"
            " else than http or https, or from https to http"
        )
    return FetchError(
        _answered(exc.code),
        may_pass=exc.code in _MAY_PASS,
        status=exc.code,
        retry_after=exc.headers.get("Retry-After", ""),
    )


def _unanswered(exc: Exception, url: str, timeout: float) -> FetchError:
    """The failure to get any answer that an exception of urllib, or one it wraps, stands for."""
    reason = exc.reason if isinstance(exc, URLError) else exc
    match reason:
        case ssl.SSLCertVerificationError():  # also a ValueError
            why = getattr(reason, "verify_message", "") or reason.strerror or reason
            return UntrustedError(f"its certificate was not accepted: {why}")
        case socket.gaierror():
            host = urlsplit(url).hostname
            return UnreachableError(f"the name {host!r} was not found; is there a network?")
        case TimeoutError() if isinstance(exc, URLError):
            return UnreachableError(f"no connection could be made within {timeout:g} s")
        case TimeoutError():
            return FetchError(_silent(timeout), may_pass=True)
        case ConnectionRefusedError():
            return UnreachableError("the connection was refused")
        case ConnectionError() | IncompleteRead() | ssl.SSLEOFError():
            return FetchError("the connection was dropped before an answer", may_pass=True)
        case InvalidURL() | ValueError():
            return FetchError("this is not a valid http or https address")
        case HTTPException():
            return FetchError("the server's answer is not HTTP", may_pass=True)
        case _:
            return UnreachableError(
                f"the connection failed: {getattr(reason, 'strerror', '') or reason}"
            )
