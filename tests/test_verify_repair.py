"""Damage of every kind: verify finds it, repair keeps what is good and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

import tlpipe
from conftest import write_classes
from feature_files import DIM, header_of, some_rows, write_features
from tlpipe.card import Card
from tlpipe.cli.main import cli
from tlpipe.errors import FeatureFileError, OutputError
from tlpipe.stages.store import (
    FeatureFile,
    Features,
    check_file,
    feature_writer,
    inspect_features,
    mend_file,
    read_features,
    read_rejects,
)
from tlpipe.stages.store.content import stated_length
from tlpipe.stages.store.mend import LONG_AGO
from tlpipe.types import FileStat, Reason, Reject, Stage

COUNT = 1000
V1 = Path(__file__).parent / "data" / "features-v1.h5"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, tiny_card: Card) -> Path:
    return write_features(tmp_path_factory.mktemp("good") / "f.h5", tiny_card, COUNT)


@pytest.fixture
def copy(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(good, tmp_path / "damaged.h5"))


def change(path: Path, work: Callable[[h5py.File], object]) -> None:
    """Change values with h5py alone, as another program would."""
    with h5py.File(path, "r+") as file:
        work(file)


def put(name: str, row: int, value: object) -> Callable[[h5py.File], object]:
    return lambda file: file[name].__setitem__(row, value)


def words(path: Path) -> str:
    return "\n".join(map(str, check_file(path).findings))


def test_a_good_file_is_whole(good: Path) -> None:
    report = check_file(good)
    assert report.whole
    assert (report.version, report.datasets, report.rows, report.rejects) == (2, 13, COUNT, 5)
    assert report.chunks == 7 * 4 + 1 + 5


DAMAGE: dict[str, tuple[Callable[[h5py.File], object], list[str]]] = {
    "vector": (
        put("embeddings", 300, np.ones(DIM)),
        ["embeddings, rows 256 ('class/000256.png') to 511 ('class/000511.png'): they"],
    ),
    "nan": (
        put("embeddings", 3, np.full(DIM, np.nan)),
        ["embeddings, row 3 ('class/000003.png'): the vector holds NaN or infinity"],
    ),
    "infinity": (put("embeddings", 999, np.full(DIM, np.inf)), ["row 999 ('class/000999.png')"]),
    "twice": (
        put("keys", 700, "class/000002.png"),
        ["keys, row 700 ('class/000002.png'): an earlier row has the same key"],
    ),
    "label": (put("labels", 5, 7), ["row 5 ('class/000005.png'): the label 7 is not of the 2"]),
    "split": (put("splits", 5, 9), ["the split 9 is none"]),
    "key": (put("keys", 5, b"\xff\xfe"), ["keys, row 5: the text is not UTF-8"]),
    "digest": (put("content_sha256", 0, np.zeros(32)), ["content_sha256, rows 0 "]),
    "stat": (put("stat", 0, (1, 2)), ["stat, rows 0 "]),
    "group": (put("groups", 0, 12345), ["groups, rows 0 "]),
    "class": (put("classes", 0, "wasps"), ["classes, rows 0 to 1: they are not"]),
    "reject": (
        put("rejects/key", 0, "class/000009.png"),
        ["rejects/key, row 0 ('class/000009.png'): the item was left out, and yet has a row"],
    ),
    "reason": (put("rejects/reason", 0, "bored"), ["there is no reason 'bored'"]),
    "rows missing": (
        lambda file: file["embeddings"].resize(990, axis=0),
        ["it has 990 rows, where 1000 are right: 10 are missing", "do not belong together"],
    ),
    "rows too many": (
        lambda file: file["embeddings"].resize(1010, axis=0),
        ["it has 1010 rows, where 1000 are right: 10 too many"],
    ),
    "attribute": (
        lambda file: file.attrs.__setitem__("created_at", "2026-02-02T00:00:00+00:00"),
        ["its attributes, shapes and checksums do not belong together (seal)"],
    ),
    "table": (put("checksums/keys", 0, 1), ["keys, rows 0 ", "(seal)"]),
    "lost dataset": (lambda file: file.__delitem__("labels"), ["labels: it lacks 'labels'"]),
    "lost attribute": (lambda file: file.attrs.__delitem__("source"), ["'source' cannot be read"]),
    "downgrade": (
        lambda file: file.attrs.modify("format_version", 1),
        ["it has checksums, which format 1 does not have"],
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_every_damage_is_named(copy: Path, name: str) -> None:
    work, expected = DAMAGE[name]
    change(copy, work)
    found = words(copy)
    for text in expected:
        assert text in found, found
    with pytest.raises(FeatureFileError):  # no reader takes it for whole
        read_all(copy)


def read_all(path: Path) -> object:
    read_rejects(path)
    inspect_features(path)
    found = read_features(path)
    with FeatureFile(path) as file:
        return found, file.read("stat", 0, file.count)


def test_all_damage_is_named_and_not_only_the_first(copy: Path) -> None:
    for name in ("vector", "nan", "twice", "label", "class", "reason"):
        change(copy, DAMAGE[name][0])
    found = words(copy)
    for name in ("vector", "nan", "twice", "label", "class", "reason"):
        assert all(text in found for text in DAMAGE[name][1]), name
    assert "embeddings, rows 256 ('class/000256.png') to 511 ('class/000511.png')" in found


LOST = {  # rows that repair gives up; all others must be kept
    "vector": range(256, 512),
    "nan": range(256),
    "infinity": range(768, 1000),
    "twice": range(512, 768),
    "key": range(256),
    "digest": range(256),
    "stat": range(256),
    "rows missing": range(768, 1000),
    "table": range(256),
}


def compared(mended: Path, original: Features) -> list[str]:
    """Hold a repaired file against the original; gives its keys."""
    assert check_file(mended).whole
    found = read_features(mended)
    assert len(set(found.keys)) == len(found.keys)
    place = {key: row for row, key in enumerate(original.keys)}
    rows = [place[key] for key in found.keys]
    assert rows == sorted(rows)
    assert found.vectors.tobytes() == original.vectors[rows].tobytes()
    assert found.content_sha256.tobytes() == original.content_sha256[rows].tobytes()
    for row, label, split, group in zip(
        rows, found.labels.tolist(), found.splits.tolist(), found.groups.tolist(), strict=True
    ):
        number = original.labels[row]
        right = None if number < 0 else original.classes[number]
        assert label == -1 or found.classes[label] == right
        assert split in (-1, original.splits[row])
        assert group in (-1, original.groups[row])
    with FeatureFile(mended) as file:
        stats = file.read("stat", 0, file.count)
    assert stats["size_bytes"].tolist() == rows
    assert stats["mtime_ns"].tolist() == [10**18 + row % 100 for row in rows]
    return found.keys


@pytest.mark.parametrize("name", [name for name in DAMAGE if name != "downgrade"])
def test_what_is_good_is_kept(copy: Path, good: Path, tmp_path: Path, name: str) -> None:
    change(copy, DAMAGE[name][0])
    before = copy.read_bytes()
    if name == "lost attribute":
        work = mend_file(copy, tmp_path / "new.h5")
        assert work.kept == COUNT
        return
    result = mend_file(copy, tmp_path / "new.h5")
    assert copy.read_bytes() == before
    original = read_features(good)
    keys = compared(tmp_path / "new.h5", original)
    lost = set(LOST.get(name, ()))
    assert keys == [key for row, key in enumerate(original.keys) if row not in lost]
    assert (result.kept, result.lost) == (COUNT - len(lost), len(lost))
    if name not in ("key", "twice", "table"):  # their keys are not sure
        assert set(result.lost_keys) == {original.keys[row] for row in lost}


@pytest.mark.parametrize(
    ("name", "without"),
    [("label", "label"), ("class", "label"), ("split", "split"), ("group", "group")],
)
def test_rows_of_which_only_a_label_split_or_group_is_damaged_are_kept_without(
    copy: Path, tmp_path: Path, name: str, without: str
) -> None:
    change(copy, DAMAGE[name][0])
    result = mend_file(copy, tmp_path / "new.h5")
    assert result.lost == 0
    assert getattr(result, f"without_{without}") == (COUNT if name == "class" else 256)


def test_the_time_of_embedding_is_kept_where_it_is_sure(
    copy: Path, tmp_path: Path, tiny_card: Card
) -> None:
    change(copy, DAMAGE["vector"][0])
    mend_file(copy, tmp_path / "a.h5")
    assert inspect_features(tmp_path / "a.h5").header == header_of(tiny_card)
    change(copy, DAMAGE["attribute"][0])
    result = mend_file(copy, tmp_path / "b.h5")
    assert inspect_features(tmp_path / "b.h5").header.created_at == LONG_AGO
    assert "altered" in result.notes[0]


@pytest.mark.parametrize("name", ["backbone", "fingerprint", "decoder", "precision"])
def test_vectors_of_unknown_origin_are_not_used(copy: Path, tmp_path: Path, name: str) -> None:
    change(copy, lambda file: file.attrs.__setitem__(name, file.attrs[name].replace("1", "2", 1)))
    if name == "precision":
        change(copy, lambda file: file.attrs.__setitem__(name, "fp16"))
    with pytest.raises(FeatureFileError, match="unknown origin"):
        mend_file(copy, tmp_path / "new.h5")
    assert not (tmp_path / "new.h5").exists()


def test_nothing_is_written_where_nothing_is_good(copy: Path, tmp_path: Path) -> None:
    change(copy, lambda file: file["embeddings"].__setitem__(slice(None), np.nan))
    with pytest.raises(FeatureFileError, match="Not one of the 1000 rows"):
        mend_file(copy, tmp_path / "new.h5")
    change(copy, lambda file: file.__delitem__("keys"))
    with pytest.raises(FeatureFileError, match=r"without \['keys'\] no row is whole"):
        mend_file(copy, tmp_path / "new.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.h5"]


@pytest.mark.parametrize("part", [0.999, 0.75, 0.5, 0.35])
def test_of_a_file_that_was_cut_off_the_front_is_kept(
    copy: Path, good: Path, tmp_path: Path, part: float
) -> None:
    size = copy.stat().st_size
    os.truncate(copy, int(part * size))
    assert stated_length(copy) == size
    assert "bytes were cut off at its end" in words(copy)
    result = mend_file(copy, tmp_path / "new.h5")
    keys = compared(tmp_path / "new.h5", read_features(good))
    assert result.kept == len(keys) >= max(256, (part - 0.3) * COUNT)


@pytest.mark.parametrize("seed", range(150))
def test_random_damage(
    copy: Path, good: Path, tmp_path: Path, seed: int, originals: tuple[Features, Any]
) -> None:
    rng = random.Random(seed)
    raw = bytearray(copy.read_bytes())
    for _ in range(rng.choice([1, 1, 2, 10])):
        at = rng.randrange(len(raw))
        kind = rng.choice(["flip", "flip", "byte", "zero", "cut", "splice"])
        if kind == "flip":
            raw[at] ^= 1 << rng.randrange(8)
        elif kind == "byte":
            raw[at] = rng.randrange(256)
        elif kind == "zero":
            length = rng.choice([1, 8, 64, 1024, 8192])
            raw[at : at + length] = bytes(len(raw[at : at + length]))
        elif kind == "cut":
            del raw[max(at, 1) :]
        else:
            length = rng.choice([4, 16, 64])
            source = rng.randrange(len(raw))
            raw[at : at + length] = raw[source : source + length]
    copy.write_bytes(raw)
    original, values = originals
    whole = False
    with contextlib.suppress(FeatureFileError):
        whole = check_file(copy).whole
    if whole:
        assert plain_values(copy) == values
        read_all(copy)
    try:
        mend_file(copy, tmp_path / "new.h5")
    except FeatureFileError:
        assert not whole
        assert not (tmp_path / "new.h5").exists()
        return
    keys = compared(tmp_path / "new.h5", original)
    assert not whole or keys == original.keys


@pytest.fixture(scope="module")
def originals(good: Path) -> tuple[Features, Any]:
    return read_features(good), plain_values(good)


def plain_values(path: Path) -> dict[str, Any]:
    """All that h5py reads of a file."""
    found: dict[str, Any] = {}
    with h5py.File(path) as file:
        found |= {name: str(value) for name, value in file.attrs.items()}

        def take(name: str, thing: object) -> None:
            if isinstance(thing, h5py.Dataset):
                values = thing[:]
                found[name] = values.tolist() if values.dtype == object else values.tobytes()

        file.visititems(take)
    return found


def test_an_item_left_out_twice_is_no_damage(tmp_path: Path, tiny_card: Card) -> None:
    path = tmp_path / "f.h5"
    with feature_writer(path, header_of(tiny_card), DIM) as writer:
        writer.add(some_rows(0, 3))
        reject = Reject(Stage.SOURCE, Reason.DUPLICATE_KEY, "twice", FileStat())
        writer.reject("class/000001.png", reject)
    assert check_file(path).whole
    assert mend_file(path, tmp_path / "new.h5").rejects_lost == 0
    assert len(read_rejects(tmp_path / "new.h5")) == 1


def test_findings_are_capped_and_counted(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlpipe.stages.store.check.MOST_KEPT", 10)
    change(copy, lambda file: file["embeddings"].__setitem__(slice(None), np.nan))
    report = check_file(copy)
    assert (len(report.findings), report.found) == (10, COUNT + 4)


# Format 1


def test_format_1_is_read_inspected_and_verified() -> None:
    found = read_features(V1)
    assert found.vectors.shape == (12, 8)
    assert set(found.groups.tolist()) == {-1}
    assert found.classes == ["blue", "green", "red"]
    info = inspect_features(V1)
    assert (info.version, info.header.splits_from, info.rejects["empty"]) == (1, "source", 1)
    assert tlpipe.inspect(V1).facts["format_version"] == 1
    report = check_file(V1)
    assert report.whole
    assert not report.has_checksums


def test_format_1_is_updated(tmp_path: Path, tiny_card: Card) -> None:
    photos, features = tmp_path / "photos", Path(shutil.copy(V1, tmp_path / "f.h5"))
    write_classes(photos, 5)
    for path in photos.rglob("*.png"):
        os.utime(path, ns=(10**18 + 7, 10**18 + 7))
    result = tlpipe.embed(photos, features, backbone=tiny_card)
    assert (result.kept, result.embedded) == (12, 3)
    assert inspect_features(features).version == 2


def test_format_1_is_repaired(tmp_path: Path) -> None:
    features = Path(shutil.copy(V1, tmp_path / "f.h5"))
    change(features, put("embeddings", 3, np.full(8, np.nan)))
    assert "('blue/003.png'): the vector holds NaN" in words(features)
    result = mend_file(features, tmp_path / "new.h5")
    assert (result.kept, result.lost, result.lost_keys) == (11, 1, ["blue/003.png"])
    assert "no checksums" in result.notes[0]
    old, new = read_features(V1), read_features(tmp_path / "new.h5")
    assert inspect_features(tmp_path / "new.h5").version == 2
    assert new.header == old.header
    assert new.keys == [key for key in old.keys if key != "blue/003.png"]
    assert new.labels.tolist() == [
        n for n, key in zip(old.labels, old.keys, strict=True) if key in new.keys
    ]


# The command line


def run(*arguments: object) -> Any:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_verify_on_the_command_line(good: Path, copy: Path) -> None:
    result = run("verify", good)
    assert result.exit_code == 0
    assert "read 34 chunks of 13 datasets: 1,000 rows, 5 rejects" in result.stdout
    assert "Whole: all of it is as it was stored." in result.stdout
    assert json.loads(run("verify", good, "--json").stdout)["whole"] is True
    change(copy, DAMAGE["vector"][0])
    result = run("verify", copy)
    assert result.exit_code == 1
    assert "embeddings, rows 256 ('class/000256.png') to 511" in result.stdout
    assert "DAMAGED: 1 finding." in result.stderr
    result = run("verify", copy, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["findings"][0]["first_key"] == "class/000256.png"
    assert "format 1 has no checksums" in run("verify", V1).stdout


def test_repair_on_the_command_line(copy: Path, tmp_path: Path) -> None:
    change(copy, DAMAGE["vector"][0])
    new = tmp_path / "a file.h5"
    result = run("repair", copy, "-o", new)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == f"Wrote {str(new)!r}: kept 744 rows, lost 256."
    assert "  class/000256.png" in lines
    assert "  and 236 more (--json shows them)" in lines
    assert lines[-1] == f"Embed what is missing: tlpipe embed photos -o '{new}'"
    assert run("repair", copy, "-o", new).exit_code == 1
    assert run("repair", copy, "-o", copy, "--overwrite").exit_code == 1
    result = run("repair", copy, "-o", new, "--overwrite", "--json")
    assert len(json.loads(result.stdout)["lost_keys"]) == 256


def test_a_file_is_not_repaired_onto_itself(copy: Path) -> None:
    with pytest.raises(OutputError, match="is a file that this command reads"):
        tlpipe.repair(copy, copy, overwrite=True)
