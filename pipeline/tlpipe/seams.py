"""The seams between sources, the engine, surgery on graphs, and the libraries that run networks.

Part of the vocabulary: protocols alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from tlpipe.types import FileStat, Reject, UInt8Array


class Reader(Protocol):
    """Reads the items of a source: the seam between a source and the engine.

    It may be called from several threads at once, and can be pickled: whoever has it and an item's
    place can read the item, in another process as well.
    """

    def read(self, place: Any, /) -> tuple[bytes, FileStat] | Reject:
        """Content of an image file, with its size and time of change; or why there is none.

        Nothing is raised for what is wrong with one item. ``SourceError`` is where the source as a
        whole went away. A reader that may wait long has a method ``interrupt()`` as well, which has
        all reading that is under way end by raising.
        """


class Network(Protocol):
    """A network that runs: the seam between the engine and the inference library.

    ``run`` may be called from several threads at once.
    """

    @property
    def provider(self) -> str:
        """What runs it: the name of ONNX Runtime's execution provider, or "OpenVINO"."""

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Sizes B that may suit it, the likeliest first; several where only measuring can tell."""

    @property
    def lanes(self) -> int:
        """Calls that can be under way without taking a core of this machine; 0 on its CPU."""

    def run(self, images: UInt8Array) -> dict[str, Any]:
        """Outputs by name, each (B, ...), for `images` uint8 (B, H, W, 3), RGB."""


class OpenedNetwork(Network, Protocol):
    """A network as it was opened from a file."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """The file's metadata properties."""

    def only(self, outputs: list[str], /) -> OpenedNetwork:
        """Give the same network, computing these outputs alone."""

    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of its input and of the outputs it computes, without their batch axes."""


class RunGraph(Protocol):
    """Runs an opened graph once: arrays by input name in, the outputs asked for out."""

    def __call__(self, feeds: Mapping[str, Any], outputs: Sequence[str], /) -> list[Any]:
        """Values of `outputs`, in that order."""


class OpenGraph(Protocol):
    """Opens a graph that is being worked on: the seam between surgery and inference."""

    def __call__(self, content: bytes, folder: str, /, *, optimised: bool = False) -> RunGraph:
        """Open a serialized network whose external data are in files of `folder`.

        Without optimisation what runs is what stands in the file; with it, what will run later.
        """
