"""``tlpipe models``: the backbones, the catalogue's and any others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from tlpipe.cli.kinds import CLASSIFIER, PATH, SOURCE, Backbone
from tlpipe.cli.log import facts_of
from tlpipe.cli.network_options import as_backbone_options, backbone_option, network_options
from tlpipe.cli.options import (
    TOO_MANY_REJECTS,
    as_run_options,
    opened_source,
    output_option,
    overwrite_option,
    run_options,
    source_argument,
)
from tlpipe.cli.progress import progress
from tlpipe.cli.sections import Sectioned
from tlpipe.cli.show import say, show_table
from tlpipe.cli.show_network import network_report, show_check, show_network
from tlpipe.quantities import counted


@click.group("models")
def models_group() -> None:
    """The backbones: list and get them, look into them, add your own.

    \b
    Any ONNX image classifier is a backbone:
      tlpipe models inspect mynet.onnx
      tlpipe models check mynet.onnx photos/
      tlpipe models add mynet.onnx --preprocess imagenet
      tlpipe embed photos/ -o features.h5 --backbone mynet
    """


@models_group.command("list")
def list_command() -> None:
    """List the backbones of the catalogue and your own.

    \b
    Example:
      tlpipe models list
    """
    from tlpipe import all_cards
    from tlpipe.stages.weights import where

    rows = [
        [
            card.name,
            f"{card.input.height}x{card.input.width}",
            str(card.output.dim),
            f"{card.weights.size_bytes / 1e6:,.0f}",
            card.licence,
            where(card),
        ]
        for card in all_cards().values()
    ]
    show_table(["backbone", "pixels", "dim", "MB", "licence", "weights"], rows)


@models_group.command("show")
@click.argument("backbone", type=Backbone(files=False))
def show_command(backbone: str) -> None:
    """Print a backbone's card as JSON.

    \b
    Example:
      tlpipe models show efficientnet-lite0
    """
    from tlpipe import find_card

    click.echo(json.dumps(find_card(backbone).to_dict(), indent=2, ensure_ascii=False))


@models_group.command("presets")
def presets_command() -> None:
    """List what --preprocess takes.

    \b
    Example:
      tlpipe models presets
    """
    from tlpipe.presets import PRESETS

    for name, (_, text) in PRESETS.items():
        click.echo(f"{name:10} {text}")


@models_group.command("inspect")
@click.argument("file", type=CLASSIFIER)
@network_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect_network_command(file: Path, as_json: bool, **more: Any) -> None:
    """Show what an ONNX network is, where it would be cut, and why.

    Finds the last layer and what feeds it, lists the layers before which it could be cut instead,
    and proves on the spot that it takes any number of images at once.

    \b
    Example:
      tlpipe models inspect mynet.onnx
    """
    from tlpipe.workflows.network import look_into

    network = look_into(file, as_backbone_options(more))
    if as_json:
        click.echo(json.dumps(network_report(network), ensure_ascii=False, indent=2))
    else:
        show_network(network)


@models_group.command("check", cls=Sectioned)
@click.argument("backbone", type=Backbone(), metavar="BACKBONE|FILE")
@source_argument
@network_options
@run_options
@click.option(
    "--most",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Number of images to run at most, spread evenly over the source.",
)
@click.pass_context
def check_command(
    ctx: click.Context, /, backbone: str, source: str, most: int, **more: Any
) -> None:
    """Run a backbone with its own classes, so that a wrong preprocessing is seen.

    Where the labels of SOURCE are classes of the network (their names, WordNet identifiers or
    numbers) its accuracy is measured with the stated preprocessing and with every other preset;
    else the five likeliest classes of a few images are printed.

    \b
    Example:
      tlpipe models check efficientnet-lite0 photos/
    """
    from tlpipe import check_backbone

    backbone_options = as_backbone_options(more)
    opened = opened_source(source, more)
    with progress() as report:
        result = check_backbone(
            backbone,
            opened,
            backbone_options=backbone_options,
            options=as_run_options(**more),
            most=most,
            progress=report,
        )
    show_check(result)
    if result.too_many_rejects:
        ctx.exit(TOO_MANY_REJECTS)


@models_group.command("pull")
@click.argument("backbone", type=Backbone(files=False))
@click.option(
    "--from",
    "source",
    type=SOURCE,
    metavar="PATH|URL",
    help="A mirror, or the file fetched by other means; it must be the very same.",
)
def pull_command(backbone: str, source: str | None) -> None:
    """Download a backbone's weights, verified, and prepare the network.

    An interrupted download is resumed by the next. The file gets its name only when its size and
    SHA-256 are those of the card.

    \b
    Example:
      tlpipe models pull resnet50-v2
    """
    from tlpipe import pull_backbone

    with progress() as report:
        path = pull_backbone(backbone, source=source, progress=report)
    say(f"{str(path)!r} is the published file.", "result", path=path)


@models_group.command("add")
@click.argument("network", type=SOURCE, metavar="FILE|URL")
@click.option("--name", help="Its name.  [default: the file's]")
@network_options
@overwrite_option
def add_command(network: str, name: str | None, overwrite: bool, **more: Any) -> None:
    """Make a card for an ONNX network, so that it can be used by name.

    The checksum that the file has now is recorded, and asked for from then on. A local file stays
    where it is.

    \b
    Example:
      tlpipe models add mynet.onnx --preprocess imagenet
    """
    from tlpipe import add_backbone

    options = as_backbone_options(more)
    with progress() as report:
        added = add_backbone(
            network, name=name, options=options, overwrite=overwrite, progress=report
        )
    card = added.card
    say(
        f"Added {card.name!r}: embeddings of {card.output.dim:,} numbers from"
        f" {' + '.join(map(repr, card.output.tensors))}. Its card: {str(added.path)!r}.",
        "result",
        name=card.name,
        path=added.path,
    )


@models_group.command("remove")
@click.argument("backbone", type=Backbone(files=False))
def remove_command(backbone: str) -> None:
    """Remove your own card of that name, and what was downloaded and prepared.

    Cards that come with tlpipe stay, and so does a network file that your card refers to.

    \b
    Example:
      tlpipe models remove mynet
    """
    from tlpipe import remove_backbone

    removed = remove_backbone(backbone)
    say(
        f"Removed {counted(len(removed.files), 'file')} of {removed.name!r}:"
        f" {removed.size_bytes / 1e6:,.1f} MB.",
        "result",
        **facts_of(removed),
    )


@models_group.command("export")
@backbone_option
@output_option("The ONNX file to write.", CLASSIFIER)
@click.option(
    "--classes",
    type=PATH,
    help="Names of the network's own classes, one per line.  [default: their numbers from 0]",
)
@network_options
@overwrite_option
def export_command(
    backbone: str, output: Path, classes: Path | None, overwrite: bool, **more: Any
) -> None:
    """Write a backbone with its own last layer, as a classifier.

    'tlpipe classify' and 'tlpipe evaluate' run it like any other classifier, so that the backbone
    and its preprocessing can be checked against the classes it was trained on.

    \b
    Example:
      tlpipe models export -o imagenet.onnx
      tlpipe classify imagenet.onnx photos/ -o imagenet.csv --top-k 5
    """
    from tlpipe import export_backbone, find_backbone
    from tlpipe.errors import OptionError

    names = None
    if classes is not None:
        try:
            names = classes.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as exc:
            raise OptionError(
                f"The file {str(classes)!r} cannot be read: {exc}.",
                hint="Give one class name per line, as UTF-8 text.",
            ) from exc
    card = find_backbone(backbone, as_backbone_options(more))
    written = export_backbone(output, backbone=card, classes=names, overwrite=overwrite)
    said = f"Wrote {str(output)!r}: {len(written):,} classes."
    say(said, "result", path=output, classes=len(written))
