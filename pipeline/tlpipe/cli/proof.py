"""``tlpipe verify`` and ``tlpipe repair``."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path

import click

from tlpipe.cli.kinds import FEATURES, File
from tlpipe.cli.show import say, shown
from tlpipe.quantities import counted
from tlpipe.types import FEATURE_SUFFIXES

_SHOWN = 20


@click.command("verify")
@click.argument("file", type=File(".onnx", *FEATURE_SUFFIXES))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def verify_command(ctx: click.Context, file: Path, as_json: bool) -> None:
    """Prove a classifier's backbone frozen, or a feature file whole.

    Of a classifier every tensor is compared with the pretrained file, bit by bit. Of a feature file
    every chunk is read and compared with its checksum, and all that is wrong is named. The exit
    code is 1 if anything is.

    \b
    Example:
      tlpipe verify classifier.onnx
      tlpipe verify features.h5
    """
    from tlpipe.workflows.inspect import is_hdf5

    good = _verify_features(file, as_json) if is_hdf5(file) else _verify_classifier(file, as_json)
    if not good:
        ctx.exit(1)


def _verify_features(file: Path, as_json: bool) -> bool:
    from tlpipe import verify_features

    report = verify_features(file)
    if as_json:
        facts = {"kind": "feature file", "whole": report.whole, **asdict(report)}
        click.echo(json.dumps(facts, ensure_ascii=False, indent=2))
        return report.whole
    several = f", a set of {report.files:,} files" if report.files > 1 else ""
    click.echo(f"{file}: feature file, format {report.version}{several}")
    click.echo(
        f"  read {counted(report.chunks, 'chunk')} of {counted(report.datasets, 'dataset')}:"
        f" {counted(report.rows, 'row')}, {counted(report.rejects, 'reject')}"
    )
    if not report.has_checksums:
        click.echo(
            "  format 1 has no checksums: whether bits of the vectors were flipped cannot be told"
        )
    for finding in report.findings[:_SHOWN]:
        click.echo(shown(f"  {finding}"))
    if report.found > _SHOWN:
        click.echo(f"  and {report.found - _SHOWN:,} more (--json shows them)")
    if report.whole:
        click.echo("Whole: all of it is as it was stored." if report.has_checksums else "Whole.")
        return True
    said = f"DAMAGED: {counted(report.found, 'finding')}. 'tlpipe repair' keeps what is good."
    say(said, "result", level="error", findings=report.found)
    return False


def _verify_classifier(file: Path, as_json: bool) -> bool:
    from tlpipe import verify

    result = verify(file)
    if as_json:
        facts = {"kind": "classifier", "frozen": result.frozen, **asdict(result)}
        click.echo(json.dumps(facts, ensure_ascii=False, indent=2))
        return result.frozen
    click.echo(f"{file}: backbone {result.backbone}")
    theirs = "the pretrained file's"
    if result.quantised:
        theirs = f"those of {theirs} weights, quantised again with the ranges it states"
    click.echo(f"  {len(result.identical)} tensors are bit-identical to {theirs}")
    for what, names in (("differ", result.changed), ("are not in it", result.foreign)):
        if names:
            click.echo(shown(f"  {len(names)} tensors {what}: {', '.join(names[:10])}"))
    click.echo(f"  left out as not needed: {', '.join(result.dropped) or 'none'}")
    click.echo(f"  operators and preprocessing: {_same(result.same_graph)}")
    click.echo(f"  digest {result.digest}: {_same(result.same_digest)} as recorded")
    if not result.catalogued:
        click.echo(
            "  the card is not of tlpipe's catalogue: the pretrained file is the one that the"
            f" classifier itself names, {result.file}"
        )
    if not result.frozen:
        say("NOT FROZEN: this backbone is not the pretrained one.", "result", level="error")
        return False
    click.echo("Frozen: the backbone is the pretrained one.")
    return True


def _same(same: bool) -> str:
    return "the same" if same else "NOT the same"


@click.command("repair")
@click.argument("file", type=FEATURES)
@click.option(
    "-o",
    "--output",
    required=True,
    type=FEATURES,
    help="Feature file to write (.h5); FILE is kept.",
)
@click.option("--overwrite", is_flag=True, help="Replace an output that exists.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def repair_command(file: Path, output: Path, overwrite: bool, as_json: bool) -> None:
    """Save every good row of a damaged feature file.

    It says what must be embedded again, and by which command.

    \b
    Example:
      tlpipe repair features.h5 -o mended.h5
    """
    from tlpipe import repair

    result = repair(file, output, overwrite=overwrite)
    again = shlex.join(["tlpipe", "embed", result.source or "SOURCE", "-o", str(output)])
    if as_json:
        facts = {"path": str(output), **asdict(result), "embed_again": again}
        click.echo(json.dumps(facts, ensure_ascii=False, indent=2))
        return
    click.echo(f"Wrote {str(output)!r}: kept {counted(result.kept, 'row')}, lost {result.lost:,}.")
    for note in result.notes:
        click.echo(shown(note))
    for why, count in result.reasons.items():
        click.echo(shown(f"  lost {count:,}: {why}"))
    for what, count in (
        ("label", result.without_label),
        ("split", result.without_split),
        ("group", result.without_group),
    ):
        if count:
            click.echo(f"  {counted(count, 'row')} kept without {what}, which was damaged")
    if result.rejects_lost:
        click.echo(f"  {counted(result.rejects_lost, 'reject')} lost")
    for key in result.lost_keys[:_SHOWN]:
        click.echo(shown(f"  {key}"))
    if len(result.lost_keys) > _SHOWN:
        click.echo(f"  and {len(result.lost_keys) - _SHOWN:,} more (--json shows them)")
    if result.lost or result.without_label or result.without_split or result.rejects_lost:
        click.echo(f"Embed what is missing: {shown(again)}")
