"""Finished parts: when they are made, which are taken up, and what a new start remembers."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import write_classes
from stored import FakeNetwork, digests, use_network
from tlpipe import RunOptions, embed
from tlpipe.card import Card
from tlpipe.errors import BackboneError, FeatureFileError, OutputError, StaleFeaturesError
from tlpipe.stages.store import FeatureFile, FeatureHeader, Parts, Rows, feature_writer, parts
from tlpipe.stages.store.rows import no_splits, stats_of

HEADER = FeatureHeader(
    tlpipe_version="1",
    fingerprint="f" * 64,
    backbone="{}",
    provider="A",
    precision="fp32",
    decoder="d",
    source="s",
    created_at="2026-01-02T00:00:00+00:00",
)


def row(key: str) -> Rows:
    digest = np.frombuffer(hashlib.sha256(key.encode()).digest(), np.uint8).reshape(1, 32)
    vectors = np.ones((1, 3), np.float32)
    stat = stats_of([(1, 2)])
    return Rows([key], digest, stat, [None], no_splits(1), np.array([-1]), vectors)


def begun(path: Path, header: FeatureHeader = HEADER, *, anew: bool = False) -> Parts:
    found = Parts(path)
    found.begin(header, 3, anew=anew)
    return found


def test_a_part_is_finished_when_its_first_row_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(parts.time, "monotonic", lambda: now)
    made = begun(tmp_path / "f.h5")
    made.add(row("a"))
    now += parts.PART_S - 1
    made.add(row("b"))
    assert made.names() == []
    now += 1
    made.keep_time()  # while rows are taken over, none is added
    assert [FeatureFile(path).count for path in made.names()] == [2]
    assert parts.PART_S < 30


def test_a_part_is_finished_when_it_is_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", 2 * 3 * 4)
    made = begun(tmp_path / "f.h5")
    for key in "abcde":
        made.add(row(key))
    assert len(made.names()) == 2
    assert made.kept == 4


def test_many_parts_become_one(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    for number in range(parts.MANY + 1):
        header = replace(HEADER, provider="AB"[number % 2], created_at=f"2026-01-{30 - number}")
        made = begun(path, header)
        made.add(row(str(number)))
        made.finish()
    (joined,) = made.open()
    with joined:
        assert joined.rows(0, joined.count).keys == [str(n) for n in range(parts.MANY + 1)]
        assert joined.header.provider == "A, B"
        assert joined.header.created_at == f"2026-01-{30 - parts.MANY}"  # the most cautious
    assert len(made.names()) == 1


def write(path: Path, key: str) -> None:
    with feature_writer(path, HEADER, 3) as writer:
        writer.add(row(key))


def test_a_new_start_remembers_which_file_is_not_to_be_used(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    write(path, "old")
    begun(path, anew=True)
    assert Parts(path).anew
    begun(path, anew=True)  # it goes on
    assert Parts(path).anew
    os.utime(path, ns=(1, 1))
    assert Parts(path).anew
    write(path, "new")  # it was finished, and killed before it could say so
    assert not Parts(path).anew
    begun(path, anew=False)
    assert [entry.name for entry in Parts(path).folder.iterdir()] == []


def test_a_new_start_without_a_file(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    begun(path, anew=True)
    write(path, "new")
    assert not Parts(path).anew


def test_a_folder_that_cannot_be_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f.h5"
    begun(path, anew=True)

    def refuse(path: Path, *args: object, **more: object) -> None:
        raise PermissionError(13, os.strerror(13))

    for name, ask in (("iterdir", Parts.names), ("read_text", lambda found: found.anew)):
        with monkeypatch.context() as patch:
            patch.setattr(Path, name, refuse)
            with pytest.raises(OutputError, match=r"unfinished work in .* cannot be read: Permis"):
                ask(Parts(path))


def test_a_folder_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".f.h5.parts").touch()
    assert not Parts(tmp_path / "f.h5").anew
    with pytest.raises(OutputError, match="cannot be made: File exists"):
        begun(tmp_path / "f.h5")


class Failing(FakeNetwork):
    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        if len(self.seen) >= 8:
            raise BackboneError("It failed.")
        return super().run(images)


def test_the_work_of_another_backbone_is_refused(
    tmp_path: Path, tiny_card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = write_classes(tmp_path / "photos", 5), tmp_path / "f.h5"
    use_network(monkeypatch, Failing())
    with pytest.raises(BackboneError):  # in one thread, so that it is not the first batch
        embed(source, output, backbone=tiny_card, options=RunOptions(threads=1))
    held = Parts(output).names()
    assert held
    network = use_network(monkeypatch, FakeNetwork())
    exact = RunOptions(decode="exact")
    with pytest.raises(StaleFeaturesError, match=r"The unfinished work in .* differ in: decoder"):
        embed(source, output, backbone=tiny_card, options=exact)
    assert Parts(output).names() == held
    embed(source, output, backbone=tiny_card, overwrite=True)
    assert len(network.seen) == 15
    assert len(digests(output)) == 15


def test_a_new_start_keeps_the_work_until_it_begins(
    tmp_path: Path, tiny_card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = write_classes(tmp_path / "photos", 5), tmp_path / "f.h5"
    use_network(monkeypatch, Failing())
    with pytest.raises(BackboneError):  # in one thread, so that it is not the first batch
        embed(source, output, backbone=tiny_card, options=RunOptions(threads=1))
    held = Parts(output).names()
    (tmp_path / "empty").mkdir()
    with pytest.raises((FeatureFileError, ValueError), match="holds no image"):
        embed(tmp_path / "empty", output, backbone=tiny_card, overwrite=True)
    assert Parts(output).names() == held
