"""One HDF5 file under way: datasets that grow by whole chunks, their checksums and the seal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from tlpipe.stages.store.guard import GuardedFile
from tlpipe.stages.store.layout import (
    CHECKSUM_DTYPE,
    CHUNK_ROWS,
    COLUMNS,
    FORMAT,
    FORMAT_VERSION,
    LIBVER,
    TEXT,
    VECTORS,
    checksums,
    seal,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import Float32Array

_NO_SEAL = "0" * 64


@contextlib.contextmanager
def hdf5(path: Path, *, anew: bool = True) -> Iterator[tuple[h5py.File, GuardedFile]]:
    """An HDF5 file to write, and the guard that knows whether writing went well."""
    guard = GuardedFile(path) if anew else GuardedFile(path, "r+b")
    try:
        # No cache of chunks: whole ones are written, each to its place in the order they come in.
        with h5py.File(guard, "w" if anew else "r+", libver=LIBVER, rdcc_nbytes=0) as file:
            yield file, guard
    except Exception as exc:
        error = guard.taken()
        if error is not None and error is not exc:
            raise error from exc  # HDF5 stumbled over what could not be written
        raise
    finally:
        guard.close()
    guard.check()


@contextlib.contextmanager
def growing(path: Path, attributes: Mapping[str, str], dim: int) -> Iterator[GrowingFile]:
    """A new file; it is closed with the block, finished or not.

    Parameters
    ----------
    path : pathlib.Path
    attributes : mapping
        All text attributes of the root but marks and seal.
    dim : int
        D.

    Raises
    ------
    OSError
        It cannot be written.
    """
    with hdf5(path) as (file, guard):
        begun = GrowingFile(file, guard, attributes)
        begun.begin(dim)
        yield begun


@contextlib.contextmanager
def grown(path: Path, attributes: Mapping[str, str]) -> Iterator[GrowingFile]:
    """A file that was closed before it was finished, to finish it.

    Raises
    ------
    OSError
        It cannot be written.
    """
    with hdf5(path, anew=False) as (file, guard):
        found = GrowingFile(file, guard, attributes)
        found.load()
        yield found


class GrowingFile:
    """A feature file that is not finished: its labels are provisional, and it bears no seal."""

    def __init__(self, file: h5py.File, guard: GuardedFile, attributes: Mapping[str, str]) -> None:
        self._file, self._guard, self._attributes = file, guard, dict(attributes)
        self._datasets: dict[str, h5py.Dataset] = {}
        self._tables: dict[str, h5py.Dataset] = {}
        self._checksums: dict[str, list[int]] = {name: [] for name in COLUMNS}

    def begin(self, dim: int) -> None:
        """Make all datasets, empty."""
        file = self._file
        for name, value in self._attributes.items():
            file.attrs[name] = value
        file.attrs["format"] = FORMAT
        file.attrs["format_version"] = FORMAT_VERSION
        for name, column in COLUMNS.items():
            row = tuple(dim if n == -1 else n for n in column.row)
            dtype = h5py.string_dtype("utf-8") if column.dtype == TEXT else column.dtype
            self._datasets[name] = file.create_dataset(
                name, (0, *row), dtype, maxshape=(None, *row), chunks=(CHUNK_ROWS, *row)
            )
        # Tables and seal are there from the start, and on disk: what a cut-off file has left of
        # its front can then be read and compared.
        self._tables = {
            name: file.create_dataset(
                f"checksums/{name}", (0,), CHECKSUM_DTYPE, maxshape=(None,), chunks=(CHUNK_ROWS,)
            )
            for name in COLUMNS
        }
        file.attrs["seal"] = _NO_SEAL
        file.flush()
        self._guard.check()

    def load(self) -> None:
        """Take over what a file holds that was closed before."""
        self._datasets = {name: self._file[name] for name in COLUMNS}
        self._tables = {name: self._file[f"checksums/{name}"] for name in COLUMNS}
        self._checksums = {name: table[:].tolist() for name, table in self._tables.items()}
        self._guard.check()

    @property
    def chunks(self) -> int:
        """Number of chunks of rows."""
        return len(self._checksums["keys"])

    def append(self, name: str, values: NDArray[Any]) -> None:
        """Append rows to a dataset, whole chunks but for the last.

        Raises
        ------
        OSError
            They cannot be written.
        """
        dataset = self._datasets[name]
        start = dataset.shape[0]
        dataset.resize(start + len(values), axis=0)
        dataset[start:] = values
        found = checksums(values.tolist() if COLUMNS[name].dtype == TEXT else values)
        self._checksums[name] += found
        table = self._tables[name]
        first = table.shape[0]
        table.resize(first + len(found), axis=0)
        table[first:] = found
        if first % CHUNK_ROWS == 0:  # a chunk of the table gets its place before the rows after it
            table.flush()
        self._guard.check()

    def vector(self, row: int) -> Float32Array:
        """Embedding of a row that was written, float32 (D,)."""
        stored: Float32Array = self._datasets[VECTORS][row]
        return stored

    def finish(self, classes: NDArray[Any], final: NDArray[np.int32]) -> str:
        """Write the classes, turn the labels' numbers into theirs, and seal all.

        Parameters
        ----------
        classes : object array (K,)
            Names as UTF-8.
        final : int32 array (K + 1,)
            The number of each provisional number; the last entry serves the label -1.

        Returns
        -------
        str
            The seal.

        Raises
        ------
        OSError
            Something cannot be written.
        """
        if len(classes):
            self.append("classes", classes)
        labels = self._datasets["labels"]
        self._checksums["labels"] = []
        span = CHUNK_ROWS * 4096
        for start in range(0, labels.shape[0], span):
            part = final[labels[start : start + span]]
            labels[start : start + span] = part
            self._checksums["labels"] += checksums(part)
        self._tables["labels"][:] = self._checksums["labels"]
        tables = {}
        for name, values in self._checksums.items():
            tables[name] = np.array(values, CHECKSUM_DTYPE)
        shapes = {name: self._datasets[name].shape for name in COLUMNS}
        found = seal(self._attributes, shapes, tables)
        self._file.attrs.modify("seal", found)
        self._guard.check()
        return found
