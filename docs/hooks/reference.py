"""Writes the generated parts of the reference: commands, Python names, errors, cards.

A page holds ``<!-- generated: NAME -->`` where the text of the function NAME of this module
belongs. ProperDocs loads this file as a hook; a test calls the same functions.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import error_messages

import tlpipe
import tlpipe.errors
import tlpipe.sklearn
from tlpipe.cli.main import cli
from tlpipe.errors import TlpipeError

_CARDS = Path(__file__).parents[2] / "models" / "README.md"
_MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the generated text in place of each mark; a mark without a function is an error."""
    return _MARK.sub(lambda found: GENERATED[found[1]](), markdown)


class _Sections(click.HelpFormatter):
    """Takes the sections of a command's help as rows, in place of laying them out."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, list[tuple[str, str]]]] = []

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Begin a section."""
        self.found.append((name, []))
        yield

    def write_dl(self, rows: Iterable[tuple[str, str]], *_: Any, **__: Any) -> None:
        """Take the rows of the section."""
        self.found[-1][1].extend(rows)


def commands() -> str:
    """Every command with its arguments and options, as ``--help`` has them."""
    context = click.Context(cli, info_name="tlpipe", **cli.context_settings)
    lines = [*_head(cli, context), *_options(cli, context), ""]
    for name, command in cli.commands.items():
        lines += _command(command, click.Context(command, info_name=name, parent=context), "##")
    return "\n".join(lines)


def _command(command: click.Command, context: click.Context, level: str) -> Iterator[str]:
    yield from (f"{level} {context.command_path}", "")
    yield from _head(command, context)
    yield from _options(command, context)
    yield ""
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            inner = click.Context(below, info_name=name, parent=context)
            yield from _command(below, inner, level + "#")


def _head(command: click.Command, context: click.Context) -> Iterator[str]:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield from ("```text", usage, "```", "")
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        if paragraph.startswith("\b\n"):
            title, *rest = paragraph[2:].split("\n")
            yield from (_plain(title), "", "```text", *(line.strip() for line in rest), "```", "")
        else:
            yield from (_plain(" ".join(paragraph.split())), "")


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    """A table of each section of the options; a group's commands have headings of their own."""
    sections = _Sections()
    if isinstance(command, click.Group):
        click.Command.format_options(command, context, sections)
    else:
        command.format_options(context, sections)
    for title, rows in sections.found:
        if rows:
            yield from (f"| {title} | |", "|---|---|")
            yield from (f"| `{name}` | {_cell(_plain(text))} |" for name, text in rows)
            yield ""


def names() -> str:
    """Every public name of tlpipe and its estimators, for mkdocstrings to fill in."""
    public = {name: getattr(tlpipe, name) for name in tlpipe.__all__ if name != "__version__"}
    verbs = [name for name, what in public.items() if inspect.isfunction(what)]
    errors = [n for n, what in public.items() if inspect.isclass(what) and _is_error(what)]
    records = [name for name in public if name not in verbs and name not in errors]
    return "\n".join(
        [
            *_entries("Functions", "tlpipe", verbs),
            *_entries("Settings and results", "tlpipe", records),
            *_entries("Estimators for scikit-learn", "tlpipe.sklearn", tlpipe.sklearn.__all__),
            *_entries("Errors", "tlpipe.errors", [kind.__name__ for kind in _tree(TlpipeError)]),
        ]
    )


def _entries(title: str, home: str, names: Sequence[str]) -> Iterator[str]:
    yield from (f"## {title}", "")
    for name in names:
        path = f"{home}.{name}"
        yield from (f"::: {path}", "    options:", f"      heading: {path}")
        yield from (f"      toc_label: {name}", "")


def errors() -> str:
    """The tree of errors, each with its exit code."""
    lines = ["| error | also a | exit code | when |", "|---|---|---|---|"]
    for kind in _tree(TlpipeError):
        depth = len([base for base in kind.__mro__ if _is_error(base)]) - 1
        also = [base.__name__ for base in kind.__bases__ if not _is_error(base)]
        link = f"[`{kind.__name__}`][tlpipe.errors.{kind.__name__}]"
        first = inspect.cleandoc(kind.__doc__ or "").split("\n")[0]
        lines.append(
            f"| {'&nbsp;&nbsp;' * depth}{link} | {', '.join(f'`{name}`' for name in also)} |"
            f" {kind.exit_code} | {_cell(_plain(first))} |"
        )
    return "\n".join(lines)


def cards() -> str:
    """What ``models/README.md`` says, without its title; it stands beside the cards."""
    return _CARDS.read_text(encoding="utf-8").partition("\n")[2]


def _is_error(kind: type) -> bool:
    return issubclass(kind, TlpipeError)


def _tree(kind: type[TlpipeError]) -> Iterator[type[TlpipeError]]:
    """A class and all below it that ``tlpipe.errors`` defines, in its order."""
    yield kind
    for below in kind.__subclasses__():
        if below.__module__ == tlpipe.errors.__name__:
            yield from _tree(below)


def _plain(text: str) -> str:
    """Text that Markdown shows as it stands, but for pages that it names: they become links."""
    escaped = re.sub(r"([\\`*_<>\[\]#|])", r"\\\1", text)
    return re.sub(r"\bdocs/([a-z/-]+\.md)\b", r"[\g<0>](../\1)", escaped)


def _cell(text: str) -> str:
    """Text that stays in one cell of a table."""
    return re.sub(r"(?<!\\)\|", r"\\|", " ".join(text.split()))


GENERATED = {
    "commands": commands,
    "names": names,
    "errors": errors,
    "cards": cards,
    "exit_codes": error_messages.exit_codes,
    "messages": error_messages.messages,
    "rejects": error_messages.rejects,
    "details": error_messages.details,
}
"""What each mark stands for."""
