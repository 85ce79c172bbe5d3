"""Reads feature files, after checking that they are what they should be."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import h5py
import numpy as np

from tlpipe.errors import DamagedFileError, FeatureFileError
from tlpipe.files import is_file
from tlpipe.stages.store.layout import (
    CHUNK_ROWS,
    COLUMNS,
    REJECT_COLUMNS,
    TEXT,
    VECTORS,
    FeatureHeader,
    checksums,
    seal,
)
from tlpipe.stages.store.rows import Rows
from tlpipe.stages.store.structure import (
    MEND,
    NO_FEATURE_FILE,
    check_version,
    columns_of,
    damage_of,
    header_fields,
)
from tlpipe.types import FileStat, Reject, Split
from tlpipe.types import Reason as RejectReason
from tlpipe.types import Stage as RejectStage

if TYPE_CHECKING:
    from tlpipe.types import Float32Array

SPAN_ROWS = 32 * CHUNK_ROWS
"""Rows read at once where all are read: 8,192."""


@contextlib.contextmanager
def foreign_errors(path: Path) -> Iterator[None]:
    """Turn what h5py makes of damaged bytes into one error: absurd sizes, lost objects, no text."""
    try:
        yield
    except FeatureFileError:
        raise
    except (KeyError, MemoryError, OSError, RuntimeError, TypeError, ValueError) as exc:
        raise DamagedFileError(f"{str(path)!r} is damaged: {exc!r}.", hint=MEND) from exc


class FeatureFile:
    """An open feature file. What is read of it was checked against its checksums.

    Opening checks the structure, and the seal that binds attributes, shapes and checksums together:
    work that hardly grows with the file. Use it in one thread at a time.

    Parameters
    ----------
    path : pathlib.Path
    content : file object, optional
        Read instead of the file at `path`.

    Attributes
    ----------
    header : FeatureHeader
    version : int
        Of the format.
    count, dim : int
        N and D.
    classes : list of str

    Raises
    ------
    FeatureFileError
        The file is missing, is no feature file or of a newer version.
    DamagedFileError
        It is damaged.
    """

    def __init__(self, path: Path, content: Any = None, *, sealed: bool = True) -> None:
        self.path = path
        self._file = _open(path, content)
        try:
            with foreign_errors(path):
                self._start(path, sealed)
        except BaseException:
            self._file.close()
            raise

    def _start(self, path: Path, sealed: bool) -> None:
        file = self._file
        self.version = check_version(file, path)
        damage = damage_of(file, self.version, file.id.get_filesize())
        if damage:
            raise DamagedFileError(f"{str(path)!r} is damaged: {damage}.", hint=MEND)
        self.columns = columns_of(self.version)
        names = header_fields(self.version)
        self.header = FeatureHeader(**{name: file.attrs[name] for name in names})
        self.count, self.dim = file[VECTORS].shape
        self.reject_count = file[REJECT_COLUMNS[0]].shape[0]
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
        self.classes = [text.decode() for text in self.read("classes", 0, file["classes"].shape[0])]
        self._names = np.array([*self.classes, None], object)  # the last serves the label -1

    def expected_seal(self) -> str:
        """The seal that this file should bear."""
        attributes = {name: str(self._file.attrs[name]) for name in header_fields(self.version)}
        shapes = {name: self._file[name].shape for name in self.columns}
        return seal(attributes, shapes, self._tables)

    def close(self) -> None:
        """Close the file; closing again does nothing."""
        self._file.close()

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
        dataset = self._file[name]
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
            values = dataset[start:stop]
            if values.dtype != TEXT:
                return values
            texts: list[Any] = values.tolist()
            if not all(type(text) is bytes for text in texts):
                raise ValueError("text that is none")
            return texts

    def _compare(self, name: str, chunk: int, found: int) -> None:
        if found != int(self._tables[name][chunk]):
            start = chunk * CHUNK_ROWS
            stop = min(start + CHUNK_ROWS, len(self._file[name]))
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

    def rows(self, start: int, stop: int, *, vectors: bool = False) -> Rows:
        """Rows from `start` to before `stop`.

        Raises
        ------
        DamagedFileError
        """
        with foreign_errors(self.path):
            splits = self.read("splits", start, stop)
            if not np.isin(splits, list(Split)).all():
                raise ValueError(f"splits that are not of {[int(split) for split in Split]}")
            none = np.full(stop - start, -1, np.int64)
            return Rows(
                keys=[key.decode() for key in self.read("keys", start, stop)],
                content_sha256=self.read("content_sha256", start, stop),
                stat=self.read("stat", start, stop),
                labels=self.labels(start, stop),
                splits=splits,
                groups=self.read("groups", start, stop) if "groups" in self.columns else none,
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
        dataset = self._file[VECTORS]
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
                        RejectStage(stage.decode()),
                        RejectReason(reason.decode()),
                        detail.decode(),
                        FileStat(*stat),
                    ),
                )
                for key, stage, reason, detail, stat in zip(*texts.values(), stats, strict=True)
            ]


def _open(path: Path, content: Any) -> h5py.File:
    if content is None and not is_file(path):
        raise FeatureFileError(f"The feature file {str(path)!r} does not exist.")
    try:
        return h5py.File(path if content is None else content, "r", locking=False)
    except PermissionError as exc:
        raise FeatureFileError(f"{str(path)!r} cannot be read: {exc.strerror}.") from exc
    except (KeyError, MemoryError, OSError, RuntimeError, ValueError) as exc:
        raise FeatureFileError(
            f"{str(path)!r} is no HDF5 file, or is damaged: {exc}.",
            hint=f"{NO_FEATURE_FILE} {MEND}",
        ) from exc
