"""Walking a tree of folders: in the order of path components, without recursion, links held in.

What is in memory at a time are the names of one folder and of the folders that stand above it.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from tlpipe.errors import SourceError
from tlpipe.files import is_utf8
from tlpipe.stages.source.places import Followed, Places
from tlpipe.stages.source.survey import LISTED_ANYWAY, OUTSIDE, printable

# Extensions of the formats that Pillow decodes by itself (a test compares them with its registry).
IMAGE_EXTENSIONS = frozenset(
    (
        ".apng .avif .avifs .blp .bmp .bw .cur .dcx .dds .dib .fit .fits .flc .fli .ftc .ftu .gbr"
        " .gif .icb .icns .ico .iim .im .j2c .j2k .jfif .jp2 .jpc .jpe .jpeg .jpf .jpg .jpx .mpo"
        " .msp .pbm .pcd .pcx .pfm .pgm .png .pnm .ppm .psd .pxr .qoi .ras .rgb .rgba .sgi .tga"
        " .tif .tiff .vda .vst .webp .xbm .xpm"
    ).split()
)
AS_WRITTEN = IMAGE_EXTENSIONS | {extension.upper() for extension in IMAGE_EXTENSIONS}
"""The same as they are mostly written: what is in it needs no other look."""
_MOST_KINDS = 100  # of extensions that are counted each by its own name
_GLANCE = 256  # entries looked at before a folder is read to its end

_is_junction: Callable[[str], bool] = getattr(os.path, "isjunction", lambda _: False)


@dataclass(slots=True)
class Folder:
    """The images and the folders of one folder, sorted by name.

    Attributes
    ----------
    path, prefix : str
        What stands before a name in a path and in a key; the path ends in a separator.
    files, folders : list of str
        Names as valid UTF-8.
    raw : dict of str to str
        Names as the system has them, where they are others.
    separator : str
        What ends the paths of folders.
    """

    path: str
    prefix: str
    files: list[str]
    folders: list[str]
    raw: dict[str, str]
    separator: str = os.sep

    def places(self, names: list[str]) -> list[Any]:
        """Places of some of its files: their paths."""
        path = self.path
        if not self.raw:
            return [path + name for name in names]
        return [path + self.raw.get(name, name) for name in names]

    def below(self, name: str) -> tuple[str, str]:
        """Path and prefix of one of its folders."""
        path = f"{self.path}{self.raw.get(name, name)}{self.separator}"
        return path, f"{self.prefix}{name}/"


class Walks(Protocol):
    """Lists folders, wherever they are; see ``Walker``."""

    skipped: Counter[str]
    first_outside: str

    def listing(self, path: str, prefix: str, /) -> Folder:
        """List one folder."""

    def has_image(self, path: str, prefix: str, /) -> bool:
        """Whether there is an image in a folder or below it."""


@dataclass
class Walker:
    """Lists folders, and counts what is left out.

    Attributes
    ----------
    places : Places
    skipped : Counter of str
        Entries left out, by the reason in words.
    first_outside : str
        Key of the first link that leads outside; empty where there is none.
    """

    places: Places
    skipped: Counter[str] = field(default_factory=Counter)
    first_outside: str = ""

    def __post_init__(self) -> None:
        self._followed = Followed(self.places.root)

    def listing(self, path: str, prefix: str) -> Folder:
        """List one folder.

        Parameters
        ----------
        path, prefix : str
            As for ``Folder``.

        Raises
        ------
        SourceError
            The folder cannot be listed, or two of its names read the same.
        """
        files: list[str] = []
        folders: list[str] = []
        links: list[str] = []
        hidden = 0
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    name = entry.name
                    if name[0] == ".":
                        hidden += 1
                    elif entry.is_symlink():
                        links.append(name)
                    elif entry.is_dir(follow_symlinks=False):
                        (links if _is_junction(entry.path) else folders).append(name)
                    elif name[name.rfind(".") :] in AS_WRITTEN or self._is_image(name):
                        files.append(name)
        except OSError as exc:
            raise SourceError(
                f"The folder {_shown(path)} cannot be listed: {exc.strerror}.",
                hint="Correct its permissions, or leave it out of the source.",
            ) from exc
        if hidden:
            self.skipped["hidden"] += hidden
        for name in sorted(links):
            self._place_link(path, prefix, name, files, folders)
        return _sorted(path, prefix, files, folders)

    def has_image(self, path: str, prefix: str) -> bool:
        """Whether there is an image in a folder or below it; ends at the first."""
        pending = [(path, prefix)]
        while pending:
            path, prefix = pending.pop()
            if self._glance(path):
                return True
            here = self.listing(path, prefix)
            if here.files:
                return True
            pending += [here.below(name) for name in reversed(here.folders)]
        return False

    def _glance(self, path: str) -> bool:
        """Whether one of a folder's first entries is an image: spares reading a large one."""
        try:
            with os.scandir(path) as entries:
                return any(
                    entry.name[entry.name.rfind(".") :] in AS_WRITTEN
                    and entry.name[0] != "."
                    and entry.is_file(follow_symlinks=False)
                    for entry in itertools.islice(entries, _GLANCE)
                )
        except OSError:
            return False  # listing it says why

    def _is_image(self, name: str) -> bool:
        """Whether a name has an image's extension; if not, it is counted."""
        return is_image_name(name, self.skipped)

    def _place_link(
        self, path: str, prefix: str, name: str, files: list[str], folders: list[str]
    ) -> None:
        """Put a link among the files or the folders, or leave it out."""
        real = self.places.real(path + name)
        if real is not None and not self.places.hold(real):
            self.skipped[OUTSIDE] += 1
            self.first_outside = self.first_outside or prefix + printable(name)
        elif real is None or not os.path.isdir(real):  # noqa: PTH112
            # What leads nowhere is listed as well, and becomes a reject: nothing is lost.
            if self._is_image(name):
                files.append(name)
        elif self._followed.claim(real):
            folders.append(name)
        else:
            self.skipped[LISTED_ANYWAY] += 1


def is_image_name(name: str, skipped: Counter[str]) -> bool:
    """Whether the last part of a name has an image's extension; if not, it is counted."""
    at = name.rfind(".")
    suffix = printable(name[at:]).lower() if 0 < at < len(name) - 1 else ""
    if suffix in IMAGE_EXTENSIONS:
        return True
    kind = f"not an image ({suffix or 'no extension'})"
    if kind not in skipped and len(skipped) >= _MOST_KINDS:
        kind = "not an image (other extensions)"
    skipped[kind] += 1
    return False


def _sorted(path: str, prefix: str, files: list[str], folders: list[str]) -> Folder:
    """A folder whose names are sorted, as valid UTF-8."""
    raw: dict[str, str] = {}
    names = itertools.chain(files, folders)
    if not (all(map(str.isascii, files)) and all(map(str.isascii, folders))) and not all(
        map(is_utf8, names)
    ):
        both = sorted(printable(name) for name in (*files, *folders))
        twice = next((a for a, b in itertools.pairwise(both) if a == b), None)
        if twice is not None:
            raise SourceError(
                f"Two names in the folder {_shown(path)} read {twice!r}: one of them is no UTF-8.",
                hint="Rename one of them.",
            )
        raw = {printable(name): name for name in (*files, *folders) if not is_utf8(name)}
        files = [printable(name) for name in files]
        folders = [printable(name) for name in folders]
    files.sort()
    folders.sort()
    return Folder(path, prefix, files, folders, raw)


def _shown(path: str) -> str:
    """A folder's path, to be read by a person: cut in the middle where it has no end."""
    text = printable(os.path.normpath(path))
    return repr(text if len(text) <= 1000 else f"{text[:500]} ... {text[-500:]}")
