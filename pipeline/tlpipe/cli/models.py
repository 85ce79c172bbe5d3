"""``tlpipe models``: the catalogue of backbones."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tlpipe.cli.options import PATH, backbone_option, output_option, overwrite_option
from tlpipe.cli.show import say, show_table


@click.group("models")
def models_group() -> None:
    """List the backbones, show their cards, export them whole."""


@models_group.command("list")
def list_command() -> None:
    """List the backbones of the catalogue.

    \b
    Example:
      tlpipe models list
    """
    from tlpipe import all_cards

    rows = [
        [
            card.name,
            f"{card.input.height}x{card.input.width}",
            str(card.output.dim),
            f"{card.weights.size_bytes / 1e6:,.0f}",
            card.licence,
        ]
        for card in all_cards().values()
    ]
    show_table(["backbone", "pixels", "dim", "MB", "licence"], rows)


@models_group.command("show")
@click.argument("backbone")
def show_command(backbone: str) -> None:
    """Print a backbone's card as JSON.

    \b
    Example:
      tlpipe models show efficientnet-lite0
    """
    from tlpipe import find_card

    click.echo(json.dumps(json.loads(find_card(backbone).to_json()), indent=2))


@models_group.command("export")
@backbone_option
@output_option("The ONNX file to write.")
@click.option(
    "--classes",
    type=PATH,
    help="Names of the network's own classes, one per line.  [default: their numbers from 0]",
)
@overwrite_option
def export_command(backbone: str, output: Path, classes: Path | None, overwrite: bool) -> None:
    """Write a backbone with its own last layer, as a classifier.

    'tlpipe classify' and 'tlpipe evaluate' run it like any other classifier, so that the backbone
    and its preprocessing can be checked against the classes it was trained on.

    \b
    Example:
      tlpipe models export -o imagenet.onnx
      tlpipe classify imagenet.onnx photos/ -o imagenet.csv --top-k 5
    """
    from tlpipe import export_backbone
    from tlpipe.errors import OptionError

    names = None
    if classes is not None:
        try:
            names = classes.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as exc:
            raise OptionError(f"The file {str(classes)!r} cannot be read: {exc}.") from exc
    written = export_backbone(output, backbone=backbone, classes=names, overwrite=overwrite)
    say(f"Wrote {str(output)!r}: {len(written):,} classes.")
