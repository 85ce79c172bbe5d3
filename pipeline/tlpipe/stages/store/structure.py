"""Whether an opened HDF5 file is a feature file, and nothing else: it may come from a stranger.

Every dataset must be where a feature file has it, with its type and shape, hold its data itself and
as they are: no links to other files, no data kept in other files, no views of other datasets, no
filters (which are code that HDF5 loads), no sizes that the file cannot hold.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import h5py

from tlpipe.errors import DamagedFileError, FeatureFileError, TlpipeError
from tlpipe.files import is_file, is_utf8
from tlpipe.near import no_file
from tlpipe.stages.store.content import FileContent
from tlpipe.stages.store.layout import (
    CHECKSUM_DTYPE,
    CHUNK_ROWS,
    COLUMNS,
    FORMAT,
    FORMAT_VERSION,
    HEADER_FIELDS,
    HEADER_FIELDS_OF_1,
    OPTIONAL_FIELDS,
    SET_FORMAT,
    TEXT,
    VECTORS,
    Column,
)

NO_FEATURE_FILE = "A feature file is what 'tlpipe embed' writes."
MEND = (
    "'tlpipe verify FILE' names all that is damaged; 'tlpipe repair FILE -o OTHER' keeps what is"
    " good."
)
UNREADABLE = "Correct its permissions (chmod u+r FILE), or copy it from where it is whole."

CHECKSUMS_IN_1 = "it has checksums, which format 1 does not have"

FOREIGN = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SystemError,
    TypeError,
    ValueError,
)
"""What h5py and NumPy raise on damaged bytes: absurd sizes, lost objects, unknown types."""


@contextlib.contextmanager
def foreign_errors(path: Path) -> Iterator[None]:
    """Turn what h5py and NumPy make of damaged bytes into one error."""
    try:
        yield
    except TlpipeError:
        raise
    except FOREIGN as exc:
        raise DamagedFileError(f"{str(path)!r} is damaged: {exc!r}.", hint=MEND) from exc


def open_hdf5(path: Path, content: FileContent | None = None) -> tuple[FileContent, h5py.File]:
    """Open an HDF5 file; both of what this gives are to be closed.

    Raises
    ------
    FeatureFileError
        The file is missing, cannot be read or is no HDF5 file.
    """
    if content is None and not is_file(path):
        message, hint = no_file(
            path,
            "The feature file",
            of_folder=f"Of images, 'tlpipe embed {path} -o features.h5' makes a feature file.",
        )
        raise FeatureFileError(message, hint=hint)
    try:
        content = content or FileContent(path)
        return content, h5py.File(content, "r")
    except PermissionError as exc:
        raise FeatureFileError(
            f"{str(path)!r} cannot be read: {exc.strerror}.", hint=UNREADABLE
        ) from exc
    except FOREIGN as exc:
        if content is not None:
            content.close()
        raise FeatureFileError(
            f"{str(path)!r} is no HDF5 file, or is damaged: {exc}.",
            hint=f"{NO_FEATURE_FILE} {MEND}",
        ) from exc


def check_version(file: h5py.File, path: Path) -> int:
    """Format version of a file that is a feature file of a version that can be read.

    Raises
    ------
    FeatureFileError
    """
    if file.userblock_size:
        raise FeatureFileError(
            f"{str(path)!r} is no feature file: something else stands before it (a user block).",
            hint=NO_FEATURE_FILE,
        )
    mark = text_attribute(file, "format")
    if mark == SET_FORMAT:
        raise FeatureFileError(
            f"{str(path)!r} is the index of a set of feature files, and not one itself; if it is"
            " to be an index, it is cut off.",
            hint="Each part of a set is a feature file: 'tlpipe merge' makes one of several.",
        )
    if mark != FORMAT:
        raise FeatureFileError(
            f"{str(path)!r} is an HDF5 file, but no feature file of tlpipe.", hint=NO_FEATURE_FILE
        )
    version = integer_attribute(file, "format_version")
    if version is None or version < 1:
        raise FeatureFileError(f"{str(path)!r} is damaged: it states no format version.", hint=MEND)
    if version > FORMAT_VERSION:
        raise FeatureFileError(
            f"{str(path)!r} has format version {version}; this tlpipe reads up to"
            f" {FORMAT_VERSION}.",
            hint="Update tlpipe.",
        )
    return version


def columns_of(version: int) -> dict[str, Column]:
    """Datasets that a file of a format version has."""
    return {name: column for name, column in COLUMNS.items() if column.since <= version}


def header_fields(version: int) -> list[str]:
    """Attributes that a file of a format version has, but for its marks."""
    return HEADER_FIELDS if version > 1 else HEADER_FIELDS_OF_1


def optional_fields(file: h5py.File, version: int) -> list[str]:
    """Attributes of a file that a file of its format version may have."""
    return [name for name in OPTIONAL_FIELDS if version > 1 and name in file.attrs]


def damage_of(file: h5py.File, version: int, size_bytes: int) -> str:
    """What is wrong with a feature file's structure; empty where nothing is."""
    for name in [*header_fields(version), *optional_fields(file, version)]:
        if text_attribute(file, name) is None:
            return f"it lacks the attribute {name!r}"
    columns = columns_of(version)
    counts: dict[str, int] = {}
    for name, column in columns.items():
        wrong = dataset_damage(file, name, column, size_bytes)
        if wrong:
            return wrong
        rows = file[name].shape[0]
        first = next(n for n, c in columns.items() if c.of == column.of)
        if rows != counts.setdefault(column.of, rows):
            return f"{name!r} has {rows} rows and {first!r} has {counts[column.of]}"
    if version == 1:
        return "" if "checksums" not in file else CHECKSUMS_IN_1
    if text_attribute(file, "seal") is None:
        return "it lacks the attribute 'seal'"
    for name, column in columns.items():
        table = f"checksums/{name}"
        wrong = dataset_damage(file, table, Column(CHECKSUM_DTYPE), size_bytes)
        if wrong:
            return wrong
        chunks = -(-counts[column.of] // CHUNK_ROWS)
        if file[table].shape != (chunks,):
            return f"{table!r} has the shape {file[table].shape}; {(chunks,)} is right"
    return ""


def dataset_damage(file: h5py.File, name: str, column: Column, size_bytes: int) -> str:
    """What is wrong with one dataset, in words; empty where nothing is."""
    at: h5py.Group = file
    for part in name.split("/"):
        if not isinstance(at, h5py.Group):
            return f"it lacks {name!r}"
        link = at.get(part, getlink=True)
        if link is None:
            return f"it lacks {name!r}"
        if not isinstance(link, h5py.HardLink):
            return f"{name!r} is a link to elsewhere, which no feature file has"
        at = at[part]
    if not isinstance(at, h5py.Dataset):
        return f"it lacks {name!r}"
    return _storage_damage(at, name) or _shape_damage(at, name, column, size_bytes)


def _storage_damage(dataset: h5py.Dataset, name: str) -> str:
    if dataset.external:
        return f"{name!r} keeps its data in another file, which no feature file does"
    if dataset.is_virtual:
        return f"{name!r} is a view of other datasets, which no feature file has"
    if dataset.id.get_create_plist().get_nfilters():
        return f"{name!r} is stored through a filter, which no feature file is"
    return ""


def _shape_damage(dataset: h5py.Dataset, name: str, column: Column, size_bytes: int) -> str:
    if not isinstance(dataset.shape, tuple) or len(dataset.shape) != 1 + len(column.row):
        return f"{name!r} has the shape {dataset.shape}"
    row = tuple(
        length if wanted == -1 else wanted
        for wanted, length in zip(column.row, dataset.shape[1:], strict=True)
    )
    if column.dtype == TEXT:
        text = h5py.check_string_dtype(dataset.dtype)
        right = text is not None and text.length is None
    else:
        right = dataset.dtype == column.dtype
    if not right or dataset.shape[1:] != row or (name == VECTORS and row[0] < 1):
        return f"{name!r} has the type {dataset.dtype} and the shape {dataset.shape}"
    values = math.prod(dataset.shape)  # h5py's own product overflows
    if values * max(dataset.dtype.itemsize, 1) > size_bytes:  # nothing is compressed
        return f"{name!r} claims {values} values in a file of {size_bytes} bytes"
    return ""


def text_attribute(file: h5py.File, name: str) -> str | None:
    """A text attribute, or None where there is none or something else of that name."""
    if name not in file.attrs:
        return None
    identifier = file.attrs.get_id(name)
    text = h5py.check_string_dtype(identifier.dtype)
    if identifier.shape != () or text is None or text.length is not None:
        return None
    value = file.attrs[name]
    return value if isinstance(value, str) and is_utf8(value) else None


def integer_attribute(file: h5py.File, name: str) -> int | None:
    """An integer attribute, or None where there is none or something else of that name."""
    if name not in file.attrs:
        return None
    identifier = file.attrs.get_id(name)
    if identifier.shape != () or identifier.dtype.kind not in "iu":
        return None
    return int(file.attrs[name])
