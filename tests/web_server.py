"""A web server on this machine that can misbehave, and keeps a log of what it was asked."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Act = Callable[["Handler", "Server"], None]


class Server(ThreadingHTTPServer):
    """Serves `content` at every path; what stands in `acts` answers the next requests instead."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.etag = '"v1"'
        self.ranges = True
        self.acts: deque[Act] = deque()
        self.paths: dict[str, Act] = {}  # what answers at a path, when no other act is due
        self.log: list[dict[str, str]] = []  # the headers of each request, and its path as "path"
        self.go_on = threading.Event()  # what a stalled answer waits for
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/model.bin"

    def asked(self, header: str) -> list[str | None]:
        """That header's value in each request, None where there was none."""
        return [entry.get(header) for entry in self.log]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client went away, as some tests want."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.log.append({**dict(self.headers.items()), "path": self.path})
        own = self.server.paths.get(self.path, serve())
        act = self.server.acts.popleft() if self.server.acts else own
        act(self, self.server)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (its name)
        pass

    def head(self, status: int, **headers: str) -> None:
        """Status line and headers; a "_" in a name stands for "-"."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()


@contextlib.contextmanager
def serving(content: bytes) -> Iterator[Server]:
    with Server(content) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.go_on.set()
            server.shutdown()
            thread.join()


def serve(*, drop_after: int | None = None, stall_after: int | None = None, total: str = "") -> Act:
    """The content, or the range of it that was asked for.

    `drop_after` and `stall_after` count the bytes of this answer; `total` is what Content-Range
    says, if something else than the truth.
    """

    def act(handler: Handler, server: Server) -> None:
        content, start = server.content, 0
        headers = {"ETag": server.etag} if server.etag else {}
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        condition = handler.headers.get("If-Range")
        if asked and server.ranges and condition in (None, server.etag):
            start = int(asked[1])
            if start >= len(content):
                handler.head(416, Content_Range=f"bytes */{len(content)}", Content_Length="0")
                return
            span = f"bytes {start}-{len(content) - 1}/{total or len(content)}"
            headers["Content_Range"] = span
        body = content[start:]
        handler.head(206 if start else 200, Content_Length=str(len(body)), **headers)
        if stall_after is not None:
            handler.wfile.write(body[:stall_after])
            body = body[stall_after:]
            server.go_on.wait(60)
        handler.wfile.write(body[:drop_after])
        if drop_after is not None:
            handler.connection.shutdown(socket.SHUT_RDWR)

    return act


def answer(status: int, body: bytes = b"", **headers: str) -> Act:
    """A fixed answer; without Content_Length among the headers, that of the body."""
    headers.setdefault("Content_Length", str(len(body)))

    def act(handler: Handler, server: Server) -> None:
        handler.head(status, **headers)
        handler.wfile.write(body)

    return act


def unmeasured(body: bytes) -> Act:
    """`body` without Content-Length: it ends where the connection ends."""

    def act(handler: Handler, server: Server) -> None:
        handler.head(200, ETag=server.etag)
        handler.wfile.write(body)

    return act


def chunked(body: bytes, *, end: bool = True) -> Act:
    """`body` in chunks, with its end marked or, as by a dropped connection, not."""

    def act(handler: Handler, server: Server) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.close_connection = True
        handler.head(200, Transfer_Encoding="chunked", ETag=server.etag)
        for start in range(0, len(body), 1000):
            piece = body[start : start + 1000]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        if end:
            handler.wfile.write(b"0\r\n\r\n")

    return act


def drip(body: bytes, every_s: float) -> Act:
    """A byte every so often, and of the head as well: no single wait is long."""

    def act(handler: Handler, server: Server) -> None:
        head = b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
        for byte in head + body:
            handler.wfile.write(bytes([byte]))
            if server.go_on.wait(every_s):
                return

    return act


def slow(pieces: int) -> Act:
    """The content in many small writes."""

    def act(handler: Handler, server: Server) -> None:
        handler.head(200, Content_Length=str(len(server.content)))
        size = -(-len(server.content) // pieces)
        for start in range(0, len(server.content), size):
            handler.wfile.write(server.content[start : start + size])
            server.go_on.wait(0.005)

    return act
