"""Mistakes in the command line itself: what was meant, and an example that works."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from tlpipe.near import did_you_mean, sentences
from tlpipe.types import FEATURE_SUFFIXES

T = TypeVar("T")

_EXAMPLE = re.compile(r"^ *Example:\n *(tlpipe .+)$", re.MULTILINE)


class Choice(click.Choice[T]):
    """One of a few words; a wrong one is answered with the nearest as well."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """What the words are, and which of them may be meant."""
        words = [str(choice) for choice in self.choices]
        message = super().get_invalid_choice_message(value, ctx)
        return sentences(message, did_you_mean(str(value), words))


def with_help(exc: click.UsageError) -> click.UsageError:
    """The error of a command line, with what helps most.

    Where something is missing, that is the example of the command's help; where several sources
    are given, what holds them all; where an option of the group stands behind the command, that it
    must stand before.
    """
    ctx = exc.ctx
    found = None if ctx is None else _what_helps(exc, ctx)
    return exc if found is None else click.UsageError(found, ctx)


def _what_helps(exc: click.UsageError, ctx: click.Context) -> str | None:
    said = exc.format_message()
    if isinstance(exc, click.MissingParameter):
        found = _EXAMPLE.search(ctx.command.help or "")
        return found and f"{said} For example: {found[1]}"
    takes_source = any(param.name == "source" for param in ctx.command.params)
    if takes_source and exc.message.startswith("Got unexpected extra argument"):
        return (
            f"{said}. SOURCE is one thing: the folder that holds them all, a manifest that lists"
            " them, or - for a list on standard input."
        )
    if isinstance(exc, click.NoSuchOption):
        root = ctx.find_root().command
        if any(exc.option_name in param.opts for param in root.params):
            return f"{exc.option_name} stands before the command: tlpipe {exc.option_name} ..."
    return None


def plain_words(words: Sequence[str]) -> list[str]:
    """A command line as tlpipe has it: 'help embed' is 'embed --help', 'version' '--version'."""
    first, *rest = words or [""]
    if first == "help":
        return [*rest, "--help"]
    return ["--version"] if [first, *rest] == ["version"] else list(words)


def check_order(classifier: Path, source: str) -> None:
    """Refuse a classifier and a source that stand in each other's place.

    Raises
    ------
    click.UsageError
    """
    first, second = classifier.suffix.lower(), Path(source).suffix.lower()
    if second == ".onnx" and first != ".onnx":
        raise click.UsageError(
            f"{source!r} stands where the images are named, and {str(classifier)!r} where the"
            " classifier is. The classifier comes first.",
            click.get_current_context(),
        )
    if first in FEATURE_SUFFIXES:
        raise click.UsageError(
            f"{str(classifier)!r} is a feature file, and no classifier. 'tlpipe train-head' makes"
            " a classifier (.onnx) of it.",
            click.get_current_context(),
        )
