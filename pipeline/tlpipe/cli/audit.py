"""``tlpipe audit``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tlpipe.cli.kinds import FEATURES, JSON
from tlpipe.cli.options import near_option, overwrite_option, seed_option
from tlpipe.cli.progress import progress
from tlpipe.cli.show import say, show_table, shown
from tlpipe.quantities import counted

_DEFAULT_MOST = 10
_EXAMPLES = 3  # of each class; a table of ten of each is read by nobody
_WIDEST = 33  # characters of an image in a pair, so that two of them fit into 80 columns
_BESIDE_MUCH = 23  # of a key in a table of many columns
_LABEL = 12  # of a label beside an image
_LABEL_BESIDE_SPLIT = 8


@click.command("audit")
@click.argument("features", type=FEATURES)
@click.option("-o", "--output", type=JSON, help="Write all that was found as JSON (.json), too.")
@near_option
@click.option(
    "--most",
    type=click.IntRange(min=1),
    default=_DEFAULT_MOST,
    show_default=True,
    help="Lines of each table.",
)
@seed_option("Another seed makes other folds to check labels with.")
@overwrite_option
def audit_command(
    features: Path,
    output: Path | None,
    near: float | None,
    most: int,
    seed: int,
    overwrite: bool,
) -> None:
    """Find label errors, duplicates, leaks between splits, and outliers.

    FEATURES is what 'tlpipe embed' wrote; it is not changed, and no image is read again. A label is
    suspect where heads that the image did not train say otherwise (confident learning).

    \b
    Example:
      tlpipe audit features.h5 -o audit.json
    """
    from tlpipe import audit

    options: dict[str, Any] = {} if near is None else {"near": near}
    with progress() as report:
        result = audit(features, output, seed=seed, overwrite=overwrite, progress=report, **options)
    show_audit(result, most)
    if result.path is not None:
        say(f"Wrote {str(result.path)!r}.", "result", path=result.path)


def show_audit(result: Any, most: int) -> None:
    """All that was found, section by section."""
    unlabelled = result.count - result.labelled
    without = f", {unlabelled:,} of them without a label" if unlabelled else ""
    click.echo(f"{shown(str(result.features))}: {counted(result.count, 'image')}{without}")
    _show_label_errors(result.labels, most)
    _show_duplicates(result, most)
    _show_leaks(result.leaks, most)
    _show_outliers(result.outliers, most)
    _show_classes(result, most)
    for notice in result.notices:
        say(notice)


def _section(title: str, header: Sequence[str] = (), rows: Sequence[Sequence[str]] = ()) -> None:
    click.echo(f"\n{title}")
    if rows:
        show_table(header, rows)


def _brief(key: str, widest: int = _WIDEST) -> str:
    """A key's end, where it is long: folders say less than names."""
    return key if len(key) <= widest else "..." + key[-(widest - 3) :]


def _cut(label: str, widest: int = _LABEL) -> str:
    """A label's beginning, where it is long."""
    return label if len(label) <= widest else label[: widest - 3] + "..."


def _named(images: Sequence[Any]) -> list[str]:
    """Keys of two images; with their labels and splits, where these differ."""
    labels, splits = ({getattr(i, name) for i in images} for name in ("label", "split"))
    widest = _LABEL if len(splits) == 1 else _LABEL_BESIDE_SPLIT
    found = []
    for image in images:
        said = (
            f" ({_cut(image.label, widest)})" if len(labels) > 1 and image.label is not None else ""
        )
        said += f" [{image.split}]" if len(splits) > 1 and image.split is not None else ""
        found.append(_brief(image.key, _WIDEST - len(said)) + said)
    return found


def _show_label_errors(labels: Any, most: int) -> None:
    if labels is None:
        _section("Label errors: not looked for")
        return
    count = len(labels.errors)
    rows = [
        [
            _brief(e.image.key, _BESIDE_MUCH),
            _cut(e.image.label),
            _cut(e.suggested),
            f"{e.self_confidence:.3f}",
            f"{e.suggested_probability:.3f}",
        ]
        for e in labels.errors[:most]
    ]
    _section(
        f"Label errors: {counted(count, 'label')} of {labels.checked:,} probably wrong",
        ["image", "label", "rather", "p label", "p rather"],
        rows,
    )


def _show_duplicates(result: Any, most: int) -> None:
    clusters = result.exact_duplicates
    odd = sum(len({image.label for image in cluster}) > 1 for cluster in clusters)
    other = f"; {odd:,} with different labels" if odd else ""
    _section(
        f"Exact duplicates: {counted(len(clusters), 'content')} in several images{other}",
        ["copies", "image", "image"],
        [[str(len(c)), *_named(c[:2])] for c in clusters[:most]],
    )
    near = result.near
    joined = sum(map(len, near.clusters))
    _section(
        f"Near-duplicates: {counted(near.count, 'pair')} with a cosine of {near.threshold:g} or"
        f" more; {joined:,} images in {counted(len(near.clusters), 'cluster')}",
        *_pairs(near.pairs[:most]),
    )


def _pairs(pairs: Sequence[Any]) -> tuple[list[str], list[list[str]]]:
    """A table of pairs."""
    rows = [[f"{pair.cosine:.4f}", *_named([pair.first, pair.second])] for pair in pairs]
    return ["cosine", "image", "image"], rows


def _show_leaks(leaks: Any, most: int) -> None:
    _section(
        f"Leaks between splits: {counted(leaks.exact, 'content')} and"
        f" {counted(leaks.near, 'near pair')} on two sides",
        *_pairs([*leaks.exact_pairs, *leaks.near_pairs][:most]),
    )


def _show_outliers(outliers: Any, most: int) -> None:
    _section(
        f"Outliers: {counted(outliers.count, 'image')} beyond {outliers.limit:.2f} times the"
        " median distance",
        ["image", "label", "distance"],
        [
            [_brief(o.image.key), _cut(o.image.label or ""), f"{o.distance:.2f}"]
            for o in outliers.ranked[:most]
        ],
    )


def _show_classes(result: Any, most: int) -> None:
    rows = [
        [_cut(c.name) if not place else "", _brief(example.key), f"{example.score:.2f}"]
        for c in result.classes[:most]
        for place, example in enumerate(c.typical[:_EXAMPLES])
    ]
    _section(
        "Typical images, nearest to the mean of their class", ["class", "image", "distance"], rows
    )
    hard = [
        [
            _cut(c.name),
            what,
            _brief(example.key, _BESIDE_MUCH),
            _cut(example.guess or ""),
            f"{example.score:.2f}",
        ]
        for c in result.classes[:most]
        for what, examples in (("right, barely", c.least_sure), ("wrong, surely", c.most_wrong))
        for example in examples[:_EXAMPLES]
    ]
    if hard:
        _section("Hard images", ["class", "held out", "image", "guess", "margin"], hard)
    if len(result.classes) > most:
        click.echo(f"and {len(result.classes) - most:,} more classes (--most)")
