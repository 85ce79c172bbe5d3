"""Opens a network on an NVIDIA GPU with ONNX Runtime's CUDA provider."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import onnxruntime

from tlpipe.errors import BackboneError
from tlpipe.stages.session.findings import blocking, cudnn_findings, provider_findings
from tlpipe.stages.session.gpus import find_driver
from tlpipe.stages.session.libraries import CUDA, preload
from tlpipe.stages.session.opening import CPU, open_session, placement

_log = logging.getLogger(__name__)


def cuda_options(index: int) -> dict[str, str]:
    """Options of the CUDA provider for one GPU.

    Source: ONNX Runtime, "CUDA Execution Provider", section "Configuration Options".
    """
    return {
        "device_id": str(index),
        # Exhaustive search, the default, tries all algorithms for each shape: seconds to minutes.
        "cudnn_conv_algo_search": "HEURISTIC",
        # "fp32" means fp32: TensorFloat-32, the default since Ampere, keeps 10 bits of mantissa.
        "use_tf32": "0",
    }


def open_cuda(model: Path | bytes, index: int = 0) -> onnxruntime.InferenceSession:
    """Open a network on a GPU.

    Raises
    ------
    DeviceError
        It cannot run there; with what is missing, and the cure.
    BackboneError
        ONNX Runtime cannot open the file on any device.
    """
    return open_on(CUDA, model, [(CUDA, cuda_options(index)), CPU])


def open_on(
    provider: str, model: Path | bytes, providers: list[Any]
) -> onnxruntime.InferenceSession:
    """Open a network on the first of some providers, or not at all.

    Raises
    ------
    DeviceError
        It cannot run there; with what is missing, and the cure.
    BackboneError
        ONNX Runtime cannot open the file on any device.
    """
    if provider not in onnxruntime.get_available_providers():  # it would warn, and run elsewhere
        raise blocking(provider, provider_findings(provider))
    if preload(provider) or find_driver().problem:
        onnxruntime.set_default_logger_severity(4)  # the cause is known: no need of its log
    try:
        session = open_session(model, providers)
    except BackboneError as exc:
        # Of the file, or of the provider: a file that is at fault does not open on the CPU either.
        open_session(model, [CPU])
        found = provider_findings(provider)
        said = " ".join(str(exc.__cause__).split()).rstrip(".")
        instead = "" if found else f"ONNX Runtime says: {said}"
        raise blocking(provider, found, instead) from exc
    used = session.get_providers()[0]
    if used != provider:
        found = provider_findings(provider)
        raise blocking(provider, found, f"ONNX Runtime opened the network on {used}")
    placed = placement(session)
    if placed and not placed[provider]:
        raise blocking(provider, [], f"ONNX Runtime runs none of the network on it: {dict(placed)}")
    for finding in cudnn_findings():
        _log.warning("%s %s", finding.what, finding.cure)
    return session
