"""Archives as sources: tar and zip files, shards, label files beside images."""

from __future__ import annotations

import concurrent.futures
import gzip
import io
import json
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import tlpipe.stages.source.archives as archives_module
import tlpipe.stages.source.open_files as open_files_module
from conftest import Trained, aged, write_image
from tlpipe import classify, embed, evaluate
from tlpipe.card import Card
from tlpipe.errors import OptionError, SourceError
from tlpipe.stages.source import Source, open_source
from tlpipe.stages.store import FeatureFile
from tlpipe.types import Reject, Split

Members = list[tuple[str, bytes]]


def members_of(folder: Path) -> Members:
    return [
        (path.relative_to(folder).as_posix(), path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]


def write_tar(path: Path, members: Members, kind: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=kind) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_zip(path: Path, members: Members, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def write_deflated(path: Path, members: Members) -> Path:
    return write_zip(path, members, zipfile.ZIP_DEFLATED)


WRITERS: dict[str, tuple[str, Callable[[Path, Members], Path]]] = {
    "tar": ("a.tar", write_tar),
    "tar-gnu": ("a.tar", lambda path, members: write_tar(path, members, tarfile.GNU_FORMAT)),
    "tar-ustar": ("a.tar", lambda path, members: write_tar(path, members, tarfile.USTAR_FORMAT)),
    "zip": ("a.zip", write_zip),
    "zip-deflated": ("a.zip", write_deflated),
}
ALL = pytest.mark.parametrize("kind", list(WRITERS))
BOTH = pytest.mark.parametrize("kind", ["tar", "zip-deflated"])


def packed(folder: Path, kind: str, members: Members) -> Path:
    name, write = WRITERS[kind]
    return write(folder / name, members)


def told(source: Source) -> list[tuple[str, str | None, Split]]:
    return [(item.key, item.label, item.split) for item in source.items()]


def labels(path: Path | str) -> dict[str, str | None]:
    return {item.key: item.label for item in open_source(path).items()}


def contents(source: Source) -> dict[str, bytes]:
    found = {}
    for item in source.items():
        read = source.reader.read(item.place)
        assert not isinstance(read, Reject), read
        found[item.key] = read[0]
    return found


@ALL
def test_an_archive_gives_what_its_folder_gives(photos: Path, tmp_path: Path, kind: str) -> None:
    source, folder = open_source(packed(tmp_path, kind, members_of(photos))), open_source(photos)
    assert told(source) == told(folder)
    assert contents(source) == contents(folder)
    assert source.survey.labels == folder.survey.labels
    blocks = list(source.scan(stats=True))
    sizes = [path.stat().st_size for path in sorted(photos.rglob("*.png"))]
    time = (tmp_path / WRITERS[kind][0]).stat().st_mtime_ns
    assert [stat for block in blocks for stat in block.stats] == [(size, time) for size in sizes]


def features(path: Path) -> dict[str, tuple[bytes, bytes, str | None, int]]:
    with FeatureFile(path) as file:
        rows = file.rows(0, file.count, vectors=True)
        return {
            key: (rows.content_sha256[i].tobytes(), rows.vectors[i].tobytes(), label, split)
            for i, (key, label, split) in enumerate(
                zip(rows.keys, file.labels(0, file.count), rows.splits.tolist(), strict=True)
            )
        }


@BOTH
def test_embeddings_are_those_of_the_folder_and_are_kept(
    photos: Path, tiny_card: Card, tmp_path: Path, kind: str
) -> None:
    archive = packed(tmp_path, kind, members_of(photos))
    aged(tmp_path)
    output = tmp_path / "archive.h5"
    first = embed(archive, output, backbone=tiny_card)
    embed(photos, tmp_path / "folder.h5", backbone=tiny_card)
    assert first.embedded == 45
    assert features(output) == features(tmp_path / "folder.h5")
    again = embed(archive, output, backbone=tiny_card)
    assert (again.unchanged, again.kept) == (True, 45)


def test_what_was_embedded_of_a_folder_is_kept_for_its_archive(
    photos: Path, tiny_card: Card, tmp_path: Path
) -> None:
    embed(photos, tmp_path / "a.h5", backbone=tiny_card)
    archive = write_tar(tmp_path / "a.tar", members_of(photos))
    result = embed(archive, tmp_path / "a.h5", backbone=tiny_card)
    assert (result.embedded, result.copied) == (0, 45)  # found again by their contents


def test_classify_and_evaluate_take_archives(
    photos: Path, trained: Trained, tmp_path: Path
) -> None:
    classifier = trained.classifier
    archive = write_zip(tmp_path / "a.zip", members_of(photos))
    classify(classifier, archive, tmp_path / "archive.csv")
    classify(classifier, photos, tmp_path / "folder.csv")
    assert (tmp_path / "archive.csv").read_text() == (tmp_path / "folder.csv").read_text()
    of_archive, of_folder = evaluate(classifier, archive), evaluate(classifier, photos)
    assert of_archive.metrics == of_folder.metrics
    assert of_archive.survey.labels == of_folder.survey.labels


@ALL
def test_splits_and_classes_by_folder(tmp_path: Path, kind: str) -> None:
    names = ["train/cat/1.jpg", "train/dog/sub/2.jpg", "val/cat/3.jpg", "test/x.jpg"]
    source = open_source(packed(tmp_path, kind, [(name, b"x") for name in names]))
    assert told(source) == [
        ("train/cat/1.jpg", "cat", Split.TRAIN),
        ("train/dog/sub/2.jpg", "dog", Split.TRAIN),
        ("val/cat/3.jpg", "cat", Split.VALIDATION),
        ("test/x.jpg", None, Split.TEST),
    ]
    assert "a folder per class under split folders" in source.survey.layout


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["cat/1.jpg", "cat/2.jpg"], ["cat", "cat"]),
        (["p/cat/1.jpg", "p/dog/2.jpg"], ["cat", "dog"]),
        (["p/q/cat/1.jpg", "p/q/dog/2.jpg", "p/q/3.jpg"], ["cat", "dog", None]),
        (["p/cat/1.jpg", "p/cat/2.jpg"], ["cat", "cat"]),
        (["./p/cat/1.jpg", "./p//dog/2.jpg"], ["cat", "dog"]),
        (["p/train/cat/1.jpg", "p/train/dog/2.jpg"], ["cat", "dog"]),
        (["train/cat/1.jpg", "train/cat/2.jpg"], ["cat", "cat"]),
        (["cat/1.jpg", "test/2.jpg", "dog/3.jpg"], ["cat", "test", "dog"]),
        (["1.jpg", "2.jpg"], [None, None]),
        (["cat/1.jpg", "2.jpg"], ["cat", None]),
        (["cat/a/1.jpg", "dog/a/2.jpg", "README.md"], ["cat", "dog"]),
    ],
)
def test_the_folder_that_was_packed_says_nothing(
    tmp_path: Path, names: list[str], expected: list[str | None]
) -> None:
    path = write_tar(tmp_path / "a.tar", [(name, b"x") for name in names])
    assert list(labels(path).values()) == expected


def test_splits_beside_other_folders_are_refused(tmp_path: Path) -> None:
    names = ["train/cat/1.jpg", "test/cat/2.jpg", "more/cat/3.jpg"]
    path = write_tar(tmp_path / "a.tar", [(name, b"x") for name in names])
    with pytest.raises(SourceError, match=r"\['test', 'train'\] and beside them \['more'\]"):
        _ = open_source(path).survey


@BOTH
def test_label_files_beside_images(tmp_path: Path, kind: str) -> None:
    path = packed(
        tmp_path,
        kind,
        [
            ("000.jpg", b"x"),
            ("000.cls", b"7\n"),
            ("001.cls", "größer".encode()),
            ("001.left.jpg", b"x"),
            ("001.right.png", b"x"),
            ("002.jpg", b"x"),
            ("002.txt", b"a word"),
            ("003.jpg", b"x"),
            ("003.json", json.dumps({"label": 3, "width": 5, "ok": True, "no": None}).encode()),
            ("003.txt", b"a caption"),
            ("004.jpg", b"x"),
            ("004.json", b'{"class": "six", "width": 1.5, "text": "y", "list": [1]}'),
            ("005.jpg", b"x"),
            ("cat.0.jpg", b"x"),
            ("cat.0.cls", b"zero"),
            ("cat.1.jpg", b"x"),
            ("cat.1.cls", b"one"),
            ("alone.cls", b"one"),
        ],
    )
    source = open_source(path)
    assert {item.key: item.label for item in source.items()} == {
        "000.jpg": "7",
        "001.left.jpg": "größer",
        "001.right.png": "größer",
        "002.jpg": "a word",
        "003.jpg": "3",
        "004.jpg": "six",
        "005.jpg": None,
        "cat.0.jpg": "zero",
        "cat.1.jpg": "one",
    }
    assert source.survey.skipped == {"label file without an image next to it": 1}
    assert source.columns == ("width", "ok", "no")
    rows = {item.key: item.more for item in source.items(["ok", "width"])}
    assert rows["003.jpg"] == ("true", "5")
    assert rows["004.jpg"] == ("", "1.5")
    assert rows["000.jpg"] == ("", "")
    with pytest.raises(OptionError, match="further columns"):
        source.check_columns(["list"])


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("0.cls", b"\xff", "is no UTF-8 text"),
        ("0.cls", b"a\nb", "more than one line"),
        ("0.cls", b"a" * 300, "300 characters"),
        ("0.json", b"{", "is no JSON"),
        ("0.json", b"[" * 100_000, "is no JSON"),
        ("0.json", b"[1]", "no JSON object"),
        ("0.json", b'{"label": "a\\u0000b"}', "cannot be printed"),
        ("0.txt", b"a" * (1 << 21), "bytes; 1,048,576 are read"),
    ],
)
def test_a_label_file_that_cannot_be_used_costs_the_label_alone(
    tmp_path: Path, name: str, content: bytes, why: str
) -> None:
    path = write_tar(tmp_path / "a.tar", [("0.jpg", b"x"), (name, content), ("1.jpg", b"x")])
    source = open_source(path)
    assert told(source) == [("0.jpg", None, Split.NONE), ("1.jpg", None, Split.NONE)]
    assert source.survey.skipped == {"label file that cannot be used": 1}
    (notice,) = source.survey.notices
    assert why in notice


def test_many_images_of_one_sample_keep_their_order(tmp_path: Path) -> None:
    members = [(f"cat/cat.{i}.jpg", b"x") for i in range(10_000)]
    source = open_source(write_zip(tmp_path / "a.zip", members))
    blocks = list(source.scan(stats=False))
    assert [key for block in blocks for key in block.keys] == [name for name, _ in members]
    assert max(map(len, blocks)) <= 4096
    assert source.survey.labels == {(Split.NONE, "cat"): 10_000}


def shard_folder(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write = write_zip if name.endswith(".zip") else write_tar
        write(root / name, [("0.jpg", name.encode()), ("0.cls", b"a")])
    return root


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["0.tar", "1.tar"], [Split.NONE, Split.NONE]),
        (["test-000.tar", "train-000.tar", "train-001.zip"], [2, 0, 0]),
        (["set_val_1.tar", "train/0.tar"], [1, 0]),
        (["one.tar"], [Split.NONE]),
    ],
)
def test_a_folder_of_shards(tmp_path: Path, names: list[str], splits: list[Split]) -> None:
    root = shard_folder(tmp_path / "shards", *names)
    (root / "README.md").write_text("x")
    source = open_source(root)
    assert told(source) == [(f"{n}/0.jpg", "a", s) for n, s in zip(names, splits, strict=True)]
    assert contents(source) == {f"{name}/0.jpg": name.encode() for name in names}
    assert source.text == str(root)


def test_shards_of_which_some_tell_no_split_are_refused(tmp_path: Path) -> None:
    root = shard_folder(tmp_path, "train-0.tar", "more.tar")
    with pytest.raises(SourceError, match=r"train-0\.tar' names a split and .*more\.tar' does not"):
        open_source(root)
    assert [key for key, _, _ in told(open_source(f"{root}/t*.tar"))] == ["train-0.tar/0.jpg"]


def test_a_folder_that_holds_images_too_is_a_folder_of_images(tmp_path: Path) -> None:
    root = shard_folder(tmp_path, "a.tar")
    write_image(root / "b.png", 1)
    source = open_source(root)
    assert told(source) == [("b.png", None, Split.NONE)]
    assert source.survey.skipped == {"not an image (.tar)": 1}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.tar", ["000.tar", "001.tar", "010.tar", "a.tar"]),
        ("{000..001}.tar", ["000.tar", "001.tar"]),
        ("0{00,10}.tar", ["000.tar", "010.tar"]),
        ("0?{0..1}.tar", ["000.tar", "010.tar", "001.tar"]),
        ("[a-b].tar", ["a.tar"]),
    ],
)
def test_patterns(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    shard_folder(tmp_path, "000.tar", "001.tar", "010.tar", "a.tar")
    source = open_source(f"{tmp_path}/{pattern}")
    assert [key for key, _, _ in told(source)] == [f"{name}/0.jpg" for name in expected]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{000..003}.tar", "names .*002.tar', which is no file that exists"),
        ("*.nothing", "no file matches it"),
        ("*", "is no archive"),
        ("{0..99999999}.tar", "more than 100,000 files"),
    ],
)
def test_wrong_patterns(tmp_path: Path, pattern: str, message: str) -> None:
    shard_folder(tmp_path, "000.tar", "001.tar")
    (tmp_path / "x.txt").touch()
    with pytest.raises(SourceError, match=message):
        open_source(f"{tmp_path}/{pattern}")


def test_a_file_whose_name_looks_like_a_pattern(tmp_path: Path) -> None:
    assert labels(write_tar(tmp_path / "a[1].tar", [("0.jpg", b"x")])) == {"0.jpg": None}


@pytest.mark.skipif(os.name == "nt", reason="links of POSIX")
def test_a_shard_that_is_a_link_outside_is_refused(tmp_path: Path) -> None:
    shard_folder(tmp_path / "shards", "0.tar")
    shard_folder(tmp_path / "outside", "1.tar")
    (tmp_path / "shards" / "1.tar").symlink_to(tmp_path / "outside" / "1.tar")
    for name in (tmp_path / "shards", f"{tmp_path}/shards/*.tar"):
        with pytest.raises(SourceError, match=r"leads outside.*--allow-outside"):
            open_source(name)
        source = open_source(name, allow_outside=[tmp_path / "outside"])
        assert len(told(source)) == 2


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar"])
def test_compressed_tars_are_refused_with_what_to_do(tmp_path: Path, name: str) -> None:
    plain = write_tar(tmp_path / "plain.tar", [("0.jpg", b"x")])
    (tmp_path / name).write_bytes(gzip.compress(plain.read_bytes()))
    with pytest.raises(SourceError, match=r"compressed tar archive.*gunzip --keep"):
        _ = open_source(tmp_path / name).survey


def test_a_reader_can_be_pickled_and_used_by_threads(photos: Path, tmp_path: Path) -> None:
    source = open_source(write_deflated(tmp_path / "a.zip", members_of(photos)))
    expected = contents(source)
    reader = pickle.loads(pickle.dumps(source.reader))
    items = [pickle.loads(pickle.dumps(item)) for item in source.items()] * 20
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda item: reader.read(item.place)[0], items))
    assert read == [expected[item.key] for item in items]


def test_few_files_are_open_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_files_module, "_MOST_OPEN", 3)
    root = shard_folder(tmp_path, *(f"{i:02d}.tar" for i in range(20)))
    source = open_source(root)
    items = list(source.items())
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda item: source.reader.read(item.place)[0], items * 20))
    assert read == [item.key.split("/")[0].encode() for item in items] * 20
    assert len(source.reader.files._opened) <= 3 + 8  # type: ignore[attr-defined]


@BOTH
def test_an_archive_that_changed_since_it_was_listed(tmp_path: Path, kind: str) -> None:
    path = packed(tmp_path, kind, [("0.jpg", b"old"), ("1.jpg", b"x")])
    source = open_source(path)
    old = list(source.items())
    assert source.reader.read(old[0].place)[0] == b"old"  # type: ignore[index]
    path.unlink()
    packed(tmp_path, kind, [("1.jpg", b"new"), ("0.jpg", b"newer!")])
    os.utime(path, ns=(1, 1))
    new = contents(source)
    assert new == {"1.jpg": b"new", "0.jpg": b"newer!"}
    read = source.reader.read(old[0].place)
    assert isinstance(read, Reject)
    assert read.detail == "The archive has changed since it was listed."
    path.unlink()
    read = pickle.loads(pickle.dumps(source.reader)).read(old[0].place)
    assert read.reason == "missing"


@BOTH
def test_longer_listings_are_not_kept_and_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    members = [(f"p/{i % 3}/{i}.jpg", b"x") for i in range(50)]
    members += [("p/.hidden/1.jpg", b"x"), ("p/x.doc", b"x")]
    path = packed(tmp_path, kind, members)
    kept = open_source(path)
    first = (told(kept), told(kept), kept.survey)
    monkeypatch.setattr(archives_module, "MOST_KEPT", 20)
    source = open_source(path)
    assert (told(source), told(source), source.survey) == first
    assert source.survey.skipped == {"hidden": 1, "not an image (.doc)": 1}
    assert len(source.survey.notices) == 1
