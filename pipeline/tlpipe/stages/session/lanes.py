"""Lanes: what runs on a device at the same time, each with a buffer of its own there.

A lane is an input buffer on the device and a binding of it to the session that all lanes of the
device share. While one lane computes, another copies its images.

What Python can do here, in ONNX Runtime 1.31 (``onnxruntime_inference_collection.py``): an
``OrtValue`` is made on a device by ``ortvalue_from_shape_and_type``, and ``update_inplace`` copies
an array into it; ``bind_output`` names the device that outputs stay on, and
``copy_outputs_to_cpu`` fetches them. ``OrtDevice.make`` knows no pinned memory of the host
("cuda_pinned"), so images are copied from pageable memory, by way of the driver's own pinned
buffer. ``run_with_iobinding`` lets other Python threads run meanwhile (onnxruntime pull request
#11248), and returns when the device is done.
"""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

if TYPE_CHECKING:
    from tlpipe.types import UInt8Array

PER_DEVICE = 2
"""One lane copies while the other computes."""


class Lane:
    """A buffer on a device, bound to a network's input.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
        Shared by all lanes of the device.
    outputs : sequence of str
    device : str
        As ``onnxruntime.OrtDevice`` names it: "cuda" or "cpu".
    index : int
        Number of the device.
    """

    def __init__(self, session: Any, outputs: Sequence[str], device: str, index: int) -> None:
        self._session, self._outputs = session, list(outputs)
        self._where = (device, index)
        self._buffer: Any = None
        self._padded: Any = None
        self.limit: int | None = None
        """Most images that fit, once memory was found too small for more."""

    def run(self, images: UInt8Array, size: int) -> dict[str, Any]:
        """Outputs by name, each (B, ...), for `images` uint8 (B, H, W, 3), run as `size` images.

        Raises
        ------
        Exception
            Anything of ONNX Runtime's; the lane can be used again.
        """
        count = len(images)
        if self._buffer is None or self._padded.shape != (size, *images.shape[1:]):
            self._bind((size, *images.shape[1:]))
        if count < size:
            self._padded[:count] = images
            self._padded[count:] = 0
            images = self._padded
        self._buffer.update_inplace(np.ascontiguousarray(images))
        self._session.run_with_iobinding(self._binding)
        values = self._binding.copy_outputs_to_cpu()
        return {
            name: value[:count].copy() if count < size else value
            for name, value in zip(self._outputs, values, strict=True)
        }

    def _bind(self, shape: tuple[int, ...]) -> None:
        self.release()
        device, index = self._where
        buffer = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.uint8, device, index)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(self._session.get_inputs()[0].name, buffer)
        for name in self._outputs:
            binding.bind_output(name, device, index)
        self._binding, self._padded, self._buffer = binding, np.empty(shape, np.uint8), buffer

    def release(self) -> None:
        """Let go of the buffers; the next run makes new ones."""
        self._buffer = self._binding = self._padded = None


class Lanes:
    """Lanes waiting for work; the one that has waited longest is taken next.

    Parameters
    ----------
    lanes : sequence of Lane
        One lane of each device in turn, so that no device waits while another gets a second batch.
    """

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._free: queue.SimpleQueue[Lane] = queue.SimpleQueue()
        for lane in lanes:
            self._free.put(lane)

    @contextlib.contextmanager
    def one(self) -> Iterator[Lane]:
        """A free lane; waits for one. It is given back whatever happens to the work."""
        lane = self._free.get()
        try:
            yield lane
        finally:
            self._free.put(lane)
