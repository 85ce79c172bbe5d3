"""``tlpipe split``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tlpipe.cli.kinds import FEATURES
from tlpipe.cli.log import facts_of
from tlpipe.cli.options import overwrite_option, seed_option
from tlpipe.cli.show import say, show_table
from tlpipe.errors import OptionError
from tlpipe.quantities import counted
from tlpipe.types import Split

_PART = click.FloatRange(0, 1)


@click.command("split")
@click.argument("features", type=FEATURES)
@click.option("--train", type=_PART, help="Part of each class to train on.  [default: the rest]")
@click.option(
    "--validation",
    type=_PART,
    default=0.0,
    show_default=True,
    help="Part of each class to choose settings on.",
)
@click.option("--test", type=_PART, help="Part of each class to judge on.  [default: 0.2]")
@click.option(
    "--group-pattern",
    metavar="REGEX",
    help="Keep images of one object together: what the pattern's first group (or else the whole"
    " pattern) matches in an image's key names its object.",
)
@click.option(
    "--groups",
    metavar="FILE.csv:COLUMN",
    help="The same, with the objects' names in a column of a CSV file, beside a column 'path' or"
    " 'key'.",
)
@seed_option("Another seed assigns otherwise.")
@click.option("--anew", is_flag=True, help="Assign again what this recipe has assigned before.")
@click.option(
    "-o", "--output", type=FEATURES, help="Write another feature file.  [default: replace FEATURES]"
)
@overwrite_option
@click.option(
    "--check", is_flag=True, help="Only tell how the file is split, and which images leak."
)
@click.pass_context
def split_command(
    ctx: click.Context,
    /,
    features: Path,
    output: Path | None,
    overwrite: bool,
    check: bool,
    **options: Any,
) -> None:
    """Assign images to train, validation and test.

    Each class is split in the same parts. Identical images, and images of one group, stay on one
    side. The seed and the images alone decide, so the same command gives the same splits; images
    that were added since get theirs, and no other is moved.

    \b
    Example:
      tlpipe split features.h5 --test 0.2 --group-pattern '^(.+)_[0-9]+[.]jpg$'
    """
    from tlpipe import SplitOptions, check_splits, split

    if check:
        default = click.core.ParameterSource.DEFAULT
        given = [n for n in ctx.params if n not in ("features", "check")]
        given = [n for n in given if ctx.get_parameter_source(n) is not default]
        if given:
            named = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise OptionError(
                f"--check writes nothing, so it takes no {named}.", hint="Leave out either."
            )
        show_report(check_splits(features))
        return
    show_split(split(features, output, options=SplitOptions(**options), overwrite=overwrite))


def show_split(result: Any) -> None:
    """What ``split`` did."""
    if result.unchanged:
        said = f"{str(result.path)!r} is up to date: all rows have their split."
    else:
        kept = f"; {result.kept:,} keep theirs" if result.kept else ""
        said = f"Wrote {str(result.path)!r}: {result.assigned:,} rows were assigned{kept}."
    say(said, "result", **facts_of(result))
    if result.replaced:
        say("The splits that the file had, which were not of this recipe, were replaced.")
    if result.ungrouped is not None:
        say(f"Of no group, so each its own: {counted(result.ungrouped, 'image')}.")
    show_report(result.report)


def show_report(report: Any) -> None:
    """Counts by class and split, and images that stand in more than one."""
    splits = sorted({split for _, split in report.counts} - {Split.NONE})
    columns = [*splits, *([Split.NONE] if any(s == Split.NONE for _, s in report.counts) else [])]
    names = ["no split" if split == Split.NONE else split.name.lower() for split in columns]
    labels = sorted({label for label, _ in report.counts}, key=lambda label: (label is None, label))
    rows = [
        ["(no label)" if label is None else label]
        + [f"{report.counts[label, split]:,}" for split in columns]
        for label in labels
    ]
    totals = [sum(report.counts[label, split] for label in labels) for split in columns]
    show_table(["class", *names], [*rows, ["all", *(f"{total:,}" for total in totals)]])
    if report.groups:
        say(f"{counted(report.groups, 'group')}.")
    show_shared(report.shared)


def show_shared(shared: Any) -> None:
    """Images of the same content in more than one split; a word where there are none."""
    if not shared.count:
        say("No image stands in more than one split.")
        return
    say(
        f"{shared.count:,} identical images stand in more than one split: what is measured on them"
        " flatters."
    )
    for pair in shared.pairs:
        sides = [
            f"{key!r} ({'no split' if side == Split.NONE else side.name.lower()})"
            for key, side in (
                (pair.first, pair.first_split),
                (pair.second, pair.second_split),
            )
        ]
        say(f"  {' = '.join(sides)}")
    if shared.count > len(shared.pairs):
        say(f"  and {shared.count - len(shared.pairs):,} more")
