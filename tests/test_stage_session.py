from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from conftest import TINY_DIM, TINY_SIZE
from tlpipe.card import Card
from tlpipe.errors import BackboneError, DeviceError
from tlpipe.execution import ON_CPU, Execution
from tlpipe.stages.session import CPU, CUDA, choose, gpu_count, open_graph, open_network
from tlpipe.stages.weights import prepared_file

IMAGES = np.zeros((2, TINY_SIZE, TINY_SIZE, 3), np.uint8)


def test_a_network_runs_on_the_cpu(tiny_card: Card) -> None:
    network = open_network(prepared_file(tiny_card, open_graph), ON_CPU)
    assert network.provider == CPU
    assert network.run(IMAGES)["embeddings"].shape == (2, TINY_DIM)


def test_outputs_can_be_chosen(tiny_card: Card) -> None:
    network = open_network(prepared_file(tiny_card, open_graph), ON_CPU)
    assert list(network.only(["embeddings"]).run(IMAGES)) == ["embeddings"]
    with pytest.raises(BackboneError, match=r"no outputs \['x'\], but \['embeddings'\]"):
        network.only(["x"])


def test_auto_is_the_cpu_without_a_gpu(tiny_card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "gpu_count", lambda: 0)
    assert open_network(prepared_file(tiny_card, open_graph), Execution()).provider == CPU


def test_a_file_that_is_no_network(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_text("no")
    with pytest.raises(BackboneError, match="cannot be opened by ONNX Runtime"):
        open_network(path, ON_CPU)


def test_images_of_another_size(tiny_card: Card) -> None:
    network = open_network(prepared_file(tiny_card, open_graph), ON_CPU)
    with pytest.raises(BackboneError, match=r"failed on a batch of shape \(1, 5, 5, 3\)"):
        network.run(np.zeros((1, 5, 5, 3), np.uint8))


def test_a_gpu_count_is_a_number() -> None:
    assert gpu_count() >= 0


class FakeSession:
    """Stands for ONNX Runtime's session with given providers."""

    def __init__(self, used: list[str]) -> None:
        self._used = used
        self.asked: Any = None

    def __call__(self, model: str, options: Any, *, providers: Any, **_: Any) -> FakeSession:
        self.asked = providers
        return self

    def disable_fallback(self) -> None:
        self.no_fallback = True

    def get_providers(self) -> list[str]:
        return self._used

    def get_inputs(self) -> list[Any]:
        return [onnx.ValueInfoProto(name="image")]

    get_outputs = get_inputs


@pytest.fixture
def cuda_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr(onnxruntime, "set_default_logger_severity", lambda level: None)


@pytest.mark.usefixtures("cuda_wheel")
def test_cuda_is_asked_for_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    session = FakeSession([CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    network = open_network(b"", Execution("cuda"))
    assert network.provider == CUDA
    options = {"device_id": "0", "cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
    assert session.asked == [(CUDA, options), CPU]
    assert session.no_fallback
    monkeypatch.setattr(choose, "gpu_count", lambda: 1)
    assert open_network(b"", Execution()).provider == CUDA


@pytest.mark.usefixtures("cuda_wheel")
@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_a_silent_fallback_is_an_error(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "gpu_count", lambda: 2)
    monkeypatch.setattr(
        onnxruntime, "preload_dlls", lambda: print("Failed to load libcublas.so.13: No")
    )
    monkeypatch.setattr(onnxruntime, "InferenceSession", FakeSession([CPU]))
    with pytest.raises(DeviceError) as caught:
        open_network(b"", Execution(device))
    assert caught.value.message.startswith(
        "--device cuda was asked for, but ONNX Runtime opened the network on CPUExecutionProvider."
    )
    assert "CUDAExecutionProvider lacks libraries: libcublas.so.13" in caught.value.message
    assert "--device cpu" in caught.value.hint


def test_a_wheel_without_cuda_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    with pytest.raises(DeviceError, match="has no CUDA provider") as caught:
        open_network(b"", Execution("cuda"))
    assert "pip install onnxruntime-gpu" in caught.value.hint
