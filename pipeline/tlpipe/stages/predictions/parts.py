"""The finished rows of a run that is under way, or was cut short: work that a crash cannot take.

Beside ``predictions.csv`` stands the folder ``.predictions.csv.parts`` while it is written. A part
is a small file of rows that were made one after the other. It gets its name when it is whole and on
disk, and never changes; the next run of the same job takes its rows up. When the predictions have
taken their own name the folder is removed.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import time
from pathlib import Path

from tlpipe.errors import OutputError
from tlpipe.files import sync_folder, whole_file
from tlpipe.stages.predictions.part_file import OTHER_JOB, PartFile, described, write_part
from tlpipe.stages.predictions.rows import Row

_log = logging.getLogger(__name__)

PART_S = 15.0
"""Age of the oldest row at which a part is finished: what a crash can cost, in seconds of work."""

PART_ROWS = 8192
"""Rows at which a part is finished: they are in memory until then, and when they are taken up."""

_NAME = re.compile(r"([0-9]{6,})-[0-9a-f]{8}\.jsonl")

_DONE = "done"


class PredictionParts:
    """The folder of parts of a file of predictions.

    Parameters
    ----------
    target : pathlib.Path
        The predictions.
    job : str
        Stands for all that determines a row but the image: parts of another job are not used.
    run : str, optional
        Stands for a run in which several processes write parts; by default a new one.

    Attributes
    ----------
    job, run : str
    folder : pathlib.Path
    temporary : pathlib.Path
        Where the predictions are written before they take their name.
    kept : int
        Rows that this process has put into finished parts.
    next : int
        Number of the next part; other processes may write parts from there on.
    """

    def __init__(self, target: Path, job: str, run: str = "") -> None:
        self._target = real = Path(os.path.realpath(target))
        self.job, self.run = job, run or secrets.token_hex(8)
        self.folder = real.with_name(f".{real.name}.parts")
        self.temporary = self.folder / f"file{real.suffix}"
        self._tmp = self.folder / f"part-{secrets.token_hex(4)}.tmp"
        self.kept = 0
        self._rows: list[Row] = []
        self._since = 0.0
        self.next = 0

    def names(self) -> list[Path]:
        """Finished parts of any job, in the order in which they were written.

        Raises
        ------
        OutputError
            The folder cannot be listed.
        """
        try:
            found = [path for path in self.folder.iterdir() if _NAME.fullmatch(path.name)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as exc:
            raise OutputError(
                f"The unfinished work in {str(self.folder)!r} cannot be read: {exc.strerror}.",
                hint="Correct its permissions, or remove it by hand to do without it.",
            ) from exc
        return sorted(found, key=lambda path: (_number(path), path.name))

    def open(self) -> list[PartFile]:
        """What earlier runs of the same job left.

        Raises
        ------
        OutputError
            The folder cannot be listed.
        """
        if _mark_of(self._target) == self._done():
            return []  # that run was finished, and cut short when it had only to tidy up
        found = [described(path, self.job) for path in self.names()]
        if OTHER_JOB in found:
            _log.warning(
                "Unfinished predictions in %r are of another classifier or source, or say other"
                " things: they are not used.",
                str(self.folder),
            )
        return [part for part in found if part is not None and part is not OTHER_JOB]

    def begin(self, keep: list[PartFile]) -> None:
        """Make the folder ready for this run's parts; all but `keep` is removed from it.

        Raises
        ------
        OutputError
            The folder cannot be made or written.
        """
        kept = {part.path.name for part in keep}
        try:
            self.folder.mkdir(exist_ok=True)
            sync_folder(self.folder.parent)
            for path in self.folder.iterdir():
                if path.name not in kept:
                    path.unlink()
        except OSError as exc:
            raise OutputError(
                f"The folder {str(self.folder)!r} cannot be made or written: {exc.strerror}.",
                hint="It holds the finished work until the output is whole: the output's folder"
                " must be writable and have room.",
            ) from exc
        self.next = max((_number(part.path) for part in keep), default=-1) + 1

    def add(self, row: Row) -> None:
        """Take a row; finish a part when it is time.

        Raises
        ------
        OutputError
            The part cannot be written.
        """
        if not self._rows:
            self._since = time.monotonic()
        self._rows.append(row)
        self.keep_time()

    def keep_time(self) -> None:
        """Finish a part if it is time. To be called again and again while a run works.

        Raises
        ------
        OutputError
            As from ``add``.
        """
        if len(self._rows) >= PART_ROWS or time.monotonic() - self._since >= PART_S:
            self.finish()

    def finish(self) -> None:
        """Finish a part of the rows taken so far, if there are any.

        Raises
        ------
        OutputError
            The part cannot be written; its rows are still held.
        """
        if not self._rows:
            return
        write_part(self.folder, self.next, self._rows, self.job, self.run)
        self.next += 1
        self.kept += len(self._rows)
        self._rows = []

    def complete(self) -> None:
        """Note that the predictions in ``temporary`` are whole and about to take their name.

        Raises
        ------
        OSError
            That cannot be written.
        """
        with whole_file(self.folder / _DONE, self._tmp) as temporary:
            temporary.write_text(_mark_of(self.temporary), encoding="ascii")

    def _done(self) -> str:
        try:
            return (self.folder / _DONE).read_text(encoding="ascii")
        except OSError:
            return ""

    def remove(self) -> None:
        """Remove the folder and all that is in it.

        Raises
        ------
        OutputError
            The system refuses.
        """
        try:
            if self.folder.exists():
                # The mark last: without it the parts would be taken for those of a run cut short.
                for path in sorted(self.folder.iterdir(), key=lambda path: path.name == _DONE):
                    path.unlink()
                self.folder.rmdir()
        except OSError as exc:
            raise OutputError(
                f"The folder {str(self.folder)!r} cannot be removed: {exc.strerror}.",
                hint="It holds finished work that is not needed any more: remove it by hand.",
            ) from exc


def _number(path: Path) -> int:
    return int(path.name.partition("-")[0])


def _mark_of(path: Path) -> str:
    """What tells a file from another one that takes its name; it stays when it is renamed."""
    try:
        found = path.stat()
    except OSError:
        return "none"
    return f"{found.st_ino} {found.st_size} {found.st_mtime_ns}"
