"""The command group: its help by sections, and what happens to errors and interruptions."""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, NoReturn

import click

from tlpipe.cli.audit import audit_command
from tlpipe.cli.classify import classify_command, evaluate_command
from tlpipe.cli.compare import compare_command
from tlpipe.cli.completion import COMPLETE_VARIABLE, completion_command
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
    stop_writing,
)
from tlpipe.cli.look import inspect_command
from tlpipe.cli.models import models_group
from tlpipe.cli.proof import repair_command, verify_command
from tlpipe.cli.report import report_command
from tlpipe.cli.run import run_command
from tlpipe.cli.show import colour, log_as_talk, reader_has_gone, tell
from tlpipe.cli.signals import INTERRUPTED, install, was_interrupted
from tlpipe.cli.split import split_command
from tlpipe.cli.train import train_command, train_head_command
from tlpipe.cli.usage import Choice, plain_words, with_help
from tlpipe.cli.volume import add_volume_options, of_one_command
from tlpipe.errors import JobError, TlpipeError

NOBODY_READS = 141
"""Exit code where the reader of standard output has gone: 128 and the number of SIGPIPE."""

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
    "Look around": (
        inspect_command,
        models_group,
        doctor_command,
        demo_command,
        completion_command,
    ),
}


class TlpipeGroup(click.Group):
    """A group that lists its commands by section and turns tlpipe's errors into exit codes."""

    def main(self, args: Sequence[str] | None = None, *more: Any, **extra: Any) -> Any:
        """Run the command line; with ``--log-format json`` also its own mistakes become events."""
        words = plain_words(sys.argv[1:] if args is None else args)
        extra.setdefault("color", colour())
        with of_one_command(), log_as_talk():
            if _wants_json(words):
                self._json_main(words, *more, **extra)
            return super().main(words, *more, **extra)

    def _json_main(self, words: list[str], *more: Any, **extra: Any) -> NoReturn:
        """Run a command line that is told of in JSON, and exit."""
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
        except Exception as exc:
            emit_uncaught(exc, 1)
            return 1
        return code if isinstance(code, int) else 0

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error becomes a message and its exit code."""
        try:
            return self._interruptible(ctx)
        except click.UsageError as exc:
            raise with_help(exc) from None
        except TlpipeError as exc:
            if ctx.params["debug"]:
                raise
            _tell_error(exc, exc.message, exc.exit_code, exc.hint)
            ctx.exit(exc.exit_code)
        except OSError as exc:
            if isinstance(exc, BrokenPipeError) and reader_has_gone(sys.stdout):
                stop_writing(sys.stdout)  # Python would complain of what it cannot write at its end
                ctx.exit(NOBODY_READS)
            if ctx.params["debug"]:
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

    def _interruptible(self, ctx: click.Context) -> Any:
        """Run the command; what fails in whatever way because of Ctrl-C is interrupted."""
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.ClickException):
            raise
        except Exception as exc:
            if was_interrupted() and not ctx.params["debug"]:
                raise KeyboardInterrupt from exc
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by section."""
        for title, commands in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(c.name or "", c.get_short_help_str(80)) for c in commands])


def _wants_json(words: Sequence[str]) -> bool:
    """Whether a command line asks for JSON; known before it is parsed, which may fail."""
    if COMPLETE_VARIABLE in os.environ:  # a shell asks, and reads standard output alone
        return False
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
    tell(f"{click.style('Error:', fg='red')} {message}")
    if hint:
        tell(f"{click.style('Hint:', bold=True)} {hint}")
    for note in notes:
        tell(note)


def _tell_stopped(exc: BaseException, how: str, exit_code: int) -> None:
    """That somebody stopped the run, and what is kept of the work."""
    notes = list(getattr(exc, "__notes__", ()))
    message = f"{how}. Outputs that were not finished were not written."
    emit("interrupted", message, level="error", exit_code=exit_code, notes=notes)
    if not is_json():
        for line in (message, *notes):
            tell(line)


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
    type=Choice(LOG_FORMATS),
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
add_volume_options(cli)


def main() -> None:
    """Run the command line and exit."""
    install()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name may hold what a terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    cli(prog_name="tlpipe")
