"""Options by which a command takes a backbone, and how they become one."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click

from tlpipe.cli.kinds import Backbone, Preset
from tlpipe.cli.options import F
from tlpipe.cli.usage import Choice
from tlpipe.quantities import parsed_image_size
from tlpipe.types import DEFAULT_BACKBONE, POOLING_CHOICES

if TYPE_CHECKING:
    from tlpipe.card import Card
    from tlpipe.workflows.network import BackboneOptions

backbone_option = click.option(
    "--backbone",
    type=Backbone(),
    metavar="NAME|FILE",
    default=DEFAULT_BACKBONE,
    show_default=True,
    help="A backbone of 'tlpipe models list', or the path of a network (.onnx) or card (.toml).",
)


class _ImageSize(click.ParamType[tuple[int, int]]):
    """Height and width in pixels, or one number for both."""

    name = "PIXELS|HxW"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Read "224" as (224, 224) and "192x256" as (192, 256)."""
        try:
            return parsed_image_size(str(value))
        except ValueError as exc:
            return self.fail(str(exc), param, ctx)


def network_options(command: F) -> F:
    """Options of every command that takes a network which has no card."""
    for option in (
        click.option(
            "--image-size",
            type=_ImageSize(),
            help="Height and width of the images, where the network leaves them open.",
        ),
        click.option(
            "--input",
            metavar="NAME",
            help="The input that takes images, where the network has several.",
        ),
        click.option(
            "--pooling",
            type=Choice(POOLING_CHOICES),
            help="How the layer becomes one vector, where it holds several (tokens, positions):"
            " their mean, the first (cls), or all, one behind the other (flatten).",
        ),
        click.option(
            "--layer",
            metavar="NAME",
            help="The network's tensor (or node) that is the embedding."
            "  [default: what feeds its last layer]",
        ),
        click.option(
            "--preprocess",
            type=Preset(),
            metavar="PRESET|FILE",
            help="How images were prepared when the network was trained: imagenet, inception,"
            " caffe, unit, raw, or a file to take it from: a card (.toml) or a"
            " preprocessor_config.json.  [default: as its card or file says]",
        ),
    ):
        command = option(command)
    return command


def as_backbone_options(more: dict[str, Any]) -> BackboneOptions:
    """Take the values of ``network_options`` out of a command's keyword arguments."""
    from tlpipe.workflows.network import BackboneOptions

    names = [field.name for field in fields(BackboneOptions)]
    return BackboneOptions(**{name: more.pop(name) for name in names})


def found_backbone(backbone: str, more: dict[str, Any]) -> Card:
    """Card of the backbone that a command's arguments name."""
    from tlpipe import find_backbone

    return find_backbone(backbone, as_backbone_options(more))
