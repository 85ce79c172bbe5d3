"""``tlpipe embed``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from tlpipe.cli.kinds import FEATURES
from tlpipe.cli.log import facts_of
from tlpipe.cli.network_options import backbone_option, found_backbone, network_options
from tlpipe.cli.options import (
    TOO_MANY_REJECTS,
    as_run_options,
    embedding_options,
    engine_options,
    opened_source,
    output_option,
    run_options,
    source_argument,
    update_options,
)
from tlpipe.cli.progress import progress
from tlpipe.cli.sections import Sectioned
from tlpipe.cli.show import say, show_rejects, show_survey
from tlpipe.quantities import counted


@click.command("embed", cls=Sectioned)
@source_argument
@output_option("The feature file (.h5) to write.", FEATURES)
@backbone_option
@network_options
@run_options
@engine_options
@embedding_options
@update_options
@click.pass_context
def embed_command(
    ctx: click.Context,
    /,
    source: str,
    output: Path,
    backbone: str,
    overwrite: bool,
    rehash: bool,
    max_gone: float | None,
    set_above: int | None,
    **more: Any,
) -> None:
    """Run the frozen backbone once over images, and store the embeddings.

    SOURCE is a folder with one folder per class, the same under train/, validation/ (or val/) and
    test/, a flat folder, one image, a manifest (.csv, .tsv, .jsonl, .parquet) with a column 'path'
    and optionally 'label' and 'split', Parquet tables that hold the images, a tar or zip archive of
    such a folder or with label files beside the images (WebDataset), 'shards/{000..099}.tar', IDX
    files (MNIST), a NumPy file of images, an address (https://, s3://, gs://, az://), or - for a
    list on standard input: see docs/reference/sources.md. Links and paths may lead outside it only
    where --allow-outside says so.

    Where the output exists it is updated: images that are new or changed are embedded, those gone
    are dropped, labels and splits follow the source. A run that was cut short is continued.

    \b
    Example:
      tlpipe embed photos/ -o features.h5
    """
    from tlpipe import UpdateOptions, embed

    card = found_backbone(backbone, more)
    opened = opened_source(source, more)
    with progress() as report:
        result = embed(
            opened,
            output,
            backbone=card,
            options=as_run_options(**more),
            overwrite=overwrite,
            update=UpdateOptions(rehash, max_gone, set_above),
            progress=report,
            surveyed=show_survey,
        )
    show_embedded(result)
    if result.too_many_rejects:
        ctx.exit(TOO_MANY_REJECTS)


def show_embedded(result: Any) -> None:
    """What ``embed`` did."""
    if result.unchanged:
        say(
            f"{str(result.path)!r} is up to date: {result.count:,} embeddings, and no image is new,"
            " changed or gone.",
            "result",
            **facts_of(result),
        )
    else:
        _show_written(result)
    show_agreement(result)
    command = shlex.join(["tlpipe", "inspect", str(result.path), "--rejects"])
    show_rejects(result.rejects, f"List them: {command}")
    if result.lost_classes:
        lost = ", ".join(result.lost_classes)
        say(f"No image of these classes could be read: {lost}.", level="warning")
    if result.shared:
        command = shlex.join(["tlpipe", "split", str(result.path), "--check"])
        say(
            f"Identical images stand in more than one split: {result.shared:,}. Figures on held-out"
            f" images will flatter. See them: {command}",
            level="warning",
        )
    if result.too_many_rejects:
        say("These are more rejects than --max-rejects allows.", level="error")


def show_agreement(result: Any) -> None:
    """How embeddings at a reduced precision agree with those at FP32."""
    found = result.agreement
    if found is None:
        return
    which = counted(found.images, "image") + " of the source"
    if not found.held_back:
        which += ", the ones that calibrated it"
    say(
        f"At {result.precision} the embeddings agree with those at fp32 to a mean cosine of"
        f" {found.mean:.4f} (1st percentile {found.p1:.4f}; on {which})."
    )


def _show_written(result: Any) -> None:
    rate = result.embedded / result.elapsed_s
    how = ["none embedded"]
    if result.embedded:
        how = [f"{result.embedded:,} embedded at {rate:,.0f} images/s on {result.provider}"]
    if result.kept:
        how.append(f"{result.kept:,} taken over as they were")
    if result.copied:
        how.append(f"{result.copied:,} copied from images of the same content")
    if result.gone:
        how.append(f"{result.gone:,} dropped that are gone")
    say(
        f"Wrote {str(result.path)!r}: {result.count:,} embeddings of {result.dim:,} numbers:"
        f" {', '.join(how)}.",
        "result",
        **facts_of(result),
    )
