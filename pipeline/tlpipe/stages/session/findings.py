"""Says what keeps a provider of ONNX Runtime from working, and the cure: for errors and doctor."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import importlib.util
import io
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import onnxruntime

from tlpipe.errors import DeviceError
from tlpipe.stages.session.gpus import find_driver

CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"

_SHORT = {CUDA: "cuda", TENSORRT: "tensorrt"}

_VERSIONS = {
    CUDA: "https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html",
    TENSORRT: "https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html",
}

_WHEELS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes
    ----------
    what : str
        A full sentence.
    cure : str
        What to do about it; a full sentence.
    """

    what: str
    cure: str


def wheels() -> dict[str, str]:
    """Versions of the installed distributions that hold the package ``onnxruntime``, by name."""
    found = {}
    for name in _WHEELS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def wheel_findings() -> list[Finding]:
    """Whether several distributions of ONNX Runtime have overwritten each other."""
    found = wheels()
    if len(found) < 2:
        return []
    names = " and ".join(f"{name} {version}" for name, version in found.items())
    return [
        Finding(
            f"{names} are both installed; they share one import package, and the one that was"
            " installed last has overwritten files of the other.",
            f"Keep one: pip uninstall -y {' '.join(found)}; pip install {_best(found)}",
        )
    ]


def _best(found: dict[str, str]) -> str:
    return "onnxruntime-gpu" if "onnxruntime-gpu" in found else next(iter(found))


def provider_findings(provider: str) -> list[Finding]:
    """What keeps an NVIDIA provider from working; empty where nothing was found.

    To be asked once a session could not be opened; see ``missing_libraries``.

    Parameters
    ----------
    provider : str
        ``CUDA`` or ``TENSORRT``.
    """
    found = wheel_findings()
    if provider not in onnxruntime.get_available_providers():
        return [
            *found,
            Finding(
                f"The installed ONNX Runtime {onnxruntime.__version__} has no"
                f" {_SHORT[provider].upper().replace('TENSORRT', 'TensorRT')} provider.",
                "Install it in a fresh environment: pip uninstall onnxruntime;"
                " pip install onnxruntime-gpu (Linux and Windows on x86-64).",
            ),
        ]
    driver = find_driver()
    if driver.problem:
        found.append(
            Finding(
                f"There is no NVIDIA GPU to use: {driver.problem}.",
                "Install NVIDIA's driver, and see whether nvidia-smi lists the GPU; give a"
                " container access to it (docker run --gpus all); CUDA_VISIBLE_DEVICES must not"
                " hide it.",
            )
        )
    missing = missing_libraries(provider)
    if missing:
        found.append(
            Finding(f"The {provider} lacks libraries: {', '.join(missing)}.", _cure(missing))
        )
    return found


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
    found = {_library(line): line for line in preload(provider)}
    # The last says the first alone that its loader misses, but of any kind.
    for line in (*missing_cudnn(), *_missing_tensorrt(provider), *_refused(provider)):
        found.setdefault(_library(line), line)
    found.pop("libcuda.so.1", None)  # the driver's, which find_driver looks for
    return [_shortened(library, line) for library, line in found.items()]


def missing_cudnn() -> list[str]:
    """Why cuDNN cannot be loaded; empty where it can be, after ``preload``.

    Newer versions of the CUDA provider open without it, and compute convolutions in other ways, or
    not at all. Source: onnxruntime pull request #29252.
    """
    return _loads("cudnn64_9.dll" if sys.platform == "win32" else "libcudnn.so.9")


def cudnn_findings() -> list[Finding]:
    """Whether a GPU works, but without cuDNN; to be asked once a network was opened on it."""
    missing = missing_cudnn()
    if not missing:
        return []
    return [
        Finding(
            f"cuDNN ({_library(missing[0])}) cannot be loaded: convolutions may be slow, or fail.",
            _cure(missing),
        )
    ]


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
    return _capi() / f"libonnxruntime_providers_{_SHORT[provider]}.so"


def _capi() -> Path:
    return Path(onnxruntime.__file__).parent / "capi"


def _library(line: str) -> str:
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


def _cure(missing: list[str]) -> str:
    """The pip command that brings libraries, as far as they are on PyPI.

    Source: metadata of the distribution onnxruntime-gpu, its extras "cuda" and "cudnn".
    """
    text = " ".join(missing)
    commands = []
    if engine := re.search(r"(?:nvinfer|nvonnxparser)\.so\.(\d+)", text):
        major = int(engine[1])
        commands.append(f"pip install 'tensorrt-cu{_cuda_major()}>={major},<{major + 1}'")
    if re.search(r"cublas|cudnn|curand|cufft|cudart|nvrtc|nvJitLink", text):
        commands.insert(0, "pip install 'onnxruntime-gpu[cuda,cudnn]'")
    if not commands:
        return f"See {_VERSIONS[CUDA]} for what goes with the installed onnxruntime-gpu."
    return f"Install them: {'; '.join(commands)}"


def _cuda_major() -> str:
    """Major version of the CUDA that the wheel was built with."""
    return str(getattr(onnxruntime, "cuda_version", "") or "12").split(".")[0]


def blocking(provider: str, found: list[Finding], instead: str = "") -> DeviceError:
    """What is raised where a provider was asked for and cannot be used.

    Parameters
    ----------
    provider : str
    found : list of Finding
        What ``provider_findings`` gave.
    instead : str, optional
        What happened instead.
    """
    short = _SHORT[provider]
    causes = " ".join(finding.what for finding in found)
    cures = " ".join(f"{finding.cure.rstrip('.')}." for finding in found)
    versions = f"See {_VERSIONS[provider]} for the versions that go together."
    return DeviceError(
        f"--device {short} was asked for, but {instead or 'it cannot be used'}."
        + (f" {causes}" if causes else ""),
        hint=f"{cures or versions} 'tlpipe doctor --device {short}' says more; --device cpu runs"
        " without a GPU.",
    )


def findings_of(exc: DeviceError, device: str) -> list[Finding]:
    """What keeps a device from working; the error itself where nothing more is known.

    Parameters
    ----------
    exc : DeviceError
        What opening a network on it raised.
    device : str
        "cuda" or "tensorrt".
    """
    provider = next((name for name, short in _SHORT.items() if short == device), "")
    found = provider_findings(provider) if provider else []
    return found or [Finding(exc.message, exc.hint)]
