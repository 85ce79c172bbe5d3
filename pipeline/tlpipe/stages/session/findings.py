"""Says what keeps a provider of ONNX Runtime from working, and the cure: for errors and doctor."""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
from dataclasses import dataclass

import onnxruntime

from tlpipe.errors import DeviceError
from tlpipe.stages.session.gpus import Driver, find_driver
from tlpipe.stages.session.libraries import (
    CUDA,
    SHORT,
    TENSORRT,
    library_of,
    missing_cudnn,
    missing_libraries,
)

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
                f" {provider.removesuffix('ExecutionProvider')} provider.",
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
    found += _driver_findings(driver)
    missing = missing_libraries(provider)
    if missing:
        found.append(
            Finding(f"The {provider} lacks libraries: {', '.join(missing)}.", _cure(missing))
        )
    return found


def cudnn_findings() -> list[Finding]:
    """Whether a GPU works, but without cuDNN; to be asked once a network was opened on it."""
    missing = missing_cudnn()
    if not missing:
        return []
    return [
        Finding(
            f"cuDNN ({library_of(missing[0])}) cannot be loaded: convolutions may be slow or fail.",
            _cure(missing),
        )
    ]


def _driver_findings(driver: Driver) -> list[Finding]:
    """Whether the driver is too old for the CUDA that the wheel was built with.

    Within one major version any driver will do. Source: NVIDIA, CUDA Compatibility, "Minor Version
    Compatibility".
    """
    newest, needed = driver.cuda.split(".")[0], _cuda_major()
    if not newest or int(newest) >= int(needed):
        return []
    return [
        Finding(
            f"The NVIDIA driver supports CUDA up to {driver.cuda}; the installed ONNX Runtime"
            f" {onnxruntime.__version__} needs CUDA {needed}.",
            f"Update NVIDIA's driver, or install an onnxruntime-gpu built for CUDA {newest}.",
        )
    ]


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
    short = SHORT[provider]
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
    provider = next((name for name, short in SHORT.items() if short == device), "")
    found = provider_findings(provider) if provider else []
    return found or [Finding(exc.message, exc.hint)]
