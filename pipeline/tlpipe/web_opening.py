"""Web opening: urllib without what tlpipe does not want of it, on connections that may be watched.

Part of the vocabulary. Imports ``addresses``; the errors of a ``Route`` pass through.
"""

from __future__ import annotations

import functools
import socket
import ssl
import urllib.request
from http.client import HTTPConnection, HTTPMessage, HTTPResponse, HTTPSConnection
from typing import IO, Any, Protocol
from urllib.error import HTTPError

from tlpipe.addresses import is_web


class Route(Protocol):
    """Decides where a request may lead, and makes its connections."""

    def lead(self, url: str) -> None:
        """Told each address before it is asked: the first one, and those of redirects.

        Raises
        ------
        Exception
            It must not be asked.
        """

    def connect(
        self, address: tuple[str, int], timeout: float, source: tuple[str, int] | None = None
    ) -> socket.socket:
        """Connect to the host and port of that address, or of a proxy.

        Raises
        ------
        Exception
            No connection may be made.
        OSError
            None could be made.
        """


def _secure(url: str) -> bool:
    return url.lower().startswith("https://")


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https only, and from https to https only."""

    def __init__(self, route: Route | None = None) -> None:
        self._route = route

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Request to follow a redirect with; raises where it is not followed."""
        if not is_web(newurl) or _secure(req.full_url) > _secure(newurl):
            raise HTTPError(newurl, code, msg, headers, fp)
        if self._route is not None:
            self._route.lead(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Http(urllib.request.HTTPHandler):
    """Has a route make the connections."""

    def __init__(self, route: Route) -> None:
        super().__init__()
        self._route = route

    def http_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(_by(self._route, HTTPConnection), req)


class _Https(urllib.request.HTTPSHandler):
    """The same with TLS."""

    def __init__(self, route: Route) -> None:
        super().__init__()
        self._route = route

    def https_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(_by(self._route, HTTPSConnection), req, context=_trust())


def _by(route: Route, kind: type[HTTPConnection]) -> Any:
    """Maker of connections of a kind, on sockets that a route connects."""

    def make(host: str, **options: Any) -> HTTPConnection:
        connection = kind(host, **options)
        connection._create_connection = route.connect  # type: ignore[attr-defined]
        return connection

    return make


@functools.cache
def _trust() -> ssl.SSLContext:
    """What certificates are held against: read once, which takes longer than a small image."""
    return ssl.create_default_context()


def opener(route: Route | None) -> urllib.request.OpenerDirector:
    """An opener of urllib without its other protocols: ftp, file and data."""
    made = urllib.request.OpenerDirector()
    handlers: list[Any] = [
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler() if route is None else _Http(route),
        urllib.request.HTTPSHandler() if route is None else _Https(route),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        Redirects(route),
    ]
    for handler in handlers:
        made.add_handler(handler)
    return made
