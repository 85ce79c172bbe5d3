"""embed_images: from paths and images in memory to their embeddings, with no file in between.

The same backbone, engine and pixels as ``embed``: the vector of a path is the one that a feature
file holds.
"""

from __future__ import annotations

import functools
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlpipe.card import Card
from tlpipe.errors import OptionError
from tlpipe.execution import Execution
from tlpipe.seams import OpenedNetwork
from tlpipe.stages.engine import Fetched, Loader
from tlpipe.stages.session import open_network
from tlpipe.stages.source import FileReader
from tlpipe.types import (
    DEFAULT_BACKBONE,
    Content,
    FileStat,
    Item,
    Outcome,
    ProgressCallback,
    Reject,
)
from tlpipe.workflows.backbones import find_backbone
from tlpipe.workflows.pixels import decoder_of, fetching, pixels_of, pixels_of_image
from tlpipe.workflows.precision import Arithmetic
from tlpipe.workflows.run_options import RunOptions
from tlpipe.workflows.running import run_over

if TYPE_CHECKING:
    from tlpipe.types import UInt8Array

_IN_MEMORY = Content(b"", FileStat())


def embed_images(
    images: Sequence[Any],
    *,
    backbone: str | Path | Card = DEFAULT_BACKBONE,
    options: RunOptions | None = None,
    progress: ProgressCallback | None = None,
) -> Generator[Outcome, None, None]:
    """Embed images that are given one by one.

    Parameters
    ----------
    images : sequence
        Of each, its path (``pathlib.Path``), or itself as ``picture_of`` takes it. An image that
        was opened and not loaded yet must not stand in it twice: threads would load it at once.
    backbone : str, pathlib.Path or Card
        As for ``find_backbone``.
    options : RunOptions, optional
        The precision is FP32: others are settled on the images of a source.
    progress : callable, optional
        Called with a ``Progress`` after each image, in this thread.

    Returns
    -------
    generator of Outcome
        Of each image, in their order: with "embeddings" (D,) float32, or a reject. The key of its
        item is the image's number. Close it where not all are taken.

    Raises
    ------
    OptionError
        The precision is another; or this system cannot do what the options ask for.
    UnknownBackboneError, CardError, WeightsError, BackboneError
        The backbone cannot be had or run.
    DeviceError
        The device asked for cannot be used.
    """
    options = options or RunOptions()
    if options.precision not in (None, "fp32"):
        raise OptionError(
            f"Images that are given one by one are embedded at fp32, not {options.precision!r}.",
            hint="Leave the precision out; or embed a folder or a manifest into a feature file.",
        )
    card = find_backbone(backbone)
    arithmetic = Arithmetic(card, options)
    network = _network(arithmetic.network_file(), arithmetic.execution)
    load = _loader(images, card, decoder_of(options.decode))
    items = (
        Item(str(number), str(image) if isinstance(image, Path) else None)
        for number, image in enumerate(images)
    )
    return run_over(items, len(images), network, load, options, progress, "embed")


def _loader(images: Sequence[Any], card: Card, decoder: str) -> Loader:
    """What makes pixels of the images, by their numbers."""
    of_file = pixels_of(card.image_size, card.arithmetic, decoder)
    of_image = pixels_of_image(card.image_size, card.arithmetic, decoder)

    fetch = fetching(FileReader())

    def fetched(item: Item) -> Fetched:
        return fetch(item) if item.place is not None else (b"", _IN_MEMORY)

    def prepare(item: Item, raw: bytes, content: Content) -> UInt8Array | Reject:
        image = images[int(item.key)]
        return of_file(raw, content) if item.place is not None else of_image(image)

    return Loader(fetched, prepare)


@functools.lru_cache(maxsize=1)
def _network(path: Path, execution: Execution) -> OpenedNetwork:
    """The network that was opened last stays open: images may come a few at a time."""
    return open_network(path, execution)
