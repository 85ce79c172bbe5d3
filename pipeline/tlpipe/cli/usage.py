"""Mistakes in the command line itself: what was meant, and an example that works."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from tlpipe.near import did_you_mean, sentences

T = TypeVar("T")

_EXAMPLE = re.compile(r"^ *Example:\n *(tlpipe .+)$", re.MULTILINE)
_FEATURES = (".h5", ".hdf5")


class Choice(click.Choice[T]):
    """One of a few words; a wrong one is answered with the nearest as well."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """What the words are, and which of them may be meant."""
        words = [str(choice) for choice in self.choices]
        message = super().get_invalid_choice_message(value, ctx)
        return sentences(message, did_you_mean(str(value), words))


def with_help(exc: click.UsageError) -> click.UsageError:
    """The error of a command line, with what helps most.

    Where something is missing, that is the example of the command's help; where an option of the
    group stands behind the command, that it must stand before.
    """
    ctx = exc.ctx
    if isinstance(exc, click.MissingParameter) and ctx is not None:
        found = _EXAMPLE.search(ctx.command.help or "")
        if found is not None:
            return click.UsageError(f"{exc.format_message()} For example: {found[1]}", ctx)
    if isinstance(exc, click.NoSuchOption) and ctx is not None:
        root = ctx.find_root()
        if any(exc.option_name in param.opts for param in root.command.params):
            said = f"{exc.option_name} stands before the command: tlpipe {exc.option_name} ..."
            return click.UsageError(said, ctx)
    return exc


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
    if first in _FEATURES:
        raise click.UsageError(
            f"{str(classifier)!r} is a feature file, and no classifier. 'tlpipe train-head' makes"
            " a classifier (.onnx) of it.",
            click.get_current_context(),
        )
