"""Shows progress, surveys, summaries and tables.

Takes the records that workflows return, writes text: results to standard output, talk to standard
error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from tlpipe.cli.log import Level, emit, is_json

if TYPE_CHECKING:
    from rich.console import Console

    from tlpipe.stages.source import Survey

_WIDTH_IN_A_PIPE = 200


def say(text: str, event: str = "notice", *, level: Level = "info", **fields: Any) -> None:
    """Talk: a line on standard error, or an event with these fields where JSON is written."""
    if is_json():
        emit(event, text.strip(), level=level, **fields)
    else:
        click.echo("\n".join(shown(line) for line in text.split("\n")), err=True)


def shown(text: str) -> str:
    """`text` with control characters escaped: a name must not steer the terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def counted(number: int, noun: str) -> str:
    """`number` and `noun`, in the plural where there are not one: "1 image", "1,200 images"."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}" + ("" if number == 1 else plural)


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
        skipped = ", ".join(f"{n:,} {what}" for what, n in survey.skipped.most_common())
        say(f"Skipped: {skipped}.")
    for notice in survey.notices:
        say(notice)


def show_rejects(rejects: Counter[str], where: str) -> None:
    """How many items were left out and why; nothing where there are none."""
    if rejects:
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in rejects.most_common())
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
    _table(_console(), header, rows)


def _console() -> Console:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:  # rich would fold tables at 80 columns
        console.width = _WIDTH_IN_A_PIPE
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
