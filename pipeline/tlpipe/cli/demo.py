"""``tlpipe demo``: the main job on real scans, with no download."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

import click

from tlpipe.cli.classify import classify_command
from tlpipe.cli.embed import embed_command
from tlpipe.cli.look import verify_command
from tlpipe.cli.options import PATH
from tlpipe.cli.show import progress, say
from tlpipe.cli.train import train_head_command

_ROWS_SHOWN = 5


@click.command("demo")
@click.option(
    "-o",
    "--output",
    type=PATH,
    default=Path("tlpipe-demo"),
    show_default=True,
    help="The folder for its files.",
)
def demo_command(output: Path) -> None:
    """Walk through embed, train-head and classify on real scans.

    Renders the 1,797 handwritten digits that come with scikit-learn as image files, embeds them
    with the default backbone, trains a classifier of ten classes, and classifies scans it has
    never seen. Takes less than a minute on two cores, and leaves its files to look at.

    \b
    Example:
      tlpipe demo
    """
    from tlpipe.errors import OutputError
    from tlpipe.stages import digits
    from tlpipe.types import Progress

    start = time.perf_counter()
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise OutputError(f"The folder {str(output)!r} cannot be made: {exc.strerror}.") from exc
    images = output / "digits"
    say(f"Rendering {digits.COUNT:,} scans of handwritten digits to {str(images)!r} ...")
    try:
        with progress() as report:
            for count in digits.render(images):
                report(Progress("render", count, digits.COUNT, 0))
    except OSError as exc:
        raise OutputError(f"The scans cannot be written to {str(images)!r}: {exc}.") from exc

    features, classifier = output / "features.h5", output / "classifier.onnx"
    predictions = output / "predictions.csv"
    labelled, new = images / "labelled", images / "new"
    again = "--overwrite"
    _run(embed_command, str(labelled), "-o", str(features), again)
    _run(train_head_command, str(features), "-o", str(classifier), again)
    _run(verify_command, str(classifier))
    _run(classify_command, str(classifier), str(new), "-o", str(predictions), "--top-k", "2", again)
    lines = predictions.read_text(encoding="utf-8").splitlines()
    click.echo("\n".join([*lines[: _ROWS_SHOWN + 1], f"... {len(lines) - 1} rows in all"]))
    say(
        f"\nDone in {time.perf_counter() - start:.0f} s. Look at {str(images)!r} and at the files"
        f" beside it; then try your own photos, in one folder per class:\n"
        f"  tlpipe train photos/ -o classifier.onnx"
    )


def _run(command: click.Command, *arguments: str) -> None:
    """Show a command as one would type it, and run it."""
    words = [word for word in arguments if word != "--overwrite"]
    say(f"\n$ tlpipe {command.name} {shlex.join(words)}")
    with command.make_context(command.name, list(arguments)) as ctx:
        command.invoke(ctx)
