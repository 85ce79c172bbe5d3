"""Opens a network on NVIDIA GPUs, or says why that is not possible."""

from __future__ import annotations

import contextlib
import ctypes
import io
import sys
from pathlib import Path

import onnxruntime

from tlpipe.errors import DeviceError
from tlpipe.stages.session.opening import CPU, open_session

CUDA = "CUDAExecutionProvider"

# "fp32" means fp32: TensorFloat-32, the default on newer GPUs, rounds to 10 bits of mantissa.
_CUDA_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}

_CUDA_HELP = (
    "See https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html for the CUDA"
    " and cuDNN versions that go with the installed onnxruntime-gpu, or use --device cpu."
)


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


def open_cuda(model: Path | bytes) -> onnxruntime.InferenceSession:
    """Open a network on the GPU.

    Raises
    ------
    DeviceError
        It would run elsewhere, or ONNX Runtime has no CUDA.
    """
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
    session = open_session(model, [(CUDA, _CUDA_OPTIONS), CPU])
    provider = session.get_providers()[0]
    if provider != CUDA:
        cause = causes or f"the driver reports {gpu_count()} NVIDIA GPUs"
        raise DeviceError(
            f"CUDA was asked for, but ONNX Runtime opened the network on {provider}: {cause}.",
            hint=_CUDA_HELP,
        )
    return session
