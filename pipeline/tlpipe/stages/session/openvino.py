"""A network run by OpenVINO, on the CPU.

The only module that imports ``openvino``: an extra, loaded when it is asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openvino

from tlpipe.errors import BackboneError, DeviceError
from tlpipe.execution import Execution
from tlpipe.machine import usable_cores
from tlpipe.stages.session.opened import Outputs, failure
from tlpipe.stages.session.properties import properties_of

if TYPE_CHECKING:
    from tlpipe.types import UInt8Array

NAME = "OpenVINO"
_DEVICE = "CPU"

OPENVINO_BATCH_SIZES = (4, 2)
"""Of EfficientNet-Lite0 in bf16, two threads, images/s: 282 at 1, 362 at 2, 374 at 4, 369 at 8.
Shapes fixed beforehand gave up to 7 % more and would need a network in memory for each size."""

_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""Precision of what a graph has in floats. Left to itself OpenVINO takes bf16 where it can."""


class OpenVinoNetwork(Outputs):
    """A network run by OpenVINO; ``run`` may be called from several threads at once.

    Parameters
    ----------
    model : pathlib.Path or bytes
        An ONNX file, or its content.
    execution : Execution

    Raises
    ------
    DeviceError
        The processor has no instructions for the precision.
    BackboneError
        OpenVINO cannot open the file.
    """

    provider = NAME
    batch_sizes: tuple[int, ...]
    lanes = 0

    def __init__(self, model: Path | bytes, execution: Execution) -> None:
        core = openvino.Core()
        if execution.precision == "bf16":
            _check_bf16(core)
        threads = execution.threads or usable_cores()
        # As many streams as callers, each of which computes on one core; callers come from outside.
        options = {
            "NUM_STREAMS": str(threads),
            "INFERENCE_NUM_THREADS": str(threads),
            "INFERENCE_PRECISION_HINT": _HINTS[execution.precision],
        }
        self._model = model
        self._name = "The network" if isinstance(model, bytes) else repr(str(model))
        try:
            content = model if isinstance(model, bytes) else str(model)
            self._compiled = core.compile_model(core.read_model(content), _DEVICE, options)
            self._output_names = [_name_of(port) for port in self._compiled.outputs]
            # OpenVINO makes a table of types at the first call of this, while it holds a lock and
            # asks for Python's: two threads that call it first at once would wait for ever.
            self._compiled.inputs[0].get_element_type().to_dtype()
        except Exception as exc:  # OpenVINO raises RuntimeError and others
            raise BackboneError(
                f"{self._name} cannot be opened by OpenVINO: {_short(exc)}",
                hint="ONNX Runtime may open it: --runtime onnxruntime.",
            ) from exc
        self.batch_sizes = (execution.batch_size,) if execution.batch_size else OPENVINO_BATCH_SIZES
        super().__init__(self._output_names)
        self._own = threading.local()

    @cached_property
    def metadata(self) -> Mapping[str, str]:
        """The file's metadata properties."""
        return properties_of(self._model)

    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of its input and of the outputs it computes, without their batch axes."""
        outputs = [
            port
            for port, name in zip(self._compiled.outputs, self._output_names, strict=True)
            if name in self._outputs
        ]
        ports = (*self._compiled.inputs, *outputs)
        return tuple(
            tuple(size.get_length() if size.is_static else -1 for size in port.partial_shape)[1:]
            for port in ports
        )

    def run(self, images: UInt8Array) -> dict[str, Any]:
        """Outputs by name, each (B, ...), for `images` uint8 (B, H, W, 3), RGB.

        Raises
        ------
        BackboneError
            OpenVINO cannot run the network on them.
        """
        try:
            request = getattr(self._own, "request", None)
            if request is None:  # one per calling thread
                request = self._own.request = self._compiled.create_infer_request()
            values = request.infer([images], share_inputs=True, share_outputs=True)
            return {  # copies: the request writes into the same memory next time
                name: values[position].copy()
                for position, name in enumerate(self._output_names)
                if name in self._outputs
            }
        except Exception as exc:  # OpenVINO raises RuntimeError and others
            raise failure(_short(exc), images.shape) from exc


def _check_bf16(core: openvino.Core) -> None:
    """Refuse bf16 where OpenVINO could only act as if."""
    able = list(core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES"))
    if "BF16" not in able:
        raise DeviceError(
            "This processor has no instructions for bf16 (AVX512_BF16 or AMX on x86-64): OpenVINO"
            f" lists {able}.",
            hint="Use --precision fp32, or int8.",
        )


def _name_of(port: Any) -> str:
    """The name of an output as the ONNX file has it: a value may have several in OpenVINO."""
    node = port.get_node().get_friendly_name().partition("/sink_port")[0]
    names: set[str] = port.get_names()
    return node if node in names else min(names)


def _short(exc: Exception) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("Exception from")] or lines
    return " ".join(told)[:500]
