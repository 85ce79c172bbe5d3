"""Chooses what runs a network: a table of what is offered on which device."""

from __future__ import annotations

import importlib.util
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tlpipe.errors import DeviceError, OptionError
from tlpipe.execution import Device, Execution, Precision
from tlpipe.stages.session.gpus import gpu_count
from tlpipe.stages.session.nvidia import open_on_gpus
from tlpipe.stages.session.ort import OrtNetwork

_log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from tlpipe.seams import OpenedNetwork

_OFFERED: dict[tuple[str, Precision], tuple[Device, ...]] = {
    ("onnxruntime", "fp32"): ("cuda", "tensorrt", "cpu"),
    ("onnxruntime", "fp16"): ("cuda", "tensorrt"),  # on a CPU it would be slower than fp32
    ("onnxruntime", "int8"): ("cpu",),
    ("openvino", "fp32"): ("cpu",),
    ("openvino", "bf16"): ("cpu",),
    ("openvino", "int8"): ("cpu",),
}
"""Devices by library and precision; "auto" is the first that is there."""


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
        Device, precision and library do not go together.
    DeviceError
        The device that was asked for, or a GPU that was found, cannot be used; or the library or
        the processor's instructions are not there.
    BackboneError
        The file cannot be opened.
    """
    execution = settled(execution)
    start = time.perf_counter()
    network = _opened(model, execution)
    _log.info(
        "Opened %s at %s on %s in %.2f s.",
        "a network in memory" if isinstance(model, bytes) else f"the network {str(model)!r}",
        execution.precision,
        network.provider,
        time.perf_counter() - start,
    )
    return network


def _opened(model: Path | bytes, execution: Execution) -> OpenedNetwork:
    if execution.device != "cpu":
        return open_on_gpus(model, execution)
    if execution.runtime == "onnxruntime":
        return OrtNetwork(model, execution)
    from tlpipe.stages.session.openvino import OpenVinoNetwork

    return OpenVinoNetwork(model, execution)


def settled(execution: Execution) -> Execution:
    """The same, with device and library chosen where they were left open.

    Raises
    ------
    OptionError
        Device, precision and library do not go together.
    DeviceError
        The library is not installed.
    """
    library, precision = execution.library, execution.precision
    devices = _OFFERED.get((library, precision), ())
    if not devices or execution.device not in ("auto", *devices):
        raise OptionError(_refusal(execution), hint=f"Offered are: {_all_offered()}.")
    if library == "openvino" and not _is_installed("openvino"):
        raise DeviceError(
            f"OpenVINO, which runs {precision}, is not installed.",
            hint="Install it: pip install 'tlpipe[openvino]'",
        )
    device = execution.device
    if device == "auto":
        # Where there is no GPU, but nothing else will do, opening on it says why.
        on_gpu = "cuda" in devices and ("cpu" not in devices or gpu_count())
        device = "cuda" if on_gpu else "cpu"
    return replace(execution, device=device, runtime=library)


def _refusal(execution: Execution) -> str:
    where = "" if execution.device == "auto" else f" on the device {execution.device!r}"
    return (
        f"The precision {execution.precision!r} is not offered by the library"
        f" {execution.library!r}{where}."
    )


def _all_offered() -> str:
    return "; ".join(
        f"{precision} by {library} on {' or '.join(devices)}"
        for (library, precision), devices in _OFFERED.items()
    )


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
