"""The folders of a set's part files: one for each time that the set was written.

Beside the index ``features.h5`` stands the folder ``features.h5.set``, and in it one folder, a
*generation*, for each time the set was written: mostly one. The index names the generation it
belongs to, so that its rename puts all the new parts in the place of all the old ones.

A generation that is being written, and one that is about to be replaced, bear a mark: it is to be
removed unless the index names it. So whatever instant a run dies at, the next one can tell what is
left over. A generation without the mark is never removed: its index may have been renamed.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from pathlib import Path

from tlpipe.errors import FeatureFileError, OutputError
from tlpipe.files import is_dir, is_file, is_utf8, sync_folder
from tlpipe.stages.store.content import FileContent
from tlpipe.stages.store.layout import SET_FORMAT
from tlpipe.stages.store.structure import FOREIGN, open_hdf5, text_attribute

MARK = "remove-unless-used"

_IS_NAME = re.compile(r"[0-9a-f]{16}")

_IS_PART = re.compile(r"[0-9]{5,}\.(h5|tmp)")


def part_name(number: int) -> str:
    """Name of a part file."""
    return f"{number:05d}.h5"


def is_folder_of_parts(name: str) -> bool:
    """Whether a text, which may come from a stranger, names a generation beside an index.

    It is that of a folder for sets and of a folder in it, so that it cannot lead elsewhere.
    """
    home, _, generation = name.partition("/")
    plain = len(home) > len(".set") and home.endswith(".set") and Path(home).name == home
    return plain and _IS_NAME.fullmatch(generation) is not None


class Generation:
    """The folder of the parts of a set that is being written; made when it is begun.

    Parameters
    ----------
    target : pathlib.Path
        Of the index; no symbolic link.

    Attributes
    ----------
    name : str
        As the index has it: the path from the index's folder on, with ``/``.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._home = _home(target)
        self._folder = self._home / secrets.token_hex(8)
        self.name = f"{self._home.name}/{self._folder.name}"

    def begin(self) -> None:
        """Make the folder.

        Raises
        ------
        OutputError
            The system refuses, or something else has its name.
        """
        if not is_utf8(self._home.name):
            raise OutputError(
                f"The name {self._target.name!r} of the output is no UTF-8 text, and so its index"
                " cannot name the files beside it.",
                hint="Choose another --output, or a greater --set-above.",
            )
        if self._home.is_symlink():
            raise self._refused("it is a symbolic link, which the folder of a set may not be")
        try:
            self._home.mkdir(exist_ok=True)
            self._folder.mkdir()
            (self._folder / MARK).touch()
        except OSError as exc:
            raise self._refused(exc.strerror or str(exc)) from exc
        self.sync()

    def _refused(self, why: str) -> OutputError:
        return OutputError(
            f"The folder {str(self._home)!r}, for the files of {str(self._target)!r}, cannot be"
            f" made: {why}.",
            hint="Remove what has its name, or choose another --output.",
        )

    def sync(self) -> None:
        """Push the names in the folder, and its own, to the disk."""
        for folder in (self._folder, self._home, self._home.parent):
            sync_folder(folder)

    def part(self, number: int) -> Path:
        """Path of a part that is whole."""
        return self._folder / part_name(number)

    def under_way(self, number: int) -> Path:
        """Path of a part that is not finished."""
        return self.part(number).with_suffix(".tmp")


def _home(target: Path) -> Path:
    return target.with_name(f"{target.name}.set")


def supersede(target: Path) -> None:
    """Mark the generation that the index at `target` names, which is about to be replaced.

    Raises
    ------
    OSError
        The system refuses.
    """
    home = _home(target)
    named = _named(target) if is_dir(home) else ""
    if named and is_dir(target.parent / named) and named.startswith(f"{home.name}/"):
        (target.parent / named / MARK).touch()
        sync_folder(target.parent / named)


def tidy(target: Path) -> None:
    """Remove the marked generations that the index at `target` does not name; unmark that it does.

    Where it cannot be told which that is, nothing is removed.

    Raises
    ------
    OutputError
        The system refuses.
    """
    home = _home(target)
    if not is_dir(home) or home.is_symlink():
        return
    try:
        named = _named(target)
        if named is None:
            return
        for folder in sorted(home.iterdir()):
            if _IS_NAME.fullmatch(folder.name) and is_dir(folder) and not folder.is_symlink():
                _tidy_one(folder, used=named == f"{home.name}/{folder.name}")
        if not any(home.iterdir()):
            home.rmdir()
    except OSError as exc:
        raise OutputError(
            f"The left-over files in {str(home)!r}, which no longer belong to {str(target)!r},"
            f" cannot be removed: {exc.strerror or exc}.",
            hint=f"Remove the folders in it that hold a file {MARK!r} by hand.",
        ) from exc


def _tidy_one(folder: Path, *, used: bool) -> None:
    mark = folder / MARK
    if used:
        mark.unlink(missing_ok=True)
        return
    if os.path.lexists(mark):
        for path in sorted(folder.iterdir()):
            if _IS_PART.fullmatch(path.name):
                path.unlink()
        mark.unlink()  # the last: what is left of it can be removed by the next run
    if not any(folder.iterdir()):
        folder.rmdir()


def _named(target: Path) -> str | None:
    """The generation that the file at `target` names: none is ""; None where that is not sure.

    Raises
    ------
    OSError
        It cannot be read.
    """
    if not is_file(target):
        return ""
    content = FileContent(target)
    try:
        content, file = open_hdf5(target, content)
    except FeatureFileError:
        return None
    with contextlib.closing(content), contextlib.closing(file):
        try:
            if text_attribute(file, "format") != SET_FORMAT:
                return ""
            return text_attribute(file, "folder")
        except FOREIGN:
            return None
