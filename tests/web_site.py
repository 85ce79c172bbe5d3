"""Serves a folder on this machine; reads what the page of ``tlpipe export-web`` says."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

WAIT_MS = 120_000


class _Handler(SimpleHTTPRequestHandler):
    """A static server, as plain as any; `headers_more` are sent with each file."""

    headers_more: dict[str, str] = {}  # noqa: RUF012  (a class of its own is made for others)

    def end_headers(self) -> None:
        for name, value in self.headers_more.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (its name)
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """The browser went away in the middle of a file, as it may."""


@contextlib.contextmanager
def site_at(folder: Path, headers: dict[str, str] | None = None) -> Iterator[str]:
    """Address of a folder that is served as long as the context lasts."""
    handler = type("Handler", (_Handler,), {"headers_more": headers or {}})
    with _Server(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def ready(page: Page) -> None:
    """Wait until the classifier is loaded."""
    page.wait_for_selector("#about:not([hidden])", timeout=WAIT_MS)


_ROWS = """rows => rows.map(row => ({
    kind: row.className,
    name: row.querySelector('.name').textContent,
    headline: row.querySelector('.headline').textContent,
    notes: [...row.querySelectorAll('.note')].map(note => note.textContent),
    probabilities: Object.fromEntries([...row.querySelectorAll('tr')].map(line => [
        line.querySelector('th').textContent, Number(line.querySelector('data').value)])),
    given: [...row.querySelectorAll('tr.given th')].map(cell => cell.textContent),
    ms: Number(row.dataset.ms),
}))"""


def answers(page: Page, files: Sequence[Any]) -> list[dict[str, Any]]:
    """Choose files, paths or payloads of Playwright's, and wait for what is said of each."""
    before = page.locator("#rows > li").count()
    page.set_input_files("#files", list(files))
    page.wait_for_function(
        "count => document.querySelectorAll('#rows > li:not(.waiting)').length === count",
        arg=before + len(files),
        timeout=WAIT_MS,
    )
    return page.eval_on_selector_all("#rows > li", _ROWS)[before:]
