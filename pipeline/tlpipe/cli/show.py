"""Shows progress, surveys, summaries and tables.

Takes the records that workflows return, writes text: results to standard output, talk to standard
error. Owns how both look: width, colour, and what happens where nobody reads them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import click

from tlpipe.cli.log import Level, emit, is_json, stop_writing
from tlpipe.cli.volume import Volume, elapsed_s, volume
from tlpipe.quantities import by_count, counted

if TYPE_CHECKING:
    from rich.console import Console

    from tlpipe.stages.source import Survey

_NO_WIDTH = 100_000
"""Columns where standard output is no terminal: a file or a pipe has no width to fit into."""


def say(text: str, event: str = "notice", *, level: Level = "info", **fields: Any) -> None:
    """Talk: a line on standard error, or an event with these fields where JSON is written.

    With ``--quiet`` only warnings and errors.
    """
    if is_json():
        emit(event, text.strip(), level=level, **fields)
    elif level in ("warning", "error") or volume() is not Volume.QUIET:
        tell("\n".join(shown(line) for line in text.split("\n")))


def tell(text: str) -> None:
    """Write to standard error as it is. Work goes on where nobody listens any more."""
    try:
        click.echo(text, err=True)
    except BrokenPipeError:
        stop_writing(sys.stderr)


def reader_has_gone(stream: TextIO | None) -> bool:
    """Whether what is written to a pipe is read by nobody any more."""
    if stream is None or sys.platform == "win32":
        return True  # where it cannot be asked: it is the only pipe that commands write to
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return bool(poll.poll(0))


def colour() -> bool | None:
    """Whether to write colours; None where a terminal decides.

    ``NO_COLOR`` with any value means none (no-color.org), and so does a terminal that is "dumb";
    ``FORCE_COLOR`` with any value means colours even where there is no terminal.
    """
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return True if os.environ.get("FORCE_COLOR") else None


@contextlib.contextmanager
def log_as_talk() -> Iterator[None]:
    """Say what tlpipe logs: warnings always, the rest with ``--verbose``."""
    logger, handler = logging.getLogger("tlpipe"), _Talk()
    before = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


class _Talk(logging.Handler):
    """Python's logging, as lines on standard error; with JSON it becomes events elsewhere."""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.levelno >= logging.WARNING:
            if not is_json():
                say(message, level="error" if record.levelno >= logging.ERROR else "warning")
        elif volume() is Volume.VERBOSE and not is_json():
            say(f"[{elapsed_s():7.2f} s] {message}")


def shown(text: str) -> str:
    """`text` with control characters escaped: a name must not steer the terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def survey_facts(survey: Survey) -> dict[str, Any]:
    """What a source holds, as plain values."""
    classes: Counter[str] = Counter()
    for (_, label), count in survey.labels.items():
        if label is not None:
            classes[label] += count
    return {
        "layout": survey.layout,
        "count": survey.count,
        "splits": {s.name.lower(): n for s, n in survey.by_split().items()},
        "classes": dict(sorted(classes.items())),
        "skipped": dict(survey.skipped),
        "notices": list(survey.notices),
    }


def show_survey(survey: Survey) -> None:
    """What a source holds, before work begins."""
    from tlpipe.types import Split

    if is_json():
        found = f"Found {counted(survey.count, 'image')} in {survey.layout}."
        say(found, "survey", **survey_facts(survey))
        return
    say(f"Found {counted(survey.count, 'image')} in {survey.layout}.")
    splits = survey.by_split()
    if set(splits) != {Split.NONE}:
        named = {s.name.lower() if s >= 0 else "no split": n for s, n in splits.items()}
        say("Splits: " + ", ".join(f"{name} {n:,}" for name, n in named.items()) + ".")
    totals: Counter[str] = Counter()
    for (_, label), count in survey.labels.items():
        if label is not None:
            totals[label] += count
    if totals:
        some = ", ".join(f"{name} {n:,}" for name, n in sorted(totals.items())[:20])
        more = f" and {len(totals) - 20} more" if len(totals) > 20 else ""
        say(f"Classes ({len(totals)}): {some}{more}.")
    if survey.skipped:
        skipped = by_count(survey.skipped)
        say(f"Skipped: {skipped}.")
    for notice in survey.notices:
        say(notice)


def show_rejects(rejects: Counter[str], where: str) -> None:
    """How many items were left out and why; nothing where there are none."""
    if rejects:
        reasons = by_count(rejects)
        message = f"Rejected {rejects.total():,}: {reasons}. {where}"
        say(message, "rejects", level="warning", rejects=dict(rejects.most_common()))


def show_line(text: str) -> None:
    """A line on standard output."""
    click.echo(shown(text))


def screen_width() -> int:
    """Columns that a table on standard output may have."""
    return _console().width


def show_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output."""
    console = _console()
    with console.capture() as drawn:
        _table(console, header, rows)
    lines = drawn.get().split("\n")
    if not on_terminal():  # without the empty line above, so that 'head -1' shows the header
        lines = [line.rstrip() for line in lines[not lines[0].strip() :]]
    click.echo("\n".join(lines), nl=False)


def on_terminal() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout is not None and not sys.stdout.closed and sys.stdout.isatty()


def _console() -> Console:
    from rich.console import Console

    console = Console(highlight=False, no_color=colour() is False)
    if not on_terminal():
        console.width = _NO_WIDTH
    return console


def _table(console: Console, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The first column is text, the others are numbers; names are shown as they are."""
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE, pad_edge=False)
    for position, name in enumerate(header):
        numeric = position > 0 and all(_numeric(row[position]) for row in rows)
        table.add_column(Text(shown(name)), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(shown(cell)) for cell in row))
    console.print(table)


def _numeric(cell: str) -> bool:
    return cell.replace(",", "").replace(".", "").isdigit() or cell == "."
