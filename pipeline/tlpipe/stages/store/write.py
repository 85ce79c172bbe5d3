"""Writes feature files, a chunk at a time; one that grows too large becomes a set of files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from tlpipe.errors import FeatureFileError, OutputError
from tlpipe.files import move_whole, whole_file
from tlpipe.quantities import by_count
from tlpipe.stages.store.generations import Generation, supersede, tidy
from tlpipe.stages.store.growing import GrowingFile, growing, grown
from tlpipe.stages.store.layout import (
    CHUNK_ROWS,
    COLUMNS,
    ITEM_COLUMNS,
    VECTORS,
    FeatureHeader,
)
from tlpipe.stages.store.rows import Rows, stats_of
from tlpipe.stages.store.set_index import SetIndex, SetPart, write_index
from tlpipe.stages.store.structure import open_hdf5
from tlpipe.stages.store.summary import FeatureSummary

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import Float32Array, Reject


_BUFFER_ROWS = 16 * CHUNK_ROWS
"""Rows that are gathered before they are written: whole chunks."""

_SINGLE_CHUNKS = 16  # at a file's start

_NO_LIMIT = 1 << 62


@contextlib.contextmanager
def feature_writer(
    path: Path,
    header: FeatureHeader,
    dim: int,
    *,
    temporary: Path | None = None,
    set_above: int | None = None,
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
    set_above : int, optional
        Most rows that one file is to hold: what has more becomes a set of files of so many rows,
        and `path` its index. None for no limit.

    Raises
    ------
    FeatureFileError
        Not one row was added, so there is nothing to store.
    OutputError
        The file cannot be written.
    """
    target = Path(os.path.realpath(path))
    tidy(target)
    try:
        with (
            whole_file(path, temporary) as under_way,
            FeatureWriter(under_way, Generation(target), header, dim, set_above) as writer,
        ):
            yield writer
            writer.finish()
            supersede(target)
    except BaseException:
        with contextlib.suppress(OutputError):  # the error is being raised already
            tidy(target)
        raise
    tidy(target)


class FeatureWriter:
    """Gathers rows and appends them to a file a chunk at a time; begins a new file for each part.

    Attributes
    ----------
    summary : FeatureSummary
        What was added so far; its classes are known when all is written.
    """

    def __init__(
        self,
        path: Path,
        generation: Generation,
        header: FeatureHeader,
        dim: int,
        set_above: int | None,
    ) -> None:
        self.summary = FeatureSummary()
        self._path, self._generation, self._header, self._dim = path, generation, header, dim
        self._most = _NO_LIMIT if set_above is None else set_above
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
        self._full: list[tuple[int, int]] = []  # rows and rejects of the parts before
        self._rows = self._rejects = 0  # of the file under way
        self._stack = contextlib.ExitStack()
        self._file = self._begun(path)
        self._seen: tuple[int, Any] | None = None  # an earlier part that is looked into
        self._looking = contextlib.ExitStack()

    def _begun(self, path: Path) -> GrowingFile:
        return self._stack.enter_context(growing(path, self._attributes, self._dim))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        self._looking.close()
        self._stack.__exit__(kind, exc, at)

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
            if self._rows == self._most:
                self._end_part()
                self._file = self._begun(self._generation.under_way(len(self._full)))
            room = min(self._room() - self._held, self._most - self._rows, len(rows) - start)
            for name, buffer in self._buffer.items():
                buffer[self._held : self._held + room] = values[name][start : start + room]
            self._held += room
            self._rows += room
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
        self._rejects += 1
        self.summary.rejects[reject.reason] += 1
        if len(self._rejected) == CHUNK_ROWS:
            self._flush_rejects()

    def vector(self, row: int) -> Float32Array:
        """Embedding of a row added before, float32 (D,)."""
        part, row = divmod(row, self._most)
        if part < len(self._full):
            return self._stored(part, row)
        written = self._rows - self._held
        if row >= written:
            held: Float32Array = self._buffer[VECTORS][row - written]
            return held.copy()
        return self._file.vector(row)

    def _stored(self, part: int, row: int) -> Float32Array:
        """Embedding of a row in an earlier part, of which one at a time is open."""
        if self._seen is None or self._seen[0] != part:
            self._looking.close()
            content, file = open_hdf5(self._generation.under_way(part))
            self._looking.callback(content.close)
            self._looking.callback(file.close)
            self._seen = part, file[VECTORS]
        stored: Float32Array = self._seen[1][row]
        return stored

    def _room(self) -> int:
        """Rows to gather: single chunks at first, so that HDF5's structures stand at the front."""
        return CHUNK_ROWS if self._file.chunks < _SINGLE_CHUNKS else _BUFFER_ROWS

    def _numbered(self, labels: list[str | None]) -> NDArray[np.int32]:
        """Numbers of the classes in the order in which they are met."""
        for label in dict.fromkeys(labels):
            self._class_ids.setdefault(label, len(self._class_ids) - 1)
        return np.array([self._class_ids[label] for label in labels], np.int32)

    def _flush(self) -> None:
        if self._held:
            for name, buffer in self._buffer.items():
                self._file.append(name, buffer[: self._held])
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
                self._file.append(f"rejects/{name}", _encoded(column))
            stats = [(r.stat.size_bytes, r.stat.mtime_ns) for _, r in rejected]
            self._file.append("rejects/stat", stats_of(stats))
        self._rejected = []

    def _end_part(self) -> None:
        """Close the file under way, which is a part; the first has not been among the parts."""
        self._flush()
        self._flush_rejects()
        self._stack.close()
        if not self._full:
            self._generation.begin()
            self._path.replace(self._generation.under_way(0))
        self._full.append((self._rows, self._rejects))
        self._rows = self._rejects = 0

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
                f" ({by_count(summary.rejects)}); nothing was written.",
                hint="Correct what the reasons say, and run the same command again.",
            )
        classes = summary.classes = sorted(name for name in self._class_ids if name is not None)
        final = np.full(len(classes) + 1, -1, np.int32)  # the last entry serves label -1
        for number, name in enumerate(classes):
            final[self._class_ids[name]] = number
        if self._full:
            self._end_part()
            self._looking.close()
            self._finish_set(_encoded(classes), final)
        else:
            self._flush()
            self._flush_rejects()
            self._file.finish(_encoded(classes), final)

    def _finish_set(self, classes: NDArray[Any], final: NDArray[np.int32]) -> None:
        """Finish all parts, of which one at a time is open, and write the index."""
        generation, parts = self._generation, []
        for number, (rows, rejects) in enumerate(self._full):
            under_way, whole = generation.under_way(number), generation.part(number)
            with grown(under_way, self._attributes) as file:
                seal = file.finish(classes, final)
            move_whole(under_way, whole)
            parts.append(SetPart(whole.name, rows, rejects, seal))
        generation.sync()
        write_index(
            self._path, SetIndex(self._header, generation.name, tuple(parts)), self._dim, classes
        )


def _encoded(texts: list[str]) -> NDArray[Any]:
    values = np.empty(len(texts), object)
    values[:] = list(map(str.encode, texts))
    return values
