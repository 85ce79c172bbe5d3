from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tlpipe.errors import FeatureFileError, OutputError
from tlpipe.stages.store import (
    FeatureHeader,
    FeatureSummary,
    feature_writer,
    growing,
    guard,
    inspect_features,
    layout,
    read_features,
    read_rejects,
    rows_of,
    structure,
)
from tlpipe.stages.store import one as reader
from tlpipe.stages.store import write as store
from tlpipe.types import Content, FileStat, Item, Outcome, Reason, Reject, Split, Stage

HEADER = FeatureHeader(
    tlpipe_version="1",
    fingerprint="f" * 64,
    backbone="{}",
    provider="CPUExecutionProvider",
    precision="fp32",
    decoder="d",
    source="s",
    created_at="2026-01-01",
)
DIM = 3


def good(key: str, label: str | None = None, split: Split = Split.NONE) -> Outcome:
    digest = hashlib.sha256(key.encode()).digest()
    vector = np.frombuffer(digest[:DIM], np.uint8).astype(np.float32)
    item = Item(key, key, label, split)
    return Outcome(item, Content(digest, FileStat(len(key), 10**18)), {"embeddings": vector})


def bad(key: str) -> Outcome:
    reject = Reject(Stage.DECODE, Reason.EMPTY, f"{key} is empty", FileStat(0, 5))
    return Outcome(Item(key, key), reject=reject)


def write_features(
    path: Path, header: FeatureHeader, dim: int, outcomes: Iterable[Outcome]
) -> FeatureSummary:
    with feature_writer(path, header, dim) as writer:
        for outcome in outcomes:
            if outcome.reject is None:
                writer.add(rows_of([outcome]))
            else:
                writer.reject(outcome.item.key, outcome.reject)
    return writer.summary


NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
OUTCOMES = st.lists(
    st.one_of(
        st.builds(good, NAMES, st.one_of(st.none(), NAMES), st.sampled_from(Split)),
        st.builds(bad, NAMES),
    ),
    max_size=25,
).filter(lambda outcomes: any(o.reject is None for o in outcomes))


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
@given(outcomes=OUTCOMES, chunk=st.integers(1, 7))
def test_what_is_written_is_read(tmp_path: Path, outcomes: list[Outcome], chunk: int) -> None:
    path = tmp_path / "f.h5"
    with pytest.MonkeyPatch.context() as patch:
        for module in (layout, reader, growing, store, structure):
            patch.setattr(module, "CHUNK_ROWS", chunk)
        summary = write_features(path, HEADER, DIM, outcomes)
        found, found_rejects = read_features(path), read_rejects(path)
    rows = [o for o in outcomes if o.reject is None]
    rejected = [o for o in outcomes if o.reject is not None]
    assert found.header == HEADER
    assert found.keys == [o.item.key for o in rows]
    np.testing.assert_array_equal(
        found.vectors, np.stack([o.values["embeddings"] for o in rows]), strict=True
    )
    assert [row.tobytes() for row in found.content_sha256] == [o.content.sha256 for o in rows]
    names = [found.classes[label] if label >= 0 else None for label in found.labels]
    assert names == [o.item.label for o in rows]
    assert found.classes == sorted({o.item.label for o in rows if o.item.label is not None})
    assert found.splits.tolist() == [o.item.split for o in rows]
    assert found_rejects == [
        (o.item.key, "decode", "empty", f"{o.item.key} is empty") for o in rejected
    ]
    assert (summary.count, summary.rejects.total()) == (len(rows), len(rejected))


def test_the_file_is_the_one_that_is_specified(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    write_features(path, HEADER, DIM, [good("a", "x", Split.TEST), bad("b"), good("c")])
    with h5py.File(path) as file:
        seal = file.attrs["seal"]
        assert dict(file.attrs) == {
            "format": "tlpipe-features",
            "format_version": 2,
            "seal": seal,
            **HEADER.to_attributes(),
        }
        shapes = {
            name: (file[name].shape, file[name].dtype.str)
            for name in file
            if name not in ("rejects", "checksums")
        }
        assert shapes == {
            "classes": ((1,), "|O"),
            "content_sha256": ((2, 32), "|u1"),
            "embeddings": ((2, DIM), "<f4"),
            "groups": ((2,), "<i8"),
            "keys": ((2,), "|O"),
            "labels": ((2,), "<i4"),
            "splits": ((2,), "|i1"),
            "stat": ((2,), "|V16"),
        }
        assert file["stat"].dtype.names == ("size_bytes", "mtime_ns")
        assert file["stat"][0].tolist() == (1, 10**18)
        assert file["embeddings"].compression is None
        assert sorted(file["rejects"]) == ["detail", "key", "reason", "stage", "stat"]
        vectors = file["embeddings"][:].tobytes()
        assert file["checksums/embeddings"][:].tolist() == [zlib.crc32(vectors)]
        assert file["checksums/keys"][:].tolist() == [zlib.crc32(b"a\0c\0")]
        assert file["checksums/rejects/key"][:].tolist() == [zlib.crc32(b"b\0")]


def test_inspecting(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    write_features(path, HEADER, DIM, [good("a", "x", Split.TEST), bad("b"), good("c", "x")])
    info = inspect_features(path)
    assert info.shape == (2, DIM)
    assert info.labels == Counter({(Split.TEST, "x"): 1, (Split.NONE, "x"): 1})
    assert info.rejects == Counter({"empty": 1})


def test_a_run_that_fails_leaves_the_old_file(
    tmp_path: Path, leftovers: Callable[[], list[str]]
) -> None:
    path = tmp_path / "f.h5"
    write_features(path, HEADER, DIM, [good("old")])

    def failing() -> Iterator[Outcome]:
        yield good("new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_features(path, HEADER, DIM, failing())
    assert read_features(path).keys == ["old"]
    assert leftovers() == []


def test_rejects_alone_write_nothing(tmp_path: Path, leftovers: Callable[[], list[str]]) -> None:
    path = tmp_path / "f.h5"
    with pytest.raises(FeatureFileError) as caught:
        write_features(path, HEADER, DIM, [bad("a"), bad("b")])
    assert str(caught.value) == (
        "None of the 2 images could be embedded (2 empty); nothing was written. Correct what the"
        " reasons say, and run the same command again."
    )
    assert not path.exists()
    assert leftovers() == []


@pytest.mark.parametrize("room", [0, 100, 3_000, 20_000])
def test_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leftovers: Callable[[], list[str]], room: int
) -> None:
    """The system refuses all writes after the first `room` bytes."""

    class FullDisk(guard.GuardedFile):
        def __init__(self, path: Path) -> None:
            super().__init__(path)
            original, written = self._file, 0

            class Limited:
                def write(self, data: memoryview) -> int:
                    nonlocal written
                    if written + len(data) > room:
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    written += len(data)
                    return original.write(data)

                def __getattr__(self, name: str) -> Any:
                    return getattr(original, name)

            self._file = Limited()  # type: ignore[assignment]

    monkeypatch.setattr(growing, "GuardedFile", FullDisk)
    target = tmp_path / "f.h5"
    with pytest.raises(OutputError, match="could not be written: No space left on device"):
        write_features(target, HEADER, DIM, [good(str(n)) for n in range(600)])
    assert not target.exists()
    assert leftovers() == []


def spoil(path: Path, how: Callable[[h5py.File], None]) -> Path:
    write_features(path, HEADER, DIM, [good("a", "x"), good("b", "y")])
    with h5py.File(path, "r+") as file:
        how(file)
    return path


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda f: f.attrs.__delitem__("format"), "but no feature file of tlpipe"),
        (lambda f: f.attrs.__setitem__("format_version", 3), "has format version 3; this tlpipe"),
        (lambda f: f.__delitem__("labels"), "is damaged: it lacks 'labels'"),
        (lambda f: f["splits"].resize(1, axis=0), "'splits' has 1 rows and 'keys' has 2"),
        (lambda f: f["labels"].__setitem__(0, 7), "rows 0 to 1 of 'labels' are not those"),
        (lambda f: f["embeddings"].__setitem__((1, 0), 7), "rows 0 to 1 of 'embeddings' are not"),
        (lambda f: f["keys"].__setitem__(0, "b"), "rows 0 to 1 of 'keys' are not those"),
        (lambda f: f.attrs.__setitem__("fingerprint", "0" * 64), "do not belong together"),
        (lambda f: f["checksums/stat"].__setitem__(0, 1), "do not belong together"),
        (lambda f: f.__delitem__("checksums"), "it lacks 'checksums/keys'"),
        (lambda f: f.attrs.__delitem__("fingerprint"), "lacks the attribute 'fingerprint'"),
        (lambda f: f.attrs.__delitem__("format_version"), "states no format version"),
        (
            lambda f: f.move("keys", "embeddings2") or f.copy("labels", "keys"),
            "'keys' has the type",
        ),
    ],
)
def test_files_that_cannot_be_used_are_refused(
    tmp_path: Path, how: Callable[[h5py.File], None], message: str
) -> None:
    path = spoil(tmp_path / "f.h5", how)
    with pytest.raises(FeatureFileError, match=message):
        read_features(path)


def test_what_is_no_hdf5_file(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    with pytest.raises(FeatureFileError, match="does not exist"):
        read_features(path)
    path.write_text("text")
    with pytest.raises(FeatureFileError, match="is no HDF5 file, or is damaged"):
        read_features(path)
    write_features(path, HEADER, DIM, [good(str(n)) for n in range(50)])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FeatureFileError, match="is no HDF5 file, or is damaged"):
        read_features(path)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200
)
@given(
    flips=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=6
    )
)
def test_flipped_bytes_raise_nothing_else(tmp_path: Path, flips: list[tuple[float, int]]) -> None:
    """In the file's head, where HDF5 keeps its structures."""
    path = tmp_path / "f.h5"
    write_features(path, HEADER, DIM, [good("a", "x", Split.TEST), bad("b"), good("c")])
    data = bytearray(path.read_bytes())
    for where, mask in flips:
        data[int(where * 6000)] ^= mask
    path.write_bytes(data)
    for read in (read_features, inspect_features, read_rejects):
        with contextlib.suppress(FeatureFileError):
            read(path)
