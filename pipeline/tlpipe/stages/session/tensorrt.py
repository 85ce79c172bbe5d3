"""Opens a network on an NVIDIA GPU with ONNX Runtime's TensorRT provider."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import onnxruntime

from tlpipe.files import make_folder, sha256_file
from tlpipe.stages.session.cuda import cuda_options, open_on
from tlpipe.stages.session.libraries import CUDA, TENSORRT
from tlpipe.stages.session.opening import CPU

BATCH_SIZE = 32
"""TensorRT builds an engine for each shape, which takes minutes: so sizes are not tried out."""

_TF32 = "NVIDIA_TF32_OVERRIDE"


@dataclass(frozen=True)
class EngineSpec:
    """What an engine is built for.

    Attributes
    ----------
    input : str
        Name of the graph's input.
    shape : tuple of int
        B, H, W, 3.
    half : bool
        Whether it may compute in float16.
    cache : pathlib.Path
        Folder for engines and timings.
    """

    input: str
    shape: tuple[int, ...]
    half: bool
    cache: Path


def tensorrt_options(spec: EngineSpec, folder: Path, index: int) -> dict[str, str]:
    """Options of the TensorRT provider for one GPU.

    Parameters
    ----------
    spec : EngineSpec
    folder : pathlib.Path
        What ``engine_folder`` gave.
    index : int

    Notes
    -----
    Source: ONNX Runtime, "TensorRT Execution Provider", sections "Configurations" and "Explicit
    shape range for dynamic shape input".
    """
    profile = f"{spec.input}:{'x'.join(map(str, spec.shape))}"
    return {
        "device_id": str(index),
        "trt_fp16_enable": str(int(spec.half)),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(spec.cache),
        "trt_profile_min_shapes": profile,
        "trt_profile_opt_shapes": profile,
        "trt_profile_max_shapes": profile,
    }


def engine_folder(model: Path | bytes, spec: EngineSpec) -> Path:
    """Folder for the engines of one network, shape and arithmetic.

    ONNX Runtime names an engine by the names in the graph alone: two networks of one architecture,
    or two shapes, would share an engine, and so give each other's embeddings (onnxruntime issues
    #6455 and #32254).
    """
    content = hashlib.sha256(model).hexdigest() if isinstance(model, bytes) else sha256_file(model)
    key = json.dumps([content, spec.shape, spec.half, "no-tf32", onnxruntime.__version__])
    return spec.cache / hashlib.sha256(key.encode()).hexdigest()[:32]


def open_tensorrt(
    model: Path | bytes, spec: EngineSpec, index: int = 0
) -> onnxruntime.InferenceSession:
    """Open a network on a GPU; builds its engine, which takes minutes, where the cache has none.

    Raises
    ------
    DeviceError
        It would run elsewhere; with what is missing, and the cure.
    BackboneError
        ONNX Runtime cannot open it.
    OutputError
        The cache's folder cannot be made.
    """
    # The provider has no option for it (onnxruntime issue #26029): this one NVIDIA's libraries read
    # once, when they are first used, and it holds for the whole process.
    os.environ[_TF32] = "0"
    folder = engine_folder(model, spec)
    make_folder(folder)
    options = tensorrt_options(spec, folder, index)
    # CUDA runs what TensorRT does not know; the network must begin on TensorRT.
    return open_on(TENSORRT, model, [(TENSORRT, options), (CUDA, cuda_options(index)), CPU])
