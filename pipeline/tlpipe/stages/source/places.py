"""Where links and paths lead, held against the places a source may be read from.

A source may come from a stranger. So every link of a folder and every path of a manifest is
resolved and must stay inside the source, or inside a folder that the user named; and of the folders
that links lead to, each is walked once, so that no net of links makes a walk endless.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path

from tlpipe.errors import OptionError
from tlpipe.files import is_dir

_MOST_LINKS = 100  # one behind the other; Linux follows 40, macOS 32, Windows 63


class Places:
    """The folders within which a source may be read.

    The real paths of folders are remembered for a while: make a new one for each walk.

    Parameters
    ----------
    root : str
        The source's own folder.
    allowed : sequence of str
        Real paths of folders outside that may be read as well.
    """

    def __init__(self, root: str, allowed: Sequence[str]) -> None:
        self.root = os.path.realpath(root)
        self._within = tuple(
            as_folder(os.path.normcase(folder)) for folder in (self.root, *allowed)
        )
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
    """Real paths of the folders that a user allows.

    Raises
    ------
    OptionError
        One of them is no folder.
    """
    named = [allowed] if isinstance(allowed, str | Path) else allowed
    for folder in named:
        if not is_dir(Path(folder)):
            raise OptionError(
                f"The folder {str(folder)!r}, which links and paths may lead into, does not exist.",
                hint="Name an existing folder with --allow-outside; / allows any place.",
            )
    return [os.path.realpath(folder) for folder in named]


def _real(path: str) -> str | None:
    try:
        return os.path.realpath(path)
    except RecursionError:  # many hundred links, one behind the other: no system follows them
        return None


def as_folder(path: str) -> str:
    """`path` with a separator at its end."""
    return path if path.endswith(os.sep) else path + os.sep
