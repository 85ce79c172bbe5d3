"""Options that several commands share, each stated once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tlpipe.cli.kinds import JSON, SOURCE, File
from tlpipe.cli.kinds import PATH as PATH
from tlpipe.cli.usage import Choice
from tlpipe.execution import DEVICES, ENGINES, PRECISIONS, RUNTIMES
from tlpipe.quantities import parsed_limit
from tlpipe.types import DECODE_MODES, DEFAULT_SEED

if TYPE_CHECKING:
    from tlpipe.stages.source import Source
    from tlpipe.workflows.run_options import RunOptions

F = TypeVar("F", bound=Callable[..., Any])

TOO_MANY_REJECTS = 3
"""Exit code of a command that is done, but with more rejects than allowed."""


class _Limit(click.ParamType[float]):
    """A number of images, or a share of them in percent."""

    name = "N|P%"

    def __init__(self, *, whole: bool = False) -> None:
        self._whole = whole

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read "12" as the int 12 and "5%" as the float 0.05."""
        try:
            return parsed_limit(str(value), whole=self._whole)
        except ValueError as exc:
            return self.fail(str(exc), param, ctx)


source_argument = click.argument("source", type=SOURCE)
overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace outputs that exist already."
)
allow_outside_option = click.option(
    "--allow-outside",
    type=SOURCE,
    metavar="FOLDER",
    multiple=True,
    help="Folder outside the source into which its links and paths may lead, or address below which"
    " its addresses may lie in a private network or an object store; / for anywhere on disk. May be"
    " given several times.",
)
near_option = click.option(
    "--near",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="COSINE",
    help="Images count as nearly the same from this cosine of their embeddings on."
    "  [default: 0.95]",
)
set_above_option = click.option(
    "--set-above",
    metavar="ROWS",
    type=click.IntRange(min=1),
    help="Store more rows than this as a set of files, of so many rows each, with an index."
    "  [default: 2,000,000; an update keeps that of a set]",
)


def output_option(help_text: str, kind: File = PATH) -> Callable[[F], F]:
    """``-o/--output``, required: a file of this kind."""
    return click.option("-o", "--output", type=kind, required=True, help=help_text)


def seed_option(help_text: str) -> Callable[[F], F]:
    """``--seed``, and what another one changes."""
    return click.option(
        "--seed",
        type=click.IntRange(min=0),
        default=DEFAULT_SEED,
        show_default=True,
        help=help_text,
    )


def run_options(command: F) -> F:
    """Options of every command that runs a network over a source."""
    for option in (
        click.option(
            "--max-rejects",
            type=_Limit(),
            help="Exit with code 3 when more images than this are rejected."
            "  [default: no limit, but never all]",
        ),
        click.option(
            "--batch-size",
            type=click.IntRange(min=1),
            help="Images per call of the network; each thread holds as many in memory."
            "  [default: what suits the device]",
        ),
        click.option(
            "--device",
            type=Choice(DEVICES),
            default="auto",
            show_default=True,
            help="Where the network runs. auto: CUDA where there is an NVIDIA GPU, else the CPU.",
        ),
        click.option(
            "--precision",
            type=Choice(PRECISIONS),
            help="Of the arithmetic inside the network; see docs/reference/precision.md. bf16 and"
            " int8 are for CPUs.  [default: fp32; of an int8 classifier int8]",
        ),
        click.option(
            "--runtime",
            type=Choice(RUNTIMES),
            default="auto",
            show_default=True,
            help="The library that runs the network. auto: OpenVINO (pip install"
            " 'tlpipe[openvino]') for bf16, else ONNX Runtime.",
        ),
        click.option(
            "--threads",
            type=click.IntRange(min=1),
            help="Cores to use.  [default: all that this process may use]",
        ),
        click.option(
            "--profile",
            type=JSON,
            metavar="FILE",
            help="Write a trace (.json) of what each thread does: open it at ui.perfetto.dev or in"
            " chrome://tracing.",
        ),
        allow_outside_option,
    ):
        command = option(command)
    return command


def engine_options(command: F) -> F:
    """Options of every command that can spread its work over machines."""
    for option in (
        click.option(
            "--address",
            metavar="HOST:PORT",
            help="Of the Ray cluster's head; auto for the cluster that this machine belongs to."
            "  [default: one on this machine alone]",
        ),
        click.option(
            "--engine",
            type=Choice(ENGINES),
            default="local",
            show_default=True,
            help="ray: on the nodes of a Ray cluster (pip install 'tlpipe[ray]'), one worker per"
            " core or GPU; --threads then counts the cores of each. See docs/how-to/ray.md.",
        ),
    ):
        command = option(command)
    return command


def embedding_options(command: F) -> F:
    """Options of every command that embeds images."""
    for option in (
        click.option(
            "--min-agreement",
            type=click.FloatRange(0, 1),
            metavar="COSINE",
            help="Refuse a --precision whose embeddings agree less with those at fp32, as the mean"
            " over images of the source; 0 takes anything.  [default: bf16 0.998, fp16 0.999, int8"
            " 0.99]",
        ),
        click.option(
            "--decode",
            type=Choice(DECODE_MODES),
            default="auto",
            show_default=True,
            help="exact: decode every pixel, resize with Pillow. auto: decode large JPEGs at a"
            " fraction of their size and resize faster, with embeddings of a cosine of 0.9998 to"
            " these; or as the file that is updated was made.",
        ),
    ):
        command = option(command)
    return command


def update_options(command: F) -> F:
    """Options of a command that updates a feature file."""
    for option in (
        click.option(
            "--overwrite",
            is_flag=True,
            help="Start anew: use nothing of an existing output, or of a run cut short.",
        ),
        click.option(
            "--max-gone",
            type=_Limit(whole=True),
            help="Refuse an update that drops more of the embeddings than this."
            "  [default: 50%, unless as many images have come]",
        ),
        click.option(
            "--rehash",
            is_flag=True,
            help="Find changed images by their content, not by size and time of change.",
        ),
        set_above_option,
    ):
        command = option(command)
    return command


def terminal() -> bool:
    """Whether standard input is a terminal: nobody types a list of images."""
    return sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()


def opened_source(source: str, more: dict[str, Any]) -> Source:
    """Open the source that a command's arguments name, and take ``--allow-outside`` out of them."""
    from tlpipe.stages.source import STANDARD_INPUT, open_source

    if source == STANDARD_INPUT and terminal():
        raise click.UsageError(
            "SOURCE is '-', standard input, which is a terminal. Send it a list of paths: find"
            " photos -name '*.jpg' -print0 | tlpipe ... -"
        )
    return open_source(source, allow_outside=more.pop("allow_outside"))


def opened_images(source: str, more: dict[str, Any]) -> Source | str:
    """``opened_source``; a feature file stays a path."""
    from tlpipe.workflows.classify import is_feature_file

    if is_feature_file(source):
        del more["allow_outside"]
        return source
    return opened_source(source, more)


def as_run_options(**values: Any) -> RunOptions:
    """Gather the values of ``run_options``, but for that of ``opened_source``."""
    from tlpipe.workflows.run_options import RunOptions

    return RunOptions(**values)
