"""Folders, manifests and files in object stores, and files at web addresses."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

import tlpipe
from conftest import Trained
from tlpipe.addresses import below, folder_of, lies_in, name_of, shown
from tlpipe.card import Card
from tlpipe.errors import SourceError
from tlpipe.files import CACHE_VARIABLE
from tlpipe.stages.source import copies, open_source, stores
from tlpipe.stages.source.addressed import Address
from tlpipe.stages.source.calls import Interrupted
from tlpipe.stages.source.store_reader import StoreReader
from tlpipe.stages.store import read_features
from tlpipe.types import Reason, Reject, Split
from web_server import Server, answer, drip, serve, serving, unmeasured

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "sources"


@pytest.fixture
def memory() -> Iterator[Any]:
    found = fsspec.filesystem("memory")
    yield found
    found.store.clear()
    found.pseudo_dirs[:] = [""]


def fill(store: Any, root: str, photos: Path) -> None:
    for path in sorted(photos.rglob("*.png")):
        store.pipe(f"{root}/{path.relative_to(photos).as_posix()}", path.read_bytes())


def names(url: str, **options: Any) -> list[str]:
    return [k for block in open_source(url, **options).scan(stats=True) for k in block.keys]


# Addresses


def test_addresses_and_their_folders() -> None:
    assert folder_of("s3://b/a/x.csv") == "s3://b/a/"
    assert folder_of("s3://b/x.csv") == "s3://b/"
    assert folder_of("s3://b") == "s3://b/"
    assert folder_of("https://h/a/x.csv?sig=1#f") == "https://h/a/"
    assert folder_of("https://h") == "https://h/"
    assert below("https://h/a/", "ü b#.jpg") == "https://h/a/%C3%BC%20b%23.jpg"
    assert below("s3://b/a/", "ü b#.jpg") == "s3://b/a/ü b#.jpg"
    assert name_of("https://h/a/x%20y.tar?z=/w") == "x y.tar"
    assert lies_in("s3://b/a/x", "s3://b/a")
    assert not lies_in("s3://b/a/../x", "s3://b/a")
    assert not lies_in("https://h@evil/a/x", "https://h/a")
    assert lies_in("https://u:p@h/a/x", "https://h/")
    assert shown("https://u:p@h/a/x") == "https://h/a/x"


# Folders


def test_a_folder_in_a_store_is_listed_as_a_local_one(memory: Any, tmp_path: Path) -> None:
    paths = "train/cat/1.jpg train/cat/b/2.png train/cat.x/3.jpg val/dog/ü b.jpg val/dog/.h.jpg"
    for path in [*paths.split(" ", 3)[:3], "val/dog/ü b.jpg", "val/dog/.h.jpg", "val/dog/n.txt"]:
        memory.pipe(f"/b/root/{path}", b"x")
        (tmp_path / "root" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / path).write_bytes(b"x")
    remote, local = open_source("memory://b/root"), open_source(tmp_path / "root")
    mine, theirs = list(remote.items()), list(local.items())
    assert [(i.key, i.label, i.split) for i in mine] == [(i.key, i.label, i.split) for i in theirs]
    assert remote.survey == local.survey
    assert remote.survey.by_split() == {Split.TRAIN: 3, Split.VALIDATION: 1}
    assert (remote.name, remote.text) == ("memory://b/root", "memory://b/root")
    (block,) = remote.scan(stats=True)
    assert all(size == 1 and mtime > 1e18 for size, mtime in block.stats)
    memory.pipe("/b/root/other/4.jpg", b"x")
    with pytest.raises(SourceError, match=r"'memory://b/root' holds the splits .* beside them"):
        names("memory://b/root")


def test_a_folder_in_a_store_gives_the_same_as_the_local_one(
    memory: Any, photos: Path, trained: Trained, tiny_card: Card, tmp_path: Path
) -> None:
    fill(memory, "/b/photos", photos)
    for entry in memory.store.values():  # as of long ago, so that they prove to be unchanged
        entry.created = entry.modified = entry.created.replace(year=2020)
    out = tmp_path / "f.h5"
    result = tlpipe.embed("memory://b/photos", out, backbone=tiny_card)
    mine, theirs = read_features(out), read_features(trained.features)
    assert np.array_equal(mine.vectors, theirs.vectors)
    assert list(mine.keys) == list(theirs.keys)
    assert tlpipe.embed("memory://b/photos", out, backbone=tiny_card).unchanged
    memory.pipe("/b/photos/red/new.png", (photos / "red" / "001.png").read_bytes()[:200])
    again = tlpipe.embed("memory://b/photos", out, backbone=tiny_card)
    assert (again.kept, dict(again.rejects)) == (result.count, {"truncated": 1})


def test_what_is_wrong_with_a_store(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match="'memory://nothing/here' does not exist"):
        open_source("memory://nothing/here")
    memory.pipe("/b/x.jpg", b"image")
    memory.pipe("/b/empty.jpg", b"")
    (item,) = open_source("memory://b/x.jpg").items()
    reader = StoreReader()
    assert reader.read(item.place)[0] == b"image"  # type: ignore[index]
    assert reader.read(Address("memory://b/empty.jpg"))[0] == b""  # type: ignore[index]
    for url, reason in (("memory://b/gone.jpg", Reason.MISSING), ("memory://b", Reason.UNREADABLE)):
        found = reader.read(Address(url))
        assert isinstance(found, Reject)
        assert found.reason is reason
    monkeypatch.setattr("tlpipe.stages.source.store_reader.MAX_FILE_BYTES", 3)
    found = reader.read(Address("memory://b/x.jpg"))
    assert isinstance(found, Reject)
    assert found.reason is Reason.TOO_LARGE

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError("The provided token has expired")

    monkeypatch.setattr(type(memory), "info", refuse)
    monkeypatch.setattr(type(memory), "ls", refuse)
    with pytest.raises(SourceError, match=r"access was denied .* AWS_"):
        open_source("memory://b/x.jpg")
    with pytest.raises(SourceError, match="5 failures in a row"):
        for _ in range(5):
            reader.read(Address("memory://b/x.jpg"))


def test_without_its_library_a_store_says_what_to_install() -> None:
    for url, extra in (("gs://b/x", "gs"), ("abfs://b/x", "az")):
        with pytest.raises(SourceError, match=rf"pip install 'tlpipe\[{extra}\]'"):
            open_source(url)


# Manifests and other files, by copies


def test_a_manifest_in_a_store(memory: Any, photos: Path, tmp_path: Path) -> None:
    fill(memory, "/b/in", photos)
    rows = ["path,label", "red/001.png,r", "blue/../red/002.png,r", "memory://b/in/red/003.png,r"]
    memory.pipe("/b/in/list.csv", "\n".join(rows).encode())
    source = open_source("memory://b/in/list.csv")
    assert (source.name, source.text, source.paths) == ("memory://b/in/list.csv",) * 2 + ((),)
    items = list(source.items())
    assert [item.key for item in items] == [row.partition(",")[0] for row in rows[1:]]
    for item, name in zip(items, ("001", "002", "003"), strict=True):
        read = source.reader.read(item.place)
        assert not isinstance(read, Reject)
        assert read[0] == (photos / "red" / f"{name}.png").read_bytes()
    for row in ("../x.png", "/etc/x.png", "memory://b/x.png", "s3://b/in/x.png"):
        memory.pipe("/b/in/bad.csv", f"path\n{row}\n".encode())
        with pytest.raises(SourceError) as caught:
            names("memory://b/in/bad.csv")
        assert "'memory://b/in/bad.csv', line 2, names" in caught.value.message
        assert str(tmp_path) not in caught.value.message.partition("which leads to")[0]
    assert names("memory://b/in/bad.csv", allow_outside=["s3://b"]) == ["s3://b/in/x.png"]
    memory.pipe("/b/in/bad.csv", b"wrong\n")
    with pytest.raises(SourceError, match=r"'memory://b/in/bad\.csv' has no column 'path'"):
        open_source("memory://b/in/bad.csv")


def archives(photos: Path) -> dict[str, bytes]:
    """The same images in files of several kinds."""
    files = sorted(photos.rglob("*.png"))
    tar, flat, packed, arrays = (io.BytesIO() for _ in range(4))
    with tarfile.open(fileobj=tar, mode="w") as out, zipfile.ZipFile(packed, "w") as zipped:
        for path in files:
            out.add(path, path.relative_to(photos).as_posix())
            zipped.write(path, path.relative_to(photos).as_posix())
    np.save(flat, np.stack([np.asarray(Image.open(path)) for path in files]))
    table = {"image": [{"bytes": path.read_bytes(), "path": None} for path in files]}
    pyarrow.parquet.write_table(pyarrow.table(table), arrays)
    contents = (tar, packed, flat, arrays)
    return {f"x.{kind}": c.getvalue() for kind, c in zip(KINDS, contents, strict=True)}


KINDS = ("tar", "zip", "npy", "parquet")


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_images_is_read_by_a_copy(
    memory: Any, server: Server, photos: Path, trained: Trained, tiny_card: Card, kind: str
) -> None:
    content = archives(photos)[f"x.{kind}"]
    memory.pipe(f"/b/x.{kind}", content)
    server.content = content
    out = Path(os.environ[CACHE_VARIABLE]).parent / "f.h5"
    for url in (f"memory://b/x.{kind}", url_of(server, f"x.{kind}")):
        source = open_source(url)
        assert (source.name, source.text, source.paths) == (url, url, ())
        tlpipe.embed(source, out, backbone=tiny_card, overwrite=True)
        assert np.array_equal(read_features(out).vectors, read_features(trained.features).vectors)
    memory.pipe(f"/b/cut.{kind}", content[:100])
    with pytest.raises(SourceError) as caught:
        _ = open_source(f"memory://b/cut.{kind}").survey
    assert f"memory://b/cut.{kind}" in caught.value.message
    assert os.environ[CACHE_VARIABLE] not in str(caught.value)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(b"path\na.png\n" + b"b.png\n" * 50_000) as running:
        yield running


def url_of(server: Server, path: str) -> str:
    return f"http://127.0.0.1:{server.server_port}/{path}"


def test_a_manifest_at_a_web_address(server: Server, photos: Path) -> None:
    image = (photos / "red" / "001.png").read_bytes()
    server.paths["/d/a%20b.png"] = answer(200, image)
    server.paths["/d/list.csv?sig=s"] = answer(200, b"path\na b.png\n", ETag='"1"')
    source = open_source(url_of(server, "d/list.csv?sig=s"))
    assert source.name == url_of(server, "d/list.csv?...")
    (item,) = source.items()
    assert item.place == Address(url_of(server, "d/a%20b.png"), inside=True)
    assert source.reader.read(item.place)[0] == image  # type: ignore[index]


def test_a_file_is_copied_once_and_again_when_it_changed(server: Server, own_cache: Path) -> None:
    first = copies.copied(url_of(server, "x.csv"))
    assert first.path.read_bytes() == server.content
    assert first.path.name == "x.csv"
    requests = len(server.log)
    assert copies.copied(url_of(server, "x.csv")).path == first.path
    assert len(server.log) == requests + 1
    server.content, server.etag = b"path\nz.png\n", '"v2"'
    assert copies.copied(url_of(server, "x.csv")).path.read_bytes() == server.content
    server.etag = ""  # nothing tells whether it has changed
    assert copies.copied(url_of(server, "x.csv")).path.read_bytes() == server.content
    assert len(list(own_cache.iterdir())) == 3


def test_a_copy_goes_on_where_it_was_cut(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "PAUSES_S", (0.0, 0.0))
    server.acts.extend([serve(), *[serve(drop_after=100_000)] * 3])
    assert copies.copied(url_of(server, "x.csv")).path.read_bytes() == server.content
    assert server.asked("Range")[1:] == [None, "bytes=100000-", "bytes=200000-", "bytes=300000-"]


@pytest.mark.parametrize(
    ("acts", "message"),
    [
        ([answer(404)], "the server answered 404"),
        ([answer(200, b"<html>")], "an HTML page instead of the file"),
        ([unmeasured(b"path\n")], "does not tell how long it is"),
        ([serve()] + [serve(drop_after=0)] * 4, "the connection was dropped"),
        ([serve(), drip(b"x" * 1000, 0.02)], "it did not come whole in time"),
    ],
)
def test_a_file_that_does_not_come(
    server: Server, own_cache: Path, monkeypatch: pytest.MonkeyPatch, acts: Any, message: str
) -> None:
    monkeypatch.setattr(copies, "PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(copies, "SLOW_S", 0.5)
    server.acts.extend(acts)
    with pytest.raises(SourceError, match=f"/x.csv' cannot be fetched: .*{message}"):
        open_source(url_of(server, "x.csv"))
    assert not own_cache.exists() or not [p for p in own_cache.rglob("*") if p.is_file()]


def test_copies_that_are_not_wanted_go(
    memory: Any, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(name: str, days: float) -> Path:
        memory.pipe(f"/b/{name}", b"path\nx.png\n" * 100)
        path = copies.copied(f"memory://b/{name}").path
        then = time.time() - days * 86400
        os.utime(path, (then, path.stat().st_mtime))
        os.utime(path.parent, (then, then))
        return path

    held = make("held.csv", 32)
    keep = copies.Copy(held)
    os.utime(held, (1, 1))
    old, fresh, newer = make("old.csv", 31), make("fresh.csv", 2), make("newer.csv", 1)
    assert [path.exists() for path in (old, held, fresh, newer)] == [False, True, True, True]
    monkeypatch.setattr(copies, "MOST_BYTES", 1500)
    make("last.csv", 0)
    assert [path.exists() for path in (held, fresh, newer)] == [True, False, True]
    assert keep.standing


# S3, from a server on this machine


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    with pytest.MonkeyPatch.context() as patch:
        running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        with contextlib.redirect_stderr(io.StringIO()):
            running.start()
        host, port = running.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "NO_PROXY": "127.0.0.1",
        }.items():
            patch.setenv(name, value)
        try:
            yield fsspec.filesystem("s3", use_listings_cache=False)
        finally:
            running.stop()


def test_s3(s3: Any, photos: Path, trained: Trained, tiny_card: Card, tmp_path: Path) -> None:
    s3.mkdir("bucket")
    fill(s3, "bucket/photos", photos)
    s3.pipe("bucket/photos/red/empty.png", b"")
    out = tmp_path / "f.h5"
    result = tlpipe.embed("s3://bucket/photos/", out, backbone=tiny_card)
    assert dict(result.rejects) == {"empty": 1}
    assert np.array_equal(read_features(out).vectors, read_features(trained.features).vectors)
    rows = [f"{path.relative_to(photos)},x" for path in sorted(photos.rglob("*.png"))[:4]]
    s3.pipe("bucket/photos/list.csv", "\n".join(["path,label", *rows, "gone.png,x"]).encode())
    table = tmp_path / "p.csv"
    listed = tlpipe.classify(trained.classifier, "s3://bucket/photos/list.csv", table)
    assert (listed.count, dict(listed.rejects)) == (5, {"missing": 1})
    with pytest.raises(SourceError, match="'s3://nothing/x' does not exist"):
        open_source("s3://nothing/x")
    reader = StoreReader()
    assert isinstance(reader.read(Address("s3://bucket/gone.png")), Reject)
    size = len((photos / "red" / "001.png").read_bytes())
    stale = reader.read(Address("s3://bucket/photos/red/001.png", True, size + 1, 5))
    assert not isinstance(stale, Reject)
    assert (stale[1].size_bytes, stale[1].mtime_ns) == (size, -1)


def test_times_of_change() -> None:
    for told in ("2020-01-02T03:04:05Z", 1577934245, 1577934245.0):
        assert stores.size_and_time({"size": 3, "mtime": told}) == (3, 1577934245 * 10**9)
    assert stores.size_and_time({"size": None, "mtime": "soon"}) == (-1, -1)


def test_reading_from_a_store_can_be_interrupted() -> None:
    running, loop = stores.Running(), fsspec.asyn.get_loop()
    ended: list[str] = []

    def work() -> None:
        try:
            running.result(asyncio.sleep(60), loop, 60)
        except Interrupted:
            ended.append("interrupted")

    thread = threading.Thread(target=work)
    thread.start()
    while thread.is_alive():
        running.interrupt()
        thread.join(0.01)
    assert ended == ["interrupted"]
    with pytest.raises(TimeoutError):
        running.result(asyncio.sleep(60), loop, 0.01)
