"""The files of a set as one: each span of rows is read from the files it lies in."""

from __future__ import annotations

import bisect
import contextlib
import itertools
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.errors import DamagedFileError, FeatureFileError
from tlpipe.stages.store.layout import COLUMNS
from tlpipe.stages.store.one import OneFile
from tlpipe.stages.store.set_index import SetIndex, SetPart
from tlpipe.stages.store.structure import open_hdf5

if TYPE_CHECKING:
    from tlpipe.types import Float32Array

MOST_OPEN = 16
"""Part files that stay open at once, and as many more as there are threads that read."""

MISSING = (
    "The index and the folder beside it belong together: copy or move both. 'tlpipe verify FILE'"
    " names all that is damaged; 'tlpipe repair FILE -o OTHER' keeps what is good."
)


class PartPaths:
    """Where the parts of a set lie.

    Parameters
    ----------
    path : pathlib.Path
        Of the index.
    index : SetIndex
    """

    def __init__(self, path: Path, index: SetIndex) -> None:
        self._path, self._index = path, index
        self._beside = Path(os.path.realpath(path)).parent

    def path(self, number: int) -> Path:
        """Path of a part, whether it is there or not."""
        return self._beside / self._index.folder / self._index.parts[number].file

    def checked(self, number: int) -> Path:
        """Path of a part: a regular file in folders of its own, reached through no link.

        Raises
        ------
        DamagedFileError
            It is missing, or something else.
        """
        part = self.path(number)
        for path, right in (
            (part.parent.parent, stat.S_ISDIR),
            (part.parent, stat.S_ISDIR),
            (part, stat.S_ISREG),
        ):
            try:
                mode = path.lstat().st_mode
            except OSError as exc:
                raise self.wrong(number, f"cannot be found: {exc.strerror or exc}") from exc
            if stat.S_ISLNK(mode):
                raise self.wrong(number, f"is not read: {str(path)!r} is a symbolic link")
            if not right(mode):
                raise self.wrong(number, f"is not read: {str(path)!r} is something else")
        return part

    def wrong(self, number: int, why: str) -> DamagedFileError:
        """Error for a part."""
        return DamagedFileError(
            f"{str(self._path)!r} is not whole: its part {str(self.path(number))!r} {why}.",
            hint=MISSING,
        )

    def opened(self, number: int) -> OneFile:
        """Open a part, and see that it is the one that the index lists.

        Raises
        ------
        DamagedFileError
            It is missing, damaged or another one.
        """
        listed: SetPart = self._index.parts[number]
        path = self.checked(number)
        try:
            part = OneFile(path, *open_hdf5(path))
        except DamagedFileError:
            raise
        except FeatureFileError as exc:
            raise self.wrong(number, f"cannot be used. {exc.message}") from exc
        found = (part.seal, part.count, part.reject_count)
        if not part.seal or found != (listed.seal, listed.rows, listed.rejects):
            part.close()
            raise self.wrong(number, "is another file than the one that belongs there")
        return part


@dataclass
class _Held:
    """A part that is open, and how many threads read it now."""

    file: OneFile
    readers: int = 0


class ManyFiles:
    """The open files of a set, some at a time; it may be read from several threads.

    Parameters
    ----------
    path : pathlib.Path
        Of the index.
    index : SetIndex

    Attributes
    ----------
    header, version, count, reject_count, dim, columns, classes
        As of ``OneFile``.
    files : int
        Number of parts.
    part_rows : int
        Rows of the first part: that of all but the last.

    Raises
    ------
    DamagedFileError
        A part is missing, damaged or another one.
    """

    def __init__(self, path: Path, index: SetIndex) -> None:
        self.path, self.header, self.files = path, index.header, len(index.parts)
        self.part_rows = index.parts[0].rows
        self._paths = PartPaths(path, index)
        self._bases = {
            "items": list(itertools.accumulate((p.rows for p in index.parts), initial=0)),
            "rejects": list(itertools.accumulate((p.rejects for p in index.parts), initial=0)),
        }
        self.count, self.reject_count = self._bases["items"][-1], self._bases["rejects"][-1]
        self._lock = threading.Lock()
        self._held: OrderedDict[int, _Held] = OrderedDict()  # the latest used stand last
        self._closed = False
        try:
            with self._part(0) as first:
                self.version, self.columns = first.version, first.columns
                self.dim, self.classes = first.dim, first.classes
            for number in range(self.files):
                self._check(number)
        except BaseException:
            self.close()
            raise

    def _check(self, number: int) -> None:
        with self._part(number) as part:
            if part.header != self.header or part.dim != self.dim:
                raise self._paths.wrong(number, "was made in another way than the index says")
            if part.classes != self.classes:
                raise self._paths.wrong(number, "numbers the classes otherwise than the first")

    @contextlib.contextmanager
    def _part(self, number: int) -> Iterator[OneFile]:
        """A part, open as long as the block lasts, and maybe longer."""
        with self._lock:
            if self._closed:
                raise ValueError(f"{str(self.path)!r} is closed")
            held = self._held.get(number)
            if held is None:
                held = self._held[number] = _Held(self._paths.opened(number))
            held.readers += 1
            self._held.move_to_end(number)
            self._let_go(MOST_OPEN)
        try:
            yield held.file
        finally:
            with self._lock:
                held.readers -= 1

    def _let_go(self, most: int) -> None:
        """Close parts that nobody reads, the longest unused first, until `most` are open."""
        for number in [n for n, held in self._held.items() if not held.readers]:
            if len(self._held) <= most:
                break
            self._held.pop(number).file.close()

    def close(self) -> None:
        """Close all files; closing again does nothing."""
        with self._lock:
            self._closed = True
            while self._held:
                self._held.popitem()[1].file.close()

    def read(self, name: str, start: int, stop: int) -> Any:
        """Rows of one dataset, from `start` to before `stop`: an array, or a list of bytes.

        Raises
        ------
        DamagedFileError
        """
        kind = COLUMNS[name].of
        if kind == "classes":
            with self._part(0) as part:
                return part.read(name, start, stop)
        bases, found = self._bases[kind], []
        number = max(0, bisect.bisect_right(bases, start) - 1)
        while number < self.files and bases[number] < stop:
            first, last = max(start, bases[number]), min(stop, bases[number + 1])
            if first < last:
                with self._part(number) as part:
                    found.append(part.read(name, first - bases[number], last - bases[number]))
            number += 1
        if len(found) == 1:
            return found[0]
        if not found:
            with self._part(0) as part:
                return part.read(name, 0, 0)
        if isinstance(found[0], list):
            return [text for texts in found for text in texts]
        return np.concatenate(found)

    def vectors_into(self, whole: Float32Array) -> None:
        """Read all embeddings.

        Parameters
        ----------
        whole : float32 array (N, D)
            Is filled.

        Raises
        ------
        DamagedFileError
        """
        bases = self._bases["items"]
        for number in range(self.files):
            with self._part(number) as part:
                part.vectors_into(whole[bases[number] : bases[number + 1]])
