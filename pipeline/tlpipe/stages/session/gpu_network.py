"""A network that runs on one or several GPUs, in lanes: see ``lanes``."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from tlpipe.stages.session.batches import MOST, best_batch_size, is_out_of_memory
from tlpipe.stages.session.lanes import PER_DEVICE, Lane, Lanes
from tlpipe.stages.session.opened import Opened, failure

if TYPE_CHECKING:
    from tlpipe.types import UInt8Array

_log = logging.getLogger(__name__)

_TIMINGS = 3  # of each size of batch; the shortest counts


@dataclass(frozen=True)
class Place:
    """A session and where it runs.

    Attributes
    ----------
    session : onnxruntime.InferenceSession
    device : str
        As ``onnxruntime.OrtDevice`` names it: "cuda" or "cpu".
    index : int
        Number of the device.
    """

    session: Any
    device: str = "cuda"
    index: int = 0


class GpuNetwork(Opened):
    """A network on GPUs; ``run`` may be called from several threads at once.

    Every batch is brought to one size with black images, whose results are cut off: the libraries
    choose how to compute by the shape.

    Parameters
    ----------
    places : sequence of Place
        One per GPU.
    batch_size : int or None
        B; None to find it by trying, when it is first asked for.
    fixed : bool
        Whether the sessions can run no other size.
    """

    def __init__(self, places: Sequence[Place], batch_size: int | None, *, fixed: bool) -> None:
        super().__init__(places[0].session)
        self._places, self._size, self._fixed = list(places), batch_size, fixed
        self._free = self._make_lanes()

    def _make_lanes(self) -> Lanes:
        return Lanes(
            [
                Lane(place.session, self._outputs, place.device, place.index)
                for _ in range(PER_DEVICE)
                for place in self._places
            ]
        )

    def only(self, outputs: list[str]) -> Self:
        """Give the same network, computing these outputs alone.

        Raises
        ------
        BackboneError
            The network has no such output.
        """
        chosen = super().only(outputs)
        chosen._free = chosen._make_lanes()
        return chosen

    @property
    def lanes(self) -> int:
        """Calls that can be under way without taking a core of this machine."""
        return PER_DEVICE * len(self._places)

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The size that suits the GPU.

        Raises
        ------
        BackboneError
            The network fails while sizes are being tried.
        """
        if self._size is None:
            self._size = self._found_size()
        return (self._size,)

    def _found_size(self) -> int:
        shape = self.shapes()[0]

        def seconds(size: int) -> float:
            images = np.zeros((size, *shape), np.uint8)
            try:
                lane.run(images, size)  # the first run chooses algorithms and takes memory
                return min(_seconds(lane, images) for _ in range(_TIMINGS))
            except Exception as exc:  # ONNX Runtime's exceptions have no common base
                lane.release()
                raise failure(exc, images.shape) from exc

        with self._free.one() as lane:
            size = best_batch_size(seconds)
            lane.release()
        _log.info("The batch size %d suits %s.", size, self.provider)
        return size

    def run(self, images: UInt8Array) -> dict[str, Any]:
        """Outputs by name, each (B, ...), for `images` uint8 (B, H, W, 3), RGB.

        Where memory is too small, because another process took of it, the batch is halved, and
        stays so on that lane.

        Raises
        ------
        BackboneError
            ONNX Runtime cannot run the network on them.
        """
        with self._free.one() as lane:
            parts = list(self._parts(lane, images))
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in self._outputs}

    def _parts(self, lane: Lane, images: UInt8Array) -> Iterator[dict[str, Any]]:
        done = 0
        while done < len(images):
            size = self._size or min(len(images), MOST)
            size = min(size, lane.limit or size)
            batch = images[done : done + size]
            try:
                part = lane.run(batch, size)
            except Exception as exc:  # ONNX Runtime's exceptions have no common base
                lane.release()
                if self._fixed or size == 1 or not is_out_of_memory(exc):
                    raise failure(exc, images.shape) from exc
                lane.limit = size // 2
                _log.warning("Memory is too small for %d images at once: halved.", size)
                continue
            done += len(batch)
            yield part


def _seconds(lane: Lane, images: UInt8Array) -> float:
    start = time.perf_counter()
    lane.run(images, len(images))
    return time.perf_counter() - start
