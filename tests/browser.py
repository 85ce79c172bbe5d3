"""A headless Chromium, and pages in it that tell what went wrong and what they asked for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
NEEDED = "TLPIPE_NEED_BROWSER"
"""A variable that makes a missing browser a failure."""

QUIET = [
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def installed() -> str | None:
    """Where the machine's Chromium is; None without one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """The machine's Chromium."""
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=installed(), args=QUIET)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The machine's Chromium; skips where there is none, unless it is needed."""
    if installed() is None:
        assert not os.environ.get(NEEDED), f"none of {NAMES} is installed: run .ci/browser"
        pytest.skip(f"none of {NAMES} is installed")
    with open_browser() as opened:
        yield opened


@dataclass
class Seen:
    """A page, the errors its console told, and the addresses it asked for beside itself."""

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def page_of(browser: Browser, address: str | Path, **context: Any) -> Iterator[Seen]:
    """Open a file or an address; `context` is for ``Browser.new_context``."""
    url = address.resolve().as_uri() if isinstance(address, Path) else address
    within = browser.new_context(**context)
    try:
        page = within.new_page()
        seen = Seen(page)
        page.on("console", lambda m: seen.errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda exc: seen.errors.append(str(exc)))
        page.on("request", lambda r: seen.requests.append(r.url) if _asks(r.url, url) else None)
        page.goto(url)
        yield seen
    finally:
        within.close()


def _asks(asked: str, own: str) -> bool:
    return asked.split("#")[0] != own and not asked.startswith(("data:", "blob:"))


def serious(page: Page) -> list[str]:
    """What axe-core calls serious or critical, in words."""
    found = Axe().run(page).response["violations"]
    return [
        f"{v['id']}: {v['help']}: {[node['target'] for node in v['nodes']][:5]}"
        for v in found
        if v["impact"] in ("serious", "critical")
    ]
