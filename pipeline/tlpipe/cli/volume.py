"""How much is said on standard error: ``--quiet`` and ``--verbose``.

Owns both options, which every command has, and so has the group: they may stand before the command
or after it. What is asked for holds for one command line.
"""

from __future__ import annotations

import contextlib
import enum
import time
from collections.abc import Iterator

import click


class Volume(enum.Enum):
    """What is said: only warnings and errors, that and the usual talk, or every decision."""

    QUIET = "quiet"
    NORMAL = "normal"
    VERBOSE = "verbose"


_volume = Volume.NORMAL
_start = 0.0


def volume() -> Volume:
    """What this command line asks for."""
    return _volume


def elapsed_s() -> float:
    """Seconds since the command line was begun."""
    return time.monotonic() - _start


@contextlib.contextmanager
def of_one_command() -> Iterator[None]:
    """Begin with the usual volume; afterwards the next command line has it again."""
    global _volume, _start
    _start = time.monotonic()
    try:
        yield
    finally:
        _volume = Volume.NORMAL


def _set(_: click.Context, param: click.Parameter, value: bool) -> None:
    """Take over what one of the options says, wherever it stands."""
    global _volume
    if not value:
        return
    asked = Volume(param.name)
    if _volume not in (Volume.NORMAL, asked):
        raise click.UsageError("--quiet and --verbose contradict each other: give one of them.")
    _volume = asked


def add_volume_options(command: click.Command) -> None:
    """Give a command, and those below it, ``--quiet`` and ``--verbose``."""
    for short, name, said in (
        ("-q", "quiet", "Say nothing but warnings and errors; results are printed as always."),
        ("-v", "verbose", "Say also what is decided, found and used again, and when."),
    ):
        command.params.append(
            click.Option(
                [short, f"--{name}"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_set,
                help=said,
            )
        )
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            add_volume_options(inner)
