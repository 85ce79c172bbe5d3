"""``tlpipe inspect``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from tlpipe.cli.kinds import PATH
from tlpipe.cli.show import show_table, shown


@click.command("inspect")
@click.argument("file", type=PATH)
@click.option("--rejects", is_flag=True, help="List the images a feature file left out, and why.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect_command(file: Path, rejects: bool, as_json: bool) -> None:
    """Say what any of tlpipe's files holds.

    \b
    Example:
      tlpipe inspect features.h5
    """
    if rejects:
        from tlpipe.stages.store import read_rejects

        columns = ("key", "stage", "reason", "detail")
        rows = [list(row) for row in read_rejects(file)]
        if as_json:
            click.echo(json.dumps([dict(zip(columns, row, strict=True)) for row in rows]))
        else:
            show_table(columns, rows)
        return
    from tlpipe import inspect

    found = inspect(file)
    if as_json:
        click.echo(json.dumps({"kind": found.kind, **found.facts}, ensure_ascii=False, indent=2))
        return
    click.echo(f"{file}: {found.kind}")
    for name, value in found.facts.items():
        click.echo("\n".join(shown(line) for line in _lines(name, value)))


def _lines(name: str, value: Any) -> list[str]:
    """One fact; a table of facts as indented lines."""
    if isinstance(value, dict) and value:
        return [f"  {name}:", *(f"    {key}: {_words(item)}" for key, item in value.items())]
    return [f"  {name}: {_words(value)}"]


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        return f"{len(value)} entries (--json shows them)"
    if isinstance(value, list):
        shown = ", ".join(_words(item) for item in value[:12])
        return shown + (f", ... ({len(value)} in all)" if len(value) > 12 else "")
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if type(value) is int else str(value)
