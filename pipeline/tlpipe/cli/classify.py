"""``tlpipe classify`` and ``tlpipe evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tlpipe.cli.kinds import CLASSIFIER, FEATURES, JSON, PREDICTIONS
from tlpipe.cli.log import facts_of, is_json
from tlpipe.cli.options import (
    TOO_MANY_REJECTS,
    F,
    as_run_options,
    engine_options,
    opened_images,
    opened_source,
    output_option,
    overwrite_option,
    run_options,
    source_argument,
)
from tlpipe.cli.progress import progress
from tlpipe.cli.sections import Sectioned
from tlpipe.cli.show import say, show_rejects, show_survey
from tlpipe.cli.show_metrics import show_metrics
from tlpipe.cli.usage import Choice, check_order
from tlpipe.quantities import counted
from tlpipe.types import SPLIT_CHOICES

if TYPE_CHECKING:
    from tlpipe import Columns


def _columns_options(command: F) -> F:
    """Options that say what a row holds."""
    for option in (
        click.option(
            "--columns",
            metavar="NAME,...",
            help="Columns of the source that a row takes over: label, split, and further ones of a"
            " manifest or table.",
        ),
        click.option(
            "--sets",
            is_flag=True,
            help="List the classes that an image may be of, the likeliest first.",
        ),
        click.option(
            "--unknown",
            is_flag=True,
            help="Tell which images are of none of the classes, and how far they lie from them.",
        ),
        click.option(
            "--top-k",
            type=click.IntRange(min=1),
            help="How many classes a row names with their probabilities, the most probable first."
            " By default 1; none where an image may have several labels.",
        ),
    ):
        command = option(command)
    return command


def _as_columns(more: dict[str, Any]) -> Columns:
    """Take the values of ``_columns_options`` out of a command's keyword arguments."""
    from tlpipe import Columns

    names = (more.pop("columns") or "").split(",")
    keep = tuple(name.strip() for name in names if name.strip())
    return Columns(more.pop("top_k"), more.pop("unknown"), more.pop("sets"), keep)


@click.command("classify", cls=Sectioned)
@click.argument("classifier", type=CLASSIFIER)
@source_argument
@output_option("The predictions to write: .csv, .jsonl or .parquet.", PREDICTIONS)
@_columns_options
@click.option(
    "--embeddings",
    type=FEATURES,
    metavar="FILE.h5",
    help="Keep the embeddings in this feature file. Where it exists it is updated: only images that"
    " are new or changed are run through the backbone.",
)
@run_options
@engine_options
@overwrite_option
@click.pass_context
def classify_command(
    ctx: click.Context,
    /,
    classifier: Path,
    source: str,
    output: Path,
    embeddings: Path | None,
    overwrite: bool,
    **run: Any,
) -> None:
    """Classify images: one row per input, in order.

    SOURCE is as for 'tlpipe embed'; labels are not needed. An image that cannot be read is a row
    with its reason. Where an image may have several labels, its row lists them. A run that is cut
    short keeps what is done: the same command goes on from there.

    SOURCE may also be a feature file (.h5) that was made as the classifier makes its embeddings:
    then the backbone is not run at all.

    \b
    Example:
      tlpipe classify classifier.onnx new-photos/ -o predictions.csv --top-k 2 --unknown
      tlpipe classify classifier.onnx night.csv -o night.parquet --columns id,camera
    """
    from tlpipe import Cached, classify

    check_order(classifier, source)
    columns = _as_columns(run)
    opened = opened_images(source, run)
    with progress() as report:
        result = classify(
            classifier,
            opened if embeddings is None else Cached(opened, embeddings),
            output,
            columns=columns,
            options=as_run_options(**run),
            overwrite=overwrite,
            progress=report,
            surveyed=show_survey,
        )
    show_classified(result)
    if result.too_many_rejects:
        ctx.exit(TOO_MANY_REJECTS)


def show_classified(result: Any) -> None:
    """What ``classify`` did."""
    rate = result.count / result.elapsed_s
    if result.kept:
        say(f"Taken over from a run that was cut short: {counted(result.kept, 'row')}.")
    found = ", ".join(f"{name} {n:,}" for name, n in result.classes.most_common(20))
    if result.without:
        found += (", " if found else "") + f"{counted(result.without, 'image')} without a label"
    say(
        f"Wrote {str(result.path)!r}: {counted(result.count, 'row')} at {rate:,.0f} images/s on"
        f" {result.provider}. Predicted: {found or 'nothing'}.",
        "result",
        **facts_of(result),
    )
    if result.unknown is not None:
        say(f"None of the classes: {counted(result.unknown, 'image')}.")
    show_rejects(result.rejects, "They are rows with status 'rejected'.")
    if result.too_many_rejects:
        everything = result.rejects.total() == result.count
        say(
            "Not one image could be read."
            if everything
            else "These are more rejects than --max-rejects allows.",
            level="error",
        )


@click.command("evaluate", cls=Sectioned)
@click.argument("classifier", type=CLASSIFIER)
@source_argument
@click.option(
    "--split",
    type=Choice(SPLIT_CHOICES),
    default="auto",
    show_default=True,
    help="Which images. auto: the test split where there is one, else validation, else all.",
)
@click.option("-o", "--output", type=JSON, help="A .json file to write the numbers to, as well.")
@run_options
@overwrite_option
@click.pass_context
def evaluate_command(
    ctx: click.Context,
    /,
    classifier: Path,
    source: str,
    split: Any,
    output: Path | None,
    overwrite: bool,
    **run: Any,
) -> None:
    """Judge a classifier on labelled images.

    SOURCE is as for 'tlpipe embed'; its labels must be classes of the classifier. Use images that
    did not train it: on those that did, any classifier looks better than it is.

    \b
    Example:
      tlpipe evaluate classifier.onnx other-photos/
    """
    from tlpipe import evaluate

    check_order(classifier, source)
    opened = opened_source(source, run)
    with progress() as report:
        result = evaluate(
            classifier,
            opened,
            split=split,
            options=as_run_options(**run),
            output=output,
            overwrite=overwrite,
            progress=report,
            surveyed=show_survey,
        )
    show_evaluated(result)
    if result.too_many_rejects:
        ctx.exit(TOO_MANY_REJECTS)


def show_evaluated(result: Any) -> None:
    """What ``evaluate`` found."""
    metrics = result.metrics.to_dict()
    judged = {name: value for name, value in metrics.items() if isinstance(value, (int, float))}
    said = "Judged." if result.path is None else f"Wrote {str(result.path)!r}."
    if is_json() or result.path is not None:
        say(said, "result", **facts_of(result), metrics=judged)
    show_rejects(result.rejects, "They were left out.")
    for notice in result.notices:
        say(notice)
    show_metrics(result.metrics, result.classes, result.judged_on)
    if result.too_many_rejects:
        say("These are more rejects than --max-rejects allows.", level="error")
