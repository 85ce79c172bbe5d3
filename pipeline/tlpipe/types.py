"""The vocabulary in which the stages of tlpipe meet.

Owns the records and closed lists below; holds no behaviour beyond making and reading them.
May import ``errors`` and NumPy only for annotations, so that importing it costs nothing.

Sizes in comments and docstrings: N items, B batch, H and W pixels, D embedding, K classes.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Float32Array = NDArray[np.float32]
    UInt8Array = NDArray[np.uint8]

DEFAULT_BACKBONE = "efficientnet-lite0"
DEFAULT_SEED = 0
FEATURE_SUFFIXES = (".h5", ".hdf5")
PAGE_SUFFIXES = (".html", ".htm")

DecodeMode = Literal["auto", "exact"]
DECODE_MODES: tuple[DecodeMode, ...] = ("auto", "exact")

EXACT_DECODER = "pillow-exact-1"
FAST_DECODER = "draft2-fir-1"
DECODERS = (EXACT_DECODER, FAST_DECODER)
"""Modes of decoding and resizing, part of every fingerprint. Change a name when the same file would
give other pixels (other than by the rounding of another libjpeg). "pillow-exact": every pixel is
decoded, Pillow resizes. "draft2-fir": JPEGs are decoded at the smallest scale that leaves twice the
pixels of the result, fast_image_resize resizes."""

SplitChoice = Literal["auto", "all", "train", "validation", "test"]
SPLIT_CHOICES: tuple[SplitChoice, ...] = ("auto", "all", "train", "validation", "test")

PoolingChoice = Literal["mean", "cls", "flatten"]
POOLING_CHOICES: tuple[PoolingChoice, ...] = ("mean", "cls", "flatten")
"""What a user may choose, where a layer holds more than one vector per image."""

Interpolation = Literal["bicubic", "bilinear", "lanczos", "box", "nearest"]
Layout = Literal["NCHW", "NHWC"]
PixelType = Literal["float32", "float16", "float64", "uint8"]
"""Type of the numbers in which a backbone takes images."""

Activation = Literal["softmax", "sigmoid", "none"]
"""What makes probabilities of a network's class scores; none where they are that already."""

Pooling = Literal["none", "flatten", "mean-channels-first", "mean-channels-last", "cls"]
"""How a backbone's tensor becomes one vector per image, (N, D): it is one; its numbers are laid
out one behind the other; the mean over all positions, where the channels stand first, (N, D, ...),
or last, (N, ..., D); the first of its tokens (N, T, D)."""


class Split(enum.IntEnum):
    """What an item is for; the number is what a feature file stores."""

    NONE = -1
    TRAIN = 0
    VALIDATION = 1
    TEST = 2


class Reason(enum.StrEnum):
    """Why an item was left out: a closed list; ``meaning`` says it in a sentence."""

    meaning: str

    def __new__(cls, value: str, meaning: str = "") -> Reason:
        """Make a text of it that has a meaning."""
        reason = str.__new__(cls, value)
        reason._value_, reason.meaning = value, meaning
        return reason

    MISSING = "missing", "There is no such file."
    UNREADABLE = "unreadable", "The file cannot be opened or read, or is not a regular file."
    UNREACHABLE = "unreachable", "Its server is away, or does not give it whole in time."
    EMPTY = "empty", "The file has no bytes."
    NOT_AN_IMAGE = "not-an-image", "The content is of no image format, whatever its name says."
    TRUNCATED = "truncated", "The image ends early."
    CORRUPT = "corrupt", "The image's data make no sense."
    TOO_LARGE = (
        "too-large",
        "It has more pixels or bytes than the limit: maybe a decompression bomb.",
    )
    UNSUPPORTED = "unsupported", "It is an image, but of a pixel type with no defined way to RGB."
    DUPLICATE_KEY = "duplicate-key", "An earlier image of the source has the same key."
    NON_FINITE = "non-finite", "The backbone gave NaN or infinity for it."
    CRASHED = "crashed", "A worker's process died on it, each time it was tried (on a cluster)."


class Stage(enum.StrEnum):
    """The stage that left an item out."""

    SOURCE = "source"
    DECODE = "decode"
    BACKBONE = "backbone"


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a source.

    Attributes
    ----------
    key : str
        The item's name in its source, unique there: for a folder the path below it with "/".
    place : str, or any other value
        Where the image lies: a path, or what the source's reader finds it by.
    label : str or None
        Its class, where the source tells.
    split : Split
        What it is for, where the source tells.
    more : tuple of str
        What its source says of it in further columns, where these were asked for.
    """

    key: str
    place: Any
    label: str | None = None
    split: Split = Split.NONE
    more: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive items of a source, as columns: what millions of items are handled in.

    Attributes
    ----------
    keys : list of str
    places : list
        Where the images lie: paths, or what the source's reader finds them by.
    labels : list of str or None
    splits : list of Split
    stats : list of (int, int)
        Size in bytes and modification time in ns of each image; (-1, -1) where that is not known;
        empty where they were not asked for.
    more : list of tuple of str
        Values of the further columns that were asked for; empty where none were.
    """

    keys: list[str] = field(default_factory=list)
    places: list[Any] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    splits: list[Split] = field(default_factory=list)
    stats: list[tuple[int, int]] = field(default_factory=list)
    more: list[tuple[str, ...]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.keys)

    def item(self, index: int) -> Item:
        """One row as an ``Item``."""
        return Item(
            self.keys[index],
            self.places[index],
            self.labels[index],
            self.splits[index],
            self.more[index] if self.more else (),
        )


@dataclass(frozen=True, slots=True)
class FileStat:
    """What tells cheaply whether a file has changed."""

    size_bytes: int = -1
    mtime_ns: int = -1


@dataclass(frozen=True, slots=True)
class Reject:
    """An item left out, and why."""

    stage: Stage
    reason: Reason
    detail: str
    stat: FileStat = FileStat()


@dataclass(frozen=True, slots=True)
class Content:
    """What is known of an item whose image could be read."""

    sha256: bytes
    stat: FileStat


@dataclass(frozen=True, slots=True)
class Twin:
    """Where the vector of an item comes from whose very content another item has.

    Attributes
    ----------
    place : int or None
        Of a stored row with that content.
    pending : Future of Outcome, or None
        That of the item with that content which is being embedded just now.
    """

    place: int | None = None
    pending: Future[Outcome] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one item: `content` with `values` or a `twin`, or a `reject`.

    Attributes
    ----------
    values : mapping of str to array, each without the batch axis
        The network's outputs for this item, by output name; empty for a reject or a twin.
    """

    item: Item
    content: Content | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    reject: Reject | None = None
    twin: Twin | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """A moment of a running job, given to a progress callback.

    `total` is None where it is not known. `busy` says what the threads spent the last second on, as
    shares from 0 to 1: "read", "decode", "infer" and "wait" of all workers, "write" of the thread
    that writes; it is empty where nothing is known.
    """

    stage: str
    done: int
    total: int | None
    rejects: int
    busy: Mapping[str, float] = field(default_factory=dict)


ProgressCallback = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Preprocess:
    """From a decoded RGB image to the numbers a backbone expects.

    The geometry is done on uint8 pixels before the network, the arithmetic
    ``(x * scale - mean) / std`` inside its graph.

    Attributes
    ----------
    colour : {"rgb", "bgr", "grey"}
        Channels the backbone expects; "grey" is one, the luma of ITU-R BT.601.
    resize : {"exact", "shortest"}
        "exact": what the crop left becomes `height` x `width`, whatever its shape.
        "shortest": the short side becomes `size` and the long side keeps the aspect ratio,
        truncated to whole pixels.
    size : int
        Length in pixels of the short side for "shortest"; 0 for "exact".
    interpolation : {"bicubic", "bilinear", "lanczos", "box", "nearest"}
    antialias : bool
        Whether the filter widens when the image shrinks. Only True is implemented, except for
        "nearest", which has no filter to widen.
    crop : {"none", "centre-fraction", "centre"}
        "none": the whole image. "centre-fraction": before resizing, the centred square of
        `crop_fraction` times the short side. "centre": after resizing, the centred
        `height` x `width`.
    crop_fraction : float
        For "centre-fraction", in (0, 1]; 0 otherwise.
    scale : float
    mean, std : tuple of 3 floats
        In the backbone's channel order; thrice the same for "grey".
    """

    colour: Literal["rgb", "bgr", "grey"]
    resize: Literal["exact", "shortest"]
    size: int
    interpolation: Interpolation
    antialias: bool
    crop: Literal["none", "centre-fraction", "centre"]
    crop_fraction: float
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def is_plain(self) -> bool:
        """Whether the backbone takes pixels from 0 to 255 as they are."""
        return (self.scale, set(self.mean), set(self.std)) == (1.0, {0.0}, {1.0})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        plain = asdict(self)
        return plain | {"mean": list(self.mean), "std": list(self.std)}
