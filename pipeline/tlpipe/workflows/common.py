"""What the workflows that run a network over a source have in common.

Imports ``stages`` and what they import.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tlpipe.seams import Network
from tlpipe.stages.decode import decode, quiet_pillow, read_file
from tlpipe.stages.engine import Loader, run
from tlpipe.stages.preprocess import preprocess
from tlpipe.stages.source import Source, Survey, open_source, printable
from tlpipe.types import (
    Content,
    Item,
    Outcome,
    Preprocess,
    Progress,
    ProgressCallback,
    Reason,
    Reject,
    Stage,
)
from tlpipe.workflows.run_options import RunOptions

if TYPE_CHECKING:
    from tlpipe.types import UInt8Array


PRECISION = "fp32"
"""Of the arithmetic inside a network that was prepared and not reduced."""


Surveyed = Callable[[Survey], None]
"""Called once with what a source holds, before the work begins."""


def opened(source: Source | str | Path) -> Source:
    """Open a path as a source, without looking at all it holds; an opened one stays as it is."""
    return source if isinstance(source, Source) else open_source(source)


def as_source(source: Source | str | Path, surveyed: Surveyed | None = None) -> Source:
    """Open a path as a source, survey it, and tell what it holds."""
    found = opened(source)
    survey = found.survey
    if surveyed is not None:
        surveyed(survey)
    return found


def spread(source: Source, most: int) -> Iterator[Item]:
    """Up to `most` items at equal distances from the first to the last of a source."""
    count = source.survey.count
    most = min(most, count)
    wanted = iter([(2 * i + 1) * count // (2 * most) for i in range(most)])
    at = next(wanted, None)
    start = 0
    for block in source.scan(stats=False):
        while at is not None and at < start + len(block):
            yield block.item(at - start)
            at = next(wanted, None)
        start += len(block)


def source_path(source: Source | str | Path) -> Path:
    """Where a source lies."""
    return source.path if isinstance(source, Source) else Path(source)


def source_text(source: Source) -> str:
    """Where a source lies, as a feature file notes it."""
    return printable(str(source.path.resolve()))


def loader(size: tuple[int, int], spec: Preprocess) -> Loader:
    """Function from an item to its pixels: the one path for training and serving.

    Parameters
    ----------
    size : tuple of int
        Height and width of the pixels.
    spec : Preprocess
    """
    pixels = pixels_of(size, spec)

    def load(item: Item) -> tuple[UInt8Array, Content] | Reject:
        read = read_file(item.path)
        return read if isinstance(read, Reject) else pixels(*read)

    return load


def pixels_of(
    size: tuple[int, int], spec: Preprocess
) -> Callable[[bytes, Content], tuple[UInt8Array, Content] | Reject]:
    """Function from the bytes of a file to its pixels; the parameters are those of ``loader``."""

    def load(raw: bytes, content: Content) -> tuple[UInt8Array, Content] | Reject:
        image = decode(raw, content.stat)
        if isinstance(image, Reject):
            return image
        try:
            return preprocess(image, size, spec), content
        except MemoryError:  # a line of a hundred million pixels: its filter table is that long
            detail = f"Not enough memory to resize {image.width} x {image.height} pixels."
            return Reject(Stage.DECODE, Reason.TOO_LARGE, detail, content.stat)

    return load


def run_over(
    items: Iterable[Item],
    total: int,
    network: Network,
    load: Loader,
    options: RunOptions,
    progress: ProgressCallback | None,
    stage: str,
) -> Iterator[Outcome]:
    """Outcomes of all items in order, with progress reported along the way.

    Parameters
    ----------
    total : int
        N as surveyed, for the progress.
    stage : str
        What the progress calls this job.
    """
    done = rejects = 0
    with quiet_pillow():
        size, workers = options.batch_size, options.threads
        for outcome in run(items, load, network, batch_size=size, workers=workers):
            done += 1
            rejects += outcome.reject is not None
            if progress is not None:
                progress(Progress(stage, done, total, rejects))
            yield outcome


def now() -> str:
    """Current time, UTC, in ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
