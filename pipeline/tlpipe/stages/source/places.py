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
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tlpipe.addresses import STORES, is_store, is_web, lies_in, local_path, scheme_of, shown
from tlpipe.errors import OptionError, SourceError
from tlpipe.files import is_dir

_MOST_LINKS = 100  # one behind the other; Linux follows 40, macOS 32, Windows 63


@dataclass(frozen=True, slots=True)
class Address:
    """The place of an image on a network.

    Attributes
    ----------
    url : str
        Of the web, or of an object store.
    inside : bool
        Whether the user named it, or where it lies: its server may then be in a private network.
    size_bytes, mtime_ns : int
        As its store listed it; -1 where that is not known.
    """

    url: str
    inside: bool = False
    size_bytes: int = -1
    mtime_ns: int = -1


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
        self._real_folder = functools.lru_cache(maxsize=4096)(_real)

    def real(self, path: str) -> str | None:
        """Where `path` leads, every link followed; None where links have no end.

        What does not exist leads to where it would be.
        """
        for _ in range(_MOST_LINKS):
            parent, name = os.path.split(path)
            if name in ("", ".", ".."):
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


def named(written: str) -> Address | str:
    """Place of an address that the user named: it may lead anywhere.

    Raises
    ------
    SourceError
        It is of no kind that is read.
    """
    scheme = scheme_of(written)
    if scheme == "file":
        return local_path(written)
    if not (is_web(written) or is_store(written)) or "::" in written.partition("?")[0]:
        raise SourceError(
            f"The address {shown(written)!r} is of no kind that is read.",
            hint=f"Addresses start with http://, https://, file:// or one of {list(STORES)}.",
        )
    return Address(written, inside=True)


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


def as_folder(path: str) -> str:
    """`path` with a separator at its end."""
    return path if path.endswith(os.sep) else path + os.sep
