"""Any history of changes, runs and interruptions, against a model that holds all in memory."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from PIL import Image

from stored import FakeNetwork, digests, use_network, vector_of
from tlpipe import Progress, RunOptions, UpdateOptions, embed
from tlpipe.card import Card
from tlpipe.stages.store import FeatureFile, Parts
from tlpipe.types import Content, FileStat, Reject
from tlpipe.workflows.pixels import decoder_of, pixels_of
from torture_child import small_everything

NAMES = [f"{label}/{n}.bmp" for label in "abc" for n in range(5)]
MTIMES = st.integers(0, 5).map(lambda n: 10**18 + n * 10**9)
SEEDS = st.integers(0, 11)
BROKEN = b"no image"


class _InterruptError(Exception):
    """What a caller may raise in the middle of a run."""


class Machine(RuleBasedStateMachine):
    """Images come, change, move and go; runs are made, and broken off.

    To merge feature files is to be a rule here as well.
    """

    card: Card  # set by the test below

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.source, self.output = self.folder / "s", self.folder / "f.h5"
        self.source.mkdir()
        self.images: dict[str, tuple[bytes, int]] = {}  # content and time of change, by key
        self.stored: set[str] = set()  # keys of the file as it is
        self.used: dict[tuple[str, int], bytes] = {}  # contents by key and time of change
        self.pixels = pixels_of(self.card.image_size, self.card.arithmetic, decoder_of("auto"))
        self.patch = pytest.MonkeyPatch()
        small_everything(self.patch.setattr)
        self.network = use_network(self.patch, FakeNetwork())

    def teardown(self) -> None:
        self.patch.undo()
        shutil.rmtree(self.folder)

    @initialize(count=st.integers(1, 15), seed=SEEDS)
    def begin(self, count: int, seed: int) -> None:
        for number, key in enumerate(NAMES[:count]):
            self._put(key, picture(seed + number), 10**18)

    def _put(self, key: str, content: bytes, mtime: int) -> None:
        """Write a file; what had another content at that time has another time from now on."""
        while self.used.setdefault((key, mtime), content) != content:
            mtime += 1
        path = self.source / key
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        os.utime(path, ns=(mtime, mtime))
        self.images[key] = content, mtime

    @rule(key=st.sampled_from(NAMES), seed=SEEDS, mtime=MTIMES)
    def write(self, key: str, seed: int, mtime: int) -> None:
        """Add or change an image; its content may be one that others have."""
        self._put(key, picture(seed), mtime)

    @precondition(lambda self: self.images)
    @rule(data=st.data(), mtime=MTIMES)
    def touch(self, data: st.DataObject, mtime: int) -> None:
        key = data.draw(st.sampled_from(sorted(self.images)))
        self._put(key, self.images[key][0], mtime)

    @precondition(lambda self: self.images)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.images)))
        (self.source / key).unlink()
        del self.images[key]

    @precondition(lambda self: self.images)
    @rule(data=st.data(), to=st.sampled_from(NAMES))
    def move(self, data: st.DataObject, to: str) -> None:
        """Rename an image, maybe into the folder of another class, maybe over another image."""
        key = data.draw(st.sampled_from(sorted(self.images)))
        content, mtime = self.images.pop(key)
        (self.source / key).unlink()
        self._put(to, content, mtime)

    @precondition(lambda self: self.images)
    @rule(data=st.data(), mtime=MTIMES)
    def spoil(self, data: st.DataObject, mtime: int) -> None:
        key = data.draw(st.sampled_from(sorted(self.images)))
        self._put(key, BROKEN, mtime)

    @precondition(lambda self: self.has_image())
    @rule(data=st.data(), seed=SEEDS)
    def change_in_secret(self, data: st.DataObject, seed: int) -> None:
        """Change content, and neither size nor time: ``--rehash`` finds it."""
        good = [key for key, (content, _) in self.images.items() if content != BROKEN]
        key = data.draw(st.sampled_from(sorted(good)))
        old, mtime = self.images[key]
        new = picture(seed)
        if len(new) == len(old):
            del self.used[key, mtime]
            self._put(key, new, mtime)
            self.embed(UpdateOptions(rehash=True, max_gone=1.0))

    def has_image(self) -> bool:
        return any(content != BROKEN for content, _ in self.images.values())

    @precondition(lambda self: self.has_image())
    @rule(rehash=st.booleans(), size=st.integers(1, 4))
    def update(self, rehash: bool, size: int) -> None:
        self.embed(UpdateOptions(rehash=rehash, max_gone=1.0), size=size)

    @precondition(lambda self: self.has_image())
    @rule()
    def anew(self) -> None:
        self.embed(UpdateOptions(max_gone=1.0), overwrite=True)

    @precondition(lambda self: self.has_image())
    @rule(after=st.integers(1, 12), overwrite=st.booleans())
    def interrupted(self, after: int, overwrite: bool) -> None:
        """A run that is broken off, if it comes so far."""
        self.embed(UpdateOptions(max_gone=1.0), overwrite=overwrite, after=after)

    def known_contents(self, overwrite: bool) -> set[bytes]:
        """Contents that need no network: of finished parts, and of the file where it counts."""
        if overwrite:
            return set()
        parts = Parts(self.output)
        files = parts.names()
        if self.output.exists() and not parts.anew:
            files.append(self.output)
        return set().union(*(digests(path) for path in files))

    def embed(
        self, update: UpdateOptions, *, overwrite: bool = False, after: int = 0, size: int = 2
    ) -> None:
        def progress(progress: Progress) -> None:
            if progress.done == after:
                raise _InterruptError

        wanted = {sha(c) for c, _ in self.images.values() if c != BROKEN}
        free = self.known_contents(overwrite)
        begun_anew = overwrite or Parts(self.output).anew
        self.network.seen.clear()
        try:
            result = embed(
                self.source,
                self.output,
                backbone=self.card,
                options=RunOptions(batch_size=size),
                overwrite=overwrite,
                update=update,
                progress=progress if after else None,
            )
        except _InterruptError:
            assert len(self.network.seen) <= len(wanted - free)
            return
        assert len(self.network.seen) == len(wanted - free) == result.embedded
        self.check()
        assert not Parts(self.output).folder.exists()
        gone = set() if begun_anew else self.stored - self.images.keys()
        assert len(gone) <= result.gone <= len(gone) + 2  # the windows here are tiny
        self.stored = {key for key, (content, _) in self.images.items() if content != BROKEN}

    def check(self) -> None:
        """The file is what the images say."""
        order = sorted(self.images, key=lambda key: key.split("/"))
        good = [key for key in order if self.images[key][0] != BROKEN]
        with FeatureFile(self.output) as file:
            rows = file.rows(0, file.count, vectors=True)
            rejects = [key for key, _ in file.rejects()]
        assert rows.keys == good
        assert rejects == [key for key in order if key not in good]
        assert rows.labels == [key.split("/")[0] for key in good]
        assert rows.splits.tolist() == [-1] * len(good)
        contents = [self.images[key][0] for key in good]
        assert [row.tobytes() for row in rows.content_sha256] == [sha(c) for c in contents]
        stats = [(len(self.images[key][0]), self.images[key][1]) for key in good]
        assert rows.stat.tolist() == stats
        np.testing.assert_array_equal(rows.vectors, [self.vector(c) for c in contents])

    def vector(self, content: bytes) -> Any:
        loaded = self.pixels(content, Content(sha(content), FileStat()))
        assert not isinstance(loaded, Reject)
        return vector_of(hashlib.sha256(loaded.tobytes()).digest())

    @invariant()
    def the_file_is_whole(self) -> None:
        if self.output.exists():
            digests(self.output)


def picture(seed: int) -> bytes:
    """A small image; all are of the same size in bytes."""
    stream = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    Image.fromarray(noise).save(stream, "bmp")
    return stream.getvalue()


def sha(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def test_any_history(tiny_card: Card) -> None:
    Machine.card = tiny_card
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=int(os.environ.get("TLPIPE_HISTORIES", "30")),
            stateful_step_count=15,
            deadline=None,
            phases=[Phase.reuse, Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_change_within_the_clocks_grain_is_found(
    tmp_path: Path, tiny_card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that is changed right after it was read, to one of its size, at its time."""
    network = use_network(monkeypatch, FakeNetwork())
    source, output = tmp_path / "s", tmp_path / "f.h5"
    source.mkdir()
    path = source / "a.bmp"
    path.write_bytes(picture(1))  # now
    found = path.stat()
    embed(source, output, backbone=tiny_card)
    path.write_bytes(picture(2))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert path.stat().st_size == found.st_size
    embed(source, output, backbone=tiny_card)
    assert len(network.seen) == 2
    assert digests(output) == {sha(picture(2))}
    old = 10**18
    os.utime(path, ns=(old, old))
    embed(source, output, backbone=tiny_card)
    path.write_bytes(picture(3))
    os.utime(path, ns=(old, old))
    assert embed(source, output, backbone=tiny_card).unchanged  # nobody could tell
    result = embed(source, output, backbone=tiny_card, update=UpdateOptions(rehash=True))
    assert (result.embedded, digests(output)) == (1, {sha(picture(3))})
