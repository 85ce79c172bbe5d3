"""One HDF5 file of rows, after checking that it is what it should be."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from tlpipe.errors import DamagedFileError
from tlpipe.stages.store.content import FileContent, check_lengths
from tlpipe.stages.store.layout import (
    CHUNK_ROWS,
    REJECT_COLUMNS,
    TEXT,
    VECTORS,
    FeatureHeader,
    checksums,
    seal,
)
from tlpipe.stages.store.structure import (
    MEND,
    check_version,
    columns_of,
    damage_of,
    foreign_errors,
    header_fields,
    optional_fields,
)

if TYPE_CHECKING:
    from tlpipe.types import Float32Array


class OneFile:
    """An open HDF5 file of rows. What is read of it was checked against its checksums.

    Parameters
    ----------
    path : pathlib.Path
    content : FileContent
    file : h5py.File
        As ``open_hdf5`` gives them; closed with this, and where it cannot be used.

    Attributes
    ----------
    header : FeatureHeader
    version, count, reject_count, dim : int
        That of the format, N, number of rejects and D.
    columns : dict
        Datasets that a file of its version has.
    classes : list of str
    seal : str
        Empty in format 1.

    Raises
    ------
    FeatureFileError
        It is no feature file or of a newer version.
    DamagedFileError
        It is damaged.
    """

    part_rows: int | None = None
    """Rows of a part: it has none."""

    files = 1

    def __init__(self, path: Path, content: FileContent, file: h5py.File) -> None:
        self.path = path
        self._content, self._file = content, file
        try:
            with foreign_errors(path):
                self._start(path)
        except BaseException:
            self.close()
            raise

    def _start(self, path: Path) -> None:
        file = self._file
        self.version = check_version(file, path)
        damage = damage_of(file, self.version, file.id.get_filesize())
        if damage:
            raise DamagedFileError(f"{str(path)!r} is damaged: {damage}.", hint=MEND)
        self.columns = columns_of(self.version)
        names = [*header_fields(self.version), *optional_fields(file, self.version)]
        attributes = {name: str(file.attrs[name]) for name in names}
        self.header = FeatureHeader(**attributes)
        self._data = {name: file[name] for name in self.columns}
        self.count, self.dim = self._data[VECTORS].shape
        self.reject_count = self._data[REJECT_COLUMNS[0]].shape[0]
        self._tables: dict[str, Any] = {}
        self._good: dict[str, bytearray] = {}
        for name in self.columns if self.version > 1 else ():
            self._tables[name] = file[f"checksums/{name}"][:]
            self._good[name] = bytearray(len(self._tables[name]))
        self.seal = str(file.attrs["seal"]) if self.version > 1 else ""
        shapes = {name: data.shape for name, data in self._data.items()}
        if self.version > 1 and seal(attributes, shapes, self._tables) != self.seal:
            raise DamagedFileError(
                f"{str(path)!r} is damaged: its attributes, shapes and checksums do not belong"
                " together.",
                hint=MEND,
            )
        self.classes = [
            text.decode() for text in self.read("classes", 0, len(self._data["classes"]))
        ]

    def close(self) -> None:
        """Close the file; closing again does nothing."""
        self._file.close()
        self._content.close()

    def read(self, name: str, start: int, stop: int) -> Any:
        """Rows of one dataset, from `start` to before `stop`: an array, or a list of bytes.

        Raises
        ------
        DamagedFileError
        """
        known = self._good.get(name)
        first, last = start // CHUNK_ROWS, -(-stop // CHUNK_ROWS)
        dataset = self._data[name]
        if start >= stop or known is None or all(known[first:last]):
            return self._values(dataset, start, stop)
        values = self._values(dataset, first * CHUNK_ROWS, min(last * CHUNK_ROWS, len(dataset)))
        with foreign_errors(self.path):
            for chunk, found in enumerate(checksums(values), first):
                self._compare(name, chunk, found)
                known[chunk] = 1
        return values[start - first * CHUNK_ROWS : stop - first * CHUNK_ROWS]

    def _values(self, dataset: h5py.Dataset, start: int, stop: int) -> Any:
        with foreign_errors(self.path):
            if dataset.dtype == TEXT:
                check_lengths(dataset, self._content, start, stop)
            values = dataset[start:stop]
            if values.dtype != TEXT:
                return values
            texts: list[Any] = values.tolist()
            if not set(map(type, texts)) <= {bytes}:
                raise ValueError("text that is none")
            b"\0".join(texts).decode()  # whoever decodes one of them later meets no error
            return texts

    def _compare(self, name: str, chunk: int, found: int) -> None:
        if found != int(self._tables[name][chunk]):
            start = chunk * CHUNK_ROWS
            stop = min(start + CHUNK_ROWS, len(self._data[name]))
            raise DamagedFileError(
                f"{str(self.path)!r} is damaged: rows {start} to {stop - 1} of {name!r} are not"
                " those that were stored.",
                hint=MEND,
            )

    def vectors_into(self, whole: Float32Array) -> None:
        """Read all embeddings, each checked while the next are read.

        Parameters
        ----------
        whole : float32 array (N, D)
            Is filled.

        Raises
        ------
        DamagedFileError
        """
        dataset = self._data[VECTORS]
        with foreign_errors(self.path), ThreadPoolExecutor(1) as pool:
            pending = []
            for start in range(0, self.count, CHUNK_ROWS):
                stop = min(start + CHUNK_ROWS, self.count)
                dataset.read_direct(whole, np.s_[start:stop], np.s_[start:stop])
                if VECTORS in self._tables:
                    pending.append(pool.submit(checksums, whole[start:stop]))
            for chunk, found in enumerate(pending):
                self._compare(VECTORS, chunk, found.result()[0])
