"""Store: writes and reads feature files (``features.h5``, format 1).

The only module that imports h5py. Takes outcomes in the source's order, gives a file that is whole
or not there; reads such files back. ``docs/feature-file.md`` specifies the format. Imports
``errors``, ``types`` and ``files``.

No HDF5 file that anyone may open is written in place: rows go to a temporary file, which takes the
output's name when it is whole and on disk. Since a file under its final name never changes, nothing
needs HDF5's file locks, and they are off (they fail on some network file systems).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from tlpipe.errors import FeatureFileError
from tlpipe.files import whole_file
from tlpipe.types import FileStat, Outcome, Reject, Split

if TYPE_CHECKING:
    from tlpipe.types import Float32Array

FORMAT = "tlpipe-features"
FORMAT_VERSION = 1
"""Raise it when a reader of the older version would misread a file; keep reading the older ones,
and add a file of each older version to the tests."""

CHUNK_ROWS = 256
"""Rows per chunk and per write. Uncompressed chunks of 64 to 1,024 rows write and read at the
disk's speed; embeddings hardly compress."""

STAT_DTYPE = np.dtype([("size_bytes", "<i8"), ("mtime_ns", "<i8")])

# Kind of each dataset's type (as NumPy has it), and number of its axes.
_SHAPES = {
    "embeddings": ("f", 2),
    "keys": ("O", 1),
    "content_sha256": ("u", 2),
    "stat": ("V", 1),
    "labels": ("i", 1),
    "classes": ("O", 1),
    "splits": ("i", 1),
}
_TEXT = h5py.string_dtype("utf-8")


@dataclass(frozen=True)
class FeatureHeader:
    """What a feature file says of itself: its root attributes.

    Attributes
    ----------
    backbone : str
        The card as JSON.
    """

    tlpipe_version: str
    fingerprint: str
    backbone: str
    provider: str
    precision: str
    decoder: str
    source: str
    created_at: str


@dataclass
class FeatureSummary:
    """What was written."""

    count: int = 0
    rejects: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Features:
    """The content of a feature file.

    Attributes
    ----------
    vectors : float32 array (N, D)
    keys : list of str
    content_sha256 : uint8 array (N, 32)
    labels : int32 array (N,)
        Index into `classes`, -1 for none.
    classes : list of str
        Sorted.
    splits : int8 array (N,)
        Values of ``Split``.
    """

    header: FeatureHeader
    vectors: Float32Array
    keys: list[str]
    content_sha256: NDArray[np.uint8]
    labels: NDArray[np.int32]
    classes: list[str]
    splits: NDArray[np.int8]


def write_features(
    path: Path, header: FeatureHeader, dim: int, outcomes: Iterable[Outcome]
) -> FeatureSummary:
    """Write a feature file; it appears whole or not at all.

    Parameters
    ----------
    path : pathlib.Path
        Replaced if it exists.
    header : FeatureHeader
    dim : int
        D.
    outcomes : iterable of Outcome
        In the order the rows are to have; each has a value "embeddings", float32 (D,), or a
        reject.

    Raises
    ------
    FeatureFileError
        Not one item could be embedded, so there is nothing to store.
    OutputError
        The file cannot be written.
    """
    summary = FeatureSummary()
    with whole_file(path) as temporary, h5py.File(temporary, "w", locking=False) as file:
        writer = _Writer(file, dim)
        for outcome in outcomes:
            writer.add(outcome)
            if outcome.reject is None:
                summary.count += 1
            else:
                summary.rejects[outcome.reject.reason] += 1
        if not summary.count:
            raise FeatureFileError(
                f"None of the {summary.rejects.total()} images could be embedded"
                f" ({counted(summary.rejects)}); nothing was written."
            )
        writer.finish()
        for name, value in vars(header).items():
            file.attrs[name] = value
        file.attrs["format"] = FORMAT
        file.attrs["format_version"] = FORMAT_VERSION
    return summary


def counted(reasons: Counter[str]) -> str:
    """Reasons with their counts, the commonest first: "3 truncated, 1 empty"."""
    return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())


class _Writer:
    """Buffers rows and appends them to resizable datasets, a chunk at a time."""

    def __init__(self, file: h5py.File, dim: int) -> None:
        self._file = file
        self._rows: list[Outcome] = []
        self._rejected: list[tuple[str, Reject]] = []
        self._class_ids: dict[str, int] = {}  # in the order they are met; sorted at the end
        self._create("embeddings", np.dtype("<f4"), (dim,))
        self._create("keys", _TEXT)
        self._create("content_sha256", np.dtype("u1"), (32,))
        self._create("stat", STAT_DTYPE)
        self._create("labels", np.dtype("<i4"))
        self._create("splits", np.dtype("i1"))
        for name in ("key", "stage", "reason", "detail"):
            self._create(f"rejects/{name}", _TEXT)
        self._create("rejects/stat", STAT_DTYPE)

    def _create(self, name: str, dtype: Any, row: tuple[int, ...] = ()) -> None:
        self._file.create_dataset(
            name, (0, *row), dtype, maxshape=(None, *row), chunks=(CHUNK_ROWS, *row)
        )

    def _append(self, name: str, values: Any, count: int) -> None:
        dataset = self._file[name]
        start = dataset.shape[0]
        dataset.resize(start + count, axis=0)
        dataset[start:] = values

    def add(self, outcome: Outcome) -> None:
        if outcome.reject is not None:
            self._rejected.append((outcome.item.key, outcome.reject))
        else:
            self._rows.append(outcome)
        if len(self._rows) >= CHUNK_ROWS or len(self._rejected) >= CHUNK_ROWS:
            self._flush()

    def _flush(self) -> None:
        if rows := self._rows:
            contents = [row.content for row in rows if row.content is not None]
            digests = b"".join(content.sha256 for content in contents)
            columns = {
                "embeddings": np.stack([row.values["embeddings"] for row in rows]),
                "keys": [row.item.key for row in rows],
                "content_sha256": np.frombuffer(digests, np.uint8).reshape(len(rows), 32),
                "stat": _stats([content.stat for content in contents]),
                "labels": np.array([self._class_id(row.item.label) for row in rows], np.int32),
                "splits": np.array([row.item.split for row in rows], np.int8),
            }
            for name, values in columns.items():
                self._append(name, values, len(rows))
        if rejected := self._rejected:
            for name in ("stage", "reason", "detail"):
                texts = [str(getattr(reject, name)) for _, reject in rejected]
                self._append(f"rejects/{name}", texts, len(rejected))
            self._append("rejects/key", [key for key, _ in rejected], len(rejected))
            self._append("rejects/stat", _stats([r.stat for _, r in rejected]), len(rejected))
        self._rows, self._rejected = [], []

    def _class_id(self, label: str | None) -> int:
        if label is None:
            return -1
        return self._class_ids.setdefault(label, len(self._class_ids))

    def finish(self) -> None:
        """Write what is buffered, and number the classes in sorted order."""
        self._flush()
        classes = sorted(self._class_ids)
        self._file.create_dataset("classes", data=classes, dtype=_TEXT, shape=(len(classes),))
        final = np.full(len(classes) + 1, -1, np.int32)  # the last entry serves label -1
        for number, name in enumerate(classes):
            final[self._class_ids[name]] = number
        labels = self._file["labels"]
        for start in range(0, labels.shape[0], 1 << 20):
            part = slice(start, start + (1 << 20))
            labels[part] = final[labels[part]]


def _stats(stats: list[FileStat]) -> NDArray[Any]:
    return np.array([(stat.size_bytes, stat.mtime_ns) for stat in stats], STAT_DTYPE)


def is_feature_file(path: Path) -> bool:
    """Whether a file says that it is a feature file, of whatever version."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            return bool(file.attrs.get("format") == FORMAT)
    except OSError:
        return False


def read_features(path: Path) -> Features:
    """Read a whole feature file.

    Raises
    ------
    FeatureFileError
        The file is missing, is no feature file, is of a newer version, or is damaged.
    """
    with _open(path) as file:
        return Features(
            header=_header(file),
            vectors=file["embeddings"][:].astype(np.float32, copy=False),
            keys=list(file["keys"].asstr()[:]),
            content_sha256=file["content_sha256"][:],
            labels=file["labels"][:],
            classes=list(file["classes"].asstr()[:]),
            splits=file["splits"][:],
        )


@dataclass(frozen=True)
class FeatureInfo:
    """What ``tlpipe inspect`` says of a feature file, without reading the vectors."""

    header: FeatureHeader
    shape: tuple[int, int]
    classes: list[str]
    labels: Counter[tuple[int, int]]  # (split, label): rows
    rejects: Counter[str]


def inspect_features(path: Path) -> FeatureInfo:
    """Describe a feature file.

    Raises
    ------
    FeatureFileError
        As from ``read_features``.
    """
    with _open(path) as file:
        pairs = zip(file["splits"][:].tolist(), file["labels"][:].tolist(), strict=True)
        return FeatureInfo(
            header=_header(file),
            shape=file["embeddings"].shape,
            classes=list(file["classes"].asstr()[:]),
            labels=Counter(pairs),
            rejects=Counter(file["rejects/reason"].asstr()[:].tolist()),
        )


def read_rejects(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """Key, stage, reason and detail of each item that was left out."""
    with _open(path) as file:
        columns = [
            file[f"rejects/{name}"].asstr()[:] for name in ("key", "stage", "reason", "detail")
        ]
        yield from zip(*columns, strict=True)


def _open(path: Path) -> h5py.File:
    """Open a feature file for reading, or say why it is none."""
    if not path.is_file():
        raise FeatureFileError(f"The feature file {str(path)!r} does not exist.")
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as exc:
        raise FeatureFileError(
            f"{str(path)!r} is no HDF5 file, or is damaged: {exc}.",
            hint="A feature file is what 'tlpipe embed' writes.",
        ) from exc
    try:
        _check_format(file, path)
    except BaseException:
        file.close()
        raise
    return file


def _check_format(file: h5py.File, path: Path) -> None:
    if file.attrs.get("format") != FORMAT:
        raise FeatureFileError(
            f"{str(path)!r} is an HDF5 file, but no feature file of tlpipe.",
            hint="A feature file is what 'tlpipe embed' writes.",
        )
    version = file.attrs.get("format_version")
    if not isinstance(version, (int, np.integer)):
        raise FeatureFileError(f"{str(path)!r} is damaged: it states no format version.")
    if version > FORMAT_VERSION:
        raise FeatureFileError(
            f"{str(path)!r} has format version {version}; this tlpipe reads up to"
            f" {FORMAT_VERSION}.",
            hint="Update tlpipe.",
        )
    damage = _damage(file)
    if damage:
        raise FeatureFileError(
            f"{str(path)!r} is damaged: {damage}.", hint="Embed the images again."
        )


def _damage(file: h5py.File) -> str:
    """What is wrong with a feature file's structure; empty where nothing is."""
    for name in FeatureHeader.__dataclass_fields__:
        if not isinstance(file.attrs.get(name), str):
            return f"it lacks the attribute {name!r}"
    missing = [name for name in _SHAPES if not isinstance(file.get(name), h5py.Dataset)]
    if missing:
        return f"it lacks {missing}"
    count = file["keys"].shape[0]
    for name, (kinds, axes) in _SHAPES.items():
        dataset = file[name]
        if dataset.dtype.kind not in kinds or dataset.ndim != axes:
            return f"{name!r} has the type {dataset.dtype} and the shape {dataset.shape}"
        if name != "classes" and dataset.shape[0] != count:
            return f"{name!r} has {dataset.shape[0]} rows and 'keys' has {count}"
    labels = file["labels"][:]
    if labels.size and not -1 <= labels.min() <= labels.max() < file["classes"].shape[0]:
        return "its labels point beyond its classes"
    return ""


def _header(file: h5py.File) -> FeatureHeader:
    names = FeatureHeader.__dataclass_fields__
    return FeatureHeader(**{name: str(file.attrs[name]) for name in names})


def split_name(value: int) -> str:
    """A split's name in lower case, "none" for none."""
    return Split(value).name.lower()
