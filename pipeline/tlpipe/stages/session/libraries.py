"""Loads the libraries that NVIDIA's providers need, and says which cannot be loaded."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import io
import re
import sys
from pathlib import Path

import onnxruntime

CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"

SHORT = {CUDA: "cuda", TENSORRT: "tensorrt"}
"""Names as ``--device`` has them."""


def preload(provider: str) -> list[str]:
    """Load the libraries that a provider needs; messages about those that cannot be loaded.

    They are taken from the packages that NVIDIA has on PyPI, or from where the system looks.

    Source: ONNX Runtime, "Install ONNX Runtime", section "CUDA and cuDNN", on ``preload_dlls``.
    """
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):  # it prints what it cannot load
        onnxruntime.preload_dlls()
    if provider == TENSORRT:
        _preload_tensorrt()
    lines = [line.strip() for line in printed.getvalue().splitlines()]
    return [line for line in lines if line.startswith("Failed to load ")]


def missing_libraries(provider: str) -> list[str]:
    """Libraries that a provider needs and that cannot be loaded, the reason with each.

    To be asked once a session could not be opened: a provider's library that is loaded before ONNX
    Runtime has looked for it would not find its way back.
    """
    found = {library_of(line): line for line in preload(provider)}
    # The last says the first alone that its loader misses, but of any kind.
    for line in (*missing_cudnn(), *_missing_tensorrt(provider), *_refused(provider)):
        found.setdefault(library_of(line), line)
    found.pop("libcuda.so.1", None)  # the driver's, which find_driver looks for
    return [_shortened(library, line) for library, line in found.items()]


def missing_cudnn() -> list[str]:
    """Why cuDNN cannot be loaded; empty where it can be, after ``preload``.

    Newer versions of the CUDA provider open without it, and compute convolutions in other ways, or
    not at all. Source: onnxruntime pull request #29252.
    """
    return _loads("cudnn64_9.dll" if sys.platform == "win32" else "libcudnn.so.9")


def _missing_tensorrt(provider: str) -> list[str]:
    """Libraries of TensorRT that its provider names and that cannot be loaded."""
    path = _provider_library(TENSORRT)
    if provider != TENSORRT or not path.is_file():
        return []
    named = {name.decode() for name in re.findall(rb"libnv\w+\.so\.\d+", path.read_bytes())}
    return [line for name in sorted(named) for line in _loads(name)]


def _loads(name: str) -> list[str]:
    """Why a library cannot be loaded; empty where it can be."""
    try:
        ctypes.CDLL(name)
    except OSError as exc:
        return [f"{name}: {exc}"]
    return []


def _provider_library(provider: str) -> Path:
    return _capi() / f"libonnxruntime_providers_{SHORT[provider]}.so"


def _capi() -> Path:
    return Path(onnxruntime.__file__).parent / "capi"


def library_of(line: str) -> str:
    """Name of the library that a message is of."""
    named = re.search(r"[\w.+-]+\.(?:so|dll)(?:\.\d+)*", line)
    return named[0] if named else line


def _shortened(library: str, line: str) -> str:
    """The library, and why it cannot be loaded, unless it is simply not there."""
    reason = line.rpartition(": ")[2].strip(" .")
    return library if reason in ("No such file or directory", library) else f"{library} ({reason})"


def _preload_tensorrt() -> None:
    """Load TensorRT where its Python package has it, which the system's loader does not know.

    Source: the files of the package tensorrt-cu13-libs, which has the folder ``tensorrt_libs``.
    """
    spec = importlib.util.find_spec("tensorrt_libs")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for pattern in ("libnvinfer.so.*", "libnvonnxparser.so.*", "nvinfer_*.dll"):
            for path in sorted(Path(folder).glob(pattern)):
                with contextlib.suppress(OSError):  # what is missing is found by _refused
                    ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


def _refused(provider: str) -> list[str]:
    """Why the system's loader does not open the provider's library; empty where it does."""
    if sys.platform != "linux":  # elsewhere the loader does not say which library it misses
        return []
    try:
        # This one has what the others are linked against.
        shared = _capi() / "libonnxruntime_providers_shared.so"
        ctypes.CDLL(str(shared), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(_provider_library(provider)))
    except OSError as exc:
        return [str(exc)]
    return []
