"""NVIDIA GPUs, as the installed driver reports them; needs no CUDA toolkit."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from typing import Any

# Source: NVIDIA, CUDA Driver API, "Data types used by CUDA driver": CUdevice_attribute.
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE, of CUresult: a driver, but no GPU that may be used

HALF_SINCE = (5, 3)
"""Compute capability from which GPUs compute in float16. Source: NVIDIA, CUDA C++ Programming
Guide, "Arithmetic Instructions": throughput of 16-bit floating-point operations."""


@dataclass(frozen=True)
class Gpu:
    """A GPU that this process may use.

    Attributes
    ----------
    index : int
        Its number among those, which CUDA_VISIBLE_DEVICES may restrict and reorder.
    name : str
    memory_bytes : int
    capability : tuple of 2 int
        Compute capability: major and minor.
    """

    index: int
    name: str
    memory_bytes: int
    capability: tuple[int, int]


@dataclass(frozen=True)
class Driver:
    """What the driver says.

    Attributes
    ----------
    gpus : tuple of Gpu
    cuda : str
        The newest CUDA that the driver supports, as "13.0"; "" without a driver.
    problem : str
        Why it reports no GPUs; "" where it does.
    """

    gpus: tuple[Gpu, ...] = ()
    cuda: str = ""
    problem: str = ""


def find_driver() -> Driver:
    """Ask the installed driver.

    Source: NVIDIA, CUDA Driver API: cuInit, cuDriverGetVersion, cuDeviceGetCount, cuDeviceGet,
    cuDeviceGetName, cuDeviceTotalMem, cuDeviceGetAttribute.
    """
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        library = ctypes.CDLL(name)
    except OSError:
        return Driver(problem=f"no NVIDIA driver is installed ({name} cannot be loaded)")
    return ask(library)


def ask(library: Any) -> Driver:
    """Ask a driver that is loaded.

    Parameters
    ----------
    library : ctypes.CDLL
        CUDA's driver API.
    """
    version = ctypes.c_int(0)
    library.cuDriverGetVersion(ctypes.byref(version))
    # Source: CUDA Driver API, cuDriverGetVersion: 1000 * major + 10 * minor.
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    status = library.cuInit(0)
    if status == _NO_DEVICE:
        return Driver(cuda=cuda, problem="the NVIDIA driver reports no GPU that may be used")
    if status != 0:
        return Driver(cuda=cuda, problem=f"the NVIDIA driver fails: cuInit gives error {status}")
    count = ctypes.c_int(0)
    if library.cuDeviceGetCount(ctypes.byref(count)) != 0 or not count.value:
        return Driver(cuda=cuda, problem="the NVIDIA driver reports no GPU that may be used")
    return Driver(tuple(_gpu(library, index) for index in range(count.value)), cuda)


def _gpu(library: Any, index: int) -> Gpu:
    device, total = ctypes.c_int(0), ctypes.c_size_t(0)
    name = ctypes.create_string_buffer(256)
    major, minor = ctypes.c_int(0), ctypes.c_int(0)
    library.cuDeviceGet(ctypes.byref(device), index)
    library.cuDeviceGetName(name, len(name), device)
    library.cuDeviceTotalMem_v2(ctypes.byref(total), device)
    library.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
    library.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
    shown = name.value.decode("utf-8", "replace")
    return Gpu(index, shown, total.value, (major.value, minor.value))


def gpu_count() -> int:
    """Number of NVIDIA GPUs that this process may use; 0 without a driver."""
    return len(find_driver().gpus)
