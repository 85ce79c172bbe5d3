"""The command group: its help by sections, and what happens to errors and interruptions."""

from __future__ import annotations

import _thread
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import click

from tlpipe.cli.audit import audit_command
from tlpipe.cli.classify import classify_command, evaluate_command
from tlpipe.cli.compare import compare_command
from tlpipe.cli.demo import demo_command
from tlpipe.cli.doctor import doctor_command
from tlpipe.cli.embed import embed_command
from tlpipe.cli.features import export_command, import_command, merge_command
from tlpipe.cli.log import (
    LOG_FORMAT_VARIABLE,
    LOG_FORMATS,
    emit,
    emit_uncaught,
    is_json,
    json_lines,
)
from tlpipe.cli.look import inspect_command
from tlpipe.cli.models import models_group
from tlpipe.cli.proof import repair_command, verify_command
from tlpipe.cli.report import report_command
from tlpipe.cli.run import run_command
from tlpipe.cli.split import split_command
from tlpipe.cli.train import train_command, train_head_command
from tlpipe.errors import JobError, TlpipeError

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and the number of SIGINT, as shells have it."""

_SECTIONS: dict[str, tuple[click.Command, ...]] = {
    "From images to a classifier": (train_command, embed_command, train_head_command),
    "Use a classifier": (classify_command, evaluate_command),
    "Batch jobs": (run_command,),
    "Feature files": (
        report_command,
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

    def main(self, args: Sequence[str] | None = None, *more: Any, **extra: Any) -> Any:
        """Run the command line; with ``--log-format json`` also its own mistakes become events."""
        words = list(sys.argv[1:] if args is None else args)
        if not _wants_json(words):
            return super().main(words, *more, **extra)
        start = time.perf_counter()
        with json_lines() as last:
            code = self._main_in_json(words, *more, **extra)
            last.update(exit_code=code, seconds=round(time.perf_counter() - start, 3))
        sys.exit(code)

    def _main_in_json(self, words: list[str], *more: Any, **extra: Any) -> int:
        """Exit code of a command line whose errors are events."""
        try:
            code = super().main(words, *more, **{**extra, "standalone_mode": False})
        except click.ClickException as exc:
            ctx = getattr(exc, "ctx", None)
            hint = f"Try '{ctx.command_path} --help' for help." if ctx else ""
            _tell_error(exc, exc.format_message(), exc.exit_code, hint)
            return exc.exit_code
        except click.Abort as exc:
            _tell_error(exc, "Aborted.", 1)
            return 1
        except SystemExit as exc:
            return exc.code if isinstance(exc.code, int) else 1
        except BrokenPipeError:
            return 1
        except Exception as exc:
            emit_uncaught(exc, 1)
            return 1
        return code if isinstance(code, int) else 0

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error becomes a message and its exit code."""
        try:
            return super().invoke(ctx)
        except TlpipeError as exc:
            if ctx.params["debug"]:
                raise
            _tell_error(exc, exc.message, exc.exit_code, exc.hint)
            ctx.exit(exc.exit_code)
        except OSError as exc:
            if ctx.params["debug"] or isinstance(exc, BrokenPipeError):
                raise
            _tell_error(exc, str(exc), 1)
            ctx.exit(1)
        except KeyboardInterrupt as exc:
            _tell_stopped(exc, "Interrupted", INTERRUPTED)
            ctx.exit(INTERRUPTED)
        except SystemExit as exc:  # a signal
            code = exc.code if isinstance(exc.code, int) else 1
            _tell_stopped(exc, f"Stopped by {_signal_name(code)}", code)
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by section."""
        for title, commands in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(c.name or "", c.get_short_help_str(80)) for c in commands])


def _wants_json(words: Sequence[str]) -> bool:
    """Whether a command line asks for JSON; known before it is parsed, which may fail."""
    found = os.environ.get(LOG_FORMAT_VARIABLE, "")
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        if word == "--log-format":
            found = following
        elif word.startswith("--log-format="):
            found = word.partition("=")[2]
        elif not word.startswith("-") and word != found:
            break  # the command
    return found == "json"


def _tell_error(exc: BaseException, message: str, exit_code: int, hint: str = "") -> None:
    """What is wrong, what to do, and what is kept of the work."""
    notes = list(getattr(exc, "__notes__", ()))
    kind = type(exc).__name__
    more: dict[str, Any] = {"hint": hint, "type": kind, "exit_code": exit_code}
    more |= {"notes": notes} if notes else {}
    more |= {"mistakes": exc.mistakes} if isinstance(exc, JobError) else {}
    emit("error", message, level="error", **more)
    if is_json():
        return
    click.echo(f"{click.style('Error:', fg='red')} {message}", err=True)
    if hint:
        click.echo(f"{click.style('Hint:', bold=True)} {hint}", err=True)
    for note in notes:
        click.echo(note, err=True)


def _tell_stopped(exc: BaseException, how: str, exit_code: int) -> None:
    """That somebody stopped the run, and what is kept of the work."""
    notes = list(getattr(exc, "__notes__", ()))
    message = f"{how}. Outputs that were not finished were not written."
    emit("interrupted", message, level="error", exit_code=exit_code, notes=notes)
    if not is_json():
        for line in (message, *notes):
            click.echo(line, err=True)


def _signal_name(exit_code: int) -> str:
    """Name of the signal that an exit code stands for, as shells have it."""
    try:
        return signal.Signals(exit_code - 128).name
    except ValueError:
        return f"exit code {exit_code}"


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        from tlpipe.version import __version__

        click.echo(f"tlpipe {__version__}")
        ctx.exit()


@click.group(cls=TlpipeGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option(
    "--log-format",
    type=click.Choice(LOG_FORMATS),
    envvar=LOG_FORMAT_VARIABLE,
    default="text",
    show_default=True,
    show_envvar=True,
    help="Of what is said on standard error. json: each line is one JSON object, for programs that"
    " read logs.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and exit.",
)
def cli(debug: bool, log_format: str) -> None:
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


_stopping = False
"""Whether the process ends because of a signal: a second one must not cut short what the first one
has finish. Schedulers send several."""


def _terminated(signum: int, _: object) -> None:
    global _stopping
    if _stopping:
        return
    _stopping = True
    sys.exit(128 + signum)  # unwinds, so that temporary files are removed


def raise_again(unraisable: sys.UnraisableHookArgs) -> None:
    """Raise an interruption once more that came up where Python ignores exceptions.

    Such places are destructors and weak references' callbacks, of which h5py runs many. Without
    this, a run would go on as if nobody had stopped it.
    """
    global _stopping
    exc = unraisable.exc_value
    if isinstance(exc, SystemExit) and isinstance(exc.code, int):
        number = exc.code - 128
    elif isinstance(exc, KeyboardInterrupt):
        number = int(signal.SIGINT)
    else:
        sys.__unraisablehook__(unraisable)
        return
    _stopping = False  # the first one was lost: it comes again
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
