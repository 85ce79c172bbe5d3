"""Images at web addresses, from servers that behave in every way they should not."""

from __future__ import annotations

import pickle
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tlpipe
from conftest import Trained, aged, write_image
from tlpipe.addresses import asked, shown
from tlpipe.card import Card
from tlpipe.errors import OptionError, SourceError
from tlpipe.stages.source import calls, open_source, servers, web_reader
from tlpipe.stages.source.addressed import Address
from tlpipe.stages.source.calls import Interrupted, Lies, lies
from tlpipe.stages.source.web_reader import WebReader
from tlpipe.stages.store import read_features, read_rejects
from tlpipe.types import FileStat, Item, Reason, Reject, Stage
from web_server import Act, Server, answer, chunked, drip, serve, serving, unmeasured

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])

CONTENT = bytes(range(256)) * 40


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(CONTENT) as running:
        yield running


def base(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_port}/"


def reader(**options: Any) -> WebReader:
    return WebReader(**({"pauses": (0.0, 0.0, 0.0), "most_s": 5.0, "timeout_s": 1.0} | options))


def read(server: Server, *acts: Act, path: str = "a.jpg", **options: Any) -> Any:
    server.acts.extend(acts)
    return reader(**options).read(Address(base(server) + path, inside=True))


def rejected(server: Server, *acts: Act, path: str = "a.jpg", **options: Any) -> tuple[Reason, str]:
    found = read(server, *acts, path=path, **options)
    assert isinstance(found, Reject)
    assert "\n" not in found.detail
    return found.reason, found.detail.removeprefix(base(server) + path.partition("?")[0])


# What a server may answer


def test_an_image_is_read_whole(server: Server) -> None:
    assert read(server) == (CONTENT, FileStat(len(CONTENT)))
    assert read(server, chunked(CONTENT)) == (CONTENT, FileStat(len(CONTENT)))
    assert read(server, unmeasured(CONTENT)) == (CONTENT, FileStat(len(CONTENT)))


def test_what_may_pass_is_tried_again(server: Server) -> None:
    acts = [answer(503), serve(drop_after=0), serve(drop_after=100)]
    assert read(server, *acts) == (CONTENT, FileStat(len(CONTENT)))
    assert len(server.log) == 4


def test_a_server_that_asks_for_a_pause_gets_it(server: Server) -> None:
    begun = time.monotonic()
    assert read(server, answer(429, Retry_After="1")) == (CONTENT, FileStat(len(CONTENT)))
    assert time.monotonic() - begun >= 1


@pytest.mark.parametrize(
    ("after", "least", "most"),
    [
        ("12", 12, 12),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0, 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 1e9, 1e12),
        ("soon", 0, 0),
        ("-5", 0, 0),
        ("9" * 5000, 1e9, 1e9),
        ("", 0, 0),
    ],
)
def test_when_to_come_back(after: str, least: float, most: float) -> None:
    assert least <= web_reader._seconds(after) <= most


def test_nobody_waits_for_hours(server: Server) -> None:
    reason, detail = rejected(server, answer(503, Retry_After="7200"))
    assert reason is Reason.UNREACHABLE
    assert detail.endswith("(Service Unavailable) and wants to be left alone for 7200 s.")
    assert len(server.log) == 1


@pytest.mark.parametrize(
    ("act", "reason", "words"),
    [
        (answer(404), Reason.MISSING, ": the server answered 404 (Not Found)."),
        (answer(410), Reason.MISSING, ": the server answered 410 (Gone)."),
        (answer(403), Reason.UNREADABLE, ": the server answered 403 (Forbidden)."),
        (answer(500), Reason.UNREACHABLE, ": the server answered 500 (Internal Server Error)."),
        (
            answer(302, Location="/a.jpg"),
            Reason.UNREADABLE,
            "with a redirect that is not followed",
        ),
        (
            answer(302, Location="file:///etc/passwd"),
            Reason.UNREADABLE,
            "something else than http",
        ),
        (answer(302, Location="ftp://127.0.0.1/x"), Reason.UNREADABLE, "something else than http"),
        (answer(200, b"\n<!doctype HTML><p>Sign in"), Reason.NOT_AN_IMAGE, "an HTML page instead"),
        (answer(200, b"x", Content_Encoding="br"), Reason.UNREADABLE, "encoded as 'br'"),
        (serve(drop_after=0), Reason.UNREACHABLE, "dropped after 0 of 10,240 bytes"),
        (serve(drop_after=700), Reason.UNREACHABLE, "dropped after 700 of 10,240 bytes"),
        (answer(200, b"x" * 9, Content_Length="99"), Reason.UNREACHABLE, "after 9 of 99 bytes"),
        (chunked(CONTENT, end=False), Reason.UNREACHABLE, "was dropped after"),
        (answer(200, b"x", Content_Length=str(1 << 40)), Reason.TOO_LARGE, "the limit is"),
    ],
)
def test_bad_answers_are_rejects(server: Server, act: Act, reason: Reason, words: str) -> None:
    found = rejected(server, *[act] * 12)
    assert found[0] is reason
    assert words in found[1]
    assert len(server.log) <= 12


def test_a_length_that_is_too_small_cuts_the_image(server: Server) -> None:
    assert read(server, answer(200, CONTENT, Content_Length="99")) == (CONTENT[:99], FileStat(99))


def test_a_body_without_end(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_reader, "MAX_FILE_BYTES", 3 << 20)
    monkeypatch.setattr(web_reader, "_LARGE", 1 << 20)

    def endless(handler: Any, server: Server) -> None:
        handler.head(200)
        while not server.go_on.is_set():
            handler.wfile.write(bytes(1 << 16))

    found = read(server, endless)
    assert isinstance(found, Reject)
    assert (found.stage, found.reason) == (Stage.DECODE, Reason.TOO_LARGE)


def test_a_server_that_drips_does_not_hang_the_run(server: Server) -> None:
    begun = time.monotonic()
    reason, detail = rejected(server, drip(CONTENT, 0.02), most_s=0.5)
    assert (reason, detail) == (Reason.UNREACHABLE, ": it did not come whole in time.")
    reason, detail = rejected(server, drip(CONTENT, 0.2), most_s=0.5)  # not even its head comes
    assert (reason, detail) == (Reason.UNREACHABLE, ": it did not come whole in time.")
    assert time.monotonic() - begun < 4


def test_a_server_that_says_nothing(server: Server) -> None:
    reason, detail = rejected(server, serve(stall_after=10), timeout_s=0.1, pauses=())
    assert (reason, detail) == (
        Reason.UNREACHABLE,
        ": nothing came for 0.1 s after 0 of 10,240 bytes.",
    )


@pytest.mark.parametrize("url", ["http://", "http://[::1", "http://a b/x", "http://127.0.0.1:x/"])
def test_what_is_no_address(url: str) -> None:
    found = reader(pauses=()).read(Address(url, inside=True))
    assert isinstance(found, Reject)
    assert "not a valid http or https address" in found.detail


# Secrets, and what may be written as an address


def test_no_secret_is_shown(server: Server) -> None:
    url = f"http://me:pass@127.0.0.1:{server.server_port}/a.jpg?sig=secret#part"
    server.acts.append(answer(404))
    found = reader().read(Address(url, inside=True))
    assert isinstance(found, Reject)
    assert found.detail == f"{base(server)}a.jpg?...: the server answered 404 (Not Found)."
    assert server.asked("Authorization") == ["Basic bWU6cGFzcw=="]
    assert shown("http://me:pass@[::1/x?sig=1") == "http://[::1/x"


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("http://h/a b/ü.jpg?q=ä", "http://h/a%20b/%C3%BC.jpg?q=%C3%A4"),
        ("http://h/a%20b.jpg#x", "http://h/a%20b.jpg"),
        ("http://bücher.example:8/x", "http://xn--bcher-kva.example:8/x"),
        ("http://h/a\r\nHost: evil", "http://h/aHost:%20evil"),
    ],
)
def test_addresses_are_quoted(written: str, sent: str) -> None:
    assert asked(written) == sent


# Where requests may lead


@pytest.mark.parametrize(
    ("address", "where"),
    [
        ("8.8.8.8", Lies.PUBLIC),
        ("2606:4700::1111", Lies.PUBLIC),
        ("10.1.2.3", Lies.PRIVATE),
        ("100.100.100.200", Lies.PRIVATE),
        ("fd00:ec2::254", Lies.PRIVATE),
        ("127.0.0.1", Lies.NEAR),
        ("169.254.169.254", Lies.NEAR),
        ("0.0.0.0", Lies.NEAR),
        ("224.0.0.1", Lies.NEAR),
        ("::1", Lies.NEAR),
        ("::ffff:127.0.0.1", Lies.NEAR),
        ("64:ff9b::a9fe:a9fe", Lies.NEAR),
        ("2002:7f00:1::", Lies.NEAR),
        ("fe80::1%eth0", Lies.NEAR),
    ],
)
def test_where_addresses_lie(address: str, where: Lies) -> None:
    assert lies(address) is where


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f.1", "localhost", "[::1]"])
def test_a_stranger_may_not_name_this_machine(server: Server, host: str) -> None:
    url = f"http://{host}:{server.server_port}/a.jpg"
    with pytest.raises(SourceError, match=r"on this machine or its link.* --allow-outside http://"):
        reader().read(Address(url))
    assert not server.log


def test_a_redirect_may_not_lead_inside(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of a public server, which leads to another name of this machine, or to itself."""
    found: dict[str, str] = {"public.example": "93.184.215.14", "inner.example": "127.0.0.1"}

    def resolve(host: str, port: int, *_: Any) -> list[Any]:
        at = found.get(host, host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (at, port))]

    real = calls.Call._connected

    def connect(self: Any, made: socket.socket, place: Any, timeout: float) -> socket.socket:
        return real(self, made, ("127.0.0.1", server.server_port), timeout)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(calls.Call, "_connected", connect)
    for to in ("http://inner.example/b.jpg", "http://169.254.169.254/b.jpg", "http://10.0.0.1/b"):
        server.acts.append(answer(302, Location=to))
        for inside in (True, False):
            server.acts.append(answer(302, Location=to))
            got = reader().read(Address("http://public.example/a.jpg", inside=inside))
            assert isinstance(got, Reject)
            assert "it leads to" in got.detail
            server.acts.clear()
    server.log.clear()
    server.acts.append(answer(302, Location="/b.jpg"))
    assert not isinstance(reader().read(Address("http://public.example/a.jpg")), Reject)
    # What lies in one's own network and was named by the user may lead on in it; not to itself.
    found["mine.example"] = "10.0.0.7"
    found["other.example"] = "10.0.0.8"
    server.acts.append(answer(302, Location="http://other.example/b.jpg"))
    got = reader().read(Address("http://mine.example/a.jpg", inside=True))
    assert not isinstance(got, Reject)
    server.acts.append(answer(302, Location="http://inner.example/b.jpg"))
    got = reader().read(Address("http://mine.example/a.jpg", inside=True))
    assert isinstance(got, Reject)


# Servers that are away


def closed_port() -> int:
    with socket.socket() as stream:
        stream.bind(("127.0.0.1", 0))
        port: int = stream.getsockname()[1]
        return port


def test_a_server_that_is_away_stops_the_run() -> None:
    it = reader(pauses=())
    place = Address(f"http://127.0.0.1:{closed_port()}/a.jpg", inside=True)
    for _ in range(servers.FAILURES - 1):
        found = it.read(place)
        assert isinstance(found, Reject)
        assert found.reason is Reason.UNREACHABLE
    with pytest.raises(SourceError, match="5 failures in a row, the last one: the connection was"):
        it.read(place)


def test_a_server_that_matters_little_is_left_out(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "LEFT_OUT_S", 0.3)
    it = reader(pauses=())
    good = Address(base(server) + "a.jpg", inside=True)
    gone = Address(f"http://127.0.0.1:{closed_port()}/a.jpg", inside=True)
    assert it.read(good)
    details = [getattr(it.read(gone), "detail", "") for _ in range(servers.FAILURES + 1)]
    assert details[0].endswith("a.jpg: the connection was refused.")
    assert "is left out for now, after 5 failures in a row" in details[-1]
    time.sleep(0.31)
    assert "is left out" not in getattr(it.read(gone), "detail", "")


def test_a_bad_item_is_not_the_servers_fault(server: Server) -> None:
    it = reader(pauses=())
    server.acts.extend([answer(404), serve(drop_after=99)] * servers.FAILURES)
    for _ in range(2 * servers.FAILURES):
        assert isinstance(it.read(Address(base(server), inside=True)), Reject)


def test_reading_can_be_interrupted(server: Server) -> None:
    it = reader(timeout_s=30, most_s=60)
    server.acts.append(serve(stall_after=0))
    caught: list[BaseException] = []

    def work() -> None:
        try:
            it.read(Address(base(server) + "a.jpg", inside=True))
        except Interrupted as exc:
            caught.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    while not server.log:
        time.sleep(0.01)
    it.interrupt()
    thread.join(5)
    assert len(caught) == 1
    assert not isinstance(it.read(Address(base(server) + "a.jpg", inside=True)), Reject)
    assert isinstance(pickle.loads(pickle.dumps(it)), WebReader)


# In manifests


@pytest.fixture
def photos_served(server: Server, photos: Path) -> Server:
    for path in photos.rglob("*.png"):
        name = path.relative_to(photos).as_posix()
        server.paths[f"/{name}"] = answer(200, path.read_bytes())
    return server


def manifest(folder: Path, rows: list[str]) -> Path:
    path = folder / "list.csv"
    path.write_text("\n".join(["path,label", *rows]) + "\n")
    return path


def vectors(path: Path) -> Any:
    return read_features(path).vectors


def test_a_manifest_of_addresses_gives_the_same_as_the_folder(
    photos_served: Server, trained: Trained, tiny_card: Card, tmp_path: Path, photos: Path
) -> None:
    home = base(photos_served)
    keys = sorted(p.relative_to(photos).as_posix() for p in photos.rglob("*.png"))
    rows = [f"{home}{key},{key.partition('/')[0]}" for key in keys]
    local = write_image(tmp_path / "own.png", 5)
    source = open_source(
        manifest(tmp_path, [*rows, f"{home}gone/x.png,red", "own.png,red"]), allow_outside=[home]
    )
    photos_served.paths["/gone/x.png"] = answer(404)
    out = tmp_path / "f.h5"
    aged(tmp_path)
    result = tlpipe.embed(source, out, backbone=tiny_card)
    assert result.count == len(keys) + 1
    assert dict(result.rejects) == {"missing": 1}
    assert np.array_equal(vectors(out)[:-1], vectors(trained.features))
    photos_served.log.clear()
    again = tlpipe.embed(source, out, backbone=tiny_card)
    # Addresses are read again, since nothing tells that they are unchanged; no network is run.
    assert (again.embedded, again.copied, again.kept) == (0, len(keys), 1)
    assert len(photos_served.log) == len(keys) + 1
    assert read_rejects(out)[0][0] == f"{home}gone/x.png"
    assert local.exists()


def test_a_manifest_may_not_name_stores_and_files_elsewhere(tmp_path: Path) -> None:
    for written in ("s3://bucket/x.jpg", "file:///etc/x.jpg", "memory://x.jpg"):
        path = manifest(tmp_path, [f"{written},x"])
        with pytest.raises(SourceError, match=r"line 2, names .*: outside the manifest's folder"):
            _ = open_source(path).survey
    for written in ("ftp://h/x.jpg", "zip://x.jpg::s3://b/c", "s3://b/x::memory://y", "gopher://x"):
        with pytest.raises(SourceError, match="is of no kind that is read"):
            _ = open_source(manifest(tmp_path, [f"{written},x"])).survey
    path = manifest(tmp_path, ["s3://bucket/a/x.jpg,x", f"file://{tmp_path}/x.jpg,x"])
    (block,) = open_source(path, allow_outside=["s3://bucket/a"]).scan(stats=True)
    assert block.places == [Address("s3://bucket/a/x.jpg", inside=True), f"{tmp_path}/x.jpg"]
    for allowed in ("s3://bucket/b", "s3://bucke", "gs://bucket", "s3://bucket/a/x"):
        with pytest.raises(SourceError, match="outside the manifest's folder"):
            _ = open_source(path, allow_outside=[allowed]).survey


def test_only_what_lies_below_an_allowed_address_may_be_inside(tmp_path: Path) -> None:
    home = "http://10.0.0.1/a/"
    rows = ["http://10.0.0.1/a/x", "http://10.0.0.1/ab", "http://10.0.0.1/a/%2e%2e/x", "http://h/"]
    path = manifest(tmp_path, [f"{row},x" for row in rows])
    (block,) = open_source(path, allow_outside=[home]).scan(stats=False)
    assert [place.inside for place in block.places] == [True, False, False, False]
    with pytest.raises(OptionError):
        open_source(path, allow_outside=["nothing"])


def test_an_address_as_source(photos_served: Server, trained: Trained, tmp_path: Path) -> None:
    source = open_source(f"{base(photos_served)}red/001.png?sig=secret")
    assert (source.name, source.text) == (f"{base(photos_served)}red/001.png?...",) * 2
    photos_served.paths["/red/001.png?sig=secret"] = photos_served.paths["/red/001.png"]
    (item,) = source.items()
    assert item == Item("001.png", Address(f"{base(photos_served)}red/001.png?sig=secret", True))
    out = tmp_path / "p.csv"
    assert tlpipe.classify(trained.classifier, source, out).count == 1
    with pytest.raises(SourceError, match="HTTP has no folders"):
        open_source(base(photos_served))
