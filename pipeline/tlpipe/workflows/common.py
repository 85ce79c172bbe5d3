"""What the workflows that run a network over a source have in common.

Imports ``stages`` and what they import.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tlpipe.errors import OptionError
from tlpipe.stages.decode import decode, quiet_pillow, read_file
from tlpipe.stages.engine import Loader, run
from tlpipe.stages.preprocess import preprocess
from tlpipe.stages.source import Source, Survey, open_source, printable
from tlpipe.types import (
    DEVICES,
    Content,
    Device,
    Item,
    Network,
    Outcome,
    Preprocess,
    Progress,
    ProgressCallback,
    Reason,
    Reject,
    Stage,
)

if TYPE_CHECKING:
    from tlpipe.types import UInt8Array


PRECISION = "fp32"
"""Of the arithmetic inside the networks."""


@dataclass(frozen=True)
class RunOptions:
    """How a network is run over a source.

    Attributes
    ----------
    device : {"auto", "cpu", "cuda"}
    batch_size : int or None
        Images per call of the network; None for what suits the device.
    max_rejects : int, float or None
        Most rejects that still count as success: a number, a fraction of all items (a float below
        1), or None for no limit.
    """

    device: Device = "auto"
    batch_size: int | None = None
    max_rejects: float | None = None

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise OptionError(
                f"The device {self.device!r} is unknown.", hint=f"Use one of {list(DEVICES)}."
            )
        size, limit = self.batch_size, self.max_rejects
        if size is not None and (type(size) is not int or size < 1):
            raise OptionError(f"The batch size is {size!r}; it must be an int of at least 1.")
        if not (limit is None or (type(limit) is int and limit >= 0) or _is_fraction(limit)):
            raise OptionError(
                f"max_rejects is {limit!r}; it must be an int of at least 0, a fraction of all"
                " items as a float from 0 to below 1, or None."
            )

    def too_many(self, rejects: int, total: int) -> bool:
        """Whether `rejects` of `total` items are more than allowed."""
        if self.max_rejects is None:
            return False
        fraction = isinstance(self.max_rejects, float)
        return rejects > (self.max_rejects * total if fraction else self.max_rejects)


@dataclass(frozen=True)
class UpdateOptions:
    """How a feature file that exists is updated.

    Attributes
    ----------
    rehash : bool
        Compare the content of every file, not its size and time of change.
    max_gone : int, float or None
        Most rows that may be dropped: a number, a fraction of all rows (a float up to 1), or None
        for half of them, and more where as many new images have come.
    """

    rehash: bool = False
    max_gone: float | None = None

    def __post_init__(self) -> None:
        if not is_limit(self.max_gone):
            raise OptionError(
                f"max_gone is {self.max_gone!r}; it must be an int of at least 0, a fraction as a"
                " float from 0 to 1, or None."
            )


def _is_fraction(value: object) -> bool:
    return isinstance(value, float) and 0 <= value < 1


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


def source_path(source: Source | str | Path) -> Path:
    """Where a source lies."""
    return source.path if isinstance(source, Source) else Path(source)


def source_text(source: Source) -> str:
    """Where a source lies, as a feature file notes it."""
    return printable(str(source.path.resolve()))


def is_limit(value: object) -> bool:
    """Whether a value is a number of at least 0 as an int, a fraction up to 1 as a float, or None.

    Other types are none, not even True.
    """
    if isinstance(value, float):
        return 0 <= value <= 1
    return value is None or (type(value) is int and value >= 0)


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
        for outcome in run(items, load, network, batch_size=options.batch_size):
            done += 1
            rejects += outcome.reject is not None
            if progress is not None:
                progress(Progress(stage, done, total, rejects))
            yield outcome


def now() -> str:
    """Current time, UTC, in ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
