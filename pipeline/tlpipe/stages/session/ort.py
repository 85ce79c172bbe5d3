"""A network run by ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlpipe.execution import Execution
from tlpipe.stages.session.opened import Opened, failure
from tlpipe.stages.session.opening import CPU, open_session

if TYPE_CHECKING:
    from tlpipe.types import UInt8Array


CPU_BATCH_SIZES = (4, 2, 1)
"""Larger batches fall out of the caches (FP32, 224 px: 237 images/s at 4, 198 at 32), smaller ones
pay more calls; which is best differs between processors and networks."""


class OrtNetwork(Opened):
    """A network run by ONNX Runtime; ``run`` may be called from several threads at once.

    Parameters
    ----------
    model : pathlib.Path or bytes
        An ONNX file, or its content.
    execution : Execution
        Its device is settled (see ``choose``).

    Raises
    ------
    BackboneError
        ONNX Runtime cannot open the file.
    """

    batch_sizes: tuple[int, ...]
    lanes = 0

    def __init__(self, model: Path | bytes, execution: Execution) -> None:
        super().__init__(open_session(model, [CPU]))
        self.batch_sizes = (execution.batch_size,) if execution.batch_size else CPU_BATCH_SIZES

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
            raise failure(exc, images.shape) from exc
        return dict(zip(self._outputs, values, strict=True))
