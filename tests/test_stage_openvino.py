"""Networks run by OpenVINO; what is refused is tested without it, too."""

from __future__ import annotations

import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest

from conftest import TINY_DIM, TINY_SIZE, Trained
from tlpipe.card import Card
from tlpipe.errors import BackboneError, DeviceError, OptionError
from tlpipe.execution import ON_CPU, Execution, parsed_arithmetic
from tlpipe.stages.session import choose, open_graph, open_network, properties_of, settled
from tlpipe.stages.weights import prepared_file

IMAGES = np.random.default_rng(0).integers(0, 256, (3, TINY_SIZE, TINY_SIZE, 3), np.uint8)

INSTALLED = importlib.util.find_spec("openvino") is not None
needed = pytest.mark.skipif(not INSTALLED, reason="openvino is not installed")


def by_openvino(precision: Any = "fp32", **more: Any) -> Execution:
    return Execution(precision=precision, runtime="openvino", **more)


@needed
def test_fp32_is_what_onnx_runtime_gives(tiny_card: Card) -> None:
    path = prepared_file(tiny_card, open_graph)
    network = open_network(path, by_openvino())
    assert network.provider == "OpenVINO"
    assert network.shapes() == ((TINY_SIZE, TINY_SIZE, 3), (TINY_DIM,))
    expected = open_network(path, ON_CPU).run(IMAGES)["embeddings"]
    for count in (1, 3):
        found = network.run(IMAGES[:count])["embeddings"]
        np.testing.assert_allclose(found, expected[:count], rtol=1e-4, atol=1e-5)
    assert open_network(path.read_bytes(), by_openvino()).run(IMAGES)["embeddings"].shape == (3, 8)


@needed
def test_threads_do_not_disturb_each_other(tiny_card: Card) -> None:
    network = open_network(prepared_file(tiny_card, open_graph), by_openvino(threads=2))
    expected = [network.run(image[np.newaxis])["embeddings"] for image in IMAGES]
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda i: network.run(IMAGES[i % 3][None]), range(60)))
    for number, found in enumerate(runs):  # kept while others ran
        np.testing.assert_array_equal(found["embeddings"], expected[number % 3])


@needed
def test_outputs_and_metadata(trained: Trained) -> None:
    network = open_network(trained.classifier, by_openvino(batch_size=5))
    assert network.batch_sizes == (5,)
    assert network.metadata == open_network(trained.classifier, ON_CPU).metadata
    found, expected = (n.run(IMAGES) for n in (network, open_network(trained.classifier, ON_CPU)))
    assert sorted(found) == sorted(expected)
    for name in ("embeddings", "probabilities", "unknown_score"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-3, atol=1e-4)
    assert found["prediction_set"].dtype == found["unknown"].dtype == np.bool_
    one = network.only(["probabilities"])
    assert list(one.run(IMAGES)) == ["probabilities"]
    assert one.shapes() == ((TINY_SIZE, TINY_SIZE, 3), (3,))
    with pytest.raises(BackboneError, match=r"no outputs \['x'\]"):
        network.only(["x"])


@needed
def test_bf16_is_nearly_the_same_or_refused(tiny_card: Card) -> None:
    path = prepared_file(tiny_card, open_graph)
    try:
        network = open_network(path, Execution(precision="bf16"))
    except DeviceError as exc:
        pytest.skip(f"bf16 is refused here: {exc.message}")
    found = network.run(IMAGES)["embeddings"]
    expected = open_network(path, ON_CPU).run(IMAGES)["embeddings"]
    np.testing.assert_allclose(found, expected, rtol=0.03, atol=0.03)
    assert found.dtype == np.float32


@needed
def test_what_cannot_be_opened_or_run(tiny_card: Card, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_text("no")
    with pytest.raises(BackboneError, match="cannot be opened by OpenVINO") as caught:
        open_network(path, by_openvino())
    assert "--runtime onnxruntime" in caught.value.hint
    network = open_network(prepared_file(tiny_card, open_graph), by_openvino())
    with pytest.raises(BackboneError, match=r"failed on a batch of shape \(1, 5, 5, 3\)"):
        network.run(np.zeros((1, 5, 5, 3), np.uint8))


class FakeCore:
    """Stands for OpenVINO on a processor that has some capabilities."""

    able: tuple[str, ...] = ("FP32", "INT8")

    def get_property(self, device: str, name: str) -> list[str]:
        assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
        return list(self.able)


def test_bf16_without_its_instructions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = ModuleType("openvino")
    fake.Core = FakeCore  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "openvino", fake)
    monkeypatch.delitem(sys.modules, "tlpipe.stages.session.openvino", raising=False)
    monkeypatch.setattr(choose, "_is_installed", lambda package: True)
    with pytest.raises(
        DeviceError, match=r"no instructions for bf16.*\['FP32', 'INT8'\]"
    ) as caught:
        open_network(b"", Execution(precision="bf16"))
    assert "--precision fp32" in caught.value.hint
    sys.modules.pop("tlpipe.stages.session.openvino", None)


def test_openvino_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "_is_installed", lambda package: False)
    for execution in (Execution(precision="bf16"), by_openvino("int8")):
        with pytest.raises(DeviceError, match="OpenVINO, which runs") as caught:
            open_network(b"", execution)
        assert caught.value.hint == "Install it: pip install 'tlpipe[openvino]'"


@pytest.mark.parametrize(
    ("execution", "message"),
    [
        (
            Execution(precision="bf16", runtime="onnxruntime"),
            "'bf16' is not offered by the library",
        ),
        (Execution("cuda", "int8"), "'int8' .* on the device 'cuda'"),
        (Execution("cuda", runtime="openvino"), "'fp32' .* 'openvino' on the device 'cuda'"),
    ],
)
def test_what_does_not_go_together_is_refused(execution: Execution, message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        settled(execution)
    assert "int8 by onnxruntime on cpu" in caught.value.hint


def test_auto_takes_the_device_that_offers_the_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "gpu_count", lambda: 1)
    monkeypatch.setattr(choose, "_is_installed", lambda package: True)
    assert settled(Execution()).device == "cuda"
    assert settled(Execution(precision="int8")) == Execution("cpu", "int8", "onnxruntime")
    assert settled(Execution(precision="bf16")) == Execution("cpu", "bf16", "openvino")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("fp32", ("fp32", "auto")),
        ("int8/onnxruntime", ("int8", "onnxruntime")),
        ("bf16/openvino", ("bf16", "openvino")),
        ("int8", None),
        ("unknown", None),
    ],
)
def test_the_arithmetic_is_told_from_its_text(text: str, found: Any) -> None:
    assert parsed_arithmetic(text) == found
    if found is not None:
        assert Execution(precision=found[0], runtime=found[1]).arithmetic == text


def test_properties_are_read_without_the_weights(tiny_card: Card, tmp_path: Path) -> None:
    model = onnx.load(prepared_file(tiny_card, open_graph))
    assert properties_of(model.SerializeToString()) == {}
    properties = {"a": "", "": "b", "ü": "x" * 300}
    onnx.helper.set_model_props(model, properties)
    path = tmp_path / "x.onnx"
    onnx.save(model, path)
    assert properties_of(path) == properties


@pytest.mark.parametrize(
    "content", [b"no", b"\x72", b"\x72\xff", b"\x72\x7f", b"\xff" * 20, b"\x72\x02\x0a\x05"]
)
def test_properties_of_damaged_files(content: bytes) -> None:
    with pytest.raises(BackboneError, match="is no ONNX file, or is damaged"):
        properties_of(content)
