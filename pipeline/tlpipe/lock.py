"""One writer at a time: a lock beside an output that takes long, which says who holds it.

Readers need none: a file under its final name never changes. HDF5's own locks are not used, since
they lock the file that is written, which nobody else opens, and fail on some network file systems.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import getpass
import json
import logging
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import filelock

from tlpipe.errors import LockedError, OutputError

_log = logging.getLogger(__name__)

_LOCKS = (".lock", ".lock.owner")

_TRIES, _PAUSE_S = 20, 0.005  # where a lock was freed while it was tried

_NO_LOCKS_HERE = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
"""What file systems without locks answer to ``flock``."""


@contextlib.contextmanager
def writer_lock(path: Path) -> Iterator[None]:
    """Hold the right to write `path`.

    The lock is ``flock`` on ``.<name>.lock`` beside it (on Windows ``LockFile``): the system frees
    it when the process ends, however that is; on NFS the Linux kernel carries it out on the server.
    Where a file system has no locks at all, the mere existence of ``.<name>.lock.owner`` is the
    lock; one left by a process of this machine that has died is removed.

    Raises
    ------
    LockedError
        Another process holds it.
    OutputError
        The lock file cannot be written.
    """
    target = Path(os.path.realpath(path))
    note = writer_note(target)
    try:
        held = _acquired(target)
    except filelock.Timeout as exc:
        raise LockedError(
            f"Another process is writing {str(path)!r}: {_holder(note)}.",
            hint="Wait until it has ended, or choose another --output.",
        ) from exc
    except OSError as exc:
        raise _refused(path, exc.strerror or str(exc)) from exc
    try:
        with contextlib.suppress(OSError):  # only what a message to others says
            note.write_text(json.dumps(_myself()), encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):  # it says nothing without the lock
            note.unlink()
        with contextlib.suppress(OSError):  # the system frees it with the process at the latest
            _tidy(held)
            held.release()


def writer_note(path: Path) -> Path:
    """The file that says who holds the lock of an output; no two holders say the same."""
    target = Path(os.path.realpath(path))
    return target.with_name(f".{target.name}.lock.json")


def _tidy(held: filelock.BaseFileLock) -> None:
    """Remove the file of a lock that is held.

    Whoever waits for it finds that the file it has locked then has no name any more, and begins
    anew (filelock checks that). Windows removes it by itself.
    """
    if isinstance(held, filelock.UnixFileLock):
        Path(held.lock_file).unlink(missing_ok=True)


def _refused(path: Path, why: str) -> OutputError:
    return OutputError(
        f"The lock of {str(path)!r} cannot be taken: {why}.",
        hint="The folder of the output must be writable.",
    )


def _is_there(target: Path) -> bool:
    """Whether there is a lock of a file, held or not."""
    return any(os.path.lexists(target.with_name(f".{target.name}{end}")) for end in _LOCKS)


def _acquired(target: Path) -> filelock.BaseFileLock:
    """The lock; tried again where it was freed, and its file removed, while it was tried.

    Raises
    ------
    filelock.Timeout
        Another process holds it.
    OSError
        The system refuses.
    """
    for _ in range(_TRIES):
        try:
            return _acquire(target)
        except filelock.Timeout:
            if _is_there(target):
                raise
        time.sleep(_PAUSE_S)
    raise OSError("no file can be made there")


def _acquire(target: Path) -> filelock.BaseFileLock:
    lock: filelock.BaseFileLock = filelock.FileLock(
        target.with_name(f".{target.name}.lock"), fallback_to_soft=False
    )
    try:
        lock.acquire(timeout=0)
    except OSError as exc:  # filelock.Timeout is one too
        if exc.errno not in _NO_LOCKS_HERE:
            raise
        _log.info("%s has no file locks (%s): a marker file is used", target.parent, exc)
        lock = filelock.SoftFileLock(target.with_name(f".{target.name}.lock.owner"))
        lock.acquire(timeout=0)
    return lock


def _myself() -> dict[str, str | int]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no such user in this container
        user = "?"
    return {
        "command": Path(sys.argv[0]).name or "python",
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "user": user,
        "run": secrets.token_hex(8),
        "since": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _holder(note: Path) -> str:
    """Who holds the lock, in words."""
    try:
        said = json.loads(note.read_text(encoding="utf-8"))
        return (
            f"process {said['pid']} ({said['command']!r}) of user {said['user']!r} on"
            f" {said['host']!r}, since {said['since']}"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return "it did not say who it is"
