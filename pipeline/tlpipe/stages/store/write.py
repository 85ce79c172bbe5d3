"""Writes feature files, a chunk at a time."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from tlpipe.errors import FeatureFileError
from tlpipe.files import whole_file
from tlpipe.stages.store.guard import GuardedFile
from tlpipe.stages.store.layout import (
    CHECKSUM_DTYPE,
    CHUNK_ROWS,
    COLUMNS,
    FORMAT,
    FORMAT_VERSION,
    ITEM_COLUMNS,
    LIBVER,
    TEXT,
    VECTORS,
    FeatureHeader,
    checksums,
    seal,
)
from tlpipe.stages.store.rows import Rows, stats_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import Float32Array, Reject


_BUFFER_ROWS = 16 * CHUNK_ROWS
"""Rows that are gathered before they are written: whole chunks."""

_SINGLE_CHUNKS = 16  # at a file's start


@dataclass
class FeatureSummary:
    """What was written."""

    count: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    classes: list[str] = field(default_factory=list)


@contextlib.contextmanager
def feature_writer(
    path: Path, header: FeatureHeader, dim: int, *, temporary: Path | None = None
) -> Iterator[FeatureWriter]:
    """Give a writer; the file appears whole when the block has ended well, or not at all.

    Parameters
    ----------
    path : pathlib.Path
        Replaced if it exists.
    header : FeatureHeader
    dim : int
        D.
    temporary : pathlib.Path, optional
        As for ``whole_file``.

    Raises
    ------
    FeatureFileError
        Not one row was added, so there is nothing to store.
    OutputError
        The file cannot be written.
    """
    with whole_file(path, temporary) as under_way, _hdf5(under_way) as (file, guard):
        writer = FeatureWriter(file, guard, header, dim)
        yield writer
        writer.finish()


@contextlib.contextmanager
def _hdf5(path: Path) -> Iterator[tuple[h5py.File, GuardedFile]]:
    """An HDF5 file to write, and the guard that knows whether writing went well."""
    guard = GuardedFile(path)
    try:
        # No cache of chunks: whole ones are written, each to its place in the order they come in.
        with h5py.File(guard, "w", libver=LIBVER, rdcc_nbytes=0) as file:
            yield file, guard
    except Exception as exc:
        if guard.error is not None and guard.error is not exc:
            raise guard.error from exc  # HDF5 stumbled over what could not be written
        raise
    finally:
        guard.close()
    guard.check()


def counted(reasons: Counter[str]) -> str:
    """Reasons with their counts, the commonest first: "3 truncated, 1 empty"."""
    return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())


class FeatureWriter:
    """Gathers rows and appends them to the datasets a chunk at a time, with their checksums.

    Attributes
    ----------
    summary : FeatureSummary
        What was added so far; its classes are known when all is written.
    """

    def __init__(
        self, file: h5py.File, guard: GuardedFile, header: FeatureHeader, dim: int
    ) -> None:
        self.summary = FeatureSummary()
        self._file, self._guard = file, guard
        self._attributes = header.to_attributes()
        self._class_ids: dict[str | None, int] = {None: -1}  # sorted at the end
        self._buffer = {
            name: np.empty(
                (_BUFFER_ROWS, *(dim if n == -1 else n for n in column.row)), column.dtype
            )
            for name, column in COLUMNS.items()
            if name in ITEM_COLUMNS
        }
        self._held = 0  # rows in the buffer
        self._rejected: list[tuple[str, Reject]] = []
        self._datasets: dict[str, h5py.Dataset] = {}
        self._checksums: dict[str, list[int]] = {name: [] for name in COLUMNS}
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
        file.attrs["seal"] = "0" * 64
        file.flush()
        guard.check()

    def add(self, rows: Rows) -> None:
        """Append rows, with their vectors.

        Raises
        ------
        OSError
            They cannot be written.
        """
        values: dict[str, Any] = {
            "keys": _encoded(rows.keys),
            "content_sha256": rows.content_sha256,
            "stat": rows.stat,
            "labels": self._numbered(rows.labels),
            "splits": rows.splits,
            "groups": rows.groups,
            VECTORS: rows.vectors,
        }
        start = 0
        while start < len(rows):
            room = min(self._room() - self._held, len(rows) - start)
            for name, buffer in self._buffer.items():
                buffer[self._held : self._held + room] = values[name][start : start + room]
            self._held += room
            start += room
            if self._held == self._room():
                self._flush()
        self.summary.count += len(rows)

    def reject(self, key: str, reject: Reject) -> None:
        """Note an item that is left out.

        Raises
        ------
        OSError
            It cannot be written.
        """
        self._rejected.append((key, reject))
        self.summary.rejects[reject.reason] += 1
        if len(self._rejected) == CHUNK_ROWS:
            self._flush_rejects()

    def vector(self, row: int) -> Float32Array:
        """Embedding of a row added before, float32 (D,)."""
        written = self.summary.count - self._held
        if row >= written:
            held: Float32Array = self._buffer[VECTORS][row - written]
            return held.copy()
        stored: Float32Array = self._datasets[VECTORS][row]
        return stored

    def _room(self) -> int:
        """Rows to gather: single chunks at first, so that HDF5's structures stand at the front."""
        few = len(self._checksums["keys"]) < _SINGLE_CHUNKS
        return CHUNK_ROWS if few else _BUFFER_ROWS

    def _numbered(self, labels: list[str | None]) -> NDArray[np.int32]:
        """Numbers of the classes in the order in which they are met."""
        for label in dict.fromkeys(labels):
            self._class_ids.setdefault(label, len(self._class_ids) - 1)
        return np.array([self._class_ids[label] for label in labels], np.int32)

    def _append(self, name: str, values: NDArray[Any]) -> None:
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

    def _flush(self) -> None:
        if self._held:
            for name, buffer in self._buffer.items():
                self._append(name, buffer[: self._held])
        self._held = 0

    def _flush_rejects(self) -> None:
        if rejected := self._rejected:
            texts = {
                "key": [key for key, _ in rejected],
                "stage": [str(reject.stage) for _, reject in rejected],
                "reason": [str(reject.reason) for _, reject in rejected],
                "detail": [reject.detail for _, reject in rejected],
            }
            for name, column in texts.items():
                self._append(f"rejects/{name}", _encoded(column))
            stats = [(r.stat.size_bytes, r.stat.mtime_ns) for _, r in rejected]
            self._append("rejects/stat", stats_of(stats))
        self._rejected = []

    def finish(self) -> None:
        """Write what is gathered, the classes in sorted order, the checksums and the seal.

        Raises
        ------
        FeatureFileError
            There is not one row.
        OSError
            Something cannot be written.
        """
        summary = self.summary
        if not summary.count:
            raise FeatureFileError(
                f"None of the {summary.rejects.total()} images could be embedded"
                f" ({counted(summary.rejects)}); nothing was written."
            )
        self._flush()
        self._flush_rejects()
        self._number_classes()
        tables = {}
        for name, values in self._checksums.items():
            tables[name] = np.array(values, CHECKSUM_DTYPE)
        shapes = {name: self._datasets[name].shape for name in COLUMNS}
        self._file.attrs.modify("seal", seal(self._attributes, shapes, tables))
        self._guard.check()

    def _number_classes(self) -> None:
        """Write the classes, sorted, and turn the labels' numbers into theirs."""
        classes = self.summary.classes = sorted(
            name for name in self._class_ids if name is not None
        )
        if classes:
            self._append("classes", _encoded(classes))
        final = np.full(len(classes) + 1, -1, np.int32)  # the last entry serves label -1
        for number, name in enumerate(classes):
            final[self._class_ids[name]] = number
        labels = self._datasets["labels"]
        self._checksums["labels"] = []
        span = CHUNK_ROWS * 4096
        for start in range(0, labels.shape[0], span):
            part = final[labels[start : start + span]]
            labels[start : start + span] = part
            self._checksums["labels"] += checksums(part)
        self._tables["labels"][:] = self._checksums["labels"]


def _encoded(texts: list[str]) -> NDArray[Any]:
    values = np.empty(len(texts), object)
    values[:] = list(map(str.encode, texts))
    return values
