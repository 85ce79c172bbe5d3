"""``tlpipe train`` and ``tlpipe train-head``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tlpipe.cli.embed import show_embedded
from tlpipe.cli.head_options import as_train_options, head_options
from tlpipe.cli.kinds import CLASSIFIER, FEATURES
from tlpipe.cli.log import facts_of
from tlpipe.cli.network_options import backbone_option, found_backbone, network_options
from tlpipe.cli.options import (
    TOO_MANY_REJECTS,
    as_run_options,
    embedding_options,
    opened_source,
    output_option,
    overwrite_option,
    run_options,
    source_argument,
)
from tlpipe.cli.progress import progress
from tlpipe.cli.report import check_page, report_option, report_trained
from tlpipe.cli.sections import Sectioned
from tlpipe.cli.show import say, show_survey
from tlpipe.cli.show_metrics import show_metrics

_FINEST = 1e-9  # of an agreement as it is printed: less is chance, such as 8e-153


@click.command("train-head", cls=Sectioned)
@click.argument("features", type=FEATURES)
@output_option(
    "The classifier (.onnx) to write; its report (.metrics.json) and the head alone (.head.onnx)"
    " stand beside it.",
    CLASSIFIER,
)
@head_options
@click.option(
    "--threads", type=click.IntRange(min=1), help="By default one for each core that may be used."
)
@report_option
@overwrite_option
def train_head_command(
    features: Path,
    output: Path,
    threads: int | None,
    page: Path | None,
    overwrite: bool,
    **head: Any,
) -> None:
    """Train a new last layer on stored embeddings; write the classifier.

    FEATURES is what 'tlpipe embed' wrote. The regularisation and the scaling are chosen on
    held-out images. The classifier is judged on the source's test split where it has one, else on
    its validation split, else on about a fifth of each class, kept out of training; images of a
    group stay together.

    With --multi-label an image may have several labels, such as 'cat|outdoor' in a CSV's label
    column, or none of them: '|' alone.

    \b
    Example:
      tlpipe train-head features.h5 -o classifier.onnx
    """
    from tlpipe import train_head

    check_page(page, overwrite=overwrite, inputs=[features])
    with progress() as report:
        result = train_head(
            features,
            output,
            options=as_train_options(head, threads),
            overwrite=overwrite,
            progress=report,
        )
    show_trained(result)
    report_trained(page, features, result.path, overwrite=overwrite)


@click.command("train", cls=Sectioned)
@source_argument
@output_option(
    "The classifier (.onnx) to write; its features (.features.h5), its report (.metrics.json) and"
    " the head alone (.head.onnx) stand beside it.",
    CLASSIFIER,
)
@backbone_option
@network_options
@run_options
@embedding_options
@head_options
@report_option
@overwrite_option
@click.pass_context
def train_command(
    ctx: click.Context,
    /,
    source: str,
    output: Path,
    backbone: str,
    page: Path | None,
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

    head = as_train_options(more, more["threads"])
    card = found_backbone(backbone, more)
    opened = opened_source(source, more)
    check_page(page, overwrite=overwrite, inputs=opened.paths)
    with progress() as report:
        result = train(
            opened,
            output,
            backbone=card,
            options=as_run_options(**more),
            head=head,
            overwrite=overwrite,
            progress=report,
            surveyed=show_survey,
        )
    show_embedded(result.embedded)
    show_trained(result.trained)
    report_trained(
        page, result.embedded.path, result.trained.path, overwrite=overwrite, source=opened
    )
    if result.embedded.too_many_rejects:
        ctx.exit(TOO_MANY_REJECTS)


def _settings(training: dict[str, Any], chosen: str) -> str:
    if "k" in training:
        return (
            f"k = {training['k']} nearest images, votes by exp(cosine / T) with T ="
            f" {training['vote_temperature']:g}, and {training['doubt']:.2%} of the probability for"
            f" all classes alike: {chosen}"
        )
    if "scale" in training:
        return f"class means of unit-length embeddings, scale {training['scale']:.4g}"
    return f"C = {training['C']:.3g} on {training['scaling']} embeddings {chosen}"


def show_trained(result: Any) -> None:
    """What ``train_head`` did."""
    training = result.training
    several = "labels" if "label_separator" in training else "classes"
    count = f"{training['count']:,} images of {len(result.classes)} {several}"
    tried = len(training["trials"])
    chosen = (
        f"was chosen of {tried} settings by log loss ({training['chosen_on']})"
        if tried
        else "suits most embeddings"
    )
    say(f"Trained on {count}; {_settings(training, chosen)}.")
    for notice in result.notices:
        say(notice)
    if result.metrics is None:
        said = "No image is left to judge the classifier on: how good it is, nobody knows."
        say(said, level="warning")
    else:
        show_metrics(result.metrics, result.classes, training["judged_on"])
    beside = f"{str(result.metrics_path)!r} and {str(result.head_path)!r}"
    metrics = {} if result.metrics is None else result.metrics.to_dict()
    judged = {name: value for name, value in metrics.items() if isinstance(value, (int, float))}
    say(
        f"Wrote {str(result.path)!r}, whose probabilities agree with the trained head's to"
        f" {max(result.parity, _FINEST):.1g}, {beside}.",
        "result",
        **facts_of(result),
        metrics=judged,
    )
