"""What the documents say is run: commands and code as they stand there, on small photos."""

from __future__ import annotations

import ast
import re
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import onnx
import pytest

from conftest import tiny_network, write_classes
from doc_blocks import NOT_RUN, PAGES, ROOT, SHOWN, blocks_of, check, links_of, run
from tlpipe.card import Card
from tlpipe.cli.main import cli
from tlpipe.files import CARDS_VARIABLE
from tlpipe.stages.source import open_source

README = (ROOT / "README.md").read_text(encoding="utf-8")
PHOTOS = ("photos", "other-photos", "new-photos", "mynet.onnx", "photo.jpg")

BROUGHT: dict[str, tuple[str, ...]] = {
    "explanation/crash-safety.md": ("features.h5",),
    "how-to/nightly.md": ("classifier.onnx",),
    "how-to/read-features.md": ("features.h5",),
    "how-to/report.md": ("features.h5", "classifier.onnx"),
    "how-to/shell.md": ("features.h5",),
    "how-to/update.md": ("classifier.onnx",),
    "reference/audit.md": ("features.h5",),
    "reference/classifier-file.md": ("classifier.onnx",),
    "reference/feature-file.md": ("features.h5",),
    "reference/jobs.md": ("classifier.onnx",),
    "reference/sources.md": ("classifier.onnx",),
}
"""What a page's reader has beside photos: files of the README's walk."""


def name_of(page: Path) -> str:
    return page.relative_to(ROOT / "docs").as_posix() if page.name != "README.md" else page.name


@contextmanager
def reader_in(folder: Path) -> Iterator[None]:
    """A reader's working folder, and cards of his own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv(CARDS_VARIABLE, str(folder / "cards"))
        yield


@pytest.fixture(scope="module")
def photos_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reader")
    write_classes(folder / "photos", 8)
    write_classes(folder / "other-photos", 3, seed=700)
    write_classes(folder / "new-photos", 2, seed=500)
    onnx.save(tiny_network(), folder / "mynet.onnx")
    shutil.move(next((folder / "new-photos").rglob("*.png")), folder / "photo.jpg")
    return folder


@pytest.fixture(scope="module")
def walk(photos_only: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the README's reader has it, after the README's commands and code."""
    folder = bring(photos_only, PHOTOS, tmp_path_factory.mktemp("walk"))
    with reader_in(folder):
        for block in blocks_of(ROOT / "README.md"):
            run(block)
    return folder


def bring(origin: Path, names: tuple[str, ...], folder: Path) -> Path:
    """Copy files and folders."""
    for name in names:
        if (origin / name).is_dir():
            shutil.copytree(origin / name, folder / name)
        else:
            shutil.copy2(origin / name, folder / name)
    return folder


def several_labels(folder: Path) -> None:
    """Manifests as the page on several labels has them: the colour, and what an odd number is."""
    for name, images in (("manifest.csv", "photos"), ("other.csv", "other-photos")):
        paths = sorted((folder / images).rglob("*.png"))
        rows = [
            f"{path.relative_to(folder)},{path.parent.name}{'|odd' if int(path.stem) % 2 else ''}"
            for path in paths
        ]
        (folder / name).write_text("\n".join(["path,label", *rows]), encoding="utf-8")


def two_devices(folder: Path) -> None:
    """What the page on GPUs has its reader embed, on the CPU both times: no GPU is at hand."""
    from tlpipe import embed

    embed(folder / "photos", folder / "cpu.h5")
    shutil.copy2(folder / "cpu.h5", folder / "gpu.h5")


def two_backbones(folder: Path) -> None:
    """Feature files of two backbones."""
    from tlpipe import embed

    embed(folder / "photos", folder / "lite0.h5")
    embed(folder / "photos", folder / "lite1.h5", backbone="efficientnet-lite1")


PREPARED = {
    "how-to/gpu.md": two_devices,
    "how-to/multi-label.md": several_labels,
    "how-to/report.md": two_backbones,
}
"""What else a page's reader has."""


def test_the_commands_of_the_readme_write_what_it_says(walk: Path) -> None:
    for name in ("classifier.onnx", "classifier.features.h5", "classifier.metrics.json"):
        assert (walk / name).is_file()
        assert name in README
    rows = (walk / "predictions.csv").read_text().splitlines()
    assert len(rows) == 1 + open_source(walk / "new-photos").survey.count


@pytest.mark.parametrize("page", PAGES[1:], ids=name_of)
def test_the_blocks_of_a_page_run(
    page: Path, photos_only: Path, walk: Path, tmp_path: Path
) -> None:
    name = name_of(page)
    bring(photos_only, PHOTOS, tmp_path)
    bring(walk, BROUGHT.get(name, ()), tmp_path)
    PREPARED.get(name, lambda folder: None)(tmp_path)
    with reader_in(tmp_path):
        for block in blocks_of(page):
            run(block)


def test_the_pages_that_bring_files_are_there() -> None:
    assert {*BROUGHT, *PREPARED} <= {name_of(page) for page in PAGES}


def test_what_is_not_run_is_used_and_checked() -> None:
    found = [block for page in PAGES for block in blocks_of(page)]
    assert set(SHOWN) <= {block.language for block in found}
    shell = "\n".join(block.text for block in found if block.language in ("sh", "console"))
    for word in NOT_RUN:
        assert re.search(rf"^(\$ )?{re.escape(word)}( |$)", shell, re.MULTILINE), word
    for line in (
        "tlpipe nonsense",
        "tlpipe embed x --nonsense",
        "tlpipe models list --nonsense",
        "pip install 'tlpipe[nonsense]'",
        "make nonsense",
        "rm -r /",
    ):
        with pytest.raises(AssertionError):
            check(line, "here")


def test_a_fence_without_a_language_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n```\nwhat is this\n```\n")
    (block,) = blocks_of(page)
    with pytest.raises(AssertionError, match=r"page\.md:3"):
        run(block)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_fence_is_read(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert 2 * len(blocks_of(page)) == len(re.findall(r"^ *```", text, re.MULTILINE))


def test_r_and_julia_name_what_is_in_the_file(walk: Path) -> None:
    blocks = blocks_of(ROOT / "docs" / "how-to" / "read-features.md")
    with h5py.File(walk / "features.h5") as file:
        for language, pattern in (("r", r'h5read\(file, "(\w+)"\)'), ("julia", r'file\["(\w+)"\]')):
            (text,) = (block.text for block in blocks if block.language == language)
            named = re.findall(pattern, text)
            assert len(named) >= 4
            assert set(named) <= set(file)
            assert "features.h5" in text


def test_the_job_files_have_no_mistake(walk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tlpipe import read_job

    monkeypatch.setenv("DATE", "2026-11-25")
    jobs = [
        block
        for page in ("how-to/nightly.md", "reference/jobs.md")
        for block in blocks_of(ROOT / "docs" / page)
        if block.language == "toml"
    ]
    assert len(jobs) >= 3
    for block in jobs:
        path = walk / "page.toml"
        path.write_text(block.text, encoding="utf-8")
        assert read_job(path).command in block.text


def said_by(folder: Path) -> str:
    """All texts of a folder's modules, with … for what is put in."""
    found = []
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (v.value if isinstance(v, ast.Constant) else "…" for v in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value.replace("%d", "…"))
    return re.sub(r"…[.…]*…", "…", "\n".join(found))


def test_the_messages_on_the_page_of_gpus_are_those_of_the_code() -> None:
    text = (ROOT / "docs" / "how-to" / "gpu.md").read_text(encoding="utf-8")
    quoted = re.findall(r'^\| "(.+?)"', text, re.MULTILINE)
    assert len(quoted) >= 15
    said = said_by(Path(__file__).parents[1] / "pipeline" / "tlpipe" / "stages" / "session")
    for message in quoted:
        # A cause and what happened instead stand in sentences of their own in the code.
        parts = re.split(r"(?<=asked for, but )|(?<=GPU to use: )", message)
        for part in (parts[0] + "…" * (len(parts) > 1), *parts[1:]):
            assert part.strip(". …") in said, part


def test_the_first_screen_has_the_two_commands() -> None:
    first = README.splitlines()[:20]
    assert any(line.startswith("make demo ") for line in first)
    assert any(line.startswith("make test ") for line in first)


def test_the_readme_is_a_screen_and_a_walk() -> None:
    assert len(README.splitlines()) <= 150


def test_the_table_lists_every_command() -> None:
    table = README.split("## Commands")[1].split("\n\n")[1]
    named = set(re.findall(r"\| `tlpipe ([a-z-]+)", table))
    assert named == set(cli.commands)


def test_links_lead_somewhere() -> None:
    for path in (*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "models" / "README.md"):
        for target in links_of(path):
            assert (path.parent / target.partition("#")[0]).exists(), (path.name, target)


def test_pages_that_the_code_names_are_there() -> None:
    for folder in ("pipeline", "tests", "models"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".md", ".toml"):
                text = path.read_text(encoding="utf-8")
                for page in re.findall(r"(?<![\w/])docs/[a-z/-]+\.md", text):
                    assert (ROOT / page).is_file() or "'s " + page in text, (path.name, page)


def test_the_tests_that_are_named_are_there() -> None:
    promises = ROOT / "docs" / "explanation" / "promises.md"
    assert len(re.findall(r"`test_\w+\.py`", promises.read_text(encoding="utf-8"))) > 20
    for page in PAGES:
        for name in re.findall(r"`(?:tests/)?(test_\w+\.py)`", page.read_text(encoding="utf-8")):
            assert (ROOT / "tests" / name).is_file(), (page.name, name)


def test_the_card_to_copy_has_every_field() -> None:
    path = ROOT / "models" / "README.md"
    text = path.read_text(encoding="utf-8")
    (block,) = (block.text for block in blocks_of(path) if block.language == "toml")
    digits = "0" * 64
    table = tomllib.loads(block.replace('"..."', f'"{digits}"'))
    assert Card.from_dict(table, "the card").architecture == "mynet"
    named = set(re.findall(r"`([a-z0-9_]+)`", text))
    fields = {key for part in table.values() if isinstance(part, dict) for key in part}
    assert fields <= named


def test_every_reason_stands_in_the_specification() -> None:
    from tlpipe.types import Reason

    text = (ROOT / "docs" / "reference" / "feature-file.md").read_text(encoding="utf-8")
    assert {reason for reason in Reason if f"`{reason}`" not in text} == set()
