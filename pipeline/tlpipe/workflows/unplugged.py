"""Tells a file that cannot be read from a disk, or a server, that is away."""

from __future__ import annotations

import errno
import itertools
import os
from pathlib import Path

_AWAY = {
    getattr(errno, name)
    for name in "ENODEV ENXIO ENOMEDIUM ESTALE ENOTCONN EHOSTDOWN EHOSTUNREACH ETIMEDOUT".split()
    if hasattr(errno, name)
}
"""What systems answer where a disk was unplugged or a server is away: no fault of one file."""

_OTHERS = 3  # files beside one that cannot be read, which are tried as well


def is_unplugged(path: Path) -> bool:
    """Whether a file cannot be read because its whole disk or server is away.

    EIO is what one bad spot of a disk gives, and what a disk that was pulled out gives for every
    file, while names still come from the system's memory. So the files beside it are tried as well.
    """
    code = _failure(path)
    return code in _AWAY or (code == errno.EIO and _others_fail(path))


def _failure(path: Path) -> int | None:
    """Why a file cannot be read; None where it can."""
    try:
        with path.open("rb") as stream:
            stream.read(1)
    except OSError as exc:
        return exc.errno
    except ValueError:  # a NUL character in the path
        return errno.EINVAL
    return None


def _others_fail(path: Path) -> bool:
    try:
        with os.scandir(path.parent) as entries:
            files = (Path(e) for e in entries if e.name != path.name and e.is_file())
            codes = [_failure(other) for other in itertools.islice(files, _OTHERS)]
    except OSError:
        return True
    return bool(codes) and all(code == errno.EIO or code in _AWAY for code in codes)
