"""What can be read of a feature file that may be damaged: chunk by chunk, each with what is wrong.

Where ``FeatureFile`` refuses a damaged file, this goes on. A file that was cut off is read as if it
were as long as it says, with zeros where its end was: what lies before the cut can be compared with
its checksums all the same.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tlpipe.errors import FeatureFileError, TlpipeError
from tlpipe.files import is_file
from tlpipe.stages.store.content import FileContent, check_lengths, stated_length
from tlpipe.stages.store.layout import (
    CHECKSUM_DTYPE,
    CHUNK_ROWS,
    TEXT,
    VECTORS,
    Column,
    checksums,
    seal,
)
from tlpipe.stages.store.structure import (
    CHECKSUMS_IN_1,
    FOREIGN,
    NO_FEATURE_FILE,
    UNREADABLE,
    check_version,
    columns_of,
    dataset_damage,
    header_fields,
    open_hdf5,
    optional_fields,
    text_attribute,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_LEFT = 100
"""A file of which less than one part in so many is left is not read: lengths cost time."""


@dataclass(frozen=True)
class Piece:
    """A chunk of rows of one dataset: an array or a list of bytes, or None, and what is wrong."""

    values: Any
    wrong: str = ""


class Remains:
    """A feature file of which some, or all, is good.

    Parameters
    ----------
    path : pathlib.Path

    Attributes
    ----------
    version : int
        Of the format.
    missing_bytes : int
        That were cut off.
    faults : list of (str, str)
        What is wrong with the structure: the dataset, or "" for the file, and words.
    columns : dict
        Datasets that can be read, wholly or in part.
    counts : dict
        Rows by kind ("items", "rejects", "classes"): as many as most of the datasets have.
    attributes : dict of str
        Those that can be read.
    tables : dict
        Checksums by dataset; without those that cannot be read.
    sealed : bool or None
        Whether attributes, shapes and checksums belong together; None in format 1.

    Raises
    ------
    FeatureFileError
        The file is missing, is no feature file or of a newer version, or nothing can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.missing_bytes = 0
        self.faults: list[tuple[str, str]] = []
        self._content, self._file = open_hdf5(path, self._cut_off())
        try:
            self.version = check_version(self._file, path)
            if self.version == 1 and "checksums" in self._file:
                self.version = 2
                self.faults.append(("", f"it says it is of format 1, {CHECKSUMS_IN_1}"))
            self._survey()
        except FOREIGN as exc:
            self.close()
            if isinstance(exc, TlpipeError):
                raise
            raise FeatureFileError(
                f"Nothing of {str(path)!r} can be read: {exc!r}.", hint=NO_FEATURE_FILE
            ) from exc
        except BaseException:
            self.close()
            raise

    def _cut_off(self) -> FileContent | None:
        """The file as it was, with zeros at its end, if it was cut off."""
        path = self.path
        if not is_file(path):
            return None
        try:
            size, stated = path.stat().st_size, stated_length(path)
            if stated is None or not size < stated <= LEAST_LEFT * size:
                return None
            self.missing_bytes = stated - size
            words = f"{self.missing_bytes} of its {stated} bytes were cut off at its end"
            self.faults.append(("", words))
            return FileContent(path, stated)
        except OSError as exc:
            raise FeatureFileError(
                f"{str(path)!r} cannot be read: {exc.strerror}.", hint=UNREADABLE
            ) from exc

    def _survey(self) -> None:
        file, size = self._file, self._file.id.get_filesize()
        self.attributes: dict[str, str] = {}
        optional = self._attempted("", lambda: optional_fields(file, self.version)) or []
        self.names = [*header_fields(self.version), *optional]
        for name in [*self.names, *(["seal"] if self.version > 1 else [])]:
            value = self._attempted("", lambda name=name: text_attribute(file, name))
            if value is None:
                self.faults.append(("", f"its attribute {name!r} cannot be read"))
            else:
                self.attributes[name] = value
        self.columns: dict[str, Column] = {}
        self._data: dict[str, Any] = {}
        self.tables: dict[str, NDArray[Any]] = {}
        for name, column in columns_of(self.version).items():
            if self._whole(name, column, size):
                self.columns[name] = column
                self._data[name] = file[name]
            table = f"checksums/{name}"
            if self.version > 1 and self._whole(table, Column(CHECKSUM_DTYPE), size):
                values = self._attempted(table, lambda table=table: file[table][:])
                if values is not None:
                    self.tables[name] = values
        self._count()
        self.sealed = self._sealed() if self.version > 1 else None

    def _attempted(self, name: str, read: Any) -> Any:
        """What `read` gives, or None and a fault."""
        try:
            return read()
        except FOREIGN as exc:
            self.faults.append((name, f"it cannot be read: {exc!r}"))
            return None

    def _whole(self, name: str, column: Column, size: int) -> bool:
        wrong: str | None = self._attempted(
            name, lambda: dataset_damage(self._file, name, column, size)
        )
        if wrong:
            self.faults.append((name, wrong))
        return wrong == ""

    def _count(self) -> None:
        self.counts: dict[str, int] = {}
        for kind in ("items", "rejects", "classes"):
            rows = [self.rows(name) for name, column in self.columns.items() if column.of == kind]
            found = Counter(rows).most_common(1)
            self.counts[kind] = found[0][0] if found else 0
        for name, column in self.columns.items():
            count, own = self.counts[column.of], self.rows(name)
            if own != count:
                what = f"{own - count} too many" if own > count else f"{count - own} are missing"
                self.faults.append((name, f"it has {own} rows, where {count} are right: {what}"))
            chunks = -(-count // CHUNK_ROWS)
            table = self.tables.get(name)
            if table is not None and len(table) != chunks:
                words = f"it has {len(table)} entries, where {chunks} are right"
                self.faults.append((f"checksums/{name}", words))

    def rows(self, name: str) -> int:
        """Number of rows that a dataset has, right or not."""
        return int(self._data[name].shape[0])

    @property
    def dim(self) -> int:
        """D, where the vectors can be read."""
        return int(self._data[VECTORS].shape[1])

    def _sealed(self) -> bool:
        names = columns_of(self.version)
        attributes = {name: self.attributes.get(name, "") for name in self.names}
        if not (self.columns.keys() >= names.keys() and self.tables.keys() >= names.keys()):
            return False
        shapes = {name: self._data[name].shape for name in names}
        return seal(attributes, shapes, self.tables) == self.attributes.get("seal")

    def chunks(self, kind: str) -> range:
        """Numbers of the chunks of rows of a kind."""
        return range(-(-self.counts[kind] // CHUNK_ROWS))

    def span(self, kind: str, chunk: int) -> tuple[int, int]:
        """First row of a chunk, and the row after its last."""
        start = chunk * CHUNK_ROWS
        return start, min(start + CHUNK_ROWS, self.counts[kind])

    def piece(self, name: str, chunk: int) -> Piece:
        """A chunk of a dataset, compared with its checksum."""
        if name not in self.columns:
            return Piece(None, "the dataset cannot be read")
        start, stop = self.span(self.columns[name].of, chunk)
        dataset = self._data[name]
        if dataset.shape[0] < stop:
            return Piece(None, f"the dataset ends after {dataset.shape[0]} rows")
        try:
            if dataset.dtype == TEXT:
                check_lengths(dataset, self._content, start, stop)
            values = dataset[start:stop]
            if values.dtype == TEXT:
                values = values.tolist()
                if not all(type(text) is bytes for text in values):
                    return Piece(None, "the text is none")
            if self.version == 1:
                return Piece(values)
            table = self.tables.get(name, ())
            if chunk >= len(table):
                return Piece(values, "there is no checksum to compare them with")
            if checksums(values) != [int(table[chunk])]:
                return Piece(values, "they are not those that were stored")
            return Piece(values)
        except FOREIGN as exc:
            return Piece(None, f"they cannot be read: {exc!r}")

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


def text_of(raw: bytes) -> str | None:
    """Text of its UTF-8; None where it is not that."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None
