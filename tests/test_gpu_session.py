"""What runs networks on GPUs: with fakes, and on the CPU where the logic permits it."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import TINY_DIM, TINY_SIZE
from tlpipe.card import Card
from tlpipe.catalogue import find_card
from tlpipe.errors import BackboneError, DeviceError, OptionError
from tlpipe.execution import ON_CPU, Execution
from tlpipe.stages.engine import Loader, Plan, run
from tlpipe.stages.session import (
    CPU,
    CUDA,
    TENSORRT,
    findings,
    libraries,
    nvidia,
    open_graph,
    open_network,
)
from tlpipe.stages.session.batches import best_batch_size, is_out_of_memory
from tlpipe.stages.session.findings import provider_findings, wheel_findings
from tlpipe.stages.session.gpu_network import GpuNetwork, Place
from tlpipe.stages.session.gpus import Driver, Gpu, ask
from tlpipe.stages.session.half import half
from tlpipe.stages.session.libraries import missing_libraries
from tlpipe.stages.session.opening import open_session
from tlpipe.stages.session.tensorrt import EngineSpec, engine_folder, tensorrt_options
from tlpipe.stages.weights import prepared_file
from tlpipe.types import Content, FileStat, Item

FULL = (
    "Non-zero status code returned while running Conv node. Status Message: bfc_arena.cc:376"
    " void* onnxruntime::BFCArena::AllocateRawInternal Failed to allocate memory for requested"
    " buffer of size 939524096"
)
IMAGES = np.random.default_rng(5).integers(0, 256, (11, TINY_SIZE, TINY_SIZE, 3), np.uint8)
CONTENT = Content(b"0" * 32, FileStat(1, 2))


class FakeDriver:
    """CUDA's driver API with two GPUs, as ctypes would give it."""

    def __init__(self, status: int = 0, count: int = 2) -> None:
        self._status, self._count = status, count

    def cuInit(self, _: int) -> int:  # noqa: N802
        return self._status

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        version._obj.value = 13010
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self._count
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:  # noqa: N802
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: ctypes.c_int) -> int:  # noqa: N802
        assert size == len(name)
        name.value = b"GPU %d" % device.value
        return 0

    def cuDeviceTotalMem_v2(self, total: Any, _: ctypes.c_int) -> int:  # noqa: N802
        total._obj.value = 24 << 30
        return 0

    def cuDeviceGetAttribute(self, value: Any, which: int, _: ctypes.c_int) -> int:  # noqa: N802
        value._obj.value = {75: 8, 76: 6}[which]
        return 0


def test_the_driver_is_asked_for_gpus() -> None:
    assert ask(FakeDriver()) == Driver(
        (Gpu(0, "GPU 0", 24 << 30, (8, 6)), Gpu(1, "GPU 1", 24 << 30, (8, 6))), "13.1"
    )
    assert "no GPU" in ask(FakeDriver(status=100)).problem
    assert "cuInit gives error 803" in ask(FakeDriver(status=803)).problem
    assert "no GPU" in ask(FakeDriver(count=0)).problem


@pytest.mark.parametrize(
    "text",
    [
        FULL,
        "CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc(&p, size);",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
        "CUDNN failure 4003: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "CUDNN_STATUS_ALLOC_FAILED",
        "CUDA_ERROR_OUT_OF_MEMORY",
    ],
)
def test_a_full_memory_is_told_from_its_message(text: str) -> None:
    assert is_out_of_memory(RuntimeError(text))
    wrapped = BackboneError("The network failed.")
    wrapped.__cause__ = RuntimeError(text)
    assert is_out_of_memory(wrapped)
    assert not is_out_of_memory(RuntimeError("CUDNN_STATUS_BAD_PARAM"))


def test_the_batch_is_doubled_while_that_is_worth_it() -> None:
    tried = []

    def seconds(size: int) -> float:
        tried.append(size)
        return 0.010 + size * 0.001

    assert best_batch_size(seconds) == 256
    assert tried == [8, 16, 32, 64, 128, 256]


def test_a_slower_larger_batch_is_not_kept() -> None:
    assert best_batch_size(lambda size: size * (1 if size <= 32 else 2)) == 8
    assert best_batch_size(lambda size: 1 if size <= 32 else 10 * size) == 32


@given(fits=st.integers(1, 600))
def test_the_batch_fits_into_memory(fits: int) -> None:
    def seconds(size: int) -> float:
        if size > fits:
            raise RuntimeError(FULL)
        return 1.0

    found = best_batch_size(seconds)
    assert found == min(512, 1 << (fits.bit_length() - 1))


def test_no_batch_at_all_and_other_failures_are_errors() -> None:
    def full(size: int) -> float:
        raise RuntimeError(FULL)

    def broken(size: int) -> float:
        raise RuntimeError("invalid argument")

    with pytest.raises(RuntimeError, match="Failed to allocate"):
        best_batch_size(full)
    with pytest.raises(RuntimeError, match="invalid argument"):
        best_batch_size(broken)


class Part:
    """A part of a network, as ONNX Runtime says where it runs."""

    def __init__(self, name: str, count: int) -> None:
        self.ep_name, self._count = name, count

    def get_nodes(self) -> list[None]:
        return [None] * self._count


class Watched:
    """A session that notes the sizes it runs, fails as told, and else does what another does."""

    def __init__(self, session: Any, name: str = CUDA) -> None:
        self._session, self._name = session, name
        self.sizes: list[int] = []
        self.fits = 10_000
        self.error = ""
        self.placed = [Part(name, 7), Part(CPU, 2), Part(name, 1)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def get_providers(self) -> list[str]:
        return [self._name]

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return self.placed

    def io_binding(self) -> Any:
        binding = self._session.io_binding()
        bind = binding.bind_ortvalue_input

        def noted(name: str, value: Any) -> None:
            binding.rows = value.shape()[0]
            bind(name, value)

        binding.bind_ortvalue_input = noted
        return binding

    def run_with_iobinding(self, binding: Any) -> None:
        self.sizes.append(binding.rows)
        if self.error:
            raise RuntimeError(self.error)
        if binding.rows > self.fits:
            raise RuntimeError(FULL)
        self._session.run_with_iobinding(binding)


@pytest.fixture(scope="module")
def tiny_file(tiny_card: Card) -> Path:
    return prepared_file(tiny_card, open_graph)


@pytest.fixture
def watched(tiny_file: Path) -> Watched:
    return Watched(open_session(tiny_file, [CPU]))


@pytest.fixture
def expected(tiny_file: Path) -> np.ndarray:
    return open_network(tiny_file, ON_CPU).run(IMAGES)["embeddings"]


def on_gpus(*sessions: Watched, size: int | None = None, fixed: bool = False) -> GpuNetwork:
    return GpuNetwork([Place(session, "cpu") for session in sessions], size, fixed=fixed)


def test_a_batch_is_filled_up_to_one_size_and_cut_again(
    watched: Watched, expected: np.ndarray
) -> None:
    network = on_gpus(watched, size=8)
    assert network.provider == CUDA
    assert network.batch_sizes == (8,)
    for count in (8, 3, 8, 11, 1):
        found = network.run(IMAGES[:count])["embeddings"]
        np.testing.assert_allclose(found, expected[:count], rtol=1e-5, atol=1e-6)
        assert found.shape == (count, TINY_DIM)
    assert set(watched.sizes) == {8}


def test_results_are_copies(watched: Watched) -> None:
    network = on_gpus(watched, size=4)
    first = network.run(IMAGES[:4])["embeddings"]
    kept = first.copy()
    for _ in range(4):
        network.run(IMAGES[4:8])
    np.testing.assert_array_equal(first, kept)


def test_images_that_do_not_lie_in_one_piece(watched: Watched, expected: np.ndarray) -> None:
    found = on_gpus(watched, size=4).run(IMAGES[:8:2])["embeddings"]
    np.testing.assert_allclose(found, expected[:8:2], rtol=1e-5, atol=1e-6)


def test_outputs_can_be_chosen(watched: Watched) -> None:
    chosen = on_gpus(watched, size=4).only(["embeddings"])
    assert list(chosen.run(IMAGES[:2])) == ["embeddings"]
    assert chosen.shapes() == ((TINY_SIZE, TINY_SIZE, 3), (TINY_DIM,))
    with pytest.raises(BackboneError, match="no outputs"):
        chosen.only(["x"])


def test_the_size_is_found_when_it_is_asked_for(watched: Watched) -> None:
    watched.fits = 64
    network = on_gpus(watched)
    assert watched.sizes == []
    (size,) = network.batch_sizes
    assert size in (8, 16, 32, 64)
    tried = len(watched.sizes)
    network.run(IMAGES)
    assert network.batch_sizes == (size,)
    assert set(watched.sizes[tried:]) == {size}


def test_a_network_that_fails_while_sizes_are_tried(watched: Watched) -> None:
    watched.error = "invalid argument"
    with pytest.raises(BackboneError, match="failed on a batch of shape"):
        _ = on_gpus(watched).batch_sizes


def test_a_memory_that_became_too_small_halves_the_batch(
    watched: Watched, expected: np.ndarray
) -> None:
    network = on_gpus(watched, size=8)
    network.run(IMAGES)
    watched.fits = 3
    for _ in range(4):
        found = network.run(IMAGES)["embeddings"]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    watched.fits = 100
    watched.sizes.clear()
    network.run(IMAGES)
    assert set(watched.sizes) == {2}, "it stays halved"


@pytest.mark.parametrize("fixed", [False, True])
def test_a_memory_too_small_for_anything_is_an_error(watched: Watched, fixed: bool) -> None:
    watched.fits = 0
    network = on_gpus(watched, size=4, fixed=fixed)
    with pytest.raises(BackboneError, match="Failed to allocate memory") as caught:
        network.run(IMAGES)
    assert "smaller --batch-size" in caught.value.hint
    assert watched.sizes == ([4] if fixed else [4, 2, 1])


def test_a_lane_that_failed_is_given_back(watched: Watched, expected: np.ndarray) -> None:
    network = on_gpus(watched, size=4)
    watched.error = "CUDA failure 700: an illegal memory access was encountered"
    for _ in range(5):  # more often than there are lanes
        with pytest.raises(BackboneError, match="illegal memory access"):
            network.run(IMAGES[:4])
    watched.error = ""
    np.testing.assert_allclose(
        network.run(IMAGES[:4])["embeddings"], expected[:4], rtol=1e-5, atol=1e-6
    )


class Slow(Watched):
    """A session that takes long, and notes how many calls it serves at once."""

    def __init__(self, session: Any) -> None:
        super().__init__(session)
        self._lock, self._now, self.most = threading.Lock(), 0, 0

    def run_with_iobinding(self, binding: Any) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(0.005)
        super().run_with_iobinding(binding)
        with self._lock:
            self._now -= 1


LOAD = Loader(
    lambda item: (b"", CONTENT), lambda item, raw, content: IMAGES[int(item.key) % len(IMAGES)]
)


def test_several_gpus_share_the_work_and_keep_its_order(
    tiny_file: Path, expected: np.ndarray
) -> None:
    sessions = [Slow(open_session(tiny_file, [CPU])) for _ in range(3)]
    network = on_gpus(*sessions, size=4)
    assert network.lanes == 6
    items = [Item(str(number), str(number)) for number in range(240)]
    outcomes = list(run(items, LOAD, network, Plan(8)))
    assert [outcome.item.key for outcome in outcomes] == [str(n) for n in range(240)]
    for number, outcome in enumerate(outcomes):
        row = expected[number % len(IMAGES)]
        np.testing.assert_allclose(outcome.values["embeddings"], row, rtol=1e-5, atol=1e-6)
    for session in sessions:
        assert len(session.sizes) >= 10
        assert session.most <= 2, "no more calls at once than lanes"
    assert max(session.most for session in sessions) == 2


def test_a_gpu_that_fails_ends_the_run(tiny_file: Path) -> None:
    sessions = [Slow(open_session(tiny_file, [CPU])) for _ in range(2)]
    sessions[1].error = "CUDA failure 719: unspecified launch failure"
    items = [Item(str(number), str(number)) for number in range(60)]
    with pytest.raises(BackboneError, match="unspecified launch failure"):
        list(run(items, LOAD, on_gpus(*sessions, size=4), Plan(4)))


@pytest.fixture
def gpu_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr(onnxruntime, "set_default_logger_severity", lambda level: None)


class Made:
    """Stands for ``onnxruntime.InferenceSession``: notes what is asked, runs on the CPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, used: str) -> None:
        self.asked: list[Any] = []
        self.placed: list[Part] | None = None
        self._make, self._used = onnxruntime.InferenceSession, used
        monkeypatch.setattr(onnxruntime, "InferenceSession", self)

    def __call__(self, model: Any, options: Any, *, providers: Any, **more: Any) -> Any:
        session = self._make(model, options, providers=[CPU], **more)
        if providers == [CPU]:
            return session
        assert more["enable_fallback"] == 0
        self.asked.append(providers)
        watched = Watched(session, self._used)
        watched.placed = watched.placed if self.placed is None else self.placed
        return watched


def seen(monkeypatch: pytest.MonkeyPatch, *capabilities: tuple[int, int]) -> None:
    gpus = [Gpu(i, f"GPU {i}", 8 << 30, found) for i, found in enumerate(capabilities)]
    monkeypatch.setattr(nvidia, "find_driver", lambda: Driver(tuple(gpus), "13.0"))


def test_outputs_have_their_names(trained: Any) -> None:
    session = Watched(open_session(trained.classifier, [CPU]))
    wanted = open_network(trained.classifier, ON_CPU).run(IMAGES)
    found = on_gpus(session, size=4).run(IMAGES)
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-6)
    turned = on_gpus(session, size=4).only(list(wanted)[::-1]).run(IMAGES)
    for name, values in wanted.items():
        np.testing.assert_allclose(turned[name], values, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("gpu_wheel")
def test_all_visible_gpus_are_used(monkeypatch: pytest.MonkeyPatch, tiny_file: Path) -> None:
    seen(monkeypatch, (8, 0), (8, 0))
    made = Made(monkeypatch, CUDA)
    network = open_network(tiny_file, Execution("cuda", batch_size=16))
    assert [asked[0][0] for asked in made.asked] == [CUDA, CUDA]
    assert [asked[0][1]["device_id"] for asked in made.asked] == ["0", "1"]
    assert {asked[0][1]["use_tf32"] for asked in made.asked} == {"0"}
    assert network.batch_sizes == (16,)


@pytest.mark.usefixtures("gpu_wheel")
def test_a_provider_that_runs_nothing_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tiny_file: Path
) -> None:
    seen(monkeypatch, (8, 0))
    made = Made(monkeypatch, CUDA)
    network: Any = open_network(tiny_file, Execution("cuda"))
    assert network.placement == {CUDA: 8, CPU: 2}
    made.placed = [Part(CPU, 10)]
    with pytest.raises(DeviceError, match="runs none of the network on it"):
        open_network(tiny_file, Execution("cuda"))
    made.placed = []  # it does not say
    open_network(tiny_file, Execution("cuda"))


def test_onnxruntime_says_where_operators_run(tiny_file: Path) -> None:
    network: Any = open_network(tiny_file, ON_CPU)
    assert set(network.placement) == {CPU}


@pytest.mark.usefixtures("gpu_wheel")
def test_tensorrt_is_asked_for_and_checked(
    monkeypatch: pytest.MonkeyPatch, tiny_file: Path, cache: Path
) -> None:
    seen(monkeypatch, (8, 0))
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    made = Made(monkeypatch, TENSORRT)
    network = open_network(tiny_file, Execution("tensorrt", batch_size=4))
    (((first, options), (second, _), third),) = made.asked
    assert (first, second, third) == (TENSORRT, CUDA, CPU)
    shape = f"image:4x{TINY_SIZE}x{TINY_SIZE}x3"
    assert {options[f"trt_profile_{name}_shapes"] for name in ("min", "opt", "max")} == {shape}
    assert options["trt_fp16_enable"] == "0"
    assert Path(options["trt_engine_cache_path"]).parent == cache / "tensorrt"
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
    assert network.provider == TENSORRT
    assert network.batch_sizes == (4,)
    open_network(tiny_file, Execution("tensorrt", "fp16"))
    assert made.asked[-1][0][1]["trt_fp16_enable"] == "1"


@pytest.mark.usefixtures("gpu_wheel")
def test_tensorrt_that_gives_way_to_cuda_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tiny_file: Path
) -> None:
    seen(monkeypatch, (8, 0))
    Made(monkeypatch, CUDA)
    with pytest.raises(DeviceError, match="opened the network on CUDAExecutionProvider"):
        open_network(tiny_file, Execution("tensorrt"))


@pytest.mark.skipif(
    nvidia.find_driver().gpus != () or TENSORRT not in onnxruntime.get_available_providers(),
    reason="needs the GPU wheel and no GPU",
)
@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_without_a_gpu_the_real_provider_is_refused_with_the_cause(
    device: Any,
    tiny_file: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")  # and so as it was, afterwards
    with pytest.raises(DeviceError) as caught:
        open_network(tiny_file, Execution(device))
    assert f"--device {device} was asked for" in caught.value.message
    assert "There is no NVIDIA GPU to use" in caught.value.message
    assert f"tlpipe doctor --device {device}" in caught.value.hint
    assert capfd.readouterr().out == "", "ONNX Runtime's fallback prints"


def test_a_file_that_is_no_network_is_not_the_devices_fault(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_text("no")
    with pytest.raises(BackboneError, match="cannot be opened by ONNX Runtime"):
        open_network(tmp_path / "x.onnx", Execution("cuda"))


def test_engines_of_other_weights_or_shapes_lie_apart(tmp_path: Path) -> None:
    spec = EngineSpec("image", (32, 224, 224, 3), False, tmp_path)
    others = [
        engine_folder(b"weights", spec),
        engine_folder(b"other weights", spec),
        engine_folder(b"weights", EngineSpec("image", (16, 224, 224, 3), False, tmp_path)),
        engine_folder(b"weights", EngineSpec("image", (32, 224, 224, 3), True, tmp_path)),
    ]
    assert len(set(others)) == 4
    (tmp_path / "x.onnx").write_bytes(b"weights")
    assert engine_folder(tmp_path / "x.onnx", spec) == others[0]
    known = tensorrt_options(spec, others[0], 1)
    assert known["device_id"] == "1"
    assert known["trt_timing_cache_path"] == str(tmp_path)


@pytest.mark.parametrize(
    ("device", "precision"),
    [("cpu", "fp16"), ("cuda", "bf16"), ("cuda", "int8"), ("tensorrt", "int8")],
)
def test_a_precision_the_device_does_not_offer(
    device: Any, precision: Any, tiny_file: Path
) -> None:
    with pytest.raises(OptionError, match=f"precision '{precision}' is not offered"):
        open_network(tiny_file, Execution(device, precision))


def test_fp16_without_a_gpu_says_why(tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    with pytest.raises(DeviceError, match="--device cuda was asked for"):
        open_network(tiny_file, Execution("auto", "fp16"))


def test_an_old_gpu_has_no_float16(monkeypatch: pytest.MonkeyPatch, tiny_file: Path) -> None:
    seen(monkeypatch, (8, 0), (5, 2))
    with pytest.raises(DeviceError, match=r"GPU 1 \(GPU 1\) has compute capability 5\.2"):
        open_network(tiny_file, Execution("cuda", "fp16"))


def test_a_real_network_in_float16_gives_almost_the_same() -> None:
    card = find_card("efficientnet-lite0")
    path = prepared_file(card, open_graph)
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (2, 14, 14, 3), np.uint8)
    images = np.repeat(np.repeat(coarse, 16, axis=1), 16, axis=2)
    network, halved = open_network(path, ON_CPU), open_network(half(path), ON_CPU)
    wanted, found = network.run(images)["embeddings"], halved.run(images)["embeddings"]
    assert found.dtype == np.float32
    lengths = np.linalg.norm(wanted, axis=1) * np.linalg.norm(found, axis=1)
    cosines = (wanted * found).sum(axis=1) / lengths
    assert cosines.min() > 0.9999
    assert not np.array_equal(wanted, found)
    assert network.shapes() == halved.shapes()
    assert network.metadata == halved.metadata


def test_a_classifier_in_float16_keeps_its_metadata(trained: Any) -> None:
    plain = open_network(trained.classifier, ON_CPU)
    halved = open_network(half(trained.classifier.read_bytes()), ON_CPU)
    assert plain.metadata == halved.metadata
    wanted, found = plain.run(IMAGES)["probabilities"], halved.run(IMAGES)["probabilities"]
    np.testing.assert_allclose(wanted, found, atol=0.01)


def test_what_cannot_be_halved_is_an_error() -> None:
    with pytest.raises(BackboneError, match="cannot be converted to float16"):
        half(b"no network")


def test_two_wheels_in_one_environment_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"onnxruntime": "1.30.0", "onnxruntime-gpu": "1.31.0"}
    monkeypatch.setattr(findings, "wheels", lambda: both)
    (finding,) = wheel_findings()
    assert finding.what.startswith("onnxruntime 1.30.0 and onnxruntime-gpu 1.31.0 are both")
    assert "pip install onnxruntime-gpu" in finding.cure
    monkeypatch.setattr(findings, "wheels", lambda: {"onnxruntime": "1.30.0"})
    assert wheel_findings() == []


@pytest.mark.usefixtures("gpu_wheel")
def test_missing_libraries_are_named_with_the_command_that_brings_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "cannot open shared object file: No such file or directory"
    lines = [f"Failed to load {n}: {n}: {text}" for n in ("libcublas.so.13", "libcurand.so.10")]
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("\n".join(lines)))
    monkeypatch.setattr(libraries, "missing_cudnn", lambda: [f"libcudnn.so.9: {text}"])
    monkeypatch.setattr(libraries, "_refused", lambda provider: ["libcuda.so.1: no"])
    monkeypatch.setattr(onnxruntime, "cuda_version", "13.0", raising=False)
    monkeypatch.setattr(findings, "find_driver", lambda: Driver(cuda="13.0"))
    assert missing_libraries(CUDA) == ["libcublas.so.13", "libcurand.so.10", "libcudnn.so.9"]
    (finding,) = provider_findings(CUDA)
    assert finding.cure == "Install them: pip install 'onnxruntime-gpu[cuda,cudnn]'"
    monkeypatch.setattr(
        libraries, "_missing_tensorrt", lambda provider: [f"libnvinfer.so.10: {text}"]
    )
    assert provider_findings(TENSORRT)[0].cure.endswith(">=10,<11'")


@pytest.mark.usefixtures("gpu_wheel")
def test_a_driver_too_old_for_the_wheel_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "missing_libraries", lambda provider: [])
    monkeypatch.setattr(onnxruntime, "cuda_version", "13.0", raising=False)
    for newest, count in (("12.8", 1), ("13.0", 0), ("13.2", 0), ("14.0", 0)):
        monkeypatch.setattr(findings, "find_driver", lambda newest=newest: Driver(cuda=newest))
        assert len(provider_findings(CUDA)) == count
    monkeypatch.setattr(findings, "find_driver", lambda: Driver(cuda="12.8"))
    assert "supports CUDA up to 12.8" in provider_findings(CUDA)[0].what


@pytest.mark.usefixtures("gpu_wheel")
@pytest.mark.parametrize(("device", "name"), [("cuda", CUDA), ("tensorrt", TENSORRT)])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_whole_road_on_gpus_that_are_cpus(
    device: Any,
    name: str,
    precision: Any,
    photos: Path,
    tiny_card: Card,
    trained: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tlpipe import RunOptions, classify, embed, train_head
    from tlpipe.stages.store import FeatureFile

    seen(monkeypatch, (8, 0), (8, 0))
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    monkeypatch.setattr(nvidia, "Place", partial(Place, device="cpu"))
    made = Made(monkeypatch, name)
    options = RunOptions(device=device, precision=precision)
    features, classifier = tmp_path / "f.h5", tmp_path / "c.onnx"
    embed(photos, features, backbone=tiny_card, options=options)
    assert made.asked, "it went to the GPUs"
    with FeatureFile(features) as file, FeatureFile(trained.features) as other:
        assert file.header.provider == name
        kind = precision if precision == "fp32" else "fp16/onnxruntime"
        assert file.header.precision == kind
        found = file.rows(0, file.count, vectors=True)
        wanted = other.rows(0, other.count, vectors=True)
        assert list(found.keys) == list(wanted.keys)
        rounding = 1e-5 if precision == "fp32" or device == "tensorrt" else 1e-2
        np.testing.assert_allclose(found.vectors, wanted.vectors, rtol=rounding, atol=rounding)
    train_head(features, classifier)
    result = classify(classifier, photos, tmp_path / "p.csv", options=options)
    assert result.provider == name
