"""Reads feature files, after checking that they are what they should be."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import h5py
import numpy as np

from tlpipe.errors import DamagedFileError
from tlpipe.stages.store.content import FileContent, check_lengths
from tlpipe.stages.store.layout import (
    CHUNK_ROWS,
    COLUMNS,
    REJECT_COLUMNS,
    SPAN_ROWS,
    TEXT,
    VECTORS,
    FeatureHeader,
    checksums,
    seal,
)
from tlpipe.stages.store.rows import Rows
from tlpipe.stages.store.structure import (
    MEND,
    check_version,
    columns_of,
    damage_of,
    foreign_errors,
    header_fields,
    open_hdf5,
    optional_fields,
)
from tlpipe.types import FileStat, Reason, Reject, Split, Stage

if TYPE_CHECKING:
    from tlpipe.types import Float32Array


class FeatureFile:
    """An open feature file. What is read of it was checked against its checksums.

    Opening checks the structure, and the seal that binds attributes, shapes and checksums together:
    work that hardly grows with the file. It may be read from several threads.

    Parameters
    ----------
    path : pathlib.Path
    content : FileContent, optional
        Read instead of the file at `path`.

    Attributes
    ----------
    header : FeatureHeader
    version, count, dim : int
        That of the format, N and D.
    classes : list of str

    Raises
    ------
    FeatureFileError
        The file is missing, is no feature file or of a newer version.
    DamagedFileError
        It is damaged.
    """

    def __init__(
        self, path: Path, content: FileContent | None = None, *, sealed: bool = True
    ) -> None:
        self.path = path
        self._content, self._file = open_hdf5(path, content)
        try:
            with foreign_errors(path):
                self._start(path, sealed)
        except BaseException:
            self.close()
            raise

    def _start(self, path: Path, sealed: bool) -> None:
        file = self._file
        self.version = check_version(file, path)
        damage = damage_of(file, self.version, file.id.get_filesize())
        if damage:
            raise DamagedFileError(f"{str(path)!r} is damaged: {damage}.", hint=MEND)
        self.columns = columns_of(self.version)
        names = [*header_fields(self.version), *optional_fields(file, self.version)]
        self.header = FeatureHeader(**{name: file.attrs[name] for name in names})
        self._data = {name: file[name] for name in self.columns}
        self.count, self.dim = self._data[VECTORS].shape
        self.reject_count = self._data[REJECT_COLUMNS[0]].shape[0]
        self._tables: dict[str, Any] = {}
        self._good: dict[str, bytearray] = {}
        for name in self.columns if self.version > 1 else ():
            self._tables[name] = file[f"checksums/{name}"][:]
            self._good[name] = bytearray(len(self._tables[name]))
        if self.version > 1 and sealed and self.expected_seal() != file.attrs["seal"]:
            raise DamagedFileError(
                f"{str(path)!r} is damaged: its attributes, shapes and checksums do not belong"
                " together.",
                hint=MEND,
            )
        self.classes = [
            text.decode() for text in self.read("classes", 0, len(self._data["classes"]))
        ]
        self._names = np.array([*self.classes, None], object)  # the last serves the label -1

    def expected_seal(self) -> str:
        """The seal that this file should bear."""
        names = [*header_fields(self.version), *optional_fields(self._file, self.version)]
        attributes = {name: str(self._file.attrs[name]) for name in names}
        shapes = {name: data.shape for name, data in self._data.items()}
        return seal(attributes, shapes, self._tables)

    def close(self) -> None:
        """Close the file; closing again does nothing."""
        self._file.close()
        self._content.close()

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
        dataset = self._data[VECTORS]
        with foreign_errors(self.path), ThreadPoolExecutor(1) as pool:
            whole: Float32Array = np.empty(dataset.shape, np.float32)
            pending = []
            for start in range(0, self.count, CHUNK_ROWS):
                stop = min(start + CHUNK_ROWS, self.count)
                dataset.read_direct(whole, np.s_[start:stop], np.s_[start:stop])
                if VECTORS in self._tables:
                    pending.append(pool.submit(checksums, whole[start:stop]))
            for chunk, found in enumerate(pending):
                self._compare(VECTORS, chunk, found.result()[0])
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
