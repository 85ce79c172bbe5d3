"""Says what libraries can run networks here, and on what."""

from __future__ import annotations

import importlib
import importlib.metadata
from dataclasses import asdict
from typing import Any

import onnxruntime

from tlpipe.stages.session.findings import wheels
from tlpipe.stages.session.gpus import find_driver

# OpenVINO's names of precisions. Source: OpenVINO, "Query Device Properties", the property
# OPTIMIZATION_CAPABILITIES.
_PRECISIONS = {"FP32": "fp32", "BF16": "bf16", "FP16": "fp16", "INT8": "int8"}


def runtime_facts() -> dict[str, Any]:
    """Wheels, versions and providers of ONNX Runtime; the driver's GPUs; OpenVINO's precisions."""
    driver = find_driver()
    return {
        "onnxruntime": {
            "wheels": wheels(),
            "version": onnxruntime.__version__,
            "cuda": str(getattr(onnxruntime, "cuda_version", "")),
            "providers": list(onnxruntime.get_available_providers()),
        },
        "gpus": [asdict(gpu) for gpu in driver.gpus],
        "driver": {"cuda": driver.cuda, "problem": driver.problem},
        "openvino": _openvino(),
    }


def _openvino() -> dict[str, Any] | None:
    """Version of OpenVINO and the precisions it offers on this CPU; None where it is missing."""
    try:
        version = importlib.metadata.version("openvino")
    except importlib.metadata.PackageNotFoundError:
        return None
    try:
        core = importlib.import_module("openvino").Core()
        offered = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except Exception as exc:  # whatever an installation that is broken raises
        return {"version": version, "precisions": [], "problem": str(exc)}
    return {"version": version, "precisions": [_PRECISIONS[n] for n in _PRECISIONS if n in offered]}
