"""Reads feature files, of one HDF5 file or of a set, after checking what they are."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from tlpipe.errors import DamagedFileError
from tlpipe.stages.store.layout import (
    COLUMNS,
    REJECT_COLUMNS,
    SET_ABOVE,
    SPAN_ROWS,
    TEXT,
    VECTORS,
)
from tlpipe.stages.store.many import ManyFiles
from tlpipe.stages.store.one import OneFile
from tlpipe.stages.store.rows import Rows
from tlpipe.stages.store.set_index import is_index, read_index
from tlpipe.stages.store.structure import MEND, foreign_errors, open_hdf5
from tlpipe.types import FileStat, Reason, Reject, Split, Stage

if TYPE_CHECKING:
    from tlpipe.types import Float32Array


def _stored(path: Path) -> OneFile | ManyFiles:
    """The HDF5 file at a path, or the files of the set whose index it is."""
    content, file = open_hdf5(path)
    try:
        with foreign_errors(path):
            index = read_index(path, file, content) if is_index(file) else None
    except BaseException:
        file.close()
        content.close()
        raise
    if index is None:
        return OneFile(path, content, file)
    file.close()
    content.close()
    return ManyFiles(path, index)


class FeatureFile:
    """An open feature file. What is read of it was checked against its checksums.

    Opening checks the structure, and the seal that binds attributes, shapes and checksums together:
    work that hardly grows with the file. Of a set it checks those of each part, and that it is the
    one that belongs. It may be read from several threads.

    Parameters
    ----------
    path : pathlib.Path

    Attributes
    ----------
    header : FeatureHeader
    version, count, reject_count, dim : int
        That of the format, N, number of rejects and D.
    columns : dict
        Datasets that it has.
    classes : list of str
    files : int
        HDF5 files that hold the rows.
    part_rows : int or None
        Rows of each file of a set, but for the last; None where there is only one file.

    Raises
    ------
    FeatureFileError
        The file is missing, is no feature file or of a newer version.
    DamagedFileError
        It is damaged, or a part of the set is missing or another one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stored = stored = _stored(path)
        self.header, self.version, self.columns = stored.header, stored.version, stored.columns
        self.count, self.dim, self.reject_count = stored.count, stored.dim, stored.reject_count
        self.classes, self.files, self.part_rows = stored.classes, stored.files, stored.part_rows
        self._names = np.array([*self.classes, None], object)  # the last serves the label -1

    def close(self) -> None:
        """Close the file; closing again does nothing."""
        self._stored.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def read(self, name: str, start: int, stop: int) -> Any:
        """Rows of one dataset, from `start` to before `stop`: an array, or a list of bytes.

        Raises
        ------
        DamagedFileError
        """
        return self._stored.read(name, start, stop)

    def labels(self, start: int, stop: int) -> list[str | None]:
        """Labels of rows.

        Raises
        ------
        DamagedFileError
        """
        numbers = self.read("labels", start, stop)
        with foreign_errors(self.path):
            if numbers.size and not -1 <= numbers.min() <= numbers.max() < len(self.classes):
                raise ValueError("labels that point beyond the classes")
            names: list[str | None] = self._names[numbers].tolist()
            return names

    def rows(self, start: int, stop: int, *, vectors: bool = False, texts: bool = True) -> Rows:
        """Rows from `start` to before `stop`; without `texts`, keys and labels are empty.

        Raises
        ------
        DamagedFileError
        """
        with foreign_errors(self.path):
            splits = self.read("splits", start, stop)
            if not np.isin(splits, list(Split)).all():
                raise ValueError(f"splits that are not of {[int(split) for split in Split]}")
            count = stop - start
            return Rows(
                keys=[k.decode() for k in self.read("keys", start, stop)]
                if texts
                else [""] * count,
                content_sha256=self.read("content_sha256", start, stop),
                stat=self.read("stat", start, stop),
                labels=self.labels(start, stop) if texts else [None] * count,
                splits=splits,
                groups=self.read("groups", start, stop)
                if "groups" in self.columns
                else np.full(count, -1, np.int64),
                vectors=self.vectors(start, stop) if vectors else None,
            )

    def vectors(self, start: int, stop: int) -> Float32Array:
        """Embeddings, float32 (stop - start, D).

        Raises
        ------
        DamagedFileError
            They are not those that were stored, or hold NaN or infinity.
        """
        found: Float32Array = self.read(VECTORS, start, stop)
        self._check_finite(found, start)
        return found

    def _check_finite(self, vectors: Float32Array, start: int) -> None:
        if np.isfinite(vectors.sum()):  # at once, and no sum of finite numbers hides another
            return
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if bad.size:
            row = start + int(bad[0])
            key = self.read("keys", row, row + 1)[0].decode()
            raise DamagedFileError(
                f"{str(self.path)!r} is damaged: {bad.size} embeddings hold NaN or infinity, the"
                f" first that of {key!r}.",
                hint=MEND,
            )

    def all_vectors(self) -> Float32Array:
        """All embeddings, float32 (N, D), each checked while the next are read.

        Raises
        ------
        DamagedFileError
        """
        with foreign_errors(self.path):
            whole: Float32Array = np.empty((self.count, self.dim), np.float32)
        self._stored.vectors_into(whole)
        for start in range(0, self.count, SPAN_ROWS):
            self._check_finite(whole[start : start + SPAN_ROWS], start)
        return whole

    def rejects(self, start: int = 0, stop: int | None = None) -> list[tuple[str, Reject]]:
        """Key of each item that was left out, and why.

        Raises
        ------
        DamagedFileError
        """
        stop = self.reject_count if stop is None else min(stop, self.reject_count)
        texts = {
            name: self.read(name, start, stop)
            for name in REJECT_COLUMNS
            if COLUMNS[name].dtype == TEXT
        }
        stats = self.read("rejects/stat", start, stop).tolist()
        with foreign_errors(self.path):
            return [
                (
                    key.decode(),
                    Reject(
                        Stage(stage.decode()),
                        Reason(reason.decode()),
                        detail.decode(),
                        FileStat(*stat),
                    ),
                )
                for key, stage, reason, detail, stat in zip(*texts.values(), stats, strict=True)
            ]


def rows_per_file(asked: int | None, before: FeatureFile | None = None) -> int:
    """Rows that one file is to hold at most: as asked, or as the parts of the set before, or many.

    Parameters
    ----------
    asked : int or None
    before : FeatureFile, optional
        What is updated.
    """
    if asked is None and before is not None:
        asked = before.part_rows
    return SET_ABOVE if asked is None else asked


def parted_as(file: FeatureFile, asked: int | None) -> bool:
    """Whether its rows lie in files as they would if it were written anew with `asked`."""
    most = rows_per_file(asked, file)
    return file.part_rows == (most if file.count > most else None) or asked is None
