"""Opens a network on every GPU that may be used."""

from __future__ import annotations

from pathlib import Path

from tlpipe.errors import DeviceError
from tlpipe.execution import Execution
from tlpipe.files import cache_dir
from tlpipe.stages.session.cuda import open_cuda
from tlpipe.stages.session.gpu_network import GpuNetwork, Place
from tlpipe.stages.session.gpus import HALF_SINCE, Gpu, find_driver
from tlpipe.stages.session.half import half
from tlpipe.stages.session.opening import CPU, open_session
from tlpipe.stages.session.tensorrt import BATCH_SIZE, EngineSpec, open_tensorrt


def open_on_gpus(model: Path | bytes, execution: Execution) -> GpuNetwork:
    """Open a network on all GPUs that CUDA_VISIBLE_DEVICES leaves visible.

    Parameters
    ----------
    model : pathlib.Path or bytes
        An ONNX file, or its content.
    execution : Execution
        On "cuda" or "tensorrt", in fp32 or fp16 (see ``choose``).

    Raises
    ------
    DeviceError
        A GPU cannot be used, or not in that precision.
    BackboneError
        The file cannot be opened.
    """
    gpus = find_driver().gpus
    in_half = execution.precision == "fp16"
    if in_half:
        _check_half(gpus)
    indices = [gpu.index for gpu in gpus] or [0]  # where there is none, opening says why
    if execution.device == "tensorrt":
        size = execution.batch_size or BATCH_SIZE
        spec = _engine_spec(model, size, half=in_half)
        places = [Place(open_tensorrt(model, spec, index), index=index) for index in indices]
        return GpuNetwork(places, size, fixed=True)
    model = half(model) if in_half else model
    places = [Place(open_cuda(model, index), index=index) for index in indices]
    return GpuNetwork(places, execution.batch_size, fixed=False)


def _check_half(gpus: tuple[Gpu, ...]) -> None:
    old = [gpu for gpu in gpus if gpu.capability < HALF_SINCE]
    if old:
        major, minor = old[0].capability
        raise DeviceError(
            f"GPU {old[0].index} ({old[0].name}) has compute capability {major}.{minor}; float16"
            f" needs {HALF_SINCE[0]}.{HALF_SINCE[1]}.",
            hint="Use --precision fp32, or hide that GPU with CUDA_VISIBLE_DEVICES.",
        )


def _engine_spec(model: Path | bytes, size: int, *, half: bool) -> EngineSpec:
    image = open_session(model, [CPU]).get_inputs()[0]
    shape = (size, *image.shape[1:])
    return EngineSpec(image.name, shape, half, cache_dir() / "tensorrt")
