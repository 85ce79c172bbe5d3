"""The finished rows of a run that is under way, or was cut short: work that a crash cannot take.

Beside ``predictions.csv`` stands the folder ``.predictions.csv.parts`` while it is written. A part
is a small file of rows that were made one after the other. It gets its name when it is whole and on
disk, and never changes; the next run of the same job takes its rows up. When the predictions have
taken their own name the folder is removed.
"""

from __future__ import annotations

import logging
import secrets
import time
from pathlib import Path

from tlpipe.files import sync_folder, whole_file
from tlpipe.parts_folder import PART_S, PartsFolder, mark_of, number_of
from tlpipe.stages.predictions.part_file import OTHER_JOB, PartFile, described, write_part
from tlpipe.stages.predictions.rows import Row

_log = logging.getLogger(__name__)

PART_ROWS = 8192
"""Rows at which a part is finished: they are in memory until then, and when they are taken up."""

_DONE = "done"


class PredictionParts(PartsFolder):
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
        super().__init__(target, r"[0-9]{6,}-[0-9a-f]{8}\.jsonl", _DONE)
        self.job, self.run = job, run or secrets.token_hex(8)
        self.temporary = self.folder / f"file{self.target.suffix}"
        self._tmp = self.folder / f"part-{secrets.token_hex(4)}.tmp"
        self._rows: list[Row] = []
        self._since = 0.0
        self.next = 0

    def open(self) -> list[PartFile]:
        """What earlier runs of the same job left.

        Raises
        ------
        OutputError
            The folder cannot be listed.
        """
        if mark_of(self.target) == self.marked():
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
            raise self._unmakable(exc) from exc
        self.next = max((number_of(part.path) for part in keep), default=-1) + 1

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
        with whole_file(self._mark, self._tmp) as temporary:
            temporary.write_text(mark_of(self.temporary), encoding="ascii")
