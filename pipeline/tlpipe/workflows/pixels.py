"""From an item to the pixels a network takes: the one path for training and serving."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tlpipe.picture import Picture
from tlpipe.seams import Reader
from tlpipe.stages.decode import decode, picture_of
from tlpipe.stages.engine import Fetched, Loader
from tlpipe.stages.preprocess import check_decoder, default_decoder, preprocess, reduction
from tlpipe.types import (
    DECODERS,
    EXACT_DECODER,
    FAST_DECODER,
    Content,
    DecodeMode,
    FileStat,
    Item,
    Preprocess,
    Reason,
    Reject,
    Stage,
)

if TYPE_CHECKING:
    from tlpipe.types import UInt8Array


def decoder_of(mode: DecodeMode, begun: str | None = None) -> str:
    """Mode of decoding and resizing (one of ``DECODERS``) that a user's choice stands for.

    Parameters
    ----------
    mode : {"auto", "exact"}
    begun : str, optional
        That of a feature file which exists; "auto" follows it.
    """
    if mode == "exact":
        return EXACT_DECODER
    return begun if begun in DECODERS else default_decoder()


def pixels_of(
    size: tuple[int, int], spec: Preprocess, decoder: str
) -> Callable[[bytes, Content], UInt8Array | Reject]:
    """Function from the bytes of a file to its pixels.

    Parameters
    ----------
    size : tuple of int
        Height and width of the pixels.
    spec : Preprocess
    decoder : str
        One of ``DECODERS``.

    Raises
    ------
    OptionError
        This system cannot do it.
    """
    prepared = _prepared(size, spec, decoder)
    reduce = None
    if decoder == FAST_DECODER:

        def reduce(image_size: tuple[int, int]) -> int:
            return reduction(image_size, size, spec)

    def pixels(raw: bytes, content: Content) -> UInt8Array | Reject:
        return prepared(decode(raw, content.stat, reduce), content)

    return pixels


def pixels_of_image(
    size: tuple[int, int], spec: Preprocess, decoder: str
) -> Callable[[Any], UInt8Array | Reject]:
    """Function from an image that is in memory, as ``picture_of`` takes it, to its pixels.

    The parameters are those of ``pixels_of``.
    """
    prepared = _prepared(size, spec, decoder)
    return lambda image: prepared(picture_of(image), Content(b"", FileStat()))


def _prepared(
    size: tuple[int, int], spec: Preprocess, decoder: str
) -> Callable[[Picture | Reject, Content], UInt8Array | Reject]:
    """Function that crops and resizes what could be decoded."""
    check_decoder(decoder)

    def prepared(picture: Picture | Reject, content: Content) -> UInt8Array | Reject:
        if isinstance(picture, Reject):
            return picture
        try:
            return preprocess(picture, size, spec, decoder)
        except MemoryError:  # a line of a hundred million pixels: its filter table is that long
            width, height = picture.size
            detail = f"Not enough memory to resize {width} x {height} pixels."
            return Reject(Stage.DECODE, Reason.TOO_LARGE, detail, content.stat)

    return prepared


def fetching(reader: Reader) -> Callable[[Item], Fetched]:
    """Function from an item to its content and the SHA-256 of it, or to a reject."""

    def fetch(item: Item) -> Fetched:
        read = reader.read(item.place)
        if isinstance(read, Reject):
            return read
        raw, stat = read
        if not raw:
            return Reject(Stage.DECODE, Reason.EMPTY, "The file has no bytes.", stat)
        return raw, Content(hashlib.sha256(raw).digest(), stat)

    return fetch


def interrupting(reader: Reader) -> Callable[[], None]:
    """What ends the reading of items that is under way, where the reader can do that."""
    found: Callable[[], None] = getattr(reader, "interrupt", lambda: None)
    return found


def loader(reader: Reader, size: tuple[int, int], spec: Preprocess, decoder: str) -> Loader:
    """What makes pixels of the items that `reader` reads; for the others see ``pixels_of``."""
    pixels = pixels_of(size, spec, decoder)
    return Loader(
        fetching(reader), lambda item, raw, content: pixels(raw, content), interrupting(reader)
    )
