"""``tlpipe demo``: the main job on real scans, with no download."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

import click

from tlpipe.cli.classify import classify_command
from tlpipe.cli.embed import embed_command
from tlpipe.cli.kinds import FOLDER
from tlpipe.cli.progress import progress
from tlpipe.cli.proof import verify_command
from tlpipe.cli.show import say
from tlpipe.cli.train import train_head_command
from tlpipe.errors import OutputError
from tlpipe.files import is_dir, is_file

_ROWS_SHOWN = 5
_MARK = ".tlpipe-demo"  # in the folder of a demonstration


@click.command("demo")
@click.option(
    "-o",
    "--output",
    type=FOLDER,
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
    from tlpipe.stages import digits
    from tlpipe.types import Progress

    start = time.perf_counter()
    again = _claim(output)
    images = output / "digits"
    say(f"Rendering {digits.COUNT:,} scans of handwritten digits to {str(images)!r} ...")
    try:
        with progress() as report:
            for count in digits.render(images):
                report(Progress("render", count, digits.COUNT, 0))
    except OSError as exc:
        raise OutputError(
            f"The scans cannot be written to {str(images)!r}: {exc}.",
            hint="Choose another --output, or make room.",
        ) from exc

    features, classifier = output / "features.h5", output / "classifier.onnx"
    predictions = output / "predictions.csv"
    labelled, new = images / "labelled", images / "new"
    _run(embed_command, labelled, "-o", features, *again)
    _run(train_head_command, features, "-o", classifier, *again)
    _run(verify_command, classifier)
    _run(classify_command, classifier, new, "-o", predictions, "--top-k", 2, *again)
    lines = predictions.read_text(encoding="utf-8").splitlines()
    click.echo("\n".join([*lines[: _ROWS_SHOWN + 1], f"... {len(lines) - 1} rows in all"]))
    page = shlex.join(map(str, (features, classifier, "-o", output / "report.html")))
    say(
        f"\nDone in {time.perf_counter() - start:.0f} s. Look at {str(images)!r} and at the files"
        f" beside it, or at all of it on one page, with pictures:\n"
        f"  tlpipe report {page}\n"
        f"Then try your own photos, in one folder per class:\n"
        f"  tlpipe train photos/ -o classifier.onnx"
    )


def _claim(folder: Path) -> list[str]:
    """Make the folder; give the options that replace an earlier demonstration's files.

    A folder that holds anything is used only if the demonstration made it: the mark tells.
    """
    mark = folder / _MARK
    again = is_file(mark)
    if not again and is_dir(folder) and any(folder.iterdir()):
        raise OutputError(
            f"The folder {str(folder)!r} holds files that are not the demonstration's.",
            hint="Choose another --output, or empty it.",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError as exc:
        raise OutputError(
            f"The folder {str(folder)!r} cannot be made: {exc.strerror}.",
            hint="Choose another --output.",
        ) from exc
    return ["--overwrite"] if again else []


def _run(command: click.Command, *arguments: object) -> None:
    """Show a command as one would type it, and run it."""
    words = [str(argument) for argument in arguments]
    say(f"\n$ tlpipe {command.name} {shlex.join(words)}")
    with command.make_context(command.name, words) as ctx:
        command.invoke(ctx)
