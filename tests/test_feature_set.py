"""Sets of feature files: equal to one file, whole or not at all, and read by h5py alone."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tlpipe
from conftest import aged, write_classes, write_image
from faults import CALLS, RAW, Faults
from feature_files import DIM, header_of, some_rows
from stored import FakeNetwork, datasets, parts_of, unlisted, use_network
from tlpipe.card import Card
from tlpipe.cli.main import cli
from tlpipe.errors import DamagedFileError, FeatureFileError, OptionError, OutputError, TlpipeError
from tlpipe.stages.store import (
    FeatureFile,
    FeatureHeader,
    StoredVectors,
    check_file,
    feature_writer,
    inspect_features,
    many,
    mend_file,
    read_features,
    read_rejects,
)
from tlpipe.stages.store.generations import MARK
from tlpipe.stages.store.layout import COLUMNS, HEADER_FIELDS
from tlpipe.stages.store.mend import LONG_AGO
from tlpipe.stages.store.set_index import PARTS_DTYPE, SetIndex, SetPart
from tlpipe.types import FileStat, Reason, Reject, Stage
from torture_child import small_everything

COUNT = 1000
MOST = 300


def write(
    path: Path, card: Card, count: int = COUNT, most: int | None = MOST, *, first: int = 0
) -> Path:
    """Rows from `first` on, and a reject for each hundred."""
    with feature_writer(path, header_of(card), DIM, set_above=most) as writer:
        for start in range(first, first + count, 100):
            writer.add(some_rows(start, min(100, first + count - start)))
            stat = FileStat(start, 10**18)
            writer.reject(f"bad/{start}.png", Reject(Stage.DECODE, Reason.EMPTY, "empty", stat))
    return path


def assert_same(one: Path, other: Path) -> None:
    """Both hold the same, byte for byte, to tlpipe's reader and to h5py's."""
    with FeatureFile(one) as a, FeatureFile(other) as b:
        assert (a.header, a.classes, a.count, a.dim) == (b.header, b.classes, b.count, b.dim)
        np.testing.assert_array_equal(a.all_vectors(), b.all_vectors(), strict=True)
        for name, column in COLUMNS.items():
            counts = {"items": a.count, "rejects": a.reject_count, "classes": len(a.classes)}
            span = 0, counts[column.of]
            x, y = a.read(name, *span), b.read(name, *span)
            if isinstance(x, list):
                assert x == y, name
            else:
                np.testing.assert_array_equal(x, y, strict=True)
    with h5py.File(one) as x, h5py.File(other) as y:
        for name in COLUMNS:
            assert x[name].dtype == y[name].dtype
            np.testing.assert_array_equal(x[name][:], y[name][:], strict=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_card: Card) -> Path:
    """A folder with a file and a set of the same rows."""
    folder = tmp_path_factory.mktemp("made")
    write(folder / "file.h5", tiny_card, most=None)
    write(folder / "set.h5", tiny_card)
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "place"))


def test_a_set_equals_a_file(made: Path) -> None:
    assert_same(made / "file.h5", made / "set.h5")
    parts = parts_of(made / "set.h5")
    with FeatureFile(made / "set.h5") as file:
        assert (file.files, file.part_rows) == (4, MOST)
    assert [FeatureFile(part).count for part in parts] == [300, 300, 300, 100]
    assert {check_file(part).whole for part in parts} == {True}  # each is a feature file of its own
    assert {tuple(FeatureFile(part).classes) for part in parts} == {("ants", "bees")}
    assert unlisted(made / "set.h5") == []
    assert check_file(made / "set.h5").whole
    assert read_rejects(made / "set.h5") == read_rejects(made / "file.h5")
    a, b = (inspect_features(made / name) for name in ("file.h5", "set.h5"))
    assert (a.labels, a.rejects, a.shape) == (b.labels, b.rejects, b.shape)
    assert tlpipe.inspect(made / "set.h5").facts["part_files"] == 4


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=8
)
@given(count=st.integers(1, 40), most=st.integers(3, 25), span=st.integers(1, 40))
def test_any_number_of_rows_in_any_parts(
    tmp_path: Path, tiny_card: Card, count: int, most: int, span: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        small_everything(patch.setattr)
        one = write(tmp_path / "one.h5", tiny_card, count, None)
        other = write(tmp_path / "other.h5", tiny_card, count, most)
        assert_same(one, other)
        assert len(parts_of(other)) == (0 if count <= most else -(-count // most))
        assert len(list((tmp_path / "other.h5.set").rglob("*.h5"))) == len(parts_of(other))
        with FeatureFile(one) as a, FeatureFile(other) as b:
            for start in range(0, count, span):
                stop = min(start + span, count)
                assert a.rows(start, stop).keys == b.rows(start, stop).keys
                np.testing.assert_array_equal(a.vectors(start, stop), b.vectors(start, stop))


def test_a_set_without_rejects_or_labels(tmp_path: Path, tiny_card: Card) -> None:
    paths = []
    for most in (None, 7):
        paths.append(tmp_path / f"{most}.h5")
        with feature_writer(paths[-1], header_of(tiny_card), DIM, set_above=most) as writer:
            rows = some_rows(0, 30)
            writer.add(rows.only(np.array([label is None for label in rows.labels])))
    assert_same(*paths)
    assert check_file(paths[1]).whole
    assert inspect_features(paths[1]).classes == []


def test_a_vector_of_an_earlier_part_is_given_back(tmp_path: Path, tiny_card: Card) -> None:
    with feature_writer(tmp_path / "f.h5", header_of(tiny_card), DIM, set_above=40) as writer:
        writer.add(some_rows(0, 100))
        for row in (0, 79, 39, 40, 99, 80, 1):
            expected = some_rows(0, 100).vectors
            assert expected is not None
            np.testing.assert_array_equal(writer.vector(row), expected[row])


def test_h5py_shows_no_zeros_where_a_part_is_missing(place: Path) -> None:
    path = place / "set.h5"
    parts_of(path)[1].unlink()
    gone = np.s_[MOST : 2 * MOST]
    with h5py.File(path) as file, h5py.File(place / "file.h5") as whole:
        assert np.isnan(file["embeddings"][gone]).all()
        for name in ("labels", "splits", "groups"):
            assert (file[name][gone] == -1).all()
        assert set(file["keys"].asstr()[gone]) == {""}
        assert (file["content_sha256"][gone] == 255).all()
        assert set(file["stat"][gone].tolist()) == {(-1, -1)}
        assert (
            file["rejects/reason"].asstr()[:].tolist() == ["empty"] * 3 + [""] * 3 + ["empty"] * 4
        )
        assert file["classes"].asstr()[:].tolist() == ["ants", "bees"]
        for name in ("embeddings", "labels", "keys"):  # the others are as they were
            np.testing.assert_array_equal(file[name][:MOST], whole[name][:MOST])
            np.testing.assert_array_equal(file[name][2 * MOST :], whole[name][2 * MOST :])
    with pytest.raises(DamagedFileError, match=r"not whole: its part '.*00001\.h5' cannot be"):
        FeatureFile(path)


@pytest.mark.parametrize("name", ["moved", "100%b and %%"])
def test_a_set_is_moved_with_its_folder(place: Path, tiny_card: Card, name: str) -> None:
    other = place / name
    other.mkdir()
    for found in ("set.h5", "set.h5.set"):
        (place / found).rename(other / found)
    assert_same(place / "file.h5", other / "set.h5")
    (place / "link.h5").symlink_to(other / "set.h5")
    assert_same(place / "file.h5", place / "link.h5")
    (other / "set.h5").rename(other / "renamed.h5")  # the folder keeps its name
    assert_same(place / "file.h5", other / "renamed.h5")
    assert_same(place / "file.h5", write(other / f"{name}.h5", tiny_card))  # % in the views' paths
    assert check_file(other / f"{name}.h5").whole


def swap(parts: list[Path]) -> None:
    parts[1].rename(parts[1].with_suffix(".x"))
    parts[2].rename(parts[1])
    parts[1].with_suffix(".x").rename(parts[2])


def flip(part: Path, name: str = "embeddings") -> None:
    with h5py.File(part, "r+") as file:
        values = file[name][:]
        values[2] += 1
        file[name][:] = values


def cut(part: Path) -> None:
    part.write_bytes(part.read_bytes()[:-3000])


def linked(part: Path) -> None:
    outside = part.parent.parent.parent / "outside.h5"
    part.rename(outside)
    part.symlink_to(outside)


def folder_linked(part: Path) -> None:
    outside = part.parent.parent.parent / "outside"
    part.parent.rename(outside)
    part.parent.symlink_to(outside)


def piped(part: Path) -> None:
    part.unlink()
    os.mkfifo(part)


def index_for_part(part: Path) -> None:
    shutil.copy(part.parent.parent.parent / "set.h5", part)


def no_hdf5(part: Path) -> None:
    part.write_text("text")


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "cannot be found: No such file"),
    "swapped": (lambda part: swap(sorted(part.parent.iterdir())), "is another file than the one"),
    "cut off": (cut, "is no HDF5 file, or is damaged"),
    "no HDF5": (no_hdf5, "is no HDF5 file, or is damaged"),
    "an index": (index_for_part, "is the index of a set of feature files, and not one itself"),
    "a link": (linked, r"00001\.h5' is a symbolic link"),
    "in a link": (folder_linked, "is a symbolic link"),
    "a pipe": (piped, r"00001\.h5' is something else"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_part_is_named_and_the_others_can_be_kept(place: Path, name: str) -> None:
    work, message = WRONG[name]
    path = place / "set.h5"
    work(parts_of(path)[1])
    for way in (FeatureFile, read_features, inspect_features, read_rejects):
        with pytest.raises(DamagedFileError, match=message) as caught:
            way(path)
        assert "00001.h5" in str(caught.value) or name == "in a link"
        assert "tlpipe repair" in caught.value.hint
    report = check_file(path)
    wrong = {"swapped": {1, 2}, "in a link": {0, 1, 2, 3}}.get(name, {1})
    assert {finding.part for finding in report.findings} == {f"{n:05d}.h5" for n in wrong}
    if len(wrong) == 4:
        with pytest.raises(DamagedFileError, match="Not one of the 1000 rows"):
            mend_file(path, place / "mended.h5")
        return
    kept = mend_file(path, place / "mended.h5")
    left = MOST * (3 - len(wrong)) + 100
    if name == "cut off":  # only the classes were, which the other parts have
        assert (kept.kept, kept.without_label) == (COUNT, 0)
        assert read_features(place / "mended.h5").header.created_at == LONG_AGO
    else:
        assert (kept.kept, kept.lost, kept.rejects_lost) == (left, COUNT - left, 3 * len(wrong))
        assert any("00001.h5" in why for why in kept.reasons)
    with FeatureFile(place / "mended.h5") as file, FeatureFile(place / "file.h5") as whole:
        assert file.count == kept.kept
        rows, all_rows = file.rows(0, file.count, vectors=True), whole.rows(0, COUNT, vectors=True)
        at = [all_rows.keys.index(key) for key in rows.keys]
        assert rows.vectors is not None
        assert all_rows.vectors is not None
        np.testing.assert_array_equal(rows.vectors, all_rows.vectors[at])
        assert rows.labels == [all_rows.labels[n] for n in at]
        assert at == sorted(at)


def test_a_flipped_bit_is_found_in_its_part(place: Path) -> None:
    path = place / "set.h5"
    flip(parts_of(path)[2])
    with FeatureFile(path) as file:
        file.vectors(0, 2 * MOST)
        with pytest.raises(DamagedFileError, match=r"00002\.h5' is damaged: rows 0 to 255 of 'emb"):
            file.vectors(0, COUNT)
    (finding,) = check_file(path).findings
    assert str(finding).startswith("00002.h5: embeddings, rows 0 ('class/000600.png') to 255")
    kept = mend_file(path, place / "mended.h5")
    assert (kept.kept, kept.lost, len(kept.lost_keys)) == (COUNT - 256, 256, 256)
    with FeatureFile(place / "mended.h5") as file:
        assert file.header.created_at != LONG_AGO
        assert file.part_rows == MOST


def test_a_part_without_its_seal_is_kept_with_care(place: Path) -> None:
    path = place / "set.h5"
    with h5py.File(parts_of(path)[0], "r+") as file:
        file.attrs["source"] = "elsewhere"
    kept = mend_file(path, place / "mended.h5")
    assert (kept.kept, kept.source) == (COUNT, "photos")
    with FeatureFile(place / "mended.h5") as file:
        assert file.header.created_at == LONG_AGO
    with h5py.File(parts_of(path)[0], "r+") as file:
        file.attrs["fingerprint"] = "0" * 64
    assert mend_file(path, place / "again.h5").kept == COUNT - MOST


def test_a_whole_set_is_repaired_to_the_same(place: Path) -> None:
    assert mend_file(place / "set.h5", place / "mended.h5").kept == COUNT
    assert_same(place / "file.h5", place / "mended.h5")


def test_views_that_show_something_else_are_found(place: Path) -> None:
    path = place / "set.h5"
    with h5py.File(path, "r+") as file:
        layout = h5py.VirtualLayout((COUNT,), "<i4")
        for n, source in enumerate(file["labels"].virtual_sources()):
            shown = h5py.VirtualSource(source.file_name, "labels", (100,), "<i4")
            layout[100 * n : 100 * n + 100] = shown
        del file["labels"]
        file.create_virtual_dataset("labels", layout, fillvalue=-1)
        file["classes"][0] = "wasps"
    assert_same_rows = read_features(path).labels  # it reads the parts, not the views
    np.testing.assert_array_equal(assert_same_rows, read_features(place / "file.h5").labels)
    (finding,) = check_file(path).findings
    assert str(finding) == "set.h5: labels: the index shows other rows than those of the parts"
    with h5py.File(path, "r+") as file:
        del file["labels"]
    assert [f.wrong for f in check_file(path).findings] == ["the index does not have it"]


def test_few_files_are_open_at_once(
    tmp_path: Path, tiny_card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "f.h5", tiny_card, 400, 40)
    monkeypatch.setattr(many, "MOST_OPEN", 3)
    opened = 0

    def count() -> int:
        links = [fd for fd in Path("/proc/self/fd").iterdir() if os.path.lexists(fd)]
        return sum(os.path.realpath(fd).startswith(str(tmp_path)) for fd in links)

    with FeatureFile(path) as file:
        expected = file.all_vectors()
        assert count() <= 3
        stored = StoredVectors(file, np.arange(0, 400, 3))

        def look(start: int) -> bool:
            nonlocal opened
            opened = max(opened, count())
            rows = np.arange(start, len(stored), 7)
            right = np.array_equal(stored.take(rows), expected[::3][rows])
            return right and np.array_equal(file.vectors(start, start + 90), expected[start:][:90])

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(look, range(0, 100, 9)))
    assert 0 < opened <= 3 + 4
    assert count() == 0
    with pytest.raises(TlpipeError):  # it is closed
        file.rows(0, 10)


def test_a_part_that_goes_away_while_it_is_read(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many, "MOST_OPEN", 1)
    with FeatureFile(place / "set.h5") as file:
        parts_of(place / "set.h5")[0].unlink()
        with pytest.raises(DamagedFileError, match=r"its part '.*00000\.h5' cannot be found"):
            file.vectors(0, 10)
        file.vectors(MOST, COUNT)


# Indexes from strangers.

SECRET = "0123456789abcdef"


def resealed(change: Callable[[h5py.File], object]) -> Callable[[h5py.File], object]:
    """The change, and then the seal as it must be: by someone who knows the format."""

    def work(file: h5py.File) -> None:
        change(file)
        parts = tuple(
            SetPart(name.decode(errors="replace"), rows, rejects, seal.decode())
            for name, rows, rejects, seal in file["parts"][:].tolist()
        )
        fields = {name: str(file.attrs[name]) for name in HEADER_FIELDS}
        index = SetIndex(FeatureHeader(**fields), str(file.attrs["folder"]), parts)
        file.attrs["seal"] = index.seal()

    return work


def folder(name: str) -> Callable[[h5py.File], object]:
    return resealed(lambda file: file.attrs.__setitem__("folder", name))


def entry(column: str, value: object) -> Callable[[h5py.File], object]:
    def change(file: h5py.File) -> None:
        parts = file["parts"][:]
        parts[1][column] = value
        file["parts"][:] = parts

    return resealed(change)


def other_parts(**options: Any) -> Callable[[h5py.File], object]:
    def change(file: h5py.File) -> None:
        del file["parts"]
        file.create_dataset("parts", **options)

    return change


def parts_elsewhere(link: Any) -> Callable[[h5py.File], object]:
    def change(file: h5py.File) -> None:
        file.move("parts", "others")
        file["parts"] = link

    return change


HOSTILE: dict[str, tuple[Callable[[h5py.File], object], str]] = {
    "folder above": (folder(f"../outside.set/{SECRET}"), "is no folder of parts"),
    "absolute folder": (folder(f"/tmp/outside.set/{SECRET}"), "is no folder of parts"),
    "folder and out": (folder("set.h5.set/.."), "is no folder of parts"),
    "folder that is none": (folder(SECRET), "is no folder of parts"),
    "folder of dots": (folder(f"../{SECRET}"), "is no folder of parts"),
    "another set's folder": (folder(f"other.set/{SECRET}"), r"00000\.h5' cannot be found"),
    "file above": (entry("file", b"../../file.h5"), "which is no name of a part"),
    "absolute file": (entry("file", b"/tmp/file.h5"), "which is no name of a part"),
    "a part twice": (entry("file", b"00000.h5"), "which is no name of a part"),
    "file of no UTF-8": (entry("file", b"\xff\xfe.h5"), "is damaged"),
    "rows below": (entry("rows", -1), "said to have -1 rows"),
    "rows beyond": (entry("rows", 2**62), "is another file than the one"),
    "rejects below": (entry("rejects", -5), "is damaged"),
    "another seal": (entry("seal", b"0" * 64), "is another file than the one"),
    "no parts": (other_parts(shape=(0,), dtype=PARTS_DTYPE), "it lists no parts"),
    "many parts": (
        other_parts(shape=(10**12,), dtype=PARTS_DTYPE, chunks=(256,)), "claims 10000000"
    ),
    "parts of another type": (other_parts(shape=(4,), dtype="<i8"), "has the type int64"),
    "parts that are a group": (
        lambda file: (file.move("parts", "p"), file.create_group("parts")), "lacks 'parts'"
    ),
    "parts behind a link": (
        parts_elsewhere(h5py.ExternalLink("file.h5", "/keys")), "is a link to elsewhere"
    ),
    "parts outside": (
        other_parts(shape=(4,), dtype=PARTS_DTYPE, external=[("file.h5", 0, 600)]),
        "keeps its data in another file",
    ),
    "version beyond": (lambda f: f.attrs.__setitem__("format_version", 9), "version 9; this tlpip"),
    "version of text": (lambda f: f.attrs.__setitem__("format_version", "1"), "is damaged"),
    "no folder": (lambda file: file.attrs.__delitem__("folder"), r"lacks the attributes \['folde"),
    "another backbone": (
        resealed(lambda file: file.attrs.__setitem__("fingerprint", "0" * 64)),
        "was made in another way",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_an_index_leads_nowhere_else(place: Path, tiny_card: Card, name: str) -> None:
    path, (change, message) = place / "set.h5", HOSTILE[name]
    with h5py.File(path, "r+") as file:
        change(file)
    for way in (FeatureFile, read_features, inspect_features, read_rejects):
        with pytest.raises(FeatureFileError, match=message):
            way(path)
    with contextlib.suppress(TlpipeError):
        assert not check_file(path).whole
    with contextlib.suppress(TlpipeError):
        mend_file(path, place / "mended.h5")
    assert_same(place / "file.h5", place / "file.h5")
    write(path, tiny_card, 10, None)  # nothing but what is known to be left over is removed
    assert len(list((place / "set.h5.set").rglob("*.h5"))) in (0, 4)
    assert (place / "set.h5.set").exists() or name not in ("another set's folder", "folder above")


def test_views_that_lead_outside_are_not_opened(place: Path) -> None:
    """They lead to a pipe, whose opening would never end."""
    path = place / "set.h5"
    os.mkfifo(place / "pipe")
    with h5py.File(path, "r+") as file:
        for name in ("labels", "keys"):
            dtype = file[name].dtype
            del file[name]
            layout = h5py.VirtualLayout((COUNT,), dtype, maxshape=(None,))
            source = h5py.VirtualSource(str(place / "pipe"), "x", (COUNT,), dtype, maxshape=(None,))
            layout[: h5py.h5s.UNLIMITED] = source[: h5py.h5s.UNLIMITED]
            file.create_virtual_dataset(name, layout)
    assert_same_vectors = read_features(path).vectors
    np.testing.assert_array_equal(assert_same_vectors, read_features(place / "file.h5").vectors)
    (finding,) = check_file(path).findings
    assert finding.part == "set.h5"


# What stands in whose place.


def old_and_new(folder: Path, card: Card) -> tuple[Path, dict[str, bytes], dict[str, bytes]]:
    """A place to write to, and what a file of 50 rows and a set of 70 rows are."""
    old = datasets(write(folder / "a.h5", card, 50, None))
    new = datasets(write(folder / "b.h5", card, 70, 20))
    (folder / "out").mkdir()
    return folder / "out" / "f.h5", old, new


def test_a_set_replaces_a_file_and_a_file_a_set(tmp_path: Path, tiny_card: Card) -> None:
    path, old, new = old_and_new(tmp_path, tiny_card)
    for most in (None, 20, 20, None):
        write(path, tiny_card, 50 if most is None else 70, most)
        assert datasets(path) == (old if most is None else new)
        assert sorted(p.name for p in path.parent.iterdir()) == (
            ["f.h5"] if most is None else ["f.h5", "f.h5.set"]
        )
        assert unlisted(path) == []


@pytest.mark.parametrize("before", [None, 20])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("It failed.")], ids=repr)
def test_a_run_that_fails_leaves_what_was_there(
    tmp_path: Path, tiny_card: Card, before: int | None, error: BaseException
) -> None:
    path, _, _ = old_and_new(tmp_path, tiny_card)
    old = datasets(write(path, tiny_card, 50, before))
    with (
        pytest.raises(type(error)),
        feature_writer(path, header_of(tiny_card), DIM, set_above=10) as writer,
    ):
        writer.add(some_rows(0, 35))
        raise error
    assert datasets(path) == old
    assert unlisted(path) == []
    assert (path.with_name("f.h5.set")).exists() == (before is not None)


FAULTS = int(os.environ.get("TLPIPE_FAULTS", "2"))
"""Calls of one kind that are made to fail, of all that are made, evenly spread."""


@pytest.mark.parametrize("times", [1, 10**9], ids=["once", "from then on"])
@pytest.mark.parametrize("call", [*CALLS, *RAW])
def test_a_call_that_fails_is_a_clear_error(
    tmp_path: Path, tiny_card: Card, call: str, times: int
) -> None:
    path, _, new = old_and_new(tmp_path, tiny_card)

    def attempt(faults: Faults) -> BaseException | None:
        with pytest.MonkeyPatch.context() as patch:
            faults.install(patch, path.parent)
            try:
                write(path, tiny_card, 70, 20)
            except BaseException as exc:
                return exc
        return None

    for before in (None, 30):
        old = datasets(write(path, tiny_card, 50, before))
        faults = Faults()
        assert attempt(faults) is None
        count = faults.counts[call]
        for number in range(1, count + 1, max(1, -(-count // FAULTS))):
            write(path, tiny_card, 50, before)
            code = (errno.ENOSPC, errno.EIO, errno.EACCES)[number % 3]
            raised = attempt(Faults(call, number, code, times))
            where = f"{call} {number}: {raised!r}"
            found = datasets(path)
            if raised is None:
                assert found == new, where
            else:
                assert isinstance(raised, OutputError), where
                assert "f.h5" in str(raised), where
                assert os.strerror(code) in str(raised), where
                assert found == old or call in ("unlink", "rmdir", "iterdir"), where
            assert datasets(write(path, tiny_card, 70, 20)) == new
            assert unlisted(path) == [], where
            assert sorted(p.name for p in path.parent.iterdir()) == ["f.h5", "f.h5.set"]


def test_only_what_is_left_over_is_removed(tmp_path: Path, tiny_card: Card) -> None:
    """An index that was renamed keeps its parts; other files in the folder stay."""
    path = write(tmp_path / "f.h5", tiny_card, 50, 20)
    old = datasets(path)
    path.rename(tmp_path / "kept.h5")
    write(path, tiny_card, 60, 20)
    assert datasets(tmp_path / "kept.h5") == old
    home = tmp_path / "f.h5.set"
    left = home / "0123456789abcdef"
    left.mkdir()
    for name in ("00000.h5", "00001.tmp", MARK, "mine.txt"):
        (left / name).touch()
    (home / "notes").mkdir()
    (home / "notes" / MARK).touch()
    write(path, tiny_card, 40, None)
    assert datasets(tmp_path / "kept.h5") == old
    assert [p.name for p in left.iterdir()] == ["mine.txt"]
    assert (home / "notes" / MARK).exists()
    assert len(list(home.iterdir())) == 3


def test_something_else_in_the_folders_place(tmp_path: Path, tiny_card: Card) -> None:
    path, home = tmp_path / "f.h5", tmp_path / "f.h5.set"
    home.touch()
    with pytest.raises(OutputError, match=r"The folder '.*f.h5.set', .* cannot be made: File exi"):
        write(path, tiny_card)
    home.unlink()
    (tmp_path / "elsewhere").mkdir()
    home.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="it is a symbolic link"):
        write(path, tiny_card)
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert not path.exists()
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.h5"))
    with pytest.raises(OutputError, match="is no UTF-8 text"):
        write(odd, tiny_card)
    write(odd, tiny_card, most=None)


# The workflows.


def test_embed_updates_a_set_as_a_file(
    tmp_path: Path, tiny_card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_everything(monkeypatch.setattr)
    source = aged(write_classes(tmp_path / "photos", 9))
    shutil.copy(source / "blue" / "000.png", source / "green" / "twin.png")
    (source / "blue" / "broken.png").write_bytes(b"no image")
    aged(source)
    (tmp_path / "out").mkdir()
    one, path = tmp_path / "one.h5", tmp_path / "out" / "f.h5"

    def embed(output: Path, most: int | None = None, **more: Any) -> tuple[Any, int]:
        network = use_network(monkeypatch, FakeNetwork())
        update = tlpipe.UpdateOptions(set_above=most, **more)
        result = tlpipe.embed(source, output, backbone=tiny_card, update=update)
        return result, len(network.seen)

    def same() -> None:
        for name in ("keys", "embeddings", "labels", "splits", "stat", "rejects/key", "groups"):
            with h5py.File(one) as a, h5py.File(path) as b:
                np.testing.assert_array_equal(a[name][:], b[name][:], strict=True)
        assert sorted(p.name for p in path.parent.iterdir()) == [
            "f.h5", *(["f.h5.set"] if parts_of(path) else [])
        ]  # fmt: skip
        assert unlisted(path) == []

    embed(one)
    _, seen = embed(path, 7)
    same()
    assert len(parts_of(path)) == 4
    assert seen == 27  # the twin's vector was copied, out of an earlier part
    (source / "blue" / "broken.png").unlink()
    before = parts_of(path)
    for output in (one, path):
        embed(output)
    result, seen = embed(path)
    assert (result.unchanged, seen) == (True, 0)
    assert len(parts_of(path)) == 4  # of the same size as before, though it was not asked for
    for most, parts in ((1000, 0), (1000, 0), (5, 6), (5, 6), (7, 4)):  # nothing else has changed
        assert embed(path, most)[1] == 0
        assert len(parts_of(path)) == parts
        same()
    assert embed(path, 7)[0].unchanged
    for number in range(6):
        write_image(source / "blue" / f"new {number}.png", 500 + number)
    (source / "green" / "003.png").unlink()
    aged(source)
    assert [embed(output)[1] for output in (one, path)] == [6, 6]
    same()
    assert parts_of(path) != before
    shutil.rmtree(source / "red")
    assert embed(path, 1000)[1] == 0  # a file again
    embed(one)
    same()
    assert not parts_of(path)
    write_image(source / "blue" / "one more.png", 999)
    assert embed(path, 5)[1] == 1
    assert embed(one)[1] == 1
    same()
    assert len(parts_of(path)) == 5
    flip(parts_of(path)[1])  # a damaged chunk is embedded again, as in a file
    write_image(source / "blue" / "and one.png", 998)
    _, seen = embed(path)
    assert 1 < seen <= 1 + 2 * 4  # what shares a chunk of rows with it, here and in its part
    embed(one)
    same()


def test_what_reads_feature_files_reads_sets(
    made: Path, trained: Any, tmp_path: Path, tiny_card: Card
) -> None:
    """The same head, split, merge, table and audit as of the file."""
    one = trained.features
    other = tmp_path / "set.h5"
    with (
        FeatureFile(one) as file,
        feature_writer(other, file.header, file.dim, set_above=7) as writer,
    ):
        writer.add(file.rows(0, file.count, vectors=True))
    assert len(parts_of(other)) > 3
    a, b = (tlpipe.train_head(path, tmp_path / f"{n}.onnx") for n, path in enumerate((one, other)))
    assert a.metrics == b.metrics
    paths = [tmp_path / "one split.h5", tmp_path / "set split.h5"]
    for path, output in zip((one, other), paths, strict=True):
        tlpipe.split(path, output)
    assert_same(*paths)
    assert len(parts_of(paths[1])) == len(parts_of(other))
    tlpipe.split(other)  # in its own place
    assert_same(paths[0], other)
    assert unlisted(other) == []
    tables = [tmp_path / "one.npz", tmp_path / "set.npz"]
    for path, output in zip(paths, tables, strict=True):
        tlpipe.export_features(path, output)
    with np.load(tables[0]) as x, np.load(tables[1]) as y:
        for name in x:
            np.testing.assert_array_equal(x[name], y[name])
    tlpipe.import_features(tables[0], tmp_path / "back.h5", set_above=7)
    assert_same(paths[0], tmp_path / "back.h5")
    assert len(parts_of(tmp_path / "back.h5")) == len(parts_of(other))
    half = write(tmp_path / "half.h5", tiny_card, 60, 25)
    rest = write(tmp_path / "rest.h5", tiny_card, 80, None, first=40)
    tlpipe.merge([half, rest], tmp_path / "both.h5", set_above=50)
    tlpipe.merge([half, rest], tmp_path / "as one.h5")
    assert_same(tmp_path / "as one.h5", tmp_path / "both.h5")
    assert len(parts_of(tmp_path / "both.h5")) == 3
    parts = parts_of(made / "set.h5")
    tlpipe.merge(parts, tmp_path / "merged.h5")  # how to do without the index
    np.testing.assert_array_equal(
        read_features(tmp_path / "merged.h5").vectors, read_features(made / "file.h5").vectors
    )


def test_the_commands(photos: Path, tiny_card_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "f.h5"

    def run(*args: object, code: int = 0) -> str:
        done = CliRunner().invoke(cli, [str(arg) for arg in args])
        assert done.exit_code == code, done.output
        return done.output

    run("embed", photos, "-o", path, "--backbone", tiny_card_path, "--set-above", 10)
    count = len(parts_of(path))
    assert count > 1
    assert "part_files" in run("inspect", path)
    said = run("verify", path)
    assert f"feature file, format 2, a set of {count} files" in said
    assert "Whole: all of it is as it was stored." in said
    assert "'--set-above': 0 is not in the range" in run(
        "embed", photos, "-o", path, "--set-above", 0, code=2
    )
    flip(parts_of(path)[1], "labels")
    assert "00001.h5: labels, rows 0" in run("verify", path, code=1)
    run("merge", parts_of(path)[0], parts_of(path)[2], "-o", tmp_path / "m.h5", "--set-above", 5)
    assert len(parts_of(tmp_path / "m.h5")) == 4


@pytest.mark.parametrize("value", [0, -1, 2.5, True, "9"])
def test_numbers_of_rows_that_make_no_sense(value: Any, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="set_above is"):
        tlpipe.UpdateOptions(set_above=value)
    with pytest.raises(OptionError, match="set_above is"):
        tlpipe.merge([tmp_path / "a.h5", tmp_path / "b.h5"], tmp_path / "c.h5", set_above=value)


def test_a_damaged_index_is_refused(place: Path) -> None:
    path = place / "set.h5"
    raw = path.read_bytes()
    path.write_bytes(raw[:-3000])
    with pytest.raises(FeatureFileError, match="is no HDF5 file, or is damaged"):
        FeatureFile(path)
    with pytest.raises(FeatureFileError):
        check_file(path)
    path.write_bytes(raw)
    with h5py.File(path, "r+") as file:
        file.attrs["source"] = "elsewhere"
    with pytest.raises(DamagedFileError, match="attributes and its list of parts do not belong"):
        FeatureFile(path)
