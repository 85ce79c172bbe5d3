"""``tlpipe compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tlpipe.cli.kinds import FEATURES, JSON
from tlpipe.cli.options import overwrite_option, seed_option
from tlpipe.cli.progress import progress
from tlpipe.cli.show import say, show_line, show_table
from tlpipe.cli.usage import Choice
from tlpipe.quantities import counted

if TYPE_CHECKING:
    from tlpipe.stages.metrics import Difference
    from tlpipe.workflows.comparison import Compared, CompareResult
    from tlpipe.workflows.cross_judging import JudgeOn


@click.command("compare")
@click.argument("features", type=FEATURES, nargs=-1, required=True)
@click.option("-o", "--output", type=JSON, help="A JSON file to write.")
@click.option(
    "--judge-on",
    type=Choice(("training", "test")),
    default="training",
    show_default=True,
    help="training: all images but those of the test split, in cross-validation. test: those of the"
    " test split, which then no longer tells how good the chosen one is.",
)
@click.option("--no-speed", is_flag=True, help="Do not run the networks to measure their time.")
@seed_option("Another seed judges in other folds.")
@overwrite_option
def compare_command(
    features: tuple[Path, ...],
    output: Path | None,
    judge_on: JudgeOn,
    no_speed: bool,
    seed: int,
    overwrite: bool,
) -> None:
    """Say which of several backbones to use, with the cost of each.

    FEATURES are two or more feature files of the same images, made with other backbones or
    precisions. A head is trained and judged on each in the same way, on the images that all of them
    have, and the differences to the most accurate one are taken image by image.

    \b
    Example:
      tlpipe compare lite0.h5 int8.h5
    """
    from tlpipe import compare

    with progress() as report:
        result = compare(
            features,
            output,
            judge_on=judge_on,
            speed=not no_speed,
            seed=seed,
            overwrite=overwrite,
            progress=report,
        )
    for notice in result.notices:
        say(notice)
    _show(result)
    if output is not None:
        say(f"Wrote {str(output)!r}.", "result", path=output)


def _show(result: CompareResult) -> None:
    """Three tables, the most accurate first, and the recommendation."""
    show_line(
        f"Judged on {result.judged_on}: {counted(result.judged, 'image')} of"
        f" {result.common:,} in common, {len(result.classes):,} classes"
    )
    order = sorted(result.files, key=lambda file: (-file.metrics.accuracy, file.metrics.log_loss))
    header = ["file", "accuracy", "95 % interval", "macro-F1", "log loss", "95 % interval"]
    show_table(header, [_quality(file) for file in order])
    best = result.files[result.best]
    show_line(f"Less {_short(best)}, on the same images (all intervals hold at once with 95 %)")
    header = ["file", "points of accuracy", "log loss", "told apart by"]
    show_table(header, [_differences(file) for file in order if file is not best])
    devices = {file.cost.device for file in order} - {None}
    show_line(f"What each costs, ms of {'one core' if devices <= {'cpu'} else 'the device'}")
    header = ["file", "backbone", "dim", "MB", "ms/image", "B/image", "head s"]
    show_table(header, [_costs(file) for file in order])
    show_line(result.recommendation)


def _short(file: Compared) -> str:
    return file.name.removesuffix(".h5")


def _quality(file: Compared) -> list[str]:
    its = file.metrics
    return [
        *(_short(file), f"{its.accuracy:.4f}", _interval(*its.intervals["accuracy"])),
        *(f"{its.macro_f1:.4f}", f"{its.log_loss:.4f}", _interval(*its.intervals["log_loss"])),
    ]


def _interval(low: float, high: float) -> str:
    return f"{low:.4f} to {high:.4f}"


def _differences(file: Compared) -> list[str]:
    assert file.accuracy is not None
    assert file.log_loss is not None
    told = {"accuracy": file.accuracy, "log loss": file.log_loss}
    by = [name for name, difference in told.items() if difference.distinguishable]
    return [
        _short(file),
        _signed(file.accuracy, 100, 2),
        _signed(file.log_loss, 1, 4),
        ", ".join(by) or "nothing",
    ]


def _signed(difference: Difference, factor: int, digits: int) -> str:
    value, low, high = (
        f"{factor * x:+.{digits}f}" for x in (difference.value, difference.low, difference.high)
    )
    return f"{value} ({low} to {high})"


def _costs(file: Compared) -> list[str]:
    cost = file.cost
    precision = file.precision.split("/")[0]
    return [
        _short(file),
        file.backbone if precision == "fp32" else f"{file.backbone}, {precision}",
        f"{cost.dim:,}",
        "" if cost.network_bytes is None else f"{cost.network_bytes / 1e6:.1f}",
        "" if cost.inference_s is None else f"{1e3 * cost.inference_s:.2f}",
        *(f"{cost.stored_bytes:,.0f}", f"{cost.head_s:.2f}"),
    ]
