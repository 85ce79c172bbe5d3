"""The command group: its help by sections, and what happens to errors and interruptions."""

from __future__ import annotations

import _thread
import io
import os
import signal
import sys
import threading
from typing import Any

import click

from tlpipe.cli.audit import audit_command
from tlpipe.cli.classify import classify_command, evaluate_command
from tlpipe.cli.compare import compare_command
from tlpipe.cli.demo import demo_command
from tlpipe.cli.doctor import doctor_command
from tlpipe.cli.embed import embed_command
from tlpipe.cli.features import export_command, import_command, merge_command
from tlpipe.cli.look import inspect_command
from tlpipe.cli.models import models_group
from tlpipe.cli.proof import repair_command, verify_command
from tlpipe.cli.split import split_command
from tlpipe.cli.train import train_command, train_head_command
from tlpipe.errors import TlpipeError

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and the number of SIGINT, as shells have it."""

_SECTIONS: dict[str, tuple[click.Command, ...]] = {
    "From images to a classifier": (train_command, embed_command, train_head_command),
    "Use a classifier": (classify_command, evaluate_command),
    "Feature files": (
        compare_command,
        audit_command,
        export_command,
        import_command,
        merge_command,
        split_command,
    ),
    "Prove and mend": (verify_command, repair_command),
    "Look around": (inspect_command, models_group, doctor_command, demo_command),
}


class TlpipeGroup(click.Group):
    """A group that lists its commands by section and turns tlpipe's errors into exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error becomes a message and its exit code."""
        try:
            return super().invoke(ctx)
        except TlpipeError as exc:
            if ctx.params["debug"]:
                raise
            click.echo(f"{click.style('Error:', fg='red')} {exc.message}", err=True)
            if exc.hint:
                click.echo(f"{click.style('Hint:', bold=True)} {exc.hint}", err=True)
            _show_notes(exc)
            ctx.exit(exc.exit_code)
        except OSError as exc:
            if ctx.params["debug"] or isinstance(exc, BrokenPipeError):
                raise
            click.echo(f"{click.style('Error:', fg='red')} {exc}", err=True)
            _show_notes(exc)
            ctx.exit(1)
        except KeyboardInterrupt as exc:
            click.echo("Interrupted. Outputs that were not finished were not written.", err=True)
            _show_notes(exc)
            ctx.exit(INTERRUPTED)
        except SystemExit as exc:  # a signal
            _show_notes(exc)
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by section."""
        for title, commands in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(c.name or "", c.get_short_help_str(80)) for c in commands])


def _show_notes(exc: BaseException) -> None:
    """What is kept of the work, where the error says so."""
    for note in getattr(exc, "__notes__", ()):
        click.echo(note, err=True)


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        from tlpipe.version import __version__

        click.echo(f"tlpipe {__version__}")
        ctx.exit()


@click.group(cls=TlpipeGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and exit.",
)
def cli(debug: bool) -> None:
    """Turn labelled images into a classifier you can ship.

    A pretrained backbone runs once over the images; its embeddings are stored; a new last layer is
    trained on them in seconds; backbone and new layer become one ONNX file.

    \b
    Start here:
      tlpipe demo
      tlpipe train photos/ -o classifier.onnx
      tlpipe classify classifier.onnx new-photos/ -o predictions.csv

    Exit codes: 0 done; 1 an error; 2 wrong usage; 3 done, but with more rejects than allowed.
    """


for _commands in _SECTIONS.values():
    for _command in _commands:
        cli.add_command(_command)


def _terminated(signum: int, _: object) -> None:
    sys.exit(128 + signum)  # unwinds, so that temporary files are removed


def raise_again(unraisable: sys.UnraisableHookArgs) -> None:
    """Raise an interruption once more that came up where Python ignores exceptions.

    Such places are destructors and weak references' callbacks, of which h5py runs many. Without
    this, a run would go on as if nobody had stopped it.
    """
    exc = unraisable.exc_value
    if isinstance(exc, SystemExit) and isinstance(exc.code, int):
        number = exc.code - 128
    elif isinstance(exc, KeyboardInterrupt):
        number = int(signal.SIGINT)
    else:
        sys.__unraisablehook__(unraisable)
        return
    threading.Timer(0.01, _interrupt, [number]).start()


def _interrupt(number: int) -> None:
    """Send this process a signal, as from outside, so that it ends waits where it can."""
    if sys.platform == "win32":
        _thread.interrupt_main(number)
    else:
        os.kill(os.getpid(), number)


def main() -> None:
    """Run the command line and exit."""
    sys.unraisablehook = raise_again
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _terminated)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name may hold what a terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    cli(prog_name="tlpipe")
