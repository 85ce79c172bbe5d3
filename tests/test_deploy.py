"""The files of docs/deploy, which cannot be run here: read, linted, and run with fakes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tlpipe.errors import JobError
from tlpipe.workflows.jobs.reading import read_job

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "docs" / "deploy"
DOCKERFILES = sorted(DEPLOY.glob("Dockerfile*"))
JOBS = sorted(DEPLOY.glob("*.yaml"))
BATCH = DEPLOY / "tlpipe.sbatch"
HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent))


def instructions(path: Path) -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", path.read_text(encoding="utf-8"), flags=re.M)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def test_the_files_are_there() -> None:
    assert [path.name for path in DOCKERFILES] == ["Dockerfile", "Dockerfile.cuda"]
    assert [path.name for path in JOBS] == ["tlpipe-job-gpu.yaml", "tlpipe-job.yaml"]


@pytest.mark.skipif(HADOLINT is None, reason="hadolint has no wheel for this system")
@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(path: Path) -> None:
    done = subprocess.run(
        [str(HADOLINT), "--strict-labels", str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_is_small_pinned_and_unprivileged(path: Path) -> None:
    found = instructions(path)
    for image in (text.split()[0] for word, text in found if word == "FROM"):
        assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", image)
    for text in (text for word, text in found if word == "COPY" and "--from" not in text):
        *sources, _ = text.split()
        for source in sources:
            assert (ROOT / source).exists(), source
    last = dict(found)
    assert last["USER"] == "10001"
    assert last["ENTRYPOINT"] == '["tlpipe"]'
    assert last["VOLUME"] == '["/cache"]'
    assert "TLPIPE_CACHE=/cache" in last["ENV"]
    assert re.search(r"chown|-o tlpipe .*/cache", " ".join(t for w, t in found if w == "RUN"))
    order = [word for word, _ in found]
    assert order.index("USER") < order.index("ENTRYPOINT")


def test_what_the_wheel_is_built_of_is_copied() -> None:
    """All that pyproject.toml names must be in the image's build."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    copied = " ".join(text for word, text in instructions(DOCKERFILES[0]) if word == "COPY")
    for name in ("README.md", "LICENSE", "models", "pipeline"):
        assert f'"{name}' in project
        assert name in copied


def test_the_image_for_gpus_does_not_fall_back() -> None:
    found = dict(instructions(DEPLOY / "Dockerfile.cuda"))
    assert found["CMD"] == '["doctor", "--device", "cuda"]'
    text = (DEPLOY / "Dockerfile.cuda").read_text(encoding="utf-8")
    assert "onnxruntime-gpu[cuda,cudnn]" in text
    assert not re.search(r"onnxruntime[^-]", text.split("FROM", 1)[1])
    assert 'device = "cuda"' in (DEPLOY / "tlpipe-job-gpu.yaml").read_text(encoding="utf-8")


def documents(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    config, job = yaml.safe_load_all(path.read_text(encoding="utf-8"))
    assert (config["kind"], job["kind"], job["apiVersion"]) == ("ConfigMap", "Job", "batch/v1")
    return config, job


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_a_kubernetes_job(path: Path) -> None:
    config, job = documents(path)
    spec = job["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["restartPolicy"] == "Never"  # what podFailurePolicy asks for
    assert pod["terminationGracePeriodSeconds"] >= 60
    disruption, codes = spec["podFailurePolicy"]["rules"]
    assert disruption["action"] == "Ignore"
    assert disruption["onPodConditions"] == [{"type": "DisruptionTarget"}]
    assert codes["action"] == "FailJob"
    assert codes["onExitCodes"] == {
        "containerName": container["name"],
        "operator": "In",
        "values": [2, 3],
    }
    for kind in ("cpu", "memory"):
        assert container["resources"]["limits"][kind]
        assert container["resources"]["requests"][kind]
    gpu = "nvidia.com/gpu" in container["resources"]["limits"]
    assert gpu is container["image"].endswith("-cuda") is ("gpu" in path.name)
    assert not container["image"].endswith(":latest")
    assert ":" in container["image"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    (volume,) = (volume for volume in pod["volumes"] if volume["name"] == "job")
    assert volume["configMap"]["name"] == config["metadata"]["name"]
    assert container["args"][-2:] == ["run", "/jobs/nightly.toml"]


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_the_job_file_in_it_has_no_mistake_but_that_it_is_not_there(
    path: Path, tmp_path: Path
) -> None:
    config, job = documents(path)
    ((name, text),) = config["data"].items()
    (tmp_path / name).write_text(text, encoding="utf-8")
    environment = {entry["name"]: "x" for entry in _container(job)["env"]}
    with pytest.raises(JobError) as caught:
        read_job(tmp_path / name, environment)
    assert len(caught.value.mistakes) == 3
    for line in caught.value.mistakes:
        assert "does not exist" in line
    mounts = [mount["mountPath"] for mount in _container(job)["volumeMounts"]]
    for path_of in re.findall(r'"(/[^"]+)"', text):
        assert any(path_of.startswith(mount + "/") for mount in mounts)


def _container(job: dict[str, Any]) -> dict[str, Any]:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = container
    return found


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """An environment in which srun runs a command and scontrol notes its arguments."""
    if os.name == "nt" or shutil.which("bash") is None:
        pytest.skip("needs bash")
    fakes = {
        "srun": '#!/bin/bash\nwhile [[ $1 == -* ]]; do shift; done\nexec "$@"\n',
        "scontrol": f'#!/bin/bash\necho "$@" >> {tmp_path}/scontrol.log\n',
        "tlpipe": '#!/bin/bash\neval "$FAKE"\n',
    }
    for name, text in fakes.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}


@pytest.mark.parametrize(
    ("code", "restarts", "requeued"),
    [(0, 0, False), (1, 0, False), (3, 0, False), (143, 0, True), (143, 20, False)],
)
def test_a_batch_script_goes_on_only_where_it_was_stopped(
    slurm: dict[str, str], tmp_path: Path, code: int, restarts: int, requeued: bool
) -> None:
    more = {"FAKE": f'echo "$@"; exit {code}', "SLURM_RESTART_COUNT": str(restarts)}
    done = subprocess.run(
        ["bash", str(BATCH), "nightly.toml"],
        env=slurm | more,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert done.stdout == "run nightly.toml\n"
    assert (tmp_path / "scontrol.log").exists() is requeued
    if requeued:
        assert (tmp_path / "scontrol.log").read_text() == "requeue 7\n"


def test_a_batch_script_passes_sigterm_on_and_waits(slurm: dict[str, str], tmp_path: Path) -> None:
    stop = "trap 'sleep 0.3; echo kept; exit 143' TERM"
    fake = f"{stop}; touch {tmp_path}/up; while :; do sleep 0.05; done"
    process = subprocess.Popen(
        ["bash", str(BATCH), "nightly.toml"],
        env=slurm | {"FAKE": fake},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 30
    while not (tmp_path / "up").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out, errors = process.communicate(timeout=30)
    assert (process.returncode, out) == (143, "kept\n"), errors
    assert (tmp_path / "scontrol.log").read_text() == "requeue 7\n"


def test_a_batch_script_asks_for_what_it_needs() -> None:
    text = BATCH.read_text(encoding="utf-8")
    for line in ("#SBATCH --requeue", "#SBATCH --signal=TERM@120", "#SBATCH --open-mode=append"):
        assert f"\n{line}\n" in text
