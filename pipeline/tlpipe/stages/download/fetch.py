"""Fetch: from addresses, or a path, to a file under its final name."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tlpipe.errors import DownloadError, OutputError
from tlpipe.files import check_output, is_file, sha256_file, whole_file
from tlpipe.stages.download.part import Expected, Part, WrongFileError, writing
from tlpipe.stages.download.receive import Manner, receive
from tlpipe.types import ProgressCallback
from tlpipe.web import FetchError, disguise, is_web

_log = logging.getLogger(__name__)

OFFLINE_HINT = (
    "Where the network does not reach, fetch the file by other means and give it with --from"
    " PATH_OR_URL."
)
_OTHER_HINT = "Give another one with --from PATH_OR_URL."
_PAUSES_S = (1.0, 2.0, 4.0, 8.0)
_TIMEOUT_S = 30.0
_CHUNK_BYTES = 1 << 20


def download(
    urls: Sequence[str],
    target: Path,
    expected: Expected,
    progress: ProgressCallback | None = None,
    *,
    hint: str = OFFLINE_HINT,
    pauses: Sequence[float] = _PAUSES_S,
    timeout: float = _TIMEOUT_S,
) -> Expected:
    """Obtain a file from the first address that gives it, whole and right.

    A file that stands at `target` and is as expected is not fetched again; another one is replaced,
    when the right one is there. What has arrived survives any interruption, and the next call asks
    for the rest. Two processes that want the same file fetch it once: the second waits.

    Parameters
    ----------
    urls : sequence of str
        Addresses of the same file, http or https, tried in order.
    target : pathlib.Path
        Where the file goes; its folder is made. A symbolic link is written through.
    expected : Expected
        What the file must be. Where the SHA-256 is not known, a file is resumed only from the same
        address and under the same ETag, and a file of unknown length is refused unless the server
        marks its end.
    progress : callable, optional
        Called with the bytes done and in total, under the stage "download".
    hint : str
        What the error tells people to do.
    pauses : sequence of float
        Seconds to wait before each new try after a failure that may pass. The count starts again
        whenever a try got further than all before it.
    timeout : float
        Seconds to wait for a connection, and then for each piece.

    Returns
    -------
    Expected
        Size and SHA-256 of the file that is now at `target`.

    Raises
    ------
    DownloadError
        No address gave the file.
    OutputError
        The file cannot be written.
    """
    manner = Manner(progress, pauses, timeout)

    def receive_any(target: Path) -> Expected:
        causes = []
        with Part(target) as part:
            for url in urls:
                try:
                    found = receive(url, part, expected, manner)
                except FetchError as failure:
                    _log.info("%s: %s", url, failure)
                    causes.append(f"from {url} ({failure})")
                else:
                    part.finish()
                    return found
        places = " nor ".join(causes) or "from anywhere: no address is known"
        raise DownloadError(f"The file {target.name!r} could not be fetched {places}.", hint=hint)

    return _unless_standing(target, expected, receive_any)


def fetch_file(
    source: str | Path,
    target: Path,
    expected: Expected,
    progress: ProgressCallback | None = None,
    *,
    hint: str = "",
    pauses: Sequence[float] = _PAUSES_S,
    timeout: float = _TIMEOUT_S,
) -> Expected:
    """Obtain a file from an address as ``download`` does, or copy it with the same checks.

    Parameters
    ----------
    source : str or pathlib.Path
        An http or https address, or the path of a local file: on a mirror, on a USB stick.
    hint : str
        What the error tells people to do; by default to give another source.
    target, expected, progress, pauses, timeout
        As for ``download``.

    Returns
    -------
    Expected
        Size and SHA-256 of the file that is now at `target`.

    Raises
    ------
    DownloadError
        The source does not give the file.
    OutputError
        The file cannot be written.
    """
    hint = hint or _OTHER_HINT
    if isinstance(source, str) and is_web(source):
        return download(
            [source], target, expected, progress, hint=hint, pauses=pauses, timeout=timeout
        )

    def copy(target: Path) -> Expected:
        try:
            found = _from_disk(Path(source), target, expected, Manner(progress, pauses, timeout))
        except FetchError as failure:
            raise DownloadError(
                f"The file {target.name!r} could not be copied from {str(source)!r} ({failure}).",
                hint=hint,
            ) from failure
        Part(target).remove()  # of an interrupted download
        return found

    return _unless_standing(target, expected, copy)


def _unless_standing(
    target: Path, expected: Expected, obtain: Callable[[Path], Expected]
) -> Expected:
    """What `obtain` gives for the real path of `target`, in one process at a time.

    It is not called where the file stands there already, or does once it is this process's turn.
    """
    target = Path(os.path.realpath(target))
    if standing := _standing(target, expected):
        return standing
    with _alone(target):
        return _standing(target, expected) or obtain(target)


def _standing(target: Path, expected: Expected) -> Expected | None:
    """Size and SHA-256 of the file at `target`; None if there is none, or another one."""
    with contextlib.suppress(WrongFileError, OSError):
        if is_file(target):
            size = target.stat().st_size
            expected.check_size(size)
            return expected.check(size, sha256_file(target))
    return None


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Keep other processes from fetching `target`; its folder is made, and can be written to."""
    from filelock import FileLock, Timeout

    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    check_output(target, overwrite=True)
    lock = FileLock(str(target.with_name(f".{target.name}.lock")))
    with writing(target):
        try:
            lock.acquire(blocking=False)
        except Timeout:
            _log.warning("Another process is fetching %s: waiting for it.", target)
            lock.acquire()
        except NotImplementedError as exc:
            raise OutputError(
                f"The file system of {str(target.parent)!r} cannot lock files.",
                hint="Choose a folder on another one.",
            ) from exc
    try:
        yield
    finally:
        lock.release()


def _from_disk(source: Path, target: Path, expected: Expected, manner: Manner) -> Expected:
    """Copy a local file to `target`, where it appears whole and right or not at all."""
    if not is_file(source):
        raise FetchError("there is no such file")
    digest, size = hashlib.sha256(), 0
    with whole_file(target) as temporary, temporary.open("wb") as out:
        for chunk in _chunks(source, expected):
            out.write(chunk)
            digest.update(chunk)
            size += len(chunk)
            manner.report(size, expected.size_bytes)
        return expected.check(size, digest.hexdigest())


def _chunks(source: Path, expected: Expected) -> Iterator[bytes]:
    try:
        with source.open("rb") as stream:
            chunk = stream.read(_CHUNK_BYTES)
            if what := disguise(chunk):
                raise FetchError(f"it is {what} instead of the file")
            expected.check_size(source.stat().st_size)
            while chunk:
                yield chunk
                chunk = stream.read(_CHUNK_BYTES)
    except OSError as exc:
        raise FetchError(f"it cannot be read: {exc.strerror}") from exc
