"""``tlpipe train`` and ``tlpipe train-head``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tlpipe.cli.embed import show_embedded
from tlpipe.cli.options import (
    PATH,
    TOO_MANY_REJECTS,
    as_run_options,
    backbone_option,
    embedding_options,
    found_backbone,
    label_options,
    network_options,
    opened_source,
    output_option,
    overwrite_option,
    run_options,
    seed_option,
    source_argument,
)
from tlpipe.cli.progress import progress
from tlpipe.cli.sections import Sectioned
from tlpipe.cli.show import say, show_survey
from tlpipe.cli.show_metrics import show_metrics


@click.command("train-head")
@click.argument("features", type=PATH)
@output_option("The classifier (.onnx) to write; its report (.metrics.json) stands beside it.")
@label_options
@seed_option
@overwrite_option
def train_head_command(
    features: Path,
    output: Path,
    multi_label: bool,
    label_separator: str | None,
    seed: int,
    overwrite: bool,
) -> None:
    """Train a new last layer on stored embeddings; write the classifier.

    FEATURES is what 'tlpipe embed' wrote. The regularisation and the scaling are chosen on
    held-out images. The classifier is judged on the source's test split where it has one, else on
    its validation split, else on about a fifth of each class, kept out of training.

    With --multi-label an image may have several labels, such as 'cat|outdoor' in a CSV's label
    column, or none of them: '|' alone.

    \b
    Example:
      tlpipe train-head features.h5 -o classifier.onnx
    """
    from tlpipe import train_head

    with progress() as report:
        result = train_head(
            features,
            output,
            seed=seed,
            multi_label=multi_label,
            label_separator=label_separator,
            overwrite=overwrite,
            progress=report,
        )
    show_trained(result)


@click.command("train", cls=Sectioned)
@source_argument
@output_option(
    "The classifier (.onnx) to write; its features (.features.h5) and its report (.metrics.json)"
    " stand beside it."
)
@backbone_option
@network_options
@run_options
@embedding_options
@label_options
@seed_option
@overwrite_option
@click.pass_context
def train_command(
    ctx: click.Context,
    /,
    source: Path,
    output: Path,
    backbone: str,
    multi_label: bool,
    label_separator: str | None,
    seed: int,
    overwrite: bool,
    **more: Any,
) -> None:
    """Embed images and train a classifier: embed and train-head in one.

    SOURCE is as for 'tlpipe embed', and must have labels.

    \b
    Example:
      tlpipe train photos/ -o classifier.onnx
    """
    from tlpipe import train

    card = found_backbone(backbone, more)
    opened = opened_source(source, more)
    with progress() as report:
        result = train(
            opened,
            output,
            backbone=card,
            options=as_run_options(**more),
            seed=seed,
            multi_label=multi_label,
            label_separator=label_separator,
            overwrite=overwrite,
            progress=report,
            surveyed=show_survey,
        )
    show_embedded(result.embedded)
    show_trained(result.trained)
    if result.embedded.too_many_rejects:
        ctx.exit(TOO_MANY_REJECTS)


def show_trained(result: Any) -> None:
    """What ``train_head`` did."""
    training = result.training
    several = "labels" if "label_separator" in training else "classes"
    say(
        f"Trained on {training['count']:,} images of {len(result.classes)} {several};"
        f" C = {training['C']:.3g} on {training['scaling']} embeddings was chosen of"
        f" {len(training['trials'])} settings by log loss ({training['chosen_on']})."
    )
    for notice in result.notices:
        say(notice)
    show_metrics(result.metrics, result.classes, training["judged_on"])
    say(
        f"Wrote {str(result.path)!r}, whose probabilities agree with the trained head's to"
        f" {result.parity:.1g}, and {str(result.metrics_path)!r}."
    )
