"""Copies: files that list or hold images, fetched from an address, whole, into the cache folder.

A copy stands in ``sources/`` of the cache folder under a name made of the address, the size and
what tells that the file has changed (ETag, or time of change). When one is made, those that nobody
used for ``UNUSED_DAYS`` are removed, and then the longest unused ones until all others together
have at most ``MOST_BYTES``; never one that a process has open. A copy's time of access says when
it was used; its time of change is that of the original, where that is known.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tlpipe.addresses import asked, is_web, name_of, shown
from tlpipe.errors import SourceError
from tlpipe.files import cache_dir, is_file, make_folder, whole_file
from tlpipe.stages.source.calls import Call, Calls
from tlpipe.stages.source.stores import Store, StoreFailure, size_and_time, source_error
from tlpipe.web import FetchError, Reply, UnreachableError, disguise, request

UNUSED_DAYS = 30
MOST_BYTES = 50 << 30

SLOW_S = 60.0
"""Seconds in which ``_STEP_BYTES`` must come, or a server counts as away."""

TIMEOUT_S = 30.0
PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)

_STEP_BYTES = 1 << 16


class Copy:
    """A file on this machine that is not removed as long as this object is there.

    Attributes
    ----------
    path : pathlib.Path
    """

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, descriptor)
        self.path = path
        with contextlib.suppress(ImportError, OSError):
            import fcntl  # elsewhere an open file cannot be removed anyway

            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))

    @property
    def standing(self) -> bool:
        """Whether it has not been removed just before."""
        return is_file(self.path)


def copied(url: str) -> Copy:
    """Copy of the file at an address, which is made where there is none yet.

    Raises
    ------
    SourceError
        The file cannot be had whole.
    OutputError
        It cannot be written.
    """
    return _from_web(url) if is_web(url) else _from_store(url)


def _place(url: str, *facts: object) -> Path:
    said = "\n".join(map(str, (url, *facts)))
    name = name_of(url)
    if not name.isprintable() or name.startswith(".") or len(name.encode()) > 100:
        name = "source" + Path(name).suffix
    digest = hashlib.sha256(said.encode("utf-8", "backslashreplace")).hexdigest()[:32]
    return cache_dir() / "sources" / digest / name.replace("\\", "_").replace("/", "_")


def _standing(path: Path) -> Copy | None:
    with contextlib.suppress(OSError):
        copy = Copy(path)
        if copy.standing:
            return copy
    return None


@contextlib.contextmanager
def _made(path: Path) -> Iterator[Path]:
    make_folder(path.parent)
    _tidy(path.parent)
    with whole_file(path) as temporary:
        yield temporary


def _from_store(url: str) -> Copy:
    store = Store(url)
    try:
        info = store.info(url)
        size, mtime = size_and_time(info)
        path = _place(url, size, info.get("ETag") or info.get("etag") or "", mtime)
        if (standing := _standing(path)) is not None:
            return standing
        with _made(path) as temporary:
            store.copy(url, str(temporary), 600 + max(size, 0) / _STEP_BYTES)
            if mtime >= 0:
                os.utime(temporary, ns=(time.time_ns(), mtime))
            arrived = temporary.stat().st_size
            if size >= 0 and arrived != size:
                raise SourceError(
                    f"Of the source {shown(url)!r} {arrived:,} bytes came, not {size:,}.",
                    hint="It may have been changed just now: run the same command again.",
                )
    except StoreFailure as failure:
        raise source_error(url, failure) from failure
    return Copy(path)


def _from_web(url: str) -> Copy:
    try:
        sent = asked(url)
        with Calls().call(inside=True, most_s=SLOW_S) as call:
            with request(sent, 0, "", TIMEOUT_S, call) as reply:
                if what := disguise(reply.head):
                    raise FetchError(f"the server sent {what} instead of the file")
                if not reply.framed:
                    raise FetchError("the server does not tell how long it is")
                mark = reply.etag or secrets.token_hex(8)  # without one it may have changed
                path = _place(url, reply.total, mark)
                if reply.etag and (standing := _standing(path)) is not None:
                    return standing
            with _made(path) as temporary, temporary.open("wb") as out:
                _Transfer(sent, out, call, reply.etag).run()
    except (FetchError, ValueError) as failure:
        raise SourceError(
            f"The source {shown(url)!r} cannot be fetched: {failure}.",
            hint="Run the same command again, or fetch it by other means and use the file.",
        ) from failure
    return Copy(path)


class _Transfer:
    """Brings a file into `out`, with as many requests as that takes."""

    def __init__(self, url: str, out: BinaryIO, call: Call, etag: str) -> None:
        self._url, self._out, self._call, self._etag = url, out, call, etag
        self._done = 0

    def run(self) -> None:
        pauses, furthest = iter(PAUSES_S), 0
        while True:
            try:
                offset = self._done if self._etag else 0
                with request(self._url, offset, self._etag, TIMEOUT_S, self._call) as reply:
                    self._take(reply)
                return
            except FetchError as failure:
                self._call.check()
                if self._done > furthest:
                    furthest, pauses = self._done, iter(PAUSES_S)
                passing = failure.may_pass or isinstance(failure, UnreachableError)
                pause = next(pauses, None) if passing else None
                if pause is None:
                    raise
                self._call.pause(pause)

    def _take(self, reply: Reply) -> None:
        if reply.start == 0:
            self._out.seek(0)
            self._out.truncate()
            self._done = 0
        if not reply.framed:
            raise FetchError("the answer has no length", may_pass=True)
        if reply.etag != self._etag:
            raise FetchError("the file was changed just now")
        since = 0
        for chunk in reply.chunks():
            self._call.check()
            self._out.write(chunk)
            self._done += len(chunk)
            since += len(chunk)
            if since >= _STEP_BYTES:
                self._call.prolong(SLOW_S - self._call.rest)
                since = 0
        self._call.check()


def _tidy(keep: Path) -> None:
    """Remove copies that are not wanted any more; what cannot be removed stays."""
    found: list[tuple[float, int, Path]] = []
    for folder in keep.parent.iterdir():
        with contextlib.suppress(OSError):
            files = list(folder.iterdir())
            if folder != keep:
                stats = [file.stat() for file in files]
                used = max((stat.st_atime for stat in stats), default=folder.stat().st_mtime)
                found.append((used, sum(stat.st_size for stat in stats), folder))
    total = 0
    now = time.time()
    for used, size, folder in sorted(found, reverse=True):
        total += size
        if (total > MOST_BYTES or now - used > UNUSED_DAYS * 86400) and not _in_use(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _in_use(folder: Path) -> bool:
    if time.time() - folder.stat().st_mtime < 3600:
        return True  # it may be being made
    try:
        import fcntl
    except ImportError:
        return False
    for file in folder.iterdir():
        with file.open("rb") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
    return False
