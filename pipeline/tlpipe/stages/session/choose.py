"""Chooses what runs a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tlpipe.errors import OptionError
from tlpipe.execution import Execution
from tlpipe.stages.session.gpus import gpu_count
from tlpipe.stages.session.nvidia import open_on_gpus
from tlpipe.stages.session.ort import OrtNetwork

if TYPE_CHECKING:
    from tlpipe.seams import OpenedNetwork


def open_network(model: Path | bytes, execution: Execution) -> OpenedNetwork:
    """Open a network.

    Parameters
    ----------
    model : pathlib.Path or bytes
        An ONNX file, or its content.
    execution : Execution

    Raises
    ------
    OptionError
        The device does not offer the precision.
    DeviceError
        The device that was asked for, or a GPU that was found, cannot be used.
    BackboneError
        The file cannot be opened.
    """
    device = device_of(execution)
    if device != "cpu":
        return open_on_gpus(model, device, execution)
    if execution.precision == "fp16":
        raise OptionError(
            "The precision 'fp16' cannot be had on the device 'cpu': ONNX Runtime would compute in"
            " float32 and round in between, slower and less exact.",
            hint="Use --precision fp32, or --device cuda.",
        )
    return OrtNetwork(model, execution)


def device_of(execution: Execution) -> str:
    """The device that is meant: "auto" is CUDA where there is an NVIDIA GPU, else the CPU."""
    if execution.device == "auto":
        return "cuda" if gpu_count() else "cpu"
    return execution.device
