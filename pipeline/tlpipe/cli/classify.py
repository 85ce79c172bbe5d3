"""``tlpipe classify`` and ``tlpipe evaluate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from tlpipe.cli.options import (
    PATH,
    TOO_MANY_REJECTS,
    as_run_options,
    output_option,
    overwrite_option,
    run_options,
    source_argument,
)
from tlpipe.cli.show import progress, say, show_metrics, show_rejects, show_survey

_SPLITS = ("auto", "all", "train", "validation", "test")


@click.command("classify")
@click.argument("classifier", type=PATH)
@source_argument
@output_option("The predictions to write: .csv or .jsonl.")
@click.option(
    "--top-k",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many classes a row names, the most probable first.",
)
@run_options
@overwrite_option
@click.pass_context
def classify_command(
    ctx: click.Context,
    /,
    classifier: Path,
    source: Path,
    output: Path,
    top_k: int,
    overwrite: bool,
    **run: Any,
) -> None:
    """Classify images: one row per input, in order.

    SOURCE is as for 'tlpipe embed'; labels are not needed. An image that cannot be read is a row
    with its reason.

    \b
    Example:
      tlpipe classify classifier.onnx new-photos/ -o predictions.csv --top-k 3
    """
    from tlpipe import classify
    from tlpipe.files import check_output
    from tlpipe.stages.predictions import FORMATS
    from tlpipe.stages.source import open_source
    from tlpipe.workflows.classify import open_classifier

    options = as_run_options(**run)
    check_output(output, overwrite=overwrite, suffixes=FORMATS, inputs=[classifier, source])
    model = open_classifier(classifier, options.device)
    images = open_source(source)
    show_survey(images.survey)
    with progress() as report:
        result = classify(
            model,
            images,
            output,
            top_k=top_k,
            options=options,
            overwrite=overwrite,
            progress=report,
        )
    rate = result.count / result.elapsed_s
    found = ", ".join(f"{name} {n:,}" for name, n in result.classes.most_common(20))
    say(
        f"Wrote {str(output)!r}: {result.count:,} rows at {rate:,.0f} images/s on"
        f" {result.provider}. Predicted: {found or 'nothing'}."
    )
    show_rejects(result.rejects, "They are rows with status 'rejected'.")
    if result.too_many_rejects:
        say("These are more rejects than allowed.")
        ctx.exit(TOO_MANY_REJECTS)


@click.command("evaluate")
@click.argument("classifier", type=PATH)
@source_argument
@click.option(
    "--split",
    type=click.Choice(_SPLITS),
    default="auto",
    show_default=True,
    help="Which images. auto: the test split where there is one, else validation, else all.",
)
@click.option("--json", "json_path", type=PATH, help="Write the numbers to this file, too.")
@run_options
@overwrite_option
@click.pass_context
def evaluate_command(
    ctx: click.Context,
    /,
    classifier: Path,
    source: Path,
    split: Any,
    json_path: Path | None,
    overwrite: bool,
    **run: Any,
) -> None:
    """Judge a classifier on labelled images.

    SOURCE is as for 'tlpipe embed'; its labels must be classes of the classifier.

    \b
    Example:
      tlpipe evaluate classifier.onnx labelled-photos/
    """
    from tlpipe import evaluate
    from tlpipe.files import check_output, whole_file
    from tlpipe.stages.source import open_source
    from tlpipe.workflows.classify import open_classifier

    options = as_run_options(**run)
    if json_path is not None:
        inputs = [classifier, source]
        check_output(json_path, overwrite=overwrite, suffixes=(".json",), inputs=inputs)
    model = open_classifier(classifier, options.device)
    images = open_source(source)
    show_survey(images.survey)
    with progress() as report:
        result = evaluate(model, images, split=split, options=options, progress=report)
    if json_path is not None:
        with whole_file(json_path) as temporary:
            text = json.dumps(result.to_dict(), indent=2, ensure_ascii=False)
            temporary.write_text(text + "\n", encoding="utf-8")
        say(f"Wrote {str(json_path)!r}.")
    show_rejects(result.rejects, "They were left out.")
    show_metrics(result.metrics, result.classes, result.judged_on)
    if result.too_many_rejects:
        say("These are more rejects than --max-rejects allows.")
        ctx.exit(TOO_MANY_REJECTS)
