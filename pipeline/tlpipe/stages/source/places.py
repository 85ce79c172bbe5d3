"""Where links, paths and addresses lead, held against the places a source may be read from.

A source may come from a stranger. So every link of a folder and every path of a manifest is
resolved and must stay inside the source, or inside a folder that the user named; and of the folders
that links lead to, each is walked once, so that no net of links makes a walk endless.

Addresses of the web that a manifest names may be read where they are public. What lies in a network
of one's own, or in an object store, which is read with one's own rights, must be below an address
that the user named.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from tlpipe.addresses import is_web, lies_in, scheme_of
from tlpipe.errors import OptionError
from tlpipe.files import is_dir
from tlpipe.stages.source.addressed import Address, named

_MOST_LINKS = 100  # one behind the other; Linux follows 40, macOS 32, Windows 63
_MOST_FOLDERS = 1 << 16  # of which something is remembered at once
_FIRST_LISTING = 64  # paths in a folder, from which on it is listed to spare a look at each
_ENTRIES_PER_PATH = 64  # looked at: listing an entry costs a small part of a look at a path

_NO_NAMES = ("", ".", "..")

_WINDOWS = os.name == "nt"
_AS_PATH = re.compile("[/:]").search  # what makes more of a name there: a separator, a drive

_is_junction: Callable[[str], bool] = getattr(os.path, "isjunction", lambda _: False)


class Places:
    """The folders within which a source may be read.

    The real paths of folders are remembered for a while: make a new one for each walk.

    Parameters
    ----------
    root : str
        The source's own folder.
    allowed : sequence of str
        Real paths of folders outside, and addresses of folders, that may be read as well.
    """

    def __init__(self, root: str, allowed: Sequence[str]) -> None:
        self.root = os.path.realpath(root)
        self._within = tuple(
            as_folder(os.path.normcase(folder))
            for folder in (self.root, *allowed)
            if not scheme_of(folder)
        )
        self._addresses = [folder for folder in allowed if scheme_of(folder)]
        self._real_folder = functools.lru_cache(maxsize=_MOST_FOLDERS)(_real)
        self._plain: set[str] = set()  # folders that lie inside, and hold no link
        self._met: dict[str, int] = {}  # other folders, and how many paths lay in each

    def real(self, path: str) -> str | None:
        """Where `path` leads, every link followed; None where links have no end.

        What does not exist leads to where it would be.
        """
        for _ in range(_MOST_LINKS):
            parent, name = os.path.split(path)
            if name in _NO_NAMES:
                return _real(path)
            folder = self._real_folder(parent)
            if folder is None:
                return None
            path = as_folder(folder) + name
            try:
                target = os.readlink(path)  # noqa: PTH115  (a Path for each file is slow)
            except OSError:  # it is no link, or it does not exist
                return path
            path = os.path.join(folder, target)  # noqa: PTH118
        return None

    def address(self, written: str) -> Address | str | None:
        """Place of what is written as an address; None where it may not be read.

        Raises
        ------
        SourceError
            It is of no kind that is read.
        """
        place = named(written)
        if isinstance(place, str):  # file://
            real = self.real(place)
            return place if real is None or self.hold(real) else None
        if any(lies_in(written, folder) for folder in self._addresses):
            return place
        return Address(written) if is_web(written) else None

    def outside(self, path: str) -> str | None:
        """Where `path` leads, if that is outside the folders; None if it may be read.

        Where links have no end nothing can be opened, and so nothing outside can be read.
        Of many paths in one folder most are not looked at: where a folder has no link in it, no
        name in it leads elsewhere.
        """
        parent, _, name = path.rpartition(os.sep)
        if parent in self._plain and name not in _NO_NAMES and not (_WINDOWS and _AS_PATH(name)):
            return None
        real = self.real(path)
        if real is not None and not self.hold(real):
            return real
        if parent:
            self._meet(parent)
        return None

    def _meet(self, parent: str) -> None:
        """Count a path in a folder, and list the folder when there are many."""
        if len(self._met) + len(self._plain) > _MOST_FOLDERS:
            self._met.clear()
            self._plain.clear()
        count = self._met[parent] = self._met.get(parent, 0) + 1
        if count < _FIRST_LISTING or count & (count - 1):  # at powers of two
            return
        folder = self._real_folder(parent)
        if folder is not None and self.hold(folder) and _has_no_link(folder, count):
            self._plain.add(parent)
            del self._met[parent]

    def hold(self, real: str) -> bool:
        """Whether a real path lies inside one of the folders."""
        return as_folder(os.path.normcase(real)).startswith(self._within)


class Followed:
    """The real folders that are walked, so that links lead into none of them again.

    Parameters
    ----------
    root : str
        Real path of the source's folder, which is walked anyway.
    """

    def __init__(self, root: str) -> None:
        self._walked: set[str] = set()
        self._above: set[str] = set()
        self._add(root)

    def claim(self, real: str) -> bool:
        """Whether a link to the folder `real` is to be followed; then it counts as walked.

        It is not where the folder equals, holds or lies in one that is walked. What lies there
        under a hidden name is not walked with it, and may be followed.
        """
        if real in self._above:
            return False
        path, hidden = real, False
        while path not in self._walked:
            above, name = os.path.split(path)
            if above == path:
                hidden = True  # it lies in none
                break
            hidden = hidden or name.startswith(".")
            path = above
        if hidden:
            self._add(real)
        return hidden

    def _add(self, real: str) -> None:
        self._walked.add(real)
        above = os.path.dirname(real)  # noqa: PTH120
        while above not in self._above:
            self._above.add(above)
            above = os.path.dirname(above)  # noqa: PTH120


def real_folders(allowed: Sequence[str | Path] | str | Path) -> list[str]:
    """Real paths of the folders that a user allows; addresses stay as they are.

    Raises
    ------
    OptionError
        One of them is no folder.
    """
    several = [allowed] if isinstance(allowed, str | Path) else allowed
    for folder in several:
        if not scheme_of(str(folder)) and not is_dir(Path(folder)):
            raise OptionError(
                f"The folder {str(folder)!r}, which links and paths may lead into, does not exist.",
                hint="Name an existing folder with --allow-outside; / allows any place on disk.",
            )
    return [
        str(folder) if scheme_of(str(folder)) else os.path.realpath(folder) for folder in several
    ]


def _real(path: str) -> str | None:
    try:
        return os.path.realpath(path)
    except RecursionError:  # many hundred links, one behind the other: no system follows them
        return None


def _has_no_link(folder: str, paths: int) -> bool:
    """Whether a real folder surely holds no link; not told where that would take long.

    One that does not exist holds none.
    """
    most = paths * _ENTRIES_PER_PATH
    try:
        with os.scandir(folder) as entries:
            seen = 0
            for entry in itertools.islice(entries, most):
                if entry.is_symlink() or _is_junction(entry.path):
                    return False
                seen += 1
            return seen < most
    except FileNotFoundError:
        return True
    except OSError:
        return False


def as_folder(path: str) -> str:
    """`path` with a separator at its end."""
    return path if path.endswith(os.sep) else path + os.sep
