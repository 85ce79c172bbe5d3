"""The blocks of code in README.md and docs/: finding them, running them, checking the others."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
from click.testing import CliRunner

from tlpipe.cli.main import cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

NOT_RUN = {
    "make": "sets up an environment of its own; its targets are looked up in the Makefile",
    "pip": "installs; the extras are looked up in pyproject.toml",
    ".": "a shell of the reader's own",
    "ray": "a cluster: tests/test_ray.py has one",
    "docker": "no container can be built in the tests: tests/test_deploy.py reads the files",
    "nvidia-smi": "no GPU",
}
"""First words of lines that are not run, and why."""

SHOWN = {
    "text": "output, and files of other programs",
    "csv": "the beginning of a table",
    "r": "R is not installed; the names in it are held against a feature file",
    "julia": "neither is Julia",
    "console": "commands that cannot be run here, each behind '$': their options are looked up",
}
"""Languages of blocks that are not run, and why."""

_FENCE = re.compile(
    r'^(?P<indent> *)```(?P<language>\w*)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^ *```$',
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One block of a page; `title` is the file that it shows, if any."""

    where: str
    language: str
    title: str
    text: str


def blocks_of(page: Path) -> list[Block]:
    """All blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            f"{page.name}:{text[: found.start()].count(chr(10)) + 1}",
            found["language"],
            found["title"] or "",
            textwrap.dedent(found["text"]),
        )
        for found in _FENCE.finditer(text)
    ]


def run(block: Block) -> str:
    """Run a block in the working folder, or check it where it cannot be run; what it printed."""
    if block.title:
        Path(block.title).write_text(block.text, encoding="utf-8")
    if block.language == "sh":
        return _shell(block)
    if block.language == "python":
        exec(compile(block.text, block.where, "exec"), {"__name__": block.where})
    elif block.language == "json":
        json.loads(block.text)
    elif block.language == "toml":
        tomllib.loads(block.text)
    elif block.language == "console":
        for line in re.findall(r"^\$ (.*)", block.text, re.MULTILINE):
            check(line, block.where)
    else:
        assert block.title or block.language in SHOWN, f"{block.where}: {block.language!r}"
    return ""


def _shell(block: Block) -> str:
    """Run the lines of a block: simple commands of tlpipe's in this process, all else by bash."""
    said, rest = [], []
    for line in block.text.splitlines():
        words = shlex.split(line, comments=True)
        if not words or words[0] in NOT_RUN:
            check(line, block.where)
        elif words[0] == "tlpipe" and not rest and not re.search(r"[|>&;`$\\]", line):
            result = CliRunner().invoke(cli, words[1:])
            assert result.exit_code == 0, f"{block.where}: {line}\n{result.output}"
            said.append(result.output)
        else:
            rest.append(line)
    if rest:
        said.append(_bash("\n".join(rest), block.where))
    return "".join(said)


def _bash(text: str, where: str) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, f"{where}: {text}\n{ran.stdout}{ran.stderr}"
    return ran.stdout


def check(line: str, where: str) -> None:
    """Hold a line that is not run against what there is: options, extras, targets."""
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"\w+=.*", words[0]):
        words.pop(0)
    if not words:
        return
    if words[0] == "tlpipe":
        _check_tlpipe(words[1:], where)
    elif words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        targets = [word for word in words[1:] if "=" not in word]
        assert all(re.search(rf"^{t}:", makefile, re.MULTILINE) for t in targets), (where, line)
    elif words[0] == "pip":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        for extra in re.findall(r"(?:tlpipe|\.)\[([\w,]+)\]", line):
            known = project["optional-dependencies"]
            assert set(extra.split(",")) <= set(known), f"{where}: no extra {extra!r}"
    else:
        assert words[0] in NOT_RUN, f"{where}: {line}"


def _check_tlpipe(words: list[str], where: str) -> None:
    """The command is there, and has the options."""
    command: click.Command = cli
    while isinstance(command, click.Group) and words:
        name = words.pop(0)
        if not name.startswith("-"):
            assert name in command.commands, f"{where}: no command {name!r}"
            command = command.commands[name]
    known = {option for param in command.params for option in param.opts} | {"--help"}
    used = {word.partition("=")[0] for word in words if re.match(r"-[-a-z]", word)}
    assert used <= known, f"{where}: {sorted(used - known)} of {command.name}"


def links_of(page: Path) -> Iterator[str]:
    """Where the links of a page lead, but for other sites and the page itself."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("https://", "http://", "#")):
            yield target
