"""The finished parts of a run that is under way, or was cut short: work that a crash cannot take.

Beside ``features.h5`` stands the folder ``.features.h5.parts`` while it is written. A part is a
small feature file of rows that were embedded one after the other. It gets its name when it is whole
and on disk, and never changes; the next run takes its rows up. When the feature file has taken its
own name the folder is removed.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tlpipe.errors import FeatureFileError
from tlpipe.files import sync_folder, whole_file
from tlpipe.parts_folder import PART_S, PartsFolder, mark_of, number_of
from tlpipe.stages.store.features import sound_rows
from tlpipe.stages.store.generations import tidy
from tlpipe.stages.store.layout import SPAN_ROWS, FeatureHeader
from tlpipe.stages.store.read import FeatureFile
from tlpipe.stages.store.rows import Rows
from tlpipe.stages.store.write import FeatureWriter, feature_writer

_log = logging.getLogger(__name__)

PART_BYTES = 32 << 20
"""Bytes of vectors at which a part is finished: they are held in memory until then."""

MANY = 16
"""Parts of earlier runs that are joined into one, so that few files are open at once."""

_ANEW = "anew"


class Parts(PartsFolder):
    """The folder of parts of a feature file. Used by one process at a time, which has the lock.

    Parameters
    ----------
    target : pathlib.Path
        The feature file.
    most : int
        How many stay open at once: ``open`` joins more.

    Attributes
    ----------
    folder : pathlib.Path
    temporary : pathlib.Path
        Where the feature file is written before it takes its name.
    kept : int
        Rows that this run has put into finished parts.
    next : int
        Number of the next part; others may write parts from there on.
    """

    def __init__(self, target: Path, most: int = MANY) -> None:
        super().__init__(target, r"[0-9]+\.h5", _ANEW)
        self._most = most
        self.temporary = self.folder / "file.tmp"
        self._tmp = self.folder / "part.tmp"
        self._rows: list[Rows] = []
        self._bytes, self.next, self._dim, self._since = 0, 0, 0, 0.0
        self._header: FeatureHeader | None = None

    @property
    def anew(self) -> bool:
        """Whether the run that was cut short was to start anew, without the existing file.

        The mark of such a run says which file that was. Another one under its name is that which
        the run has finished.

        Raises
        ------
        OutputError
            The mark cannot be read.
        """
        said = self.marked()
        if said is None:
            return False
        inode, _, state = said.partition(" ")
        inode_now, _, state_now = mark_of(self.target).partition(" ")
        return inode == inode_now or state == state_now  # some systems number files at each mount

    def open(self) -> list[FeatureFile]:
        """Open the finished parts; many are joined first. Damaged ones are left out, and said.

        Raises
        ------
        OutputError
            They cannot be joined.
        """
        if len(self.names()) > self._most:
            self._join()
        return list(self._opened())

    def _opened(self) -> Iterator[FeatureFile]:
        for path in self.names():
            with contextlib.ExitStack() as stack:
                try:
                    file = stack.enter_context(FeatureFile(path))
                    for start in range(0, file.count, SPAN_ROWS):  # vectors are read when used
                        file.rows(start, min(start + SPAN_ROWS, file.count))
                except FeatureFileError as exc:
                    _log.warning("%s Its images are embedded again.", exc.message)
                    continue
                stack.pop_all()
                yield file

    def _join(self) -> None:
        """Make one part of all; a crash in between leaves rows twice, which does no harm."""
        paths, providers, header = [], set(), None
        for file in self._opened():  # one at a time: a long run may have left thousands
            file.close()
            header, found = header or file.header, file.header
            if found.fingerprint != header.fingerprint:
                return
            paths.append(file.path)
            providers.update(found.provider.split(", "))
            header = replace(header, created_at=min(header.created_at, found.created_at))
        if header is None:
            return
        header = replace(header, provider=", ".join(sorted(providers)))
        path = part_path(self.folder, number_of(paths[-1]) + 1)
        with contextlib.ExitStack() as stack:
            writer: FeatureWriter | None = None
            for name in paths:
                with FeatureFile(name) as file:
                    for rows in sound_rows(file):
                        if writer is None:
                            joined = feature_writer(path, header, file.dim, temporary=self._tmp)
                            writer = stack.enter_context(joined)
                        writer.add(rows)
        try:
            for name in paths:
                name.unlink()
        except OSError as exc:
            raise self._unremovable(exc) from exc

    def begin(self, header: FeatureHeader, dim: int, *, anew: bool) -> None:
        """Make the folder ready for a run's parts.

        Parameters
        ----------
        header : FeatureHeader
            Of the parts.
        dim : int
            D.
        anew : bool
            Whether the existing file is not to be used; remembered for a next run.

        Raises
        ------
        OutputError
            The folder cannot be made or written.
        """
        self._header, self._dim = header, dim
        self.next = max(map(number_of, self.names()), default=-1) + 1
        mark = self._mark
        try:
            self.folder.mkdir(exist_ok=True)
            sync_folder(self.folder.parent)
            if not anew:
                mark.unlink(missing_ok=True)
            unmarked = anew and not mark.exists()
        except OSError as exc:
            raise self._unmakable(exc) from exc
        if unmarked:
            with whole_file(mark, self._tmp) as under_way:
                under_way.write_text(mark_of(self.target), encoding="ascii")

    def add(self, rows: Rows) -> None:
        """Take rows; finish a part when it is time.

        Raises
        ------
        OutputError
            The part cannot be written.
        """
        if not self._rows:
            self._since = time.monotonic()
        self._rows.append(rows)
        self._bytes += 0 if rows.vectors is None else rows.vectors.nbytes
        self.keep_time()

    def keep_time(self) -> None:
        """Finish a part if it is time. To be called again and again while a run works.

        Raises
        ------
        OutputError
            As from ``add``.
        """
        if self._bytes >= PART_BYTES or time.monotonic() - self._since >= PART_S:
            self.finish()

    def finish(self) -> None:
        """Finish a part of the rows taken so far, if there are any.

        Raises
        ------
        OutputError
            The part cannot be written; its rows are still held.
        """
        if not self._rows or self._header is None:
            return
        path = part_path(self.folder, self.next)
        with feature_writer(path, self._header, self._dim, temporary=self._tmp) as writer:
            for rows in self._rows:
                writer.add(rows)
        self.next += 1
        self.kept += sum(map(len, self._rows))
        self._rows, self._bytes = [], 0

    def remove(self) -> None:
        """Remove the folder and all that is in it, and what was left over of a set.

        Raises
        ------
        OutputError
            The system refuses.
        """
        super().remove()
        tidy(self.target)


def part_path(folder: Path, number: int) -> Path:
    """Path of a part."""
    return folder / f"{number:06d}.h5"
