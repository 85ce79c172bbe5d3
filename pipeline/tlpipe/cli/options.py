"""Options that several commands share, each stated once."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tlpipe.types import DEFAULT_BACKBONE, DEFAULT_SEED, DEVICES

if TYPE_CHECKING:
    from tlpipe.workflows.common import RunOptions

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)

TOO_MANY_REJECTS = 3
"""Exit code of a command that is done, but with more rejects than allowed."""


class _MaxRejects(click.ParamType[float]):
    """A number of images, or a share of them in percent."""

    name = "N|P%"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read "12" as the int 12 and "5%" as the float 0.05."""
        text = str(value).strip()
        if text.isdecimal():
            return int(text)
        if re.fullmatch(r"\d{1,2}(\.\d+)?%", text):
            return float(text[:-1]) / 100
        return self.fail(f"{text!r} is neither a number of images nor a share like 5%.", param, ctx)


source_argument = click.argument("source", type=PATH)
overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace outputs that exist already."
)
backbone_option = click.option(
    "--backbone",
    metavar="NAME",
    default=DEFAULT_BACKBONE,
    show_default=True,
    help="A backbone of 'tlpipe models list', or the path of a card (.toml).",
)
seed_option = click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=DEFAULT_SEED,
    show_default=True,
    help="Which images are held out, where the source has no splits.",
)


def output_option(help_text: str) -> Callable[[F], F]:
    """``-o/--output``, required."""
    return click.option("-o", "--output", type=PATH, required=True, help=help_text)


def run_options(command: F) -> F:
    """Options of every command that runs a network over a source."""
    for option in (
        click.option(
            "--max-rejects",
            type=_MaxRejects(),
            help="Exit with code 3 when more images than this are rejected."
            "  [default: no limit, but never all]",
        ),
        click.option(
            "--batch-size",
            type=click.IntRange(min=1),
            help="Images per call of the network.  [default: what suits the device]",
        ),
        click.option(
            "--device",
            type=click.Choice(DEVICES),
            default="auto",
            show_default=True,
            help="Where the network runs. auto: CUDA where there is an NVIDIA GPU, else the CPU.",
        ),
    ):
        command = option(command)
    return command


def as_run_options(device: Any, batch_size: int | None, max_rejects: float | None) -> RunOptions:
    """Gather the values of ``run_options``."""
    from tlpipe.workflows.common import RunOptions

    return RunOptions(device, batch_size, max_rejects)
