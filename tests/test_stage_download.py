from __future__ import annotations

import errno
import hashlib
import http.client
import json
import logging
import os
import random
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPMessage
from pathlib import Path
from typing import IO, Any, cast

import pytest

from tlpipe.errors import DownloadError, OutputError
from tlpipe.stages.download import OFFLINE_HINT, Expected, download, fetch_file
from tlpipe.types import Progress
from tlpipe.version import __version__
from tlpipe.web_opening import Redirects
from web_server import Act, Handler, Server, answer, chunked, serve, serving, slow, unmeasured

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])

CONTENT = random.Random(3).randbytes(300_000)
SIZE = len(CONTENT)
SHA = hashlib.sha256(CONTENT).hexdigest()
RIGHT = Expected(SIZE, SHA)
OTHER = bytes(SIZE)
OTHER_SHA = hashlib.sha256(OTHER).hexdigest()
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"
PAGE = b"\xef\xbb\xbf\n<!DOCTYPE html><title>Sign in</title>"
NO_WAIT = (0.0, 0.0, 0.0)


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(CONTENT) as running:
        yield running


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "models" / "model.bin"


@pytest.fixture
def part(target: Path) -> Path:
    return target.with_name(".model.bin.part")


def get(
    server: Server, target: Path, expected: Expected = RIGHT, path: str = "", **options: Any
) -> Expected:
    url = server.url.replace("/model.bin", path or "/model.bin")
    return download([url], target, expected, **({"pauses": NO_WAIT} | options))


def cause_of(server: Server, target: Path, expected: Expected = RIGHT, **options: Any) -> str:
    """Why the download fails: what the message says in brackets."""
    with pytest.raises(DownloadError) as caught:
        get(server, target, expected, **options)
    assert not target.exists()
    frame = f"The file 'model.bin' could not be fetched from {server.url} (", ")."
    assert caught.value.message.startswith(frame[0])
    assert caught.value.message.endswith(frame[1])
    return caught.value.message.removeprefix(frame[0]).removesuffix(frame[1])


def names(target: Path) -> list[str]:
    return sorted(p.name for p in target.parent.iterdir() if p.suffix != ".lock")


def interrupt(server: Server, target: Path, expected: Expected = RIGHT, at: int = 100_000) -> int:
    """Interrupt a download by Ctrl-C after `at` bytes or a few more; what the part then holds."""

    def ctrl_c(progress: Progress) -> None:
        if progress.done >= at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        get(server, target, expected, progress=ctrl_c)
    assert not target.exists()
    size = target.with_name(".model.bin.part").stat().st_size
    kept = f"{size:,} bytes of 'model.bin' are kept; the same command goes on from there."
    assert caught.value.__notes__ == [kept]
    assert at <= size < SIZE
    server.log.clear()
    return size


# What arrives


def test_a_file_is_fetched_and_checked(server: Server, target: Path) -> None:
    seen: list[Progress] = []
    assert get(server, target, progress=seen.append) == RIGHT
    assert target.read_bytes() == CONTENT
    assert names(target) == ["model.bin"]
    assert seen[0] == Progress("download", 0, SIZE, 0)
    assert seen[-1] == Progress("download", SIZE, SIZE, 0)
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    (asked,) = server.log
    assert asked["User-Agent"] == f"tlpipe/{__version__}"
    assert asked["Accept-Encoding"] == "identity"
    assert "Range" not in asked


@pytest.mark.parametrize("expected", [Expected(), Expected(SIZE), Expected(None, SHA.upper())])
def test_what_was_not_known_is_returned(server: Server, target: Path, expected: Expected) -> None:
    assert get(server, target, expected) == RIGHT
    assert get(server, target, expected) == RIGHT
    assert len(server.log) == 1


def test_a_file_that_stands_there_is_not_fetched_again(server: Server, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(CONTENT)
    assert get(server, target) == RIGHT
    assert server.log == []
    assert names(target) == ["model.bin"]


@pytest.mark.parametrize("other", [OTHER, b"short"])
def test_another_file_that_stands_there_is_replaced(
    server: Server, target: Path, other: bytes
) -> None:
    target.parent.mkdir()
    target.write_bytes(other)
    server.acts.append(answer(404))
    with pytest.raises(DownloadError):
        get(server, target)
    assert target.read_bytes() == other  # until there is a better one
    assert get(server, target) == RIGHT
    assert target.read_bytes() == CONTENT


def test_a_symbolic_link_is_written_through(server: Server, target: Path, tmp_path: Path) -> None:
    target.parent.mkdir()
    target.symlink_to(tmp_path / "real.bin")
    get(server, target)
    assert target.is_symlink()
    assert (tmp_path / "real.bin").read_bytes() == CONTENT


def test_an_empty_file(server: Server, target: Path) -> None:
    server.content = b""
    nothing = Expected(0, hashlib.sha256(b"").hexdigest())
    assert get(server, target, nothing) == nothing
    assert names(target) == ["model.bin"]


@pytest.mark.parametrize("act", [unmeasured(CONTENT), chunked(CONTENT), slow(30)])
def test_other_ways_to_send_a_file(server: Server, target: Path, act: Act) -> None:
    server.acts.append(act)
    assert get(server, target) == RIGHT


def test_the_first_use_needs_an_end_that_can_be_told(server: Server, target: Path) -> None:
    server.acts.append(unmeasured(CONTENT))
    assert cause_of(server, target, Expected()) == (
        "the server does not tell how long it is, and no checksum of it is known"
    )
    server.acts.append(chunked(CONTENT))
    assert get(server, target, Expected()) == RIGHT


# Resuming


def test_ctrl_c_then_only_the_rest_is_asked_for(server: Server, target: Path, part: Path) -> None:
    size = interrupt(server, target)
    assert part.read_bytes() == CONTENT[:size]
    seen: list[Progress] = []
    assert get(server, target, progress=seen.append) == RIGHT
    assert seen[0] == Progress("download", size, SIZE, 0)
    assert target.read_bytes() == CONTENT
    assert names(target) == ["model.bin"]
    assert server.asked("Range") == [f"bytes={size}-"]
    assert server.asked("If-Range") == ['"v1"']


SCRIPT = """
import logging, sys
from pathlib import Path
from tlpipe.stages.download import Expected, download
logging.basicConfig(format="%(message)s")
url, target, size, sha256 = sys.argv[1:]
print(download([url], Path(target), Expected(int(size), sha256)).sha256)
"""


def child(server: Server, target: Path) -> subprocess.Popen[str]:
    line = [sys.executable, "-c", SCRIPT, server.url, str(target), str(SIZE), SHA]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("arrived", [600, 123_456])
def test_after_sigkill_only_the_rest_is_asked_for(
    server: Server, target: Path, part: Path, arrived: int
) -> None:
    server.acts.append(serve(stall_after=arrived))
    with child(server, target) as process:
        wait_for(lambda: part.exists() and part.stat().st_size == arrived)
        process.kill()
        process.communicate()
    assert process.returncode != 0
    server.go_on.set()
    assert not target.exists()
    assert part.read_bytes() == CONTENT[:arrived]
    assert get(server, target) == RIGHT
    assert target.read_bytes() == CONTENT
    assert names(target) == ["model.bin"]
    assert server.asked("Range") == [None, f"bytes={arrived}-"]
    assert server.asked("If-Range") == [None, '"v1"']


def test_two_processes_fetch_a_file_once(server: Server, target: Path, part: Path) -> None:
    server.acts.append(serve(stall_after=100_000))
    with child(server, target) as first:
        wait_for(lambda: part.exists() and part.stat().st_size == 100_000)
        with child(server, target) as second:
            assert second.stderr is not None
            line = second.stderr.readline()
            server.go_on.set()
            for process in (first, second):
                assert process.communicate()[0] == f"{SHA}\n"
                assert process.returncode == 0
    assert line == f"Another process is fetching {target}: waiting for it.\n"
    assert target.read_bytes() == CONTENT
    assert len(server.log) == 1


def test_dropped_connections_are_resumed_while_there_is_progress(
    server: Server, target: Path
) -> None:
    step = SIZE // 8
    server.acts.extend(serve(drop_after=step) for _ in range(6))
    assert get(server, target, pauses=(0.0,)) == RIGHT
    assert server.asked("Range") == [
        None,
        *(f"bytes={step * n}-" for n in range(1, 7)),
    ]


def test_without_progress_the_tries_end(server: Server, target: Path, part: Path) -> None:
    server.acts.append(serve(drop_after=1000))
    server.acts.extend(serve(drop_after=0) for _ in range(9))
    assert cause_of(server, target) == "the connection was dropped after 1,000 of 300,000 bytes"
    assert len(server.log) == 1 + len(NO_WAIT)
    assert part.stat().st_size == 1000


def test_a_server_that_always_drops_at_the_same_byte_is_given_up(
    server: Server, target: Path
) -> None:
    server.ranges = False
    server.acts.extend(serve(drop_after=1000) for _ in range(99))
    assert cause_of(server, target) == "the connection was dropped after 1,000 of 300,000 bytes"
    assert len(server.log) == 1 + len(NO_WAIT)


def test_pauses_grow(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    server.acts.extend([answer(500), answer(503), serve(drop_after=10), answer(429)])
    assert download([server.url], target, RIGHT) == RIGHT
    assert slept == [1.0, 2.0, 1.0, 2.0]


def test_a_short_body_without_length_is_resumed(server: Server, target: Path) -> None:
    server.acts.append(unmeasured(CONTENT[:1000]))
    assert get(server, target) == RIGHT
    assert server.asked("Range") == [None, "bytes=1000-"]
    target.unlink()
    server.acts.extend(unmeasured(CONTENT[:1000]) for _ in range(9))
    assert cause_of(server, target) == "the connection ended after 1,000 of 300,000 bytes"


def test_a_chunked_body_without_its_end_is_resumed(server: Server, target: Path) -> None:
    server.acts.append(chunked(CONTENT[:5000], end=False))
    assert get(server, target) == RIGHT
    assert server.asked("Range") == [None, "bytes=5000-"]


@pytest.mark.parametrize("expected", [RIGHT, Expected()])
def test_a_changed_file_starts_anew(server: Server, target: Path, expected: Expected) -> None:
    server.content, server.etag = OTHER, '"v0"'
    size = interrupt(server, target, expected)
    server.content, server.etag = CONTENT, '"v1"'
    assert get(server, target, expected) == RIGHT
    assert target.read_bytes() == CONTENT
    assert [(e["Range"], e["If-Range"]) for e in server.log] == [(f"bytes={size}-", '"v0"')]


def test_a_server_without_ranges_starts_anew(server: Server, target: Path) -> None:
    size = interrupt(server, target)
    server.ranges = False
    assert get(server, target) == RIGHT
    assert target.read_bytes() == CONTENT
    assert server.asked("Range") == [f"bytes={size}-"]


def test_another_total_size_starts_anew(server: Server, target: Path) -> None:
    size = interrupt(server, target, Expected(None, SHA))
    server.acts.append(serve(total="999999"))
    assert get(server, target, Expected(None, SHA)) == RIGHT
    assert server.asked("Range") == [f"bytes={size}-", None]


@pytest.mark.parametrize("span", ["bytes 7-299999/300000", "bytes */300000", "nonsense", ""])
def test_another_range_than_asked_for_starts_anew(server: Server, target: Path, span: str) -> None:
    size = interrupt(server, target)
    server.acts.append(answer(206, b"x", Content_Range=span))
    assert get(server, target) == RIGHT
    assert server.asked("Range") == [f"bytes={size}-", None]


def test_a_range_of_a_file_whose_size_is_not_told(server: Server, target: Path) -> None:
    size = interrupt(server, target, Expected(None, SHA))
    server.acts.append(serve(total="*"))
    assert get(server, target, Expected(None, SHA)) == RIGHT
    assert server.asked("Range") == [f"bytes={size}-"]


def test_without_a_checksum_or_an_etag_nothing_is_resumed(server: Server, target: Path) -> None:
    server.etag = ""
    interrupt(server, target, Expected(SIZE))
    assert get(server, target, Expected(SIZE)) == RIGHT
    assert server.asked("Range") == [None]


def test_a_weak_etag_is_no_condition(server: Server, target: Path) -> None:
    server.etag = 'W/"v1"'
    size = interrupt(server, target)
    assert get(server, target) == RIGHT
    assert [(e["Range"], e.get("If-Range")) for e in server.log] == [(f"bytes={size}-", None)]


def test_the_rest_may_come_from_another_address(server: Server, target: Path) -> None:
    size = interrupt(server, target)
    assert get(server, target, path="/mirror/model.bin") == RIGHT
    assert [(e["Range"], e.get("If-Range")) for e in server.log] == [(f"bytes={size}-", None)]


def test_a_damaged_note_costs_only_the_condition(server: Server, target: Path) -> None:
    size = interrupt(server, target)
    note = target.with_name(".model.bin.part.json")
    assert json.loads(note.read_text()) == {"url": server.url, "etag": '"v1"', "total": SIZE}
    note.write_text('{"url": 1')
    assert get(server, target) == RIGHT
    assert [(e["Range"], e.get("If-Range")) for e in server.log] == [(f"bytes={size}-", None)]


def test_a_resumed_file_with_a_wrong_hash_is_fetched_once_more(
    server: Server, target: Path, part: Path, caplog: pytest.LogCaptureFixture
) -> None:
    size = interrupt(server, target)
    part.write_bytes(OTHER[:size])
    assert get(server, target) == RIGHT
    assert target.read_bytes() == CONTENT
    assert server.asked("Range") == [f"bytes={size}-", None]
    mixed = hashlib.sha256(OTHER[:size] + CONTENT[size:]).hexdigest()
    (message,) = caplog.messages
    assert message == (
        f"What was resumed from {server.url} is not right (its SHA-256 is {mixed}; expected was"
        f" {SHA}): it is fetched once more, from its first byte."
    )


def test_pieces_that_do_not_fit_are_noticed_within_one_call(server: Server, target: Path) -> None:
    def change(handler: Handler, running: Server) -> None:
        running.content, running.etag = OTHER, ""
        serve(drop_after=1000)(handler, running)
        running.content = CONTENT

    server.acts.append(change)
    assert get(server, target) == RIGHT
    assert server.asked("Range") == [None, "bytes=1000-", None]


def test_once_more_is_not_for_ever(server: Server, target: Path) -> None:
    interrupt(server, target)
    server.content = OTHER
    wrong = f"its SHA-256 is {OTHER_SHA}; expected was {SHA}"
    assert cause_of(server, target) == wrong
    assert len(server.log) == 2
    assert names(target) == []
    assert cause_of(server, target) == wrong
    assert len(server.log) == 3


def test_a_part_that_is_whole_needs_no_request(server: Server, target: Path, part: Path) -> None:
    target.parent.mkdir()
    part.write_bytes(CONTENT)
    assert get(server, target) == RIGHT
    assert server.log == []
    target.unlink()
    part.write_bytes(OTHER)
    assert get(server, target) == RIGHT
    assert server.asked("Range") == [None]


def test_416_for_a_whole_part(server: Server, target: Path, part: Path) -> None:
    target.parent.mkdir()
    part.write_bytes(CONTENT)
    assert get(server, target, Expected(None, SHA)) == RIGHT
    assert server.asked("Range") == [f"bytes={SIZE}-"]


@pytest.mark.parametrize("expected", [RIGHT, Expected(None, SHA)])
def test_416_for_a_part_that_is_too_long(
    server: Server, target: Path, part: Path, expected: Expected
) -> None:
    target.parent.mkdir()
    part.write_bytes(CONTENT + b"x")
    assert get(server, target, expected) == RIGHT
    assert server.asked("Range") == [f"bytes={SIZE + 1}-", None]


def test_416_from_an_address_with_a_shorter_file_keeps_the_part(
    server: Server, target: Path
) -> None:
    size = interrupt(server, target)
    server.content = CONTENT[:5000]
    assert cause_of(server, target) == "it has 5,000 bytes; expected were 300,000"
    server.content = CONTENT
    assert get(server, target) == RIGHT
    assert server.asked("Range")[-1] == f"bytes={size}-"


# Failures


def test_the_error_says_what_to_do_offline(server: Server, target: Path) -> None:
    server.acts.append(answer(404))
    with pytest.raises(DownloadError) as caught:
        get(server, target)
    assert str(caught.value) == (
        f"The file 'model.bin' could not be fetched from {server.url} (the server answered 404"
        " (Not Found)). Where the network does not reach, fetch the file by other means and give it"
        " with --from PATH_OR_URL."
    )
    assert isinstance(caught.value, OSError)
    assert len(server.log) == 1
    assert names(target) == []


def test_addresses_are_tried_in_order_and_all_named(server: Server, target: Path) -> None:
    server.acts.extend([answer(404), answer(200, PAGE)])
    urls = [f"{server.url}?{n}" for n in range(3)]
    with pytest.raises(DownloadError) as caught:
        download([*urls[:2], "ftp://example.org/x"], target, RIGHT, hint="Ask Ada.")
    assert str(caught.value) == (
        f"The file 'model.bin' could not be fetched from {urls[0]} (the server answered 404 (Not"
        f" Found)) nor from {urls[1]} (the server sent an HTML page instead of the file) nor from"
        " ftp://example.org/x (this is not a valid http or https address). Ask Ada."
    )
    server.acts.append(answer(403))
    assert download(urls, target, RIGHT) == RIGHT
    assert server.asked("path")[-2:] == ["/model.bin?0", "/model.bin?1"]


def test_no_address(target: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        download([], target, RIGHT)
    assert caught.value.message == (
        "The file 'model.bin' could not be fetched from anywhere: no address is known."
    )
    assert caught.value.hint == OFFLINE_HINT


@pytest.mark.parametrize(
    ("act", "cause"),
    [
        (answer(404), "the server answered 404 (Not Found)"),
        (answer(599), "the server answered 599"),
        (answer(416), f"the server answered 416 ({http.HTTPStatus(416).phrase})"),
        (answer(204), "the server answered 204 (No Content)"),
        (answer(200, PAGE), "the server sent an HTML page instead of the file"),
        (answer(200, POINTER), "the server sent a Git LFS pointer instead of the file"),
        (answer(200, b"abc"), "it has 3 bytes; expected were 300,000"),
        (unmeasured(CONTENT + b"x"), "it has more than the expected 300,000 bytes"),
        (chunked(CONTENT[:9]), "it has 9 bytes; expected were 300,000"),
        (answer(200, OTHER), f"its SHA-256 is {OTHER_SHA}; expected was {SHA}"),
        (
            answer(200, b"x", Content_Encoding="gzip"),
            "the server sent it encoded as 'gzip', which was not asked for",
        ),
    ],
)
def test_what_cannot_pass_is_not_tried_again(
    server: Server, target: Path, act: Act, cause: str
) -> None:
    server.acts.append(act)
    assert cause_of(server, target) == cause
    assert len(server.log) == 1
    assert names(target) == []


@pytest.mark.parametrize("body", [PAGE, POINTER])
def test_no_page_or_pointer_is_taken_on_first_use(
    server: Server, target: Path, body: bytes
) -> None:
    server.content = body
    assert "instead of the file" in cause_of(server, target, Expected())


def test_an_answer_of_something_else_keeps_the_part(server: Server, target: Path) -> None:
    size = interrupt(server, target)
    server.acts.extend([answer(200, PAGE), answer(200, b"abc"), answer(404)])
    for _ in range(3):
        cause_of(server, target)
    assert get(server, target) == RIGHT
    assert server.asked("Range") == [f"bytes={size}-"] * 4


def test_errors_that_pass(server: Server, target: Path) -> None:
    server.acts.extend([answer(500), answer(502), serve(drop_after=0)])
    assert get(server, target) == RIGHT
    target.unlink()
    server.acts.extend([answer(500)] * 4)
    assert cause_of(server, target) == "the server answered 500 (Internal Server Error)"


def test_a_silent_server(server: Server, target: Path) -> None:
    server.acts.append(serve(stall_after=1000))
    cause = cause_of(server, target, timeout=0.2, pauses=())
    assert cause == "nothing came for 0.2 s after 1,000 of 300,000 bytes"

    server.acts.append(lambda handler, running: running.go_on.wait(60) and None)
    assert cause_of(server, target, timeout=0.2, pauses=()) == "nothing came for 0.2 s"


def test_no_http(server: Server, target: Path) -> None:
    def babble(handler: Any, running: Server) -> None:
        handler.wfile.write(b"220 ready\r\n")

    server.acts.append(babble)
    assert cause_of(server, target, pauses=()) == "the server's answer is not HTTP"
    server.acts.append(lambda handler, running: None)
    cause = "the connection was dropped before an answer"
    assert cause_of(server, target, pauses=()) == cause


def test_a_refused_connection(server: Server, target: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/x"
        with pytest.raises(DownloadError, match=r"/x \(the connection was refused\)\."):
            download([url], target, RIGHT)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            "the name 'models.example' was not found; is there a network?",
        ),
        (TimeoutError("timed out"), "no connection could be made within 30 s"),
        (
            ssl.SSLCertVerificationError(1, "self-signed certificate"),
            "its certificate was not accepted: self-signed certificate",
        ),
        (
            OSError(errno.ENETUNREACH, "Network is unreachable"),
            "the connection failed: Network is unreachable",
        ),
        (
            OSError("Tunnel connection failed: 403 Forbidden"),
            "the connection failed: Tunnel connection failed: 403 Forbidden",
        ),
    ],
)
def test_no_way_to_the_server(
    target: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, cause: str
) -> None:
    def connect(self: http.client.HTTPConnection) -> None:
        raise error

    monkeypatch.setattr(http.client.HTTPSConnection, "connect", connect)
    monkeypatch.setattr(time, "sleep", pytest.fail)
    with pytest.raises(DownloadError) as caught:
        download(["https://models.example/x"], target, RIGHT)
    assert caught.value.message == (
        f"The file 'model.bin' could not be fetched from https://models.example/x ({cause})."
    )


def test_a_network_that_goes_away_in_the_middle_is_waited_for(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.acts.append(serve(drop_after=1000))
    connect, calls = http.client.HTTPConnection.connect, iter(range(9))

    def flaky(self: http.client.HTTPConnection) -> None:
        if next(calls) == 1:
            raise OSError(errno.ENETUNREACH, "Network is unreachable")
        connect(self)

    monkeypatch.setattr(http.client.HTTPConnection, "connect", flaky)
    assert get(server, target) == RIGHT
    assert server.asked("Range") == [None, "bytes=1000-"]


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/x",
        "file:///etc/hostname",
        "http://",
        "http://[::1/x",
        "http://a:b/x",
        "http://example.org/a b",
        "http://127.0.0.1/\u00e4",
        "",
    ],
)
def test_addresses_that_are_none(target: Path, url: str) -> None:
    with pytest.raises(DownloadError) as caught:
        download([url], target, RIGHT)
    assert caught.value.message == (
        f"The file 'model.bin' could not be fetched from {url} (this is not a valid http or https"
        " address)."
    )


# Redirects and proxies


def test_a_redirect_is_followed_also_for_the_rest(server: Server, target: Path) -> None:
    server.acts.append(answer(302, Location="/elsewhere"))
    size = interrupt(server, target)
    server.acts.append(answer(307, Location=f"{server.url}?signed"))
    assert get(server, target) == RIGHT
    assert server.asked("path") == ["/model.bin", "/model.bin?signed"]
    assert server.asked("Range") == [f"bytes={size}-"] * 2


@pytest.mark.parametrize("place", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:,x", "/loop"])
def test_other_redirects_are_not_followed(server: Server, target: Path, place: str) -> None:
    server.acts.extend([answer(302, Location=place)] * (20 if place == "/loop" else 1))
    assert cause_of(server, target) == (
        "the server answered 302 (Found) with a redirect that is not followed: a loop, or to"
        " something else than http or https, or from https to http"
    )


@pytest.mark.parametrize("allowed", [True, False])
def test_no_redirect_gives_up_https(allowed: bool) -> None:
    asked = urllib.request.Request("https://example.org/x")
    to = "https://example.com/x" if allowed else "http://example.org/x"

    def redirected() -> Any:
        nothing = cast(IO[bytes], None)
        return Redirects().redirect_request(asked, nothing, 302, "Found", HTTPMessage(), to)

    if allowed:
        assert redirected().full_url == to
    else:
        with pytest.raises(urllib.error.HTTPError) as caught:
            redirected()
        caught.value.close()


def test_the_proxy_of_the_environment_is_used(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    assert download(["http://models.example/x"], target, RIGHT) == RIGHT
    assert server.asked("path") == ["http://models.example/x"]


# Writing


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")  # noqa: PTH110
def test_a_full_disk_is_an_output_error(server: Server, target: Path, part: Path) -> None:
    target.parent.mkdir()
    part.symlink_to("/dev/full")
    with pytest.raises(OutputError) as caught:
        get(server, target)
    assert str(caught.value) == (
        f"The file {str(target)!r} could not be written: No space left on device. What has arrived"
        " is kept: the same command continues there."
    )
    assert not target.exists()


def test_a_folder_that_cannot_be_made_or_used(
    server: Server, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="could not be written: "):
        get(server, tmp_path / "file" / "model.bin")
    with pytest.raises(OutputError, match="is a folder"):
        get(server, tmp_path)
    monkeypatch.setattr(os, "access", lambda *args: False)
    with pytest.raises(OutputError, match="cannot be written to"):
        get(server, target)
    assert server.log == []


def test_a_failed_rename_keeps_the_part(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, other: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("tlpipe.stages.download.part.move_whole", refuse)
        with pytest.raises(OutputError, match="could not be written: Permission denied"):
            get(server, target)
    assert get(server, target) == RIGHT
    assert len(server.log) == 1


def test_a_file_system_without_locks(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def acquire(*args: Any, **options: Any) -> None:
        raise NotImplementedError

    monkeypatch.setattr("filelock.FileLock.acquire", acquire)
    with pytest.raises(OutputError, match="cannot lock files"):
        get(server, target)


# From a path


@pytest.mark.parametrize("as_text", [True, False])
def test_a_local_file_is_copied_and_checked(
    tmp_path: Path, target: Path, part: Path, as_text: bool
) -> None:
    source = tmp_path / "stick.bin"
    source.write_bytes(CONTENT)
    target.parent.mkdir()
    part.write_bytes(b"of an interrupted download")
    seen: list[Progress] = []
    given = str(source) if as_text else source
    assert fetch_file(given, target, Expected(SIZE), seen.append) == RIGHT
    assert target.read_bytes() == source.read_bytes() == CONTENT
    assert names(target) == ["model.bin"]
    assert seen[-1] == Progress("download", SIZE, SIZE, 0)
    source.unlink()
    assert fetch_file(given, target, RIGHT) == RIGHT


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (None, "there is no such file"),
        (b"abc", "it has 3 bytes; expected were 300,000"),
        (OTHER, f"its SHA-256 is {OTHER_SHA}; expected was {SHA}"),
        (POINTER, "it is a Git LFS pointer instead of the file"),
        (PAGE, "it is an HTML page instead of the file"),
    ],
)
def test_another_local_file_is_refused(
    tmp_path: Path, target: Path, content: bytes | None, cause: str
) -> None:
    source = tmp_path / "stick.bin"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(DownloadError) as caught:
        fetch_file(source, target, RIGHT)
    assert str(caught.value) == (
        f"The file 'model.bin' could not be copied from {str(source)!r} ({cause})."
        " Give another one with --from PATH_OR_URL."
    )
    assert names(target) == []


def test_a_local_file_that_cannot_be_read(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "stick.bin"
    source.write_bytes(CONTENT)
    real = Path.open

    def refuse(self: Path, *args: Any, **options: Any) -> Any:
        if self == source:
            raise OSError(errno.EIO, "Input/output error")
        return real(self, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DownloadError, match=r"\(it cannot be read: Input/output error\)"):
        fetch_file(source, target, RIGHT)
    assert names(target) == []


def test_fetching_from_an_address(server: Server, target: Path) -> None:
    assert fetch_file(server.url, target, Expected(), pauses=NO_WAIT) == RIGHT
    target.unlink()
    server.acts.append(answer(404))
    with pytest.raises(DownloadError, match=r"Not Found\)\)\. Give another one with --from"):
        fetch_file(server.url, target, RIGHT)


def test_reasons_are_logged(server: Server, target: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tlpipe")
    server.acts.extend([answer(500), answer(404)])
    cause_of(server, target)
    assert caplog.messages == [
        f"{server.url}: the server answered 500 (Internal Server Error); trying again in 0 s.",
        f"{server.url}: the server answered 404 (Not Found)",
    ]
