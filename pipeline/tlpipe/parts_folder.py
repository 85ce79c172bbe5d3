"""The folder beside an output in which a run keeps its finished parts, until the output is whole.

May import ``errors`` only.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from tlpipe.errors import OutputError

PART_S = 15.0
"""Age of the oldest row at which a part is finished: what a crash can cost, in seconds of work."""


class PartsFolder:
    """A folder of numbered parts, and a mark that says what they are for.

    Parameters
    ----------
    target : pathlib.Path
        The output.
    part : str
        Regular expression for the name of a part, which begins with its number.
    mark : str
        Name of the mark.

    Attributes
    ----------
    target, folder : pathlib.Path
        The output, links followed; and the folder.
    kept : int
        Rows that this process has put into finished parts.
    """

    def __init__(self, target: Path, part: str, mark: str) -> None:
        self.target = Path(os.path.realpath(target))
        self.folder = self.target.with_name(f".{self.target.name}.parts")
        self.kept = 0
        self._part, self._mark = re.compile(part), self.folder / mark

    def names(self) -> list[Path]:
        """Finished parts, in the order in which they were written.

        Raises
        ------
        OutputError
            The folder cannot be listed.
        """
        try:
            found = [path for path in self.folder.iterdir() if self._part.fullmatch(path.name)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as exc:
            raise self._unreadable(exc) from exc
        return sorted(found, key=lambda path: (number_of(path), path.name))

    def marked(self) -> str | None:
        """What the mark says; None where there is none.

        Raises
        ------
        OutputError
            It cannot be read.
        """
        try:
            return self._mark.read_text(encoding="ascii")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as exc:
            raise self._unreadable(exc) from exc

    def remove(self) -> None:
        """Remove the folder and all that is in it.

        Raises
        ------
        OutputError
            The system refuses.
        """
        try:
            if self.folder.exists():
                # The mark last: without it the parts would be taken for others.
                for path in sorted(self.folder.iterdir(), key=lambda path: path == self._mark):
                    path.unlink()
                self.folder.rmdir()
        except OSError as exc:
            raise self._unremovable(exc) from exc

    def _unreadable(self, exc: OSError) -> OutputError:
        return OutputError(
            f"The unfinished work in {str(self.folder)!r} cannot be read: {exc.strerror or exc}.",
            hint="Correct its permissions, or remove it by hand to do without it.",
        )

    def _unmakable(self, exc: OSError) -> OutputError:
        return OutputError(
            f"The folder {str(self.folder)!r} cannot be made: {exc.strerror or exc}.",
            hint="It holds the finished work until the output is whole: the output's folder must be"
            " writable and have room.",
        )

    def _unremovable(self, exc: OSError) -> OutputError:
        return OutputError(
            f"The folder {str(self.folder)!r} cannot be removed: {exc.strerror or exc}.",
            hint="It holds finished work that is not needed any more: remove it by hand.",
        )


def number_of(path: Path) -> int:
    """Number of a part: the digits with which its name begins."""
    found = re.match(r"[0-9]+", path.name)
    assert found is not None, "the name of a part begins with its number"
    return int(found[0])


def mark_of(path: Path) -> str:
    """What tells a file from another one that takes its name; it stays when it is renamed."""
    try:
        found = path.stat()
    except OSError:
        return "none"
    return f"{found.st_ino} {found.st_size} {found.st_mtime_ns}"
