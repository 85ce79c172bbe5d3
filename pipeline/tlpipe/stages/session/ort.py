"""A network run by ONNX Runtime."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlpipe.errors import BackboneError
from tlpipe.execution import Execution
from tlpipe.stages.session.cuda import open_cuda
from tlpipe.stages.session.opening import CPU, open_session

if TYPE_CHECKING:
    from tlpipe.types import UInt8Array


CPU_BATCH_SIZES = (4, 2, 1, 8)
"""Larger batches fall out of the caches (FP32, 224 px: 237 images/s at 4, 198 at 32), smaller ones
pay more calls; which is best differs between processors and networks."""

GPU_BATCH_SIZE = 64


class OrtNetwork:
    """A network run by ONNX Runtime; ``run`` may be called from several threads at once.

    Parameters
    ----------
    model : pathlib.Path or bytes
        An ONNX file, or its content.
    execution : Execution
        Its device is settled (see ``choose``).

    Raises
    ------
    DeviceError
        CUDA was asked for, or a GPU was found, and it cannot be used.
    BackboneError
        ONNX Runtime cannot open the file.
    """

    batch_sizes: tuple[int, ...]
    lanes = 0

    def __init__(self, model: Path | bytes, execution: Execution) -> None:
        device = execution.device
        self._session = open_cuda(model) if device == "cuda" else open_session(model, [CPU])
        self.provider: str = self._session.get_providers()[0]
        own = CPU_BATCH_SIZES if device == "cpu" else (GPU_BATCH_SIZE,)
        self.batch_sizes = (execution.batch_size,) if execution.batch_size else own
        self._input = self._session.get_inputs()[0].name
        self._outputs = [output.name for output in self._session.get_outputs()]

    def only(self, outputs: list[str]) -> OrtNetwork:
        """Give the same network, computing these outputs alone.

        Raises
        ------
        BackboneError
            The network has no such output.
        """
        missing = [name for name in outputs if name not in self._outputs]
        if missing:
            raise BackboneError(f"The network has no outputs {missing}, but {self._outputs}.")
        chosen = copy.copy(self)
        chosen._outputs = outputs
        return chosen

    @property
    def metadata(self) -> Mapping[str, str]:
        """The file's metadata properties."""
        return dict(self._session.get_modelmeta().custom_metadata_map)

    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of its input and of the outputs it computes, without their batch axes."""
        outputs = [o for o in self._session.get_outputs() if o.name in self._outputs]
        return tuple(tuple(value.shape[1:]) for value in (*self._session.get_inputs(), *outputs))

    def run(self, images: UInt8Array) -> dict[str, Any]:
        """Outputs by name, each (B, ...), for `images` uint8 (B, H, W, 3), RGB.

        Raises
        ------
        BackboneError
            ONNX Runtime cannot run the network on them.
        """
        try:
            values = self._session.run(self._outputs, {self._input: images})
        except Exception as exc:  # ONNX Runtime's exceptions have no common base
            raise BackboneError(
                f"The network failed on a batch of shape {images.shape}: {exc}",
                hint="Where memory ran out, a smaller --batch-size helps; else its card may be"
                " wrong.",
            ) from exc
        return dict(zip(self._outputs, values, strict=True))
