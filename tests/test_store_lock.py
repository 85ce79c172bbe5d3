"""One writer at a time, and readers that are never blocked."""

from __future__ import annotations

import errno
import getpass
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from conftest import write_classes
from stored import FakeNetwork, datasets, use_network
from tlpipe import embed, inspect, train_head
from tlpipe.card import Card
from tlpipe.errors import LockedError, OutputError
from tlpipe.lock import writer_lock

fcntl = pytest.importorskip("fcntl")

HOLD = """
import sys, time
from pathlib import Path
from tlpipe.lock import writer_lock
if sys.argv[2] == "none":
    import fcntl, os
    def flock(descriptor, operation):
        raise OSError(95, os.strerror(95))
    fcntl.flock = flock
with writer_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def holder(path: Path, locks: str = "flock") -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of a file."""
    command = [sys.executable, "-c", HOLD, str(path), locks]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def no_locks(code: int) -> Callable[[int, int], None]:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    return flock


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_second_writer_is_told_who_the_first_is(
    tmp_path: Path, tiny_card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_network(monkeypatch, FakeNetwork())
    source, output = write_classes(tmp_path / "photos", 2), tmp_path / "f.h5"
    with holder(output) as process, pytest.raises(LockedError) as caught:
        embed(source, output, backbone=tiny_card)
    said = str(caught.value)
    assert said.startswith(f"Another process is writing {str(output)!r}: process {process.pid} ")
    assert f"of user {getpass.getuser()!r} on {socket.gethostname()!r}, since 20" in said
    embed(source, output, backbone=tiny_card)  # the lock went with the process that was killed
    assert names(tmp_path) == ["f.h5", "photos"]


def test_the_command_says_it_and_fails(tmp_path: Path, tiny_card_path: Path) -> None:
    source, output = write_classes(tmp_path / "photos", 1), tmp_path / "f.h5"
    command = [sys.executable, "-m", "tlpipe", "embed", str(source), "-o", str(output)]
    command += ["--backbone", str(tiny_card_path)]
    with holder(output) as process:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Error: Another process is writing" in done.stderr
    assert f"process {process.pid}" in " ".join(done.stderr.split())


def test_readers_are_not_blocked_and_see_the_old_file(
    tmp_path: Path, tiny_card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = write_classes(tmp_path / "photos", 15), tmp_path / "f.h5"
    embed(source, output, backbone=tiny_card)
    before = datasets(output)
    write_classes(source, 20)
    read = 0

    def progress(progress: Any) -> None:
        nonlocal read
        if progress.done in (1, 10):
            inspect(output)
            train_head(output, tmp_path / f"{progress.done}.onnx")
            assert datasets(output) == before
            read += 1

    embed(source, output, backbone=tiny_card, progress=progress)
    assert read == 2
    assert datasets(output) != before


def test_two_threads_of_one_process(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    raised: list[BaseException] = []

    def other() -> None:
        try:
            with writer_lock(path):
                pass
        except LockedError as exc:
            raised.append(exc)

    with writer_lock(path):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    other()
    (refused,) = raised
    assert f"process {os.getpid()}" in str(refused)


def test_two_files_of_one_folder_and_two_names_of_one_file(tmp_path: Path) -> None:
    link = tmp_path / "link.h5"
    link.symlink_to(tmp_path / "a.h5")
    with (
        writer_lock(tmp_path / "a.h5"),
        writer_lock(tmp_path / "b.h5"),
        pytest.raises(LockedError),
        writer_lock(link),
    ):
        pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_file_locks_a_marker_is_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(fcntl, "flock", no_locks(code))
    path = tmp_path / "f.h5"
    with writer_lock(path):
        assert ".f.h5.lock.owner" in names(tmp_path)
        with pytest.raises(LockedError, match=f"process {os.getpid()} "), writer_lock(path):
            pass
        assert ".f.h5.lock.owner" in names(tmp_path)
    assert names(tmp_path) == [".f.h5.lock"]


def test_a_marker_of_a_process_that_is_dead_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f.h5"
    monkeypatch.setattr(fcntl, "flock", no_locks(errno.EOPNOTSUPP))
    with holder(path, "none") as process:
        with pytest.raises(LockedError, match=f"process {process.pid} "), writer_lock(path):
            pass
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert ".f.h5.lock.owner" in names(tmp_path)
        with writer_lock(path):
            pass
    assert names(tmp_path) == [".f.h5.lock"]


def test_the_lock_is_freed_by_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    with holder(path) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        begun = time.monotonic()
        with writer_lock(path):
            note = json.loads((tmp_path / ".f.h5.lock.json").read_text())
            assert note["pid"] == os.getpid()
        assert time.monotonic() - begun < 5
    assert names(tmp_path) == []


COUNT = """
import sys, time
from pathlib import Path
from tlpipe.errors import LockedError
from tlpipe.lock import writer_lock

path, done = Path(sys.argv[1]), 0
while done < 100:
    try:
        with writer_lock(path):
            count = int(path.read_text())
            time.sleep(0.0002)
            path.write_text(str(count + 1))
            done += 1
    except LockedError:
        pass
"""


def test_one_at_a_time_though_the_lock_file_comes_and_goes(tmp_path: Path) -> None:
    path = tmp_path / "count"
    path.write_text("0")
    command = [sys.executable, "-c", COUNT, str(path)]
    processes = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert path.read_text() == "400"
    assert names(tmp_path) == ["count"]


def test_a_lock_file_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f.h5"
    lock = tmp_path / ".f.h5.lock"
    lock.touch(mode=0o444)
    original = os.open

    def refuse(name: Any, flags: int, *args: Any, **more: Any) -> int:
        if os.fspath(name) == str(lock) and flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(name))
        return original(name, flags, *args, **more)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OutputError) as caught, writer_lock(path):
        pass
    assert str(caught.value) == (
        f"The lock of {str(path)!r} cannot be taken: Permission denied."
        " The folder of the output must be writable."
    )


def test_an_error_inside_frees_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), writer_lock(path):
            raise KeyboardInterrupt
    assert names(tmp_path) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder in which nothing can be made")
def test_a_folder_that_takes_no_file_is_no_lock_that_is_held() -> None:
    refused = pytest.raises(OutputError, match="cannot be taken: no file can be made there")
    with refused, writer_lock(Path("/proc/features.h5")):
        pass
