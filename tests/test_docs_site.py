"""The documentation as a site: built strictly, with a whole reference, fit to read."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from playwright.sync_api import Browser

import tlpipe
import tlpipe.errors
import tlpipe.sklearn
from browser import page_of, serious
from tlpipe.cli.main import cli
from tlpipe.errors import TlpipeError
from web_site import site_at

ROOT = Path(__file__).parents[1]
SETTINGS = ROOT / "properdocs.yml"
HOOK = ROOT / "docs" / "hooks" / "reference.py"
SHORT = ["index.html", "tutorial.html", "explanation/speed.html"]
LONG = ["reference/cli.html", "reference/errors.html", "reference/api.html"]


def build(folder: Path) -> tuple[int, str]:
    """Build the documentation that a folder holds; exit code, and what was said."""
    command = [sys.executable, "-m", "properdocs", "build", "--strict"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    return ran.returncode, ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documentation")
    shutil.copy2(SETTINGS, folder)
    for name in ("docs", "models", "pipeline"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    code, said = build(folder)
    assert code == 0, said
    return folder / "site"


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    with site_at(site) as served:
        yield served


@pytest.fixture(scope="module")
def reference() -> Any:
    spec = importlib.util.spec_from_file_location("reference_hook", HOOK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_link_that_leads_nowhere_fails_the_build(tmp_path: Path) -> None:
    """With the real settings, but for the list of pages and the hooks: all pages take long."""
    settings, _, _ = SETTINGS.read_text(encoding="utf-8").partition("\nnav:")
    assert "\nhooks:" in settings
    settings = re.sub(r"^hooks:.*$", "", settings, flags=re.MULTILINE)
    (tmp_path / "properdocs.yml").write_text(f"{settings}\nnav: [index.md]\n", encoding="utf-8")
    docs = tmp_path / "docs"
    (docs / "how-to").mkdir(parents=True)
    (docs / "index.md").write_text("# Start\n")
    assert build(tmp_path)[0] == 0
    added = docs / "how-to" / "orphan.md"
    added.write_text("# Orphan\n\n[nowhere](nowhere.md), [no anchor](../index.md#nowhere)\n")
    code, said = build(tmp_path)
    assert code != 0
    assert "'nowhere.md'" in said
    assert "'#nowhere'" in said
    assert 'not included in the "nav"' in said


def all_commands(
    group: click.Group, path: tuple[str, ...] = ("tlpipe",)
) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield " ".join((*path, name)), command
        if isinstance(command, click.Group):
            yield from all_commands(command, (*path, name))


def test_every_command_and_option_stands_in_the_reference(reference: Any) -> None:
    parts = dict(
        re.findall(r"^##+ (tlpipe.*?)\n(.*?)(?=^##|\Z)", reference.commands(), re.M | re.S)
    )
    found = dict(all_commands(cli))
    assert list(parts) == list(found)
    for path, command in found.items():
        for param in command.params:
            if isinstance(param, click.Option) and not param.hidden:
                for option in param.opts:
                    assert re.search(rf"\| `[^`]*{option}\b", parts[path]), (path, option)
            elif isinstance(param, click.Argument):
                assert param.make_metavar(click.Context(command)) in parts[path], (path, param)


def test_every_public_name_and_error_stands_in_the_reference(site: Path) -> None:
    text = (site / "reference" / "api.html").read_text(encoding="utf-8")
    anchors = set(re.findall(r'id="(tlpipe\.[\w.]+)"', text))
    names = {f"tlpipe.{name}" for name in tlpipe.__all__}
    assert names - {"tlpipe.__version__", "tlpipe.TlpipeError"} <= anchors  # it is among the errors
    assert {f"tlpipe.sklearn.{name}" for name in tlpipe.sklearn.__all__} <= anchors
    kinds = [
        kind
        for kind in vars(tlpipe.errors).values()
        if isinstance(kind, type) and issubclass(kind, TlpipeError)
    ]
    assert len(kinds) > 20
    tree = (site / "reference" / "errors.html").read_text(encoding="utf-8")
    for kind in kinds:
        assert f"tlpipe.errors.{kind.__name__}" in anchors
        assert f"#tlpipe.errors.{kind.__name__}" in tree


def test_a_mark_that_nothing_is_generated_for_is_an_error(reference: Any) -> None:
    assert reference.on_page_markdown("as it is") == "as it is"
    with pytest.raises(KeyError, match="nonsense"):
        reference.on_page_markdown("<!-- generated: nonsense -->")


def test_no_page_fetches_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "<!-- generated" not in text
        for tag in re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", text):
            assert not re.search(r'(?:src|href)="?(?:https?:)?//', tag), (page.name, tag)
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import )['\"]?(?:https?:)?//", sheet.read_text("utf-8"))


@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.parametrize(
    ("width", "scheme", "judged"),
    [
        (1280, "light", SHORT),
        (360, "dark", [*SHORT, *LONG]),  # once: axe-core takes many seconds over a long page
    ],
)
def test_pages_are_fit_to_read(
    browser: Browser, address: str, width: int, scheme: str, judged: list[str]
) -> None:
    viewport = {"width": width, "height": 800}
    for name in [*SHORT, *LONG]:
        with page_of(browser, address + name, viewport=viewport, color_scheme=scheme) as seen:
            page = seen.page
            page.wait_for_load_state("networkidle")
            assert seen.errors == []
            assert [url for url in seen.requests if not url.startswith(address)] == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
            if name in judged:
                assert serious(page) == [], name


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_the_search_finds(browser: Browser, address: str) -> None:
    with page_of(browser, address, viewport={"width": 1280, "height": 800}) as seen:
        page = seen.page
        page.keyboard.press("/")
        page.keyboard.type("min-agreement")
        # Results come while one types: these are of the whole word.
        page.locator(".md-search-result__link[href*='h=min+agreement']").first.wait_for()
        found = page.locator(".md-search-result__link").first
        assert "reference/" in str(found.get_attribute("href"))
        assert [url for url in seen.requests if not url.startswith(address)] == []


def test_pages_open_from_disk(browser: Browser, site: Path) -> None:
    with page_of(browser, site / "index.html") as seen:
        seen.page.get_by_role("link", name="The tutorial").click()
        assert seen.page.url == (site / "tutorial.html").as_uri()
        assert seen.page.locator("h1").first.inner_text().startswith("Tutorial")
