"""``tlpipe report``, and ``--report`` of the commands that train."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from tlpipe.cli.kinds import SOURCE, File
from tlpipe.cli.options import (
    allow_outside_option,
    near_option,
    opened_source,
    output_option,
    overwrite_option,
    seed_option,
)
from tlpipe.cli.progress import progress
from tlpipe.cli.show import say
from tlpipe.cli.usage import Choice
from tlpipe.files import check_output
from tlpipe.quantities import counted
from tlpipe.types import FEATURE_SUFFIXES, PAGE_SUFFIXES

if TYPE_CHECKING:
    from tlpipe.stages.source import Source
    from tlpipe.workflows.report.options import ReportResult

F = TypeVar("F", bound=Callable[..., Any])

_PAGE, _FILES = File(*PAGE_SUFFIXES), File(*FEATURE_SUFFIXES, ".onnx")
_OF_ONE = ("source", "images", "map_kind", "no_images", "fetch", "near", "allow_outside")
_OF_SEVERAL = ("no_speed",)


@click.command("report")
@click.argument("files", type=_FILES, nargs=-1, required=True, metavar="FEATURES [CLASSIFIER]")
@output_option("The page (.html) to write.", _PAGE)
@click.option(
    "--source",
    type=SOURCE,
    metavar="SOURCE",
    help="Where the images are, for their pictures.  [default: where they were embedded from]",
)
@click.option("--no-images", is_flag=True, help="Leave pictures out.")
@click.option("--fetch", is_flag=True, help="Read images on a network again, for their pictures.")
@click.option(
    "--images",
    type=click.IntRange(1_000, 50_000),
    metavar="N",
    help="Images that the page holds at most; of more a sample.  [default: 10,000]",
)
@click.option(
    "--map",
    "map_kind",
    type=Choice(("pca", "umap")),
    help="umap: a second map, which shows groups better (pip install 'tlpipe[umap]')."
    "  [default: pca]",
)
@near_option
@allow_outside_option
@click.option("--no-speed", is_flag=True, help="Of several files: do not measure their networks.")
@seed_option("Of the folds and of the sample.")
@overwrite_option
@click.pass_context
def report_command(
    ctx: click.Context,
    /,
    files: tuple[Path, ...],
    output: Path,
    overwrite: bool,
    **more: Any,
) -> None:
    """Show what a classifier does, and where it fails: one page that opens in any browser.

    FEATURES is what 'tlpipe embed' wrote, CLASSIFIER what 'tlpipe train-head' made of it. Without a
    classifier, heads are trained for the page, and judged in cross-validation. Two or more feature
    files are compared, with the cost of each backbone.

    \b
    Example:
      tlpipe report features.h5 classifier.onnx -o report.html
      tlpipe report lite0.h5 lite1.h5 -o backbones.html
    """
    features, classifiers = _parted(files)
    several = len(features) > 1
    _refuse(ctx, _OF_ONE if several else _OF_SEVERAL, several=several)
    if several:
        from tlpipe import report_comparison

        with progress() as told:
            result = report_comparison(
                features,
                output,
                speed=not more["no_speed"],
                seed=more["seed"],
                overwrite=overwrite,
                progress=told,
            )
    else:
        classifier = classifiers[0] if classifiers else None
        result = _report(features[0], output, classifier, overwrite=overwrite, **more)
    show_report(result)


def _parted(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Feature files and classifiers among the arguments.

    Raises
    ------
    click.UsageError
        They are no combination that makes a report.
    """
    features = [file for file in files if file.suffix.lower() in FEATURE_SUFFIXES]
    classifiers = [file for file in files if file.suffix.lower() == ".onnx"]
    others = [str(file) for file in files if file not in features and file not in classifiers]
    if others:
        raise click.UsageError(
            f"{others[0]!r} is neither a feature file (.h5, .hdf5) nor a classifier (.onnx), by its"
            " name."
        )
    if not features:
        raise click.UsageError(
            f"{str(classifiers[0])!r} is a classifier: a report needs the feature file that it was"
            " trained on, too."
        )
    if classifiers and (len(features), len(classifiers)) != (1, 1):
        raise click.UsageError(
            f"There are {counted(len(features), 'feature file')} and"
            f" {counted(len(classifiers), 'classifier')}: a report is of one feature file and at"
            " most one classifier, or compares feature files alone."
        )
    return features, classifiers


def _refuse(ctx: click.Context, names: Sequence[str], *, several: bool) -> None:
    """Refuse options that would do nothing.

    Raises
    ------
    click.UsageError
    """
    given = [
        param.opts[0]
        for param in ctx.command.params
        if param.name in names
        and ctx.get_parameter_source(str(param.name)) is ParameterSource.COMMANDLINE
    ]
    if given:
        what = "a comparison of feature files" if several else "the report of one feature file"
        raise click.UsageError(f"{', '.join(given)} does not apply to {what}.")


def _report(
    features: Path, output: Path, classifier: Path | None, *, overwrite: bool, **more: Any
) -> ReportResult:
    from tlpipe import ReportOptions, report

    names = {name: more[name] for name in ("images", "map_kind", "near") if more[name] is not None}
    options = ReportOptions(
        pictures=not more["no_images"],
        fetch=more["fetch"],
        seed=more["seed"],
        allow_outside=more["allow_outside"],
        **names,
    )
    given = more["source"]
    with progress() as told:
        return report(
            features,
            output,
            classifier=classifier,
            source=None if given is None else opened_source(given, dict(more)),
            options=options,
            overwrite=overwrite,
            progress=told,
        )


def show_report(result: ReportResult) -> None:
    """What was written."""
    for notice in result.notices:
        say(notice)
    if result.shown:
        say(
            f"The page holds {result.shown:,} of {counted(result.count, 'image')},"
            f" {result.pictured:,} with a picture."
        )
    if result.judged_on:
        say(f"Judged on {result.judged_on}.")
    say(
        f"Wrote {str(result.path)!r} ({result.size_bytes / 1e6:.1f} MB).",
        "result",
        path=result.path,
        size_bytes=result.size_bytes,
        count=result.count,
        shown=result.shown,
        pictured=result.pictured,
    )


def report_option(command: F) -> F:
    """``--report`` of a command that trains."""
    return click.option(
        "--report",
        "page",
        type=_PAGE,
        metavar="FILE",
        help="Write a page (.html) that shows the classifier, too: see 'tlpipe report'.",
    )(command)


def check_page(page: Path | None, *, overwrite: bool, inputs: Sequence[Path]) -> None:
    """Refuse the path of ``--report`` before any work is done.

    Raises
    ------
    OutputError
    """
    if page is not None:
        check_output(page, overwrite=overwrite, suffixes=PAGE_SUFFIXES, inputs=inputs)


def report_trained(
    page: Path | None,
    features: Path,
    classifier: Path,
    *,
    overwrite: bool,
    source: Source | None = None,
) -> None:
    """Write the page of a classifier that was just trained, or say how to."""
    if page is None:
        shown = classifier.with_suffix(PAGE_SUFFIXES[0])
        command = ["tlpipe", "report", str(features), str(classifier), "-o", str(shown)]
        say(f"To look at it on one page: {shlex.join(command)}")
        return
    from tlpipe import report

    with progress() as told:
        result = report(
            features,
            page,
            classifier=classifier,
            source=source,
            overwrite=overwrite,
            progress=told,
        )
    show_report(result)
