"""What the documents say is run: commands and code as they stand there, on small photos."""

from __future__ import annotations

import re
import shlex
import shutil
import tomllib
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

from conftest import tiny_network, write_classes
from tlpipe.card import Card
from tlpipe.cli.main import cli
from tlpipe.files import CARDS_VARIABLE
from tlpipe.stages.source import open_source

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the README's reader has it, after the README's commands."""
    folder = tmp_path_factory.mktemp("walk")
    write_classes(folder / "photos", 8)
    write_classes(folder / "other-photos", 3, seed=700)
    write_classes(folder / "new-photos", 2, seed=500)
    onnx.save(tiny_network(), folder / "mynet.onnx")
    shutil.move(next((folder / "new-photos").rglob("*.png")), folder / "photo.jpg")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv(CARDS_VARIABLE, str(folder / "cards"))
        for block in blocks(README, "sh"):
            for line in block.splitlines():
                if line.startswith("tlpipe "):
                    result = CliRunner().invoke(cli, shlex.split(line)[1:])
                    assert result.exit_code == 0, f"{line}\n{result.output}"
    return folder


def test_the_commands_of_the_readme_write_what_it_says(walk: Path) -> None:
    for name in ("classifier.onnx", "classifier.features.h5", "classifier.metrics.json"):
        assert (walk / name).is_file()
        assert name in README
    rows = (walk / "predictions.csv").read_text().splitlines()
    assert len(rows) == 1 + open_source(walk / "new-photos").survey.count


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "docs/feature-file.md",
        "docs/classifier-file.md",
        "docs/compare.md",
        "docs/interchange.md",
        "docs/scikit-learn.md",
        "docs/sources.md",
    ],
)
def test_the_code_of_the_documents_runs(
    walk: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(walk)
    found = blocks((ROOT / name).read_text(encoding="utf-8"), "python")
    assert found
    for code in found:
        exec(compile(code, name, "exec"), {})
    assert capsys.readouterr().out


def test_the_first_screen_has_the_two_commands() -> None:
    first = README.splitlines()[:20]
    assert any(line.startswith("make demo ") for line in first)
    assert any(line.startswith("make test ") for line in first)


def test_the_table_lists_every_command() -> None:
    table = README.split("## Commands")[1].split("\n\n")[1]
    named = set(re.findall(r"\| `tlpipe ([a-z-]+)", table))
    assert named == set(cli.commands)


def test_links_lead_somewhere() -> None:
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "models" / "README.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (path.parent / target).exists(), target


def test_the_tests_the_readme_names_are_there() -> None:
    named = re.findall(r"`(test_\w+\.py)`", README)
    assert named
    for name in named:
        assert (ROOT / "tests" / name).is_file(), name


def test_the_card_to_copy_has_every_field() -> None:
    text = (ROOT / "models" / "README.md").read_text(encoding="utf-8")
    (block,) = blocks(text, "toml")
    digits = "0" * 64
    table = tomllib.loads(block.replace('"..."', f'"{digits}"'))
    assert Card.from_dict(table, "the card").architecture == "mynet"
    named = set(re.findall(r"`([a-z0-9_]+)`", text))
    fields = {key for part in table.values() if isinstance(part, dict) for key in part}
    assert fields <= named


def test_every_reason_stands_in_the_specification() -> None:
    from tlpipe.types import Reason

    text = (ROOT / "docs" / "feature-file.md").read_text(encoding="utf-8")
    assert {reason for reason in Reason if f"`{reason}`" not in text} == set()
