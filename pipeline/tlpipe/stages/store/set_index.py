"""The index of a set of feature files: which files it consists of, and a view of all as one.

For a reader that knows only HDF5 it has the datasets of a feature file, as virtual datasets over
the part files; where a part is missing they show values that cannot be mistaken. This package
itself reads none of them: it takes the list of parts, and reads those.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from tlpipe.errors import DamagedFileError, FeatureFileError
from tlpipe.stages.store.content import FileContent
from tlpipe.stages.store.generations import is_folder_of_parts, part_name
from tlpipe.stages.store.growing import hdf5
from tlpipe.stages.store.layout import (
    COLUMNS,
    HEADER_FIELDS,
    OPTIONAL_FIELDS,
    SET_FORMAT,
    SET_VERSION,
    STAT_DTYPE,
    TEXT,
    VECTORS,
    Column,
    FeatureHeader,
)
from tlpipe.stages.store.structure import (
    NO_FEATURE_FILE,
    dataset_damage,
    foreign_errors,
    integer_attribute,
    open_hdf5,
    text_attribute,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

PARTS_DTYPE = np.dtype([("file", "S16"), ("rows", "<i8"), ("rejects", "<i8"), ("seal", "S64")])
"""An entry of the list of parts."""

_MISSING: dict[str, Any] = {
    "content_sha256": 0xFF,
    "stat": np.array((-1, -1), STAT_DTYPE),
    "labels": -1,
    "splits": -1,
    "groups": -1,
    VECTORS: np.nan,
    "rejects/stat": np.array((-1, -1), STAT_DTYPE),
}
"""What a view shows where a part is missing; texts are empty, which no key is."""


@dataclass(frozen=True)
class SetPart:
    """A part as the index lists it: the file's name, how many rows and rejects it has, its seal."""

    file: str
    rows: int
    rejects: int
    seal: str


@dataclass(frozen=True)
class SetIndex:
    """What an index says, but for the views.

    Attributes
    ----------
    header : FeatureHeader
        That of every part.
    folder : str
        Of the parts, from the index's folder on, with ``/``.
    parts : tuple of SetPart
        In the order of their rows.
    """

    header: FeatureHeader
    folder: str
    parts: tuple[SetPart, ...]

    def seal(self) -> str:
        """SHA-256 that binds attributes and parts together: 64 hexadecimal digits."""
        whole = {
            "attributes": self.header.to_attributes() | {"folder": self.folder},
            "parts": [[part.file, part.rows, part.rejects, part.seal] for part in self.parts],
        }
        text = json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def views(self) -> Iterator[tuple[str, int, list[tuple[int, int, int]]]]:
        """The virtual datasets: name, number of rows, and first row, rows and part of each piece.

        Without those that have no rows at all, and without the classes, which each part has.
        """
        for kind in ("items", "rejects"):
            counts = [part.rows if kind == "items" else part.rejects for part in self.parts]
            starts = itertools.accumulate(counts, initial=0)
            pieces = [
                (start, count, number)
                for number, (start, count) in enumerate(zip(starts, counts, strict=False))
                if count
            ]
            if pieces:
                for name, column in COLUMNS.items():
                    if column.of == kind:
                        yield name, sum(counts), pieces

    def source(self, part: int) -> str:
        """The path of a part as HDF5 has it in a view: a % begins no pattern."""
        return f"{self.folder}/{self.parts[part].file}".replace("%", "%%")


def write_index(path: Path, index: SetIndex, dim: int, classes: NDArray[Any]) -> None:
    """Write an index; no part is looked at.

    Parameters
    ----------
    path : pathlib.Path
    index : SetIndex
    dim : int
        D.
    classes : object array (K,)
        Names as UTF-8.

    Raises
    ------
    OSError
        It cannot be written.
    """
    with hdf5(path) as (file, guard):
        attributes = index.header.to_attributes()
        for name, value in attributes.items():
            file.attrs[name] = value
        file.attrs["format"] = SET_FORMAT
        file.attrs["format_version"] = SET_VERSION
        file.attrs["folder"] = index.folder
        file.attrs["seal"] = index.seal()
        file.create_dataset(
            "parts",
            data=np.array([(p.file, p.rows, p.rejects, p.seal) for p in index.parts], PARTS_DTYPE),
        )
        for name, count, pieces in index.views():
            row, dtype = row_of(name, dim)
            layout = h5py.VirtualLayout((count, *row), dtype)
            for start, rows, part in pieces:
                source = h5py.VirtualSource(index.source(part), name, (rows, *row), dtype)
                layout[start : start + rows] = source
            file.create_virtual_dataset(name, layout, fillvalue=_MISSING.get(name))
        for name in COLUMNS:
            if name not in file:
                row, dtype = row_of(name, dim)
                shape = (len(classes) if name == "classes" else 0, *row)
                file.create_dataset(name, shape, dtype)
        if len(classes):
            file["classes"][:] = classes
        guard.check()


def row_of(name: str, dim: int) -> tuple[tuple[int, ...], Any]:
    """Shape and type of a row as h5py takes them."""
    column = COLUMNS[name]
    dtype = h5py.string_dtype("utf-8") if column.dtype == TEXT else column.dtype
    return tuple(dim if n == -1 else n for n in column.row), dtype


def index_of(path: Path) -> SetIndex | None:
    """What a file says where it is the index of a set; None where it is not, or cannot be opened.

    Raises
    ------
    FeatureFileError
        It is an index of a newer version, or a damaged one.
    """
    try:
        content, file = open_hdf5(path)
    except FeatureFileError:
        return None
    with contextlib.closing(content), contextlib.closing(file), foreign_errors(path):
        return read_index(path, file, content) if is_index(file) else None


def is_index(file: h5py.File) -> bool:
    """Whether an HDF5 file says that it is the index of a set."""
    return not file.userblock_size and text_attribute(file, "format") == SET_FORMAT


def read_index(path: Path, file: h5py.File, content: FileContent) -> SetIndex:
    """Read an index, which may come from a stranger. No other file is opened.

    Raises
    ------
    FeatureFileError
        It is of a newer version.
    DamagedFileError
        It is damaged.
    """
    with foreign_errors(path):
        version = integer_attribute(file, "format_version")
        if version is not None and version > SET_VERSION:
            raise FeatureFileError(
                f"{str(path)!r} is the index of a set of format version {version}; this tlpipe"
                f" reads up to {SET_VERSION}.",
                hint="Update tlpipe.",
            )
        fields = [*HEADER_FIELDS, *(name for name in OPTIONAL_FIELDS if name in file.attrs)]
        texts = {name: text_attribute(file, name) for name in (*fields, "folder", "seal")}
        lost = [name for name, text in texts.items() if text is None]
        wrong = dataset_damage(file, "parts", Column(PARTS_DTYPE), content.length)
        if version is None or version < 1 or lost or wrong:
            raise _damaged(path, wrong or f"it lacks the attributes {lost or ['format_version']}")
        parts = tuple(
            SetPart(name.decode(), rows, rejects, seal.decode())
            for name, rows, rejects, seal in file["parts"][:].tolist()
        )
    known = {name: text for name, text in texts.items() if text is not None}
    index = SetIndex(
        FeatureHeader(**{name: known[name] for name in fields}), known["folder"], parts
    )
    if not is_folder_of_parts(index.folder):
        raise _damaged(path, f"its parts are said to lie in {index.folder!r}, which is no folder"
                       " of parts beside it")  # fmt: skip
    for number, part in enumerate(parts):
        if part.file != part_name(number):
            raise _damaged(path, f"its part {number} is called {part.file!r}, which is no name of"
                           " a part")  # fmt: skip
        if part.rows < 1 or part.rejects < 0:
            raise _damaged(path, f"its part {number} is said to have {part.rows} rows")
    if not parts:
        raise _damaged(path, "it lists no parts")
    if index.seal() != known["seal"]:
        raise _damaged(path, "its attributes and its list of parts do not belong together")
    return index


def _damaged(path: Path, why: str) -> DamagedFileError:
    return DamagedFileError(
        f"The index {str(path)!r} is damaged: {why}.",
        hint="Each of its parts is a feature file of its own: 'tlpipe merge' makes one of several."
        f" {NO_FEATURE_FILE}",
    )
