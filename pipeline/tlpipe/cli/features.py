"""``tlpipe export``, ``tlpipe import`` and ``tlpipe merge``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tlpipe.cli.kinds import FEATURES, TABLE, Backbone
from tlpipe.cli.log import facts_of
from tlpipe.cli.network_options import as_backbone_options, found_backbone, network_options
from tlpipe.cli.options import (
    output_option,
    overwrite_option,
    set_above_option,
)
from tlpipe.cli.show import say
from tlpipe.errors import OptionError
from tlpipe.quantities import counted


@click.command("export")
@click.argument("features", type=FEATURES)
@output_option("The table to write: .parquet, .npz or .csv.", TABLE)
@overwrite_option
def export_command(features: Path, output: Path, overwrite: bool) -> None:
    """Write embeddings as a table, with their keys, labels and splits.

    FEATURES is a feature file. Parquet and NPZ carry all of it, so that 'tlpipe import' gives it
    back; CSV carries the rows, and not which backbone made them.

    \b
    Example:
      tlpipe export features.h5 -o features.parquet
    """
    from tlpipe import export_features

    result = export_features(features, output, overwrite=overwrite)
    say(
        f"Wrote {str(result.path)!r}: {counted(result.count, 'embedding')} of {result.dim:,}"
        " numbers.",
        "result",
        **facts_of(result),
    )
    if not result.carries:
        say("CSV does not carry which backbone made them: state it when you import the table.")
    if result.rejects_left_out:
        left_out = counted(result.rejects_left_out, "rejected image")
        say(f"The table does not list the {left_out} of the feature file.")


@click.command("import")
@click.argument("table", type=TABLE)
@output_option("The feature file (.h5) to write.", FEATURES)
@click.option(
    "--backbone",
    type=Backbone(),
    metavar="NAME|FILE",
    help="The vectors are those that tlpipe gets with this backbone: one of 'tlpipe models list',"
    " or a network (.onnx) or card (.toml).",
)
@click.option(
    "--declare",
    metavar="TEXT",
    help="The vectors were made elsewhere, by what TEXT names. The same text means comparable"
    " vectors.",
)
@network_options
@overwrite_option
@set_above_option
def import_command(
    table: Path,
    output: Path,
    backbone: str | None,
    declare: str | None,
    overwrite: bool,
    set_above: int | None,
    **more: Any,
) -> None:
    """Make a feature file of vectors, keys and labels made elsewhere.

    TABLE is a .parquet, .npz or .csv file with a column of keys ('key' or 'path') and one of
    vectors ('embedding' or 'vectors'; in CSV e0, e1 ...), and optionally 'label', 'split', 'group'
    and 'content_sha256'. State what made the vectors: --backbone or --declare. A table of 'tlpipe
    export' (.parquet or .npz) says it itself.

    \b
    Example:
      tlpipe import vectors.npz -o features.h5 --declare "CLIP ViT-B/32, fp16"
    """
    from tlpipe import import_features

    result = import_features(
        table,
        output,
        backbone=_stated(backbone, more),
        declare=declare,
        overwrite=overwrite,
        set_above=set_above,
    )
    say(
        f"Wrote {str(result.path)!r}: {counted(result.count, 'embedding')} of {result.dim:,}"
        f" numbers, {len(result.classes):,} classes, made by {result.backbone!r} (fingerprint"
        f" {result.fingerprint[:12]}...).",
        "result",
        **facts_of(result),
    )
    if not result.contents_known:
        say("The table has no content_sha256: equal vectors count as equal images.")


def _stated(backbone: str | None, more: dict[str, Any]) -> Any:
    """Card of the backbone, if one was named."""
    if backbone is not None:
        return found_backbone(backbone, more)
    given = [f"--{name.replace('_', '-')}" for name, value in more.items() if value is not None]
    as_backbone_options(more)
    if given:
        raise OptionError(
            f"{' and '.join(given)} say something of a --backbone; none was named.",
            hint="Add --backbone NAME|FILE, or leave them out.",
        )
    return None


@click.command("merge")
@click.argument("features", type=FEATURES, nargs=-1, required=True)
@output_option("The feature file (.h5) to write.", FEATURES)
@overwrite_option
@set_above_option
def merge_command(
    features: tuple[Path, ...], output: Path, overwrite: bool, set_above: int | None
) -> None:
    """Join feature files whose embeddings were made in the same way.

    FEATURES are two or more feature files of one fingerprint. Rows keep their order. An image that
    stands in several with the same content and label is kept once.

    \b
    Example:
      tlpipe merge monday.h5 tuesday.h5 -o both.h5
    """
    from tlpipe import merge

    result = merge(features, output, overwrite=overwrite, set_above=set_above)
    say(
        f"Wrote {str(result.path)!r}: {counted(result.count, 'embedding')} of {result.dim:,}"
        f" numbers, {len(result.classes):,} classes, {result.rejects:,} rejected.",
        "result",
        **facts_of(result),
    )
    if result.repeated:
        say(f"Left out as an earlier file has it: {counted(result.repeated, 'row')}.")
    if result.other_splits:
        say(
            f"{result.other_splits:,} of them had another split or group than there: the earlier"
            " file's are kept."
        )
