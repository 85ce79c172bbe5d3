"""Every call of a run may fail: the error is a clear one, and no work is lost (see faults.py)."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import aged, write_image
from faults import CALLS, RAW, Faults
from stored import FakeNetwork, datasets, digests, use_network
from tlpipe import Progress, RunOptions, embed
from tlpipe.card import Card
from tlpipe.errors import BackboneError, OutputError, SourceError, TlpipeError
from tlpipe.stages.store import index
from tlpipe.workflows import earlier
from torture_child import small_everything

MOST = int(os.environ.get("TLPIPE_FAULTS", "4"))
"""Calls of one kind that are made to fail, of all that a run makes, evenly spread."""

OLD_NS = 10**18


class Place:
    """A source in two states, a feature file of the first, and what the second gives."""

    def __init__(self, folder: Path, card: Card) -> None:
        self.folder, self.card = folder, card
        self.source, self.out = folder / "photos", folder / "out"
        self.output = self.out / "features.h5"
        self.out.mkdir()
        for number, name in enumerate(("blue", "green")):
            for count in range(8):
                write_image(self.source / name / f"{count}.png", 100 * number + count)
        self.age()
        self.embed()
        self.old = datasets(self.output)
        self.old_contents = digests(self.output)
        shutil.copytree(self.out, folder / "old")
        shutil.copy(self.source / "blue" / "0.png", self.source / "green" / "copy.png")
        (self.source / "green" / "broken.png").write_bytes(b"no image")
        for count in range(13):
            write_image(self.source / "red" / f"{count}.png", 500 + count)
        self.age()
        self.embed()
        self.new = datasets(self.output)
        shutil.copytree(self.source, folder / "new photos")
        self.reset()

    def age(self) -> None:
        for path in self.source.rglob("*.png"):
            os.utime(path, ns=(OLD_NS, OLD_NS))

    def reset(self) -> None:
        for saved, place in (("old", self.out), ("new photos", self.source)):
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(self.folder / saved, place)  # times of change as well

    def embed(self, network: Any = None, *, threads: int | None = None, **more: Any) -> FakeNetwork:
        network = network or FakeNetwork()
        with pytest.MonkeyPatch.context() as patch:
            use_network(patch, network)
            embed(
                self.source,
                self.output,
                backbone=self.card,
                options=RunOptions(batch_size=2, threads=threads),
                **more,
            )
        return network

    def kept(self) -> set[bytes]:
        """Contents in finished parts."""
        folder = self.out / ".features.h5.parts"
        parts = [p for p in folder.glob("*.h5") if re.fullmatch(r"\d+\.h5", p.name)]
        return set().union(*(digests(part) for part in parts))

    def left(self) -> list[str]:
        return sorted({p.name for p in self.out.iterdir()} - {self.output.name})

    def check_continues(self) -> None:
        """A run without faults embeds no kept content, and makes what it should."""
        kept = len(self.kept() - self.old_contents)
        found = datasets(self.output)
        network = self.embed()
        assert len(network.seen) <= (0 if found == self.new else 13 - kept)
        assert datasets(self.output) == self.new
        assert self.left() == []


@pytest.fixture(scope="module")
def made(tiny_card: Card, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with pytest.MonkeyPatch.context() as patch:
        small_everything(patch.setattr)
        yield Place(tmp_path_factory.mktemp("faults"), tiny_card)


@pytest.fixture
def place(made: Place) -> Place:
    made.reset()
    return made


def fail(place: Place, faults: Faults) -> BaseException | None:
    """Run with faults; what it raised."""
    with pytest.MonkeyPatch.context() as patch:
        faults.install(patch, place.out)
        try:
            place.embed()
        except BaseException as exc:
            return exc
    return None


def numbers(place: Place, call: str) -> list[int]:
    """The calls to make fail, of those that an undisturbed run makes."""
    faults = Faults()
    assert fail(place, faults) is None
    place.reset()
    count = faults.counts[call]
    return list(range(1, count + 1, max(1, -(-count // MOST))))


@pytest.mark.parametrize("times", [1, 10**9], ids=["once", "from then on"])
@pytest.mark.parametrize("call", [*CALLS, *RAW])
def test_a_call_that_fails_is_a_clear_error_and_loses_no_work(
    place: Place, call: str, times: int
) -> None:
    for number in numbers(place, call):
        code = (errno.ENOSPC, errno.EIO, errno.EACCES)[number % 3]
        raised = fail(place, Faults(call, number, code, times))
        where = f"{call} {number}: {raised!r}"
        found = datasets(place.output)
        if raised is None:
            assert found == place.new, where
        else:
            assert isinstance(raised, TlpipeError), where
            assert "features.h5" in str(raised), where
            assert os.strerror(code) in str(raised), where
            # Only what comes after the rename may fail with the new file in its place.
            assert found == place.old or (call in ("unlink", "rmdir", "iterdir")), where
        place.check_continues()
        place.reset()


def test_short_writes_are_made_whole(place: Place) -> None:
    for call in ("write", "readinto"):
        assert fail(place, Faults(call, 1, "short", 10**9)) is None
        assert datasets(place.output) == place.new
        place.reset()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143), MemoryError()])
def test_whatever_comes_up_in_the_middle_of_hdf5_ends_the_run(
    place: Place, error: BaseException
) -> None:
    for number in numbers(place, "write"):
        assert fail(place, Faults("write", number, error)) is error
        assert datasets(place.output) == place.old
        place.check_continues()
        place.reset()


class Failing(FakeNetwork):
    """Fails at its `number`-th call."""

    def __init__(self, number: int, error: BaseException) -> None:
        super().__init__()
        self._left, self._error = number, error

    def run(self, images: Any) -> dict[str, Any]:
        self._left -= 1
        if not self._left:
            raise self._error
        return super().run(images)


@pytest.mark.parametrize("number", range(1, 8))
@pytest.mark.parametrize("error", [BackboneError("It failed."), MemoryError()], ids=repr)
def test_a_network_that_fails_loses_no_work(
    place: Place, number: int, error: BaseException
) -> None:
    threads = threading.active_count()
    with pytest.raises(type(error)) as caught:
        place.embed(Failing(number, error))
    assert threading.active_count() == threads
    kept = len(place.kept())
    notes = getattr(caught.value, "__notes__", [])
    assert any(note.startswith(f"{kept} embeddings of this run are kept") for note in notes) or (
        not kept
    )
    place.check_continues()


def test_the_last_rows_are_kept_when_a_run_is_interrupted(place: Place) -> None:
    done = 0

    def interrupt(progress: Progress) -> None:
        nonlocal done
        done = progress.done - progress.rejects
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        place.embed(progress=interrupt)
    assert len(place.kept()) == done
    (note,) = caught.value.__notes__
    assert note.startswith("7 embeddings of this run are kept; the same command")
    place.check_continues()


def when(count: int, act: Callable[[], object]) -> Callable[[Progress], None]:
    """A progress callback that acts after so many items."""

    def progress(progress: Progress) -> None:
        if progress.done == count:
            act()

    return progress


class Acting(FakeNetwork):
    """Does something at its second call: in one thread, most images are not read yet."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self._act, self._calls = act, 0

    def run(self, images: Any) -> dict[str, Any]:
        self._calls += 1
        if self._calls == 2:
            self._act()
        return super().run(images)


@pytest.mark.parametrize("what", ["photos", "photos/red"])
def test_a_source_that_goes_away_is_an_error(place: Place, what: str) -> None:
    gone, aside = place.folder / what, place.folder / "aside"
    with pytest.raises(SourceError, match=r"went away while it was read|cannot be listed"):
        place.embed(Acting(lambda: gone.rename(aside)), threads=1)
    assert datasets(place.output) == place.old
    aside.rename(gone)
    place.check_continues()


@pytest.mark.parametrize("number", range(1, 10))
def test_a_folder_that_cannot_be_listed_is_an_error(
    place: Place, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    original, left = os.scandir, number

    def scandir(path: Any) -> Any:
        nonlocal left
        left -= str(path).startswith(str(place.source))
        if left <= 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return original(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        with pytest.raises(SourceError, match="cannot be listed: Input/output error"):
            place.embed()
    assert datasets(place.output) == place.old
    place.check_continues()


@pytest.mark.parametrize("code", [errno.ENODEV, errno.ESTALE, errno.EIO])
def test_a_disk_that_goes_away_is_no_fault_of_its_images(
    place: Place, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Names are still in the system's memory, but nothing can be read."""
    original = Path.open

    def refuse(path: Path, *args: Any, **more: Any) -> Any:
        if path.suffix == ".png":
            raise OSError(code, os.strerror(code))
        return original(path, *args, **more)

    with monkeypatch.context() as patch:
        network = Acting(lambda: patch.setattr(Path, "open", refuse))
        with pytest.raises(SourceError, match="went away while it was read"):
            place.embed(network, threads=1)
    assert datasets(place.output) == place.old
    place.check_continues()


def test_one_image_on_a_bad_spot_of_a_disk_is_a_reject(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Path.open

    def refuse(path: Path, *args: Any, **more: Any) -> Any:
        if path.name == "5.png" and path.parent.name == "red":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return original(path, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        place.embed()
    assert b"red/5.png" in datasets(place.output)["rejects/key"]


@pytest.mark.parametrize("remembered", [True, False])
def test_images_that_vanish_while_a_run_works_are_not_dropped_in_silence(
    place: Place, monkeypatch: pytest.MonkeyPatch, remembered: bool
) -> None:
    """A disk below the source is unmounted: its folder is empty, and can be listed."""
    if not remembered:  # a large source is listed again
        monkeypatch.setattr(earlier, "MOST_PLANNED", -1)
    place.embed()
    (place.source / "blue" / "0 more.png").write_bytes(b"new")
    if remembered:  # what is known needs not be there again, but all have changed
        aged(place.source)

    def unmount() -> None:
        for name in ("green", "red"):
            shutil.rmtree(place.source / name)
            (place.source / name).mkdir()

    with pytest.raises(SourceError, match=r"are not in .* any more"):
        place.embed(surveyed=lambda survey: unmount())
    assert datasets(place.output) == place.new


def damage(path: Path, what: bytes) -> None:
    """Change bytes of a file, in place."""
    data = path.read_bytes()
    at = data.index(what)
    path.write_bytes(data[:at] + bytes(b ^ 0xFF for b in what[:4]) + data[at + 4 :])


@pytest.mark.parametrize("where", ["vector", "digest", "head"])
def test_a_damaged_part_is_left_out_and_said(
    place: Place, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(BackboneError):
        place.embed(Failing(6, BackboneError("It failed.")))
    part = min((place.out / ".features.h5.parts").glob("*.h5"))
    held = digests(part)
    what = {"vector": "embeddings", "digest": "content_sha256"}.get(where)
    if what is None:
        damage(part, b"\x89HDF")
    else:
        damage(part, datasets(part)[what].split(b") ", 1)[1][:16])
    network = place.embed()
    assert str(part) in caplog.text
    assert "embedded again" in caplog.text
    assert len(network.seen) >= len(held) or where == "vector"
    assert datasets(place.output) == place.new


def test_a_damaged_chunk_of_the_old_file_is_embedded_again(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    damage(place.output, place.old["embeddings"].split(b") ", 1)[1][:16])
    network = place.embed()
    assert "embedded again" in caplog.text
    assert len(network.seen) == 13 + 4
    assert datasets(place.output) == place.new


def test_many_parts_of_which_some_are_damaged(place: Place) -> None:
    for count in (1, 2, 3, 4, 5, 6):
        with pytest.raises(KeyboardInterrupt):
            place.embed(progress=when(2, _interrupt))
        if count == 4:
            parts = sorted((place.out / ".features.h5.parts").glob("*.h5"))
            damage(parts[0], datasets(parts[0])["embeddings"].split(b") ", 1)[1][:16])
            parts[1].write_bytes(b"")
    place.embed()
    assert datasets(place.output) == place.new
    assert place.left() == []


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_other_files_among_the_parts_do_no_harm(place: Place) -> None:
    with pytest.raises(BackboneError):
        place.embed(Failing(6, BackboneError("It failed.")))
    for name in ("._000000.h5", "notes.h5", "file.tmp"):
        (place.out / ".features.h5.parts" / name).write_bytes(b"?")
    place.check_continues()


def test_no_room_for_temporary_files(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __init__(self, *args: Any, **more: Any) -> None:
            self._base = sqlite3.Connection(*args, **more)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._base, name)

        def executemany(self, *args: Any) -> Any:
            raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(index.sqlite3, "connect", Full)
        with pytest.raises(OutputError, match=r"cannot be kept in .*: database or disk is full"):
            place.embed()
    assert datasets(place.output) == place.old
    place.check_continues()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_read_only_folder(place: Place) -> None:
    place.out.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="cannot be written to"):
            place.embed()
    finally:
        place.out.chmod(0o700)
    place.check_continues()


def test_a_folder_that_says_it_is_read_only(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: False)
        with pytest.raises(OutputError, match=r"The folder '.*out' cannot be written to"):
            place.embed()
    place.check_continues()


@pytest.mark.parametrize("name", ["a b.h5", "é\n'\".h5", "%s{0}.h5", "-.h5", "[a]*?.h5"])
def test_odd_names_of_outputs(place: Place, name: str) -> None:
    place.output, usual = place.out / name, place.output
    try:
        with pytest.raises(KeyboardInterrupt):
            place.embed(progress=when(8, _interrupt))
        network = place.embed()
        assert len(network.seen) == 29 - 8
        assert datasets(place.output) == place.new
        assert place.left() == ["features.h5"]
    finally:
        place.output = usual


def test_an_output_that_is_a_link(place: Place) -> None:
    real = place.out / "elsewhere" / "real.h5"
    real.parent.mkdir()
    place.output.rename(real)
    place.output.symlink_to(real)
    with pytest.raises(KeyboardInterrupt):
        place.embed(progress=when(8, _interrupt))
    network = place.embed()
    assert len(network.seen) == 13 - 6  # of the 8, one is a copy and one a reject
    assert place.output.is_symlink()
    assert datasets(place.output) == place.new
    assert sorted(p.name for p in real.parent.iterdir()) == ["real.h5"]


def test_a_reject_is_said_of_all_its_copies(place: Place) -> None:
    """Whoever comes first in the order, and whichever of them was read first."""
    source = place.folder / "copies"
    for count in range(12):
        path = write_image(source / f"{count:02d}.png", count // 4)
        if count // 4 == 1:
            path.write_bytes(path.read_bytes()[:200])
    output = place.out / "copies.h5"
    with pytest.MonkeyPatch.context() as patch:
        network = use_network(patch, FakeNetwork())
        for size in (1, 2, 3, 5, 64):
            network.seen.clear()
            options = RunOptions(batch_size=size)
            result = embed(source, output, backbone=place.card, options=options, overwrite=True)
            assert (result.count, result.rejects.total(), result.copied) == (8, 4, 6)
            assert len(network.seen) == len(set(network.seen)) == 2


def test_a_finished_part_holds_the_digest_of_its_files(place: Place) -> None:
    with pytest.raises(KeyboardInterrupt):
        place.embed(progress=when(8, _interrupt))
    contents = {hashlib.sha256(p.read_bytes()).digest() for p in place.source.rglob("*.png")}
    assert place.kept() <= contents
