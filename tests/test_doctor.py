"""What the doctor says of a machine, of one without GPUs and of ones that are made up."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from PIL import Image

from conftest import TINY_SIZE
from tlpipe import doctor
from tlpipe.cli.main import cli
from tlpipe.errors import BackboneError, DeviceError, OptionError, SourceError
from tlpipe.stages import sample
from tlpipe.stages.hardware import memory_bytes, processor
from tlpipe.stages.session import CPU, CUDA, facts, findings
from tlpipe.stages.session.gpu_network import GpuNetwork, Place
from tlpipe.stages.session.gpus import Driver, Gpu
from tlpipe.stages.session.opening import open_session
from tlpipe.workflows import doctor as workflow

GPU = Gpu(0, "GPU 0", 24_000_000_000, (8, 6))


def run(*arguments: object) -> Any:
    return CliRunner().invoke(cli, ["doctor", *map(str, arguments)])


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each timing is one call."""
    whole = workflow._speed
    monkeypatch.setattr(
        workflow, "_speed", lambda loads, network, _, **more: whole(loads, network, 0, **more)
    )


@pytest.mark.usefixtures("quick")
def test_the_doctor_times_decoding_and_inference(tiny_card_path: Path) -> None:
    found = doctor(backbone=tiny_card_path, device="cpu", seconds=0)
    assert (found.device, found.usable, found.provider) == ("cpu", True, CPU)
    speed = found.speed
    assert speed is not None
    assert speed.images == "a photo made up, 640 x 480"
    cores = found.facts["cores"]["usable"]
    assert speed.limit == pytest.approx(cores / (speed.decode_s + speed.inference_s))
    assert speed.limited_by == "decoding", "the backbone is tiny"
    assert found.facts["onnxruntime"]["version"] == onnxruntime.__version__
    assert found.facts["decoder"]["pillow"] == Image.__version__
    assert found.facts["cache"]["free_bytes"] > 0


@pytest.mark.usefixtures("quick")
def test_the_users_own_images(tiny_card_path: Path, photos: Path, tmp_path: Path) -> None:
    found = doctor(photos, backbone=tiny_card_path, device="cpu")
    assert found.speed is not None
    assert found.speed.images == "45 of 45 images"
    (tmp_path / "x.png").write_bytes(b"no image")
    result = run(tmp_path, "--backbone", tiny_card_path, "--device", "cpu")
    assert result.exit_code == 1
    assert "No image could be read" in result.output
    with pytest.raises(SourceError):
        doctor(tmp_path / "missing", backbone=tiny_card_path)


@pytest.mark.usefixtures("quick")
def test_the_command_prints_a_table(tiny_card_path: Path) -> None:
    result = run("--backbone", tiny_card_path, "--device", "cpu")
    assert result.exit_code == 0, result.output
    names = [line[:14].strip() for line in result.stdout.splitlines()]
    assert names[:3] == ["cores", "processor", "memory"]
    assert names[-4:] == ["device", "decoding", "inference", "limit"]
    assert "cpu, used by CPUExecutionProvider" in result.stdout
    assert "most time goes to decoding" in result.stdout


@pytest.mark.usefixtures("quick")
def test_json(tiny_card_path: Path) -> None:
    result = run("--backbone", tiny_card_path, "--device", "cpu", "--json")
    found = json.loads(result.stdout)
    assert found["usable"] is True
    assert found["speed"]["limit"] > 0
    assert {"cores", "processor", "gpus", "driver", "onnxruntime", "openvino"} <= set(found)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Driver(problem="no NVIDIA driver is installed (libcuda.so.1 cannot be loaded)")
    monkeypatch.setattr(findings, "find_driver", lambda: problem)
    monkeypatch.setattr(facts, "find_driver", lambda: problem)
    monkeypatch.setattr(findings, "missing_libraries", lambda provider: ["libcublas.so.13"])
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])


def refusing(message: str) -> Callable[..., Any]:
    def refuse(*_: Any) -> Any:
        raise DeviceError(message, hint="Do this.")

    return refuse


@pytest.mark.usefixtures("no_gpu")
def test_a_device_that_cannot_be_used(
    tiny_card_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "open_network", refusing("It cannot."))
    result = run("--backbone", tiny_card_path, "--device", "cuda")
    assert result.exit_code == 1
    assert "GPUs           none: no NVIDIA driver is installed" in result.stdout
    assert "device         cuda, cannot be used" in result.stdout
    assert "wrong: There is no NVIDIA GPU to use: no NVIDIA driver" in result.stdout
    assert "wrong: The CUDAExecutionProvider lacks libraries: libcublas.so.13." in result.stdout
    assert "cure:  Install them: pip install 'onnxruntime-gpu[cuda,cudnn]'" in result.stdout
    found = json.loads(run("--backbone", tiny_card_path, "--device", "cuda", "--json").stdout)
    assert (found["usable"], found["speed"]) == (False, None)
    assert len(found["findings"]) == 2


def test_an_error_of_which_nothing_more_is_known(
    tiny_card_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(findings, "provider_findings", lambda provider: [])
    monkeypatch.setattr(workflow, "open_network", refusing("It cannot."))
    (finding,) = doctor(backbone=tiny_card_path, device="cuda").findings
    assert (finding.what, finding.cure) == ("It cannot.", "Do this.")

    def fail(*_: Any) -> Any:
        raise BackboneError("It failed.", hint="Do that.")

    monkeypatch.setattr(workflow, "open_network", fail)
    found = doctor(backbone=tiny_card_path, device="cpu")
    assert not found.usable
    assert found.findings[-1].what == "It failed."


def test_a_device_that_there_is_not(tiny_card_path: Path) -> None:
    with pytest.raises(OptionError, match="device 'tpu' is unknown"):
        doctor(backbone=tiny_card_path, device="tpu")  # type: ignore[arg-type]


def test_the_error_and_the_doctor_say_the_same(
    no_gpu: None, tiny_card_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = findings.blocking(CUDA, findings.provider_findings(CUDA))
    monkeypatch.setattr(workflow, "open_network", refusing("It cannot."))
    for finding in doctor(backbone=tiny_card_path, device="cuda").findings:
        assert finding.what in error.message
        assert finding.cure.rstrip(".") in error.hint


@pytest.mark.usefixtures("quick")
def test_a_gpu_is_timed_with_all_lanes(
    tiny_card_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "find_driver", lambda: Driver((GPU, GPU), "13.0"))
    monkeypatch.setattr(workflow, "cudnn_findings", list)

    def opened(path: Path, _: Any) -> GpuNetwork:
        return GpuNetwork([Place(open_session(path, [CPU]), "cpu")] * 2, 8, fixed=False)

    monkeypatch.setattr(workflow, "open_network", opened)
    result = run("--backbone", tiny_card_path, "--device", "cuda")
    assert result.exit_code == 0, result.output
    gpu = "GPU 0          GPU 0, 24.0 GB, compute capability 8.6, driver for CUDA 13.0"
    assert gpu in result.stdout
    assert "of all GPUs per image" in result.stdout
    speed = doctor(backbone=tiny_card_path, device="cuda").speed
    assert speed is not None
    assert speed.batch_size == 8
    assert speed.limited_by in ("decoding", "the GPU")


def test_openvino_is_asked_for_its_precisions(monkeypatch: pytest.MonkeyPatch) -> None:
    class Core:
        def get_property(self, device: str, name: str) -> list[str]:
            assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
            return ["BF16", "WINOGRAD", "FP32", "INT8", "BIN", "EXPORT_IMPORT"]

    class Library:
        pass

    Library.Core = Core  # type: ignore[attr-defined]
    real = facts.importlib.metadata.version
    versions = {"openvino": "2026.4.1"}
    monkeypatch.setattr(
        facts.importlib.metadata, "version", lambda name: versions.get(name) or real(name)
    )
    monkeypatch.setattr(facts.importlib, "import_module", lambda name: Library)
    found = facts.runtime_facts()["openvino"]
    assert found == {"version": "2026.4.1", "precisions": ["fp32", "bf16", "int8"]}
    del Library.Core  # type: ignore[attr-defined]
    assert "problem" in facts.runtime_facts()["openvino"]


def test_what_linux_says_of_processor_and_memory(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(
        "processor\t: 0\nmodel name\t: A processor\nflags\t\t: fpu avx2 amx_int8 avx512f\n"
        "processor\t: 1\nmodel name\t: Another\nflags\t\t: fpu\n"
    )
    assert processor(tmp_path) == ("A processor", ["avx2", "avx512f", "amx_int8"])
    assert processor(tmp_path / "none")[1] == []
    whole = memory_bytes(tmp_path)
    limit = tmp_path / "sys" / "fs" / "cgroup" / "memory.max"
    limit.parent.mkdir(parents=True)
    limit.write_text("max\n")
    assert memory_bytes(tmp_path) == whole
    limit.write_text("1000000\n")
    assert memory_bytes(tmp_path) == 1_000_000


def test_the_sample_is_a_photo() -> None:
    with Image.open(io.BytesIO(sample.sample_photo())) as image:
        assert (image.format, image.size) == ("JPEG", (640, 480))
        assert np.asarray(image).std() > 30
    assert sample.sample_photo() == sample.sample_photo()
    assert "libjpeg" in sample.decoder_facts()["jpeg"]
    assert TINY_SIZE < sample.HEIGHT
