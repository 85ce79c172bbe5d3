"""Some rows' embeddings as they lie in a feature file, read when they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tlpipe.stages.store.layout import VECTORS
from tlpipe.stages.store.read import FeatureFile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import Float32Array

_GAP = 64  # rows that are read with those on either side rather than stepped over
_SPAN = 2048  # rows that are read at once at most


class StoredVectors:
    """Embeddings (N, D) of some rows of an open feature file.

    Rows may be read from several threads at once. Memory holds what was asked for, and no more.

    Parameters
    ----------
    file : FeatureFile
        Stays open as long as this is used.
    rows : array of int
        Ascending row numbers.
    """

    def __init__(self, file: FeatureFile, rows: NDArray[np.intp]) -> None:
        self._file, self._rows = file, rows
        self._finite = np.zeros(file.count, np.bool_)  # rows that were looked at

    def __len__(self) -> int:
        return int(self._rows.size)

    @property
    def shape(self) -> tuple[int, int]:
        """N and D."""
        return len(self), self._file.dim

    def read(self, start: int, stop: int, /) -> Float32Array:
        """Rows from `start` to before `stop`.

        Raises
        ------
        DamagedFileError
        """
        return self._load(self._rows[start:stop])

    def take(self, rows: NDArray[np.intp], /) -> Float32Array:
        """Rows by ascending number among these.

        Raises
        ------
        DamagedFileError
        """
        return self._load(self._rows[rows])

    __getitem__ = take

    def load(self) -> Float32Array:
        """All of them, in memory.

        Raises
        ------
        DamagedFileError
        """
        found = np.empty(self.shape, np.float32)
        for start in range(0, len(self), _SPAN):
            stop = min(start + _SPAN, len(self))
            found[start:stop] = self.read(start, stop)
        return found

    def _load(self, rows: NDArray[np.intp]) -> Float32Array:
        if rows.size and rows[-1] - rows[0] + 1 == rows.size <= _SPAN:
            return self._block(int(rows[0]), int(rows[-1]) + 1)
        found = np.empty((rows.size, self._file.dim), np.float32)
        at = 0
        while at < rows.size:
            first = int(rows[at])
            end = int(np.searchsorted(rows, first + _SPAN))
            wide = np.flatnonzero(np.diff(rows[at:end]) > _GAP)
            end = at + int(wide[0]) + 1 if wide.size else end
            block = self._block(first, int(rows[end - 1]) + 1)
            found[at:end] = block[rows[at:end] - first]
            at = end
        return found

    def _block(self, start: int, stop: int) -> Float32Array:
        """Consecutive rows of the file; whether they are finite is looked at once."""
        if self._finite[start:stop].all():
            known: Float32Array = self._file.read(VECTORS, start, stop)
            return known
        block = self._file.vectors(start, stop)
        self._finite[start:stop] = True
        return block
