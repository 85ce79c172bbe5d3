"""Options of how a head is trained and judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tlpipe.cli.options import seed_option
from tlpipe.cli.usage import Choice
from tlpipe.label_cells import DEFAULT_SEPARATOR
from tlpipe.last_layer import CLASS_WEIGHTS, HEAD_KINDS
from tlpipe.quantities import parsed_bytes

if TYPE_CHECKING:
    from tlpipe.workflows.train_options import TrainOptions

F = TypeVar("F", bound=Callable[..., Any])


class _Size(click.ParamType[int]):
    """A number of bytes, such as 800MB or 4GB."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read "4GB" as 4 * 2^30."""
        try:
            return parsed_bytes(str(value))
        except ValueError as exc:
            return self.fail(str(exc), param, ctx)


def head_options(command: F) -> F:
    """Add the options of how a head is trained and judged."""
    added = [
        click.option(
            "--head",
            "head_kind",
            type=Choice(HEAD_KINDS),
            default="linear",
            show_default=True,
            help="A linear probe, or a quick baseline: nearest class mean, or nearest images.",
        ),
        click.option(
            "--class-weight",
            type=Choice(CLASS_WEIGHTS),
            default="none",
            show_default=True,
            help="balanced: each class counts the same, however many images it has.",
        ),
        click.option(
            "--multi-label",
            is_flag=True,
            help="An image may have several labels, such as 'cat|outdoor', or none of them.",
        ),
        click.option(
            "--label-separator",
            metavar="TEXT",
            help=f"What joins several labels; by default {DEFAULT_SEPARATOR!r}.",
        ),
        click.option(
            "--false-alarms",
            type=click.FloatRange(0, 1, min_open=True, max_open=True),
            default=0.05,
            show_default=True,
            help="Share of the classes' own images that --unknown may take for none of them.",
        ),
        click.option(
            "--coverage",
            type=click.FloatRange(0, 1, min_open=True, max_open=True),
            help="How often --sets hold the true class; by default 0.9, or more where the"
            " classifier is right more often.",
        ),
        click.option(
            "--memory",
            "memory_bytes",
            type=_Size(),
            help="Embeddings too large for it are read anew in each pass; by default half of the"
            " machine's memory.",
        ),
        seed_option("Which images are held out, where the source has no splits."),
    ]
    for option in reversed(added):
        command = option(command)
    return command


def as_train_options(given: dict[str, Any], threads: int | None = None) -> TrainOptions:
    """Take the options of a head out of those given."""
    from tlpipe.workflows.train_options import TrainOptions

    names = [field.name for field in fields(TrainOptions) if field.name not in ("head", "threads")]
    own = {name: given.pop(name) for name in names}
    return TrainOptions(head=given.pop("head_kind"), threads=threads, **own)
