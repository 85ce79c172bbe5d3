"""The Ray engine on a real cluster of two nodes on this machine: the same files, and kills."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from conftest import Trained, aged, write_classes, write_image
from ray_readers import DeadlyReader, LoudReader, SlowReader
from refusals import refused
from stored import datasets
from tlpipe import Cached, Columns, RunOptions, UpdateOptions, classify, embed, split
from tlpipe.card import Card
from tlpipe.cli.main import cli
from tlpipe.errors import (
    ClusterError,
    DeviceError,
    FeatureFileError,
    OptionError,
    OutputError,
    SourceError,
)
from tlpipe.stages.source import Source, open_source
from tlpipe.stages.store import FeatureFile, Parts
from tlpipe.types import Progress, Reason
from tlpipe.workflows import sent
from tlpipe.workflows.shared_storage import SharedStorage

pytest.importorskip("ray", reason="Ray is not installed: pip install 'tlpipe[ray]'")

pytestmark = [
    pytest.mark.enable_socket,  # nodes and workers talk over this machine's own address
    pytest.mark.filterwarnings("default"),  # Ray's own
]

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    import pytest_socket
    from ray.cluster_utils import Cluster

    pytest_socket.enable_socket()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        started = Cluster(head_node_args=NODE | {"include_dashboard": False}, initialize_head=True)
        started.add_node(**NODE, num_gpus=1)  # it has none: Ray takes our word for it
        yield started
        started.shutdown()


@pytest.fixture
def on_ray(cluster: Any) -> RunOptions:
    return RunOptions(engine="ray", address=cluster.address)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """101 images: three that cannot be read, two of one content."""
    root = write_classes(tmp_path / "photos", 32)
    write_image(root / "red" / "last.png", 5)
    (root / "blue" / "bad.png").write_bytes(b"nothing")
    (root / "green" / "empty.png").touch()
    (root / "red" / "000a.png").write_bytes((root / "red" / "000.png").read_bytes()[:900])
    shutil.copy(root / "blue" / "000.png", root / "red" / "zcopy.png")
    return aged(root)


def reading(path: Path, reader: Any) -> Source:
    """The folder, read in another way."""
    found = open_source(path)
    found.reader = reader
    return found


def parts_of(path: Path) -> int:
    return len(Parts(path).names())


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_the_file_is_that_of_a_local_run(
    source: Path, tmp_path: Path, tiny_card: Card, on_ray: RunOptions
) -> None:
    seen: list[Progress] = []
    local = embed(source, tmp_path / "a.h5", backbone=tiny_card)
    spread = embed(
        source, tmp_path / "b.h5", backbone=tiny_card, options=on_ray, progress=seen.append
    )
    assert datasets(spread.path) == datasets(local.path)
    assert spread.rejects == local.rejects == {"not-an-image": 1, "empty": 1, "truncated": 1}
    assert (spread.count, spread.provider) == (local.count, local.provider)
    assert (seen[-1].done, seen[-1].total, seen[-1].rejects) == (101, 101, 3)
    assert 3 <= len(seen) <= 20
    assert left_in(tmp_path) == ["a.h5", "b.h5", "photos"]
    assert embed(source, tmp_path / "b.h5", backbone=tiny_card, options=on_ray).unchanged is False
    assert datasets(spread.path) == datasets(local.path)


def test_an_update_is_that_of_a_local_run(
    source: Path, tmp_path: Path, tiny_card: Card, on_ray: RunOptions
) -> None:
    for name in "ab":
        embed(source, tmp_path / f"{name}.h5", backbone=tiny_card)
        split(tmp_path / f"{name}.h5")
    for number in range(40):
        write_image(source / "blue" / f"0{number:02d}x.png", 9000 + number)
    for path in sorted((source / "green").glob("01*.png")):
        path.rename(path.with_name(f"moved{path.name}"))
    (source / "red" / "003.png").unlink()
    aged(source)
    local = embed(source, tmp_path / "a.h5", backbone=tiny_card)
    spread = embed(source, tmp_path / "b.h5", backbone=tiny_card, options=on_ray)
    assert datasets(spread.path) == datasets(local.path)
    assert (spread.kept, spread.embedded, spread.copied, spread.gone) == (
        (local.kept, local.embedded, local.copied, local.gone)
    )
    rehashed = embed(
        source, spread.path, backbone=tiny_card, options=on_ray, update=UpdateOptions(rehash=True)
    )
    assert (rehashed.embedded, rehashed.copied) == (0, local.count)
    assert datasets(spread.path) == datasets(local.path)


def test_a_source_may_be_named_from_the_driver_s_folder(
    source: Path,
    tmp_path: Path,
    tiny_card: Card,
    on_ray: RunOptions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    local = embed("photos", "a.h5", backbone=tiny_card)
    spread = embed("photos", "b.h5", backbone=tiny_card, options=on_ray)
    assert datasets(spread.path) == datasets(local.path)
    assert spread.rejects == local.rejects


def test_a_manifest_with_a_key_twice(
    source: Path, tmp_path: Path, tiny_card: Card, on_ray: RunOptions
) -> None:
    keys = [path.relative_to(tmp_path).as_posix() for path in sorted(source.rglob("*.png"))]
    manifest = tmp_path / "list.csv"
    manifest.write_text("\n".join(["path", *keys[:50], keys[3], "gone.png", *keys[50:], keys[60]]))
    local = embed(manifest, tmp_path / "a.h5", backbone=tiny_card)
    spread = embed(manifest, tmp_path / "b.h5", backbone=tiny_card, options=on_ray)
    assert datasets(spread.path) == datasets(local.path)
    assert spread.rejects[Reason.DUPLICATE_KEY] == 2


def test_a_worker_that_is_killed_costs_its_partition(
    source: Path,
    tmp_path: Path,
    tiny_card: Card,
    on_ray: RunOptions,
    caplog: pytest.LogCaptureFixture,
) -> None:
    mark = tmp_path / "mark"
    deadly = reading(source, DeadlyReader("green/015.png", mark))
    spread = embed(deadly, tmp_path / "b.h5", backbone=tiny_card, options=on_ray)
    assert mark.exists()
    assert caplog.text.count("A worker died at ") == 1
    embed(source, tmp_path / "a.h5", backbone=tiny_card)
    assert datasets(spread.path) == datasets(tmp_path / "a.h5")


def test_an_image_that_kills_its_workers_is_a_reject(
    tmp_path: Path, tiny_card: Card, on_ray: RunOptions
) -> None:
    source = aged(write_classes(tmp_path / "photos", 16))
    deadly = reading(source, DeadlyReader("green/004.png"))
    spread = embed(deadly, tmp_path / "b.h5", backbone=tiny_card, options=on_ray)
    assert spread.rejects == {"crashed": 1}
    with FeatureFile(spread.path) as file:
        ((key, reject),) = file.rejects()
        assert file.count == 47
    assert (key, reject.detail) == ("green/004.png", "Every process that worked on it died.")
    again = embed(source, spread.path, backbone=tiny_card)  # a new run tries it again
    assert (again.count, again.embedded, again.rejects) == (48, 1, {})
    embed(source, tmp_path / "a.h5", backbone=tiny_card)
    assert datasets(spread.path) == datasets(tmp_path / "a.h5")


def test_a_node_that_is_killed_costs_its_partitions(
    source: Path, tmp_path: Path, tiny_card: Card, cluster: Any, on_ray: RunOptions
) -> None:
    victim = cluster.add_node(**NODE)
    killed: list[int] = []

    def progress(at: Progress) -> None:
        if not killed:
            killed.append(at.done)
            cluster.remove_node(victim, allow_graceful=False)

    slow = reading(source, SlowReader(0.03))
    spread = embed(slow, tmp_path / "b.h5", backbone=tiny_card, options=on_ray, progress=progress)
    assert killed
    assert killed[0] < 101
    embed(source, tmp_path / "a.h5", backbone=tiny_card)
    assert datasets(spread.path) == datasets(tmp_path / "a.h5")


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Images that take a while to decode, each of its own content."""
    first = tmp_path / "first.png"
    Image.new("RGB", (1200, 1200), (20, 90, 200)).save(first)
    root = tmp_path / "large"
    root.mkdir()
    for number in range(160):
        (root / f"{number:03d}.png").write_bytes(first.read_bytes() + str(number).encode())
    return aged(root)


def test_a_driver_that_is_killed_costs_unfinished_partitions(
    large: Path, tmp_path: Path, tiny_card: Card, tiny_card_path: Path, on_ray: RunOptions
) -> None:
    output = tmp_path / "b.h5"
    command = [sys.executable, "-m", "tlpipe", "embed", str(large), "-o", str(output)]
    command += ["--backbone", str(tiny_card_path), "--engine", "ray"]
    command += ["--address", str(on_ray.address)]
    kept = 0
    for _ in range(2):  # the second run goes on, and is killed as well
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as driver:
            before = parts_of(output)
            end = time.monotonic() + 30
            while parts_of(output) <= before and time.monotonic() < end and driver.poll() is None:
                time.sleep(0.01)
            driver.send_signal(signal.SIGKILL)
            assert driver.wait() == -signal.SIGKILL, driver.stderr and driver.stderr.read()
        assert not output.exists()
        assert sum(FeatureFile(path).count for path in Parts(output).names()) > kept
        kept = sum(FeatureFile(path).count for path in Parts(output).names())
    shutil.copytree(Parts(output).folder, Parts(tmp_path / "c.h5").folder)
    local = embed(large, tmp_path / "c.h5", backbone=tiny_card)
    spread = embed(large, output, backbone=tiny_card, options=on_ray)
    assert local.kept >= kept
    assert spread.kept >= kept
    assert spread.kept + spread.embedded == 160
    assert datasets(output) == datasets(local.path)
    assert left_in(tmp_path) == ["b.h5", "c.h5", "first.png", "large"]


def test_predictions_are_those_of_a_local_run(
    source: Path, tmp_path: Path, trained: Trained, on_ray: RunOptions
) -> None:
    paths = [path.relative_to(tmp_path).as_posix() for path in sorted(source.rglob("*.*"))]
    manifest = tmp_path / "list.csv"
    rows = [f"{path},{number}" for number, path in enumerate([*paths, paths[4], "gone.png"])]
    manifest.write_text("\n".join(["path,label", *rows]))
    seen: list[Progress] = []
    for given, columns, end in (
        (source, Columns(top_k=2), "csv"),
        (manifest, Columns(keep=("label", "split")), "jsonl"),
    ):
        ours, theirs = tmp_path / f"a.{end}", tmp_path / f"b.{end}"
        local = classify(trained.classifier, given, ours, columns=columns)
        spread = classify(
            trained.classifier,
            given,
            theirs,
            columns=columns,
            options=on_ray,
            progress=seen.append,
        )
        assert theirs.read_bytes() == ours.read_bytes()
        assert (spread.count, spread.rejects) == (local.count, local.rejects)
        assert (spread.classes, spread.provider) == (local.classes, local.provider)
        assert (seen[-1].done, seen[-1].rejects) == (local.count, local.rejects.total())
    assert left_in(tmp_path) == ["a.csv", "a.jsonl", "b.csv", "b.jsonl", "list.csv", "photos"]


def test_embeddings_of_a_classifier_are_those_of_a_local_run(
    source: Path, tmp_path: Path, trained: Trained, on_ray: RunOptions
) -> None:
    for name, options in (("a", RunOptions()), ("b", on_ray)):
        cached = Cached(source, tmp_path / f"{name}.h5")
        classify(trained.classifier, cached, tmp_path / f"{name}.csv", options=options)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert datasets(tmp_path / "a.h5") == datasets(tmp_path / "b.h5")
    with pytest.raises(OptionError, match="its head alone is run"):
        classify(trained.classifier, tmp_path / "a.h5", tmp_path / "c.csv", options=on_ray)


def test_predictions_go_on_after_kills(
    source: Path, tmp_path: Path, trained: Trained, on_ray: RunOptions
) -> None:
    class StopError(Exception):
        pass

    def stop(at: Progress) -> None:
        if at.done > 30:
            raise StopError

    ours, theirs, other = (tmp_path / f"{name}.csv" for name in "abc")
    deadly = reading(source, DeadlyReader("green/015.png", tmp_path / "mark"))
    with pytest.raises(StopError) as caught:
        classify(trained.classifier, deadly, theirs, options=on_ray, progress=stop)
    assert any("go on from there" in note or "goes on" in note for note in caught.value.__notes__)
    shutil.copytree(tmp_path / ".b.csv.parts", tmp_path / ".c.csv.parts")
    kept = classify(trained.classifier, source, other).kept  # with the local engine
    result = classify(trained.classifier, deadly, theirs, options=on_ray)
    assert result.kept == kept > 10
    classify(trained.classifier, source, ours)
    assert ours.read_bytes() == theirs.read_bytes() == other.read_bytes()
    always = reading(source, DeadlyReader("red/007.png"))
    result = classify(trained.classifier, always, theirs, options=on_ray, overwrite=True)
    assert result.rejects["crashed"] == 1
    before, after = ours.read_text().splitlines(), theirs.read_text().splitlines()
    (place,) = (n for n, line in enumerate(before) if line.startswith("red/007.png"))
    assert after[place].startswith("red/007.png,rejected")
    assert [*before[:place], *before[place + 1 :]] == [*after[:place], *after[place + 1 :]]


def test_storage_that_is_not_shared_is_refused(
    source: Path,
    tmp_path: Path,
    tiny_card: Card,
    on_ray: RunOptions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        sent.SharedStorage, "of", lambda note: SharedStorage(tmp_path / "elsewhere", b"x")
    )
    with pytest.raises(ClusterError, match=r"does not see what the driver writes in") as caught:
        embed(source, tmp_path / "b.h5", backbone=tiny_card, options=on_ray)
    assert "storage that all nodes share" in caught.value.hint
    assert left_in(tmp_path) == ["photos"]


def test_a_source_that_a_node_does_not_see_is_an_error(
    source: Path, tmp_path: Path, tiny_card: Card, on_ray: RunOptions
) -> None:
    found = open_source(source)
    found.paths = (tmp_path / "nowhere",)
    with pytest.raises(SourceError, match=r"does not see .*nowhere"):
        embed(found, tmp_path / "b.h5", backbone=tiny_card, options=on_ray)


def test_errors_of_workers_are_those_of_a_local_run(
    source: Path, tmp_path: Path, tiny_card: Card, on_ray: RunOptions
) -> None:
    on_gpu = RunOptions(engine="ray", address=on_ray.address, device="cuda")
    with pytest.raises(DeviceError) as caught:
        embed(source, tmp_path / "b.h5", backbone=tiny_card, options=on_gpu)
    assert caught.value.hint
    for path in source.rglob("*.*"):
        path.write_bytes(b"nothing")
    with pytest.raises(FeatureFileError, match="None of the 101 images could be embedded"):
        embed(source, tmp_path / "b.h5", backbone=tiny_card, options=on_ray)
    assert left_in(tmp_path) == ["photos"]


def test_a_part_of_another_run_is_not_written(tmp_path: Path) -> None:
    note = tmp_path / "note"
    note.write_text("run 1")
    shared = SharedStorage.of(note)
    shared.check()
    note.write_text("run 2")
    with pytest.raises(ClusterError, match="does not see"):
        shared.check()
    with pytest.raises(OutputError, match="cannot be read: No such file"):
        SharedStorage.of(tmp_path / "none")


def test_what_workers_log_is_logged(
    source: Path,
    tmp_path: Path,
    tiny_card: Card,
    on_ray: RunOptions,
    caplog: pytest.LogCaptureFixture,
) -> None:
    loud = reading(source, LoudReader("green/004.png"))
    embed(loud, tmp_path / "b.h5", backbone=tiny_card, options=on_ray)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("tlpipe.loud", logging.WARNING)
    assert record.getMessage() == f"This is green/004.png. (on node {socket.gethostname()})"


def test_wrong_uses_are_refused(
    source: Path, tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wrong, message in (
        ({"address": "auto"}, "the engine is local"),
        ({"engine": "ray", "address": "ray://a:1"}, "Ray client's server"),
        ({"engine": "ray", "profile": Path("a.json")}, "threads of one process"),
        ({"engine": "dask"}, "The engine 'dask' is unknown"),
    ):
        with pytest.raises(OptionError, match=message):
            RunOptions(**wrong)
    output = str(tmp_path / "b.h5")
    command = ["embed", str(source), "-o", output, "--engine", "ray"]
    found = CliRunner().invoke(cli, [*command, "--address", cluster.address, "--threads", "64"])
    assert found.exit_code == 1
    assert "room for a worker of 64 core(s); the largest one has 1" in found.output
    monkeypatch.setitem(sys.modules, "ray", None)
    found = CliRunner().invoke(cli, command)
    assert found.exit_code == 1
    assert "pip install 'tlpipe[ray]'" in found.output


def test_an_address_at_which_nobody_listens(
    source: Path, tmp_path: Path, tiny_card: Card, on_ray: RunOptions
) -> None:
    with socket.socket() as bound:  # and does not listen
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        nowhere = replace(on_ray, address=address)
        with refused(ClusterError, f"no Ray cluster at {address!r}", "refused", "ray start --head"):
            embed(source, tmp_path / "f.h5", backbone=tiny_card, options=nowhere)
    assert not (tmp_path / "f.h5").exists()
