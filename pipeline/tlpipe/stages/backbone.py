"""Backbone: opens a prepared network on the device that was asked for, and runs it.

The only module that imports ONNX Runtime. Takes a file, gives a ``Network`` (see ``types``): uint8
images in, named arrays out. Imports ``errors``, ``files`` and ``types``.

A device is never exchanged for another: after a session is made, the provider it really uses is
compared with the one asked for.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnxruntime

from tlpipe.errors import BackboneError, DeviceError
from tlpipe.files import is_utf8
from tlpipe.types import Device

if TYPE_CHECKING:
    from tlpipe.types import RunGraph, UInt8Array

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"

# "fp32" means fp32: TensorFloat-32, the default on newer GPUs, rounds to 10 bits of mantissa.
_CUDA_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
# Merges a Pad with zeros into a MaxPool, which pads with the lowest number: wrong where values may
# be negative (ResNet v2 of Keras, exported with channels first: a third off, ONNX Runtime 1.31).
_WRONG_OPTIMIZERS = ["Pad_Fusion"]

_CUDA_HELP = (
    "See https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html for the CUDA"
    " and cuDNN versions that go with the installed onnxruntime-gpu, or use --device cpu."
)


class OrtNetwork:
    """A network run by ONNX Runtime; ``run`` may be called from several threads at once.

    Parameters
    ----------
    model : pathlib.Path or bytes
        An ONNX file, or its content.
    device : {"auto", "cpu", "cuda"}
        "auto" is CUDA where the machine has an NVIDIA GPU, else the CPU.

    Raises
    ------
    DeviceError
        CUDA was asked for, or a GPU was found, and it cannot be used.
    BackboneError
        ONNX Runtime cannot open the file.
    """

    def __init__(self, model: Path | bytes, device: Device = "auto") -> None:
        if device == "auto":
            device = "cuda" if gpu_count() else "cpu"
        self._session = _open_cuda(model) if device == "cuda" else _open(model, [CPU])
        self.provider: str = self._session.get_providers()[0]
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


class _OpenedGraph:
    """A graph that is being worked on, run as it stands; see ``types.RunGraph``."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session

    def __call__(self, feeds: Mapping[str, Any], outputs: Sequence[str]) -> list[Any]:
        try:
            values: list[Any] = self._session.run(list(outputs), dict(feeds))
        except Exception as exc:  # ONNX Runtime's exceptions have no common base
            raise BackboneError(f"The network cannot be run: {exc}") from exc
        return values


def open_graph(content: bytes, folder: str, *, optimised: bool = False) -> RunGraph:
    """Open a graph for surgery, on the CPU: see ``types.OpenGraph``.

    Parameters
    ----------
    content : bytes
        A serialized network.
    folder : str
        Where its external data are; they are mapped, not copied.
    optimised : bool
        Whether to fuse operators, as ``OrtNetwork`` does.

    Raises
    ------
    BackboneError
        ONNX Runtime cannot open it.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # Looking at a shape comes first, so that a tensor is let go as soon as it can be.
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    # All of its fusions, where optimised; but not the layouts of weights that it adds at its last
    # level, which would hold them in memory twice more.
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = (
        level.ORT_ENABLE_EXTENDED if optimised else level.ORT_DISABLE_ALL
    )
    options.add_session_config_entry("session.disable_prepacking", "1")  # a copy of the weights
    if folder:
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", folder
        )
    options.enable_cpu_mem_arena = False
    try:
        session = onnxruntime.InferenceSession(
            content, options, providers=[CPU], disabled_optimizers=_WRONG_OPTIMIZERS
        )
    except Exception as exc:  # ONNX Runtime's exceptions have no common base
        raise BackboneError(f"The network cannot be opened by ONNX Runtime: {exc}") from exc
    return _OpenedGraph(session)


def gpu_count() -> int:
    """Number of NVIDIA GPUs that the installed driver reports; 0 without a driver.

    Source: CUDA driver API, cuInit and cuDeviceGetCount.
    """
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def _open(model: Path | bytes, providers: list[Any]) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; what matters of the warnings is checked by us
    # One thread inside, several around: on two cores 162 images/s against 119 with a session that
    # splits each operator over the cores, since no thread ever waits for another.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else _path(model),
            options,
            providers=providers,
            disabled_optimizers=_WRONG_OPTIMIZERS,
        )
        # Else a provider that fails in the middle of a run is exchanged for the CPU, in silence.
        session.disable_fallback()
        return session
    except Exception as exc:  # ONNX Runtime's exceptions have no common base
        name = "The network" if isinstance(model, bytes) else f"{str(model)!r}"
        raise BackboneError(f"{name} cannot be opened by ONNX Runtime: {exc}") from exc


def _path(path: Path) -> str | bytes:
    """`path` as ONNX Runtime takes it: it cannot read a name that is no UTF-8, but a content."""
    return str(path) if is_utf8(str(path)) else path.read_bytes()


def _open_cuda(model: Path | bytes) -> onnxruntime.InferenceSession:
    if CUDA not in onnxruntime.get_available_providers():
        raise DeviceError(
            f"The installed ONNX Runtime {onnxruntime.__version__} has no CUDA provider.",
            hint="Install it in a fresh environment: pip uninstall onnxruntime; "
            "pip install onnxruntime-gpu. Or use --device cpu.",
        )
    findings = io.StringIO()
    with contextlib.redirect_stdout(findings):  # preload_dlls prints what it cannot load
        onnxruntime.preload_dlls()
    causes = "; ".join(findings.getvalue().strip(" .\n").splitlines())
    if causes:  # the cause is known: ONNX Runtime need not log it in colour as well
        onnxruntime.set_default_logger_severity(4)
    session = _open(model, [(CUDA, _CUDA_OPTIONS), CPU])
    provider = session.get_providers()[0]
    if provider != CUDA:
        cause = causes or f"the driver reports {gpu_count()} NVIDIA GPUs"
        raise DeviceError(
            f"CUDA was asked for, but ONNX Runtime opened the network on {provider}: {cause}.",
            hint=_CUDA_HELP,
        )
    return session
