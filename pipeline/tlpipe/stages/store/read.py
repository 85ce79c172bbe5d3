"""Reads feature files, after checking that they are what they should be."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from tlpipe.errors import FeatureFileError
from tlpipe.files import is_file
from tlpipe.stages.store.layout import FORMAT, FORMAT_VERSION, REJECT_TEXTS, FeatureHeader
from tlpipe.types import Split

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import Float32Array

# Kind of each dataset's type (as NumPy has it), and number of its axes.
_SHAPES = {
    "embeddings": ("f", 2),
    "keys": ("O", 1),
    "content_sha256": ("u", 2),
    "stat": ("V", 1),
    "labels": ("i", 1),
    "classes": ("O", 1),
    "splits": ("i", 1),
    **{f"rejects/{name}": ("O", 1) for name in REJECT_TEXTS},
}
_OF_OTHER_LENGTH = ("classes", *(f"rejects/{name}" for name in REJECT_TEXTS))


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


def read_features(path: Path) -> Features:
    """Read a whole feature file.

    Raises
    ------
    FeatureFileError
        The file is missing, is no feature file, is of a newer version, or is damaged.
    """
    with _open(path) as file:
        vectors = file["embeddings"][:].astype(np.float32, copy=False)
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if bad.size:
            raise FeatureFileError(
                f"{str(path)!r} is damaged: {bad.size} embeddings hold NaN or infinity, the first"
                f" that of {file['keys'].asstr()[bad[0]]!r}.",
                hint="Embed the images again.",
            )
        return Features(
            header=_header(file),
            vectors=vectors,
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


def read_rejects(path: Path) -> list[tuple[str, str, str, str]]:
    """Key, stage, reason and detail of each item that was left out.

    Raises
    ------
    FeatureFileError
        As from ``read_features``.
    """
    with _open(path) as file:
        columns = [file[f"rejects/{name}"].asstr()[:] for name in REJECT_TEXTS]
        return list(zip(*columns, strict=True))


@contextlib.contextmanager
def _open(path: Path) -> Iterator[h5py.File]:
    """Open a feature file for reading, or say why it is none or cannot be read."""
    if not is_file(path):
        raise FeatureFileError(f"The feature file {str(path)!r} does not exist.")
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as exc:
        raise FeatureFileError(
            f"{str(path)!r} is no HDF5 file, or is damaged: {exc}.",
            hint="A feature file is what 'tlpipe embed' writes.",
        ) from exc
    try:
        with file:
            _check_format(file, path)
            yield file
    except FeatureFileError:
        raise
    # What h5py makes of damaged bytes: sizes beyond all memory, text that is none, lost objects.
    except (KeyError, MemoryError, OSError, RuntimeError, TypeError, ValueError) as exc:
        raise FeatureFileError(
            f"{str(path)!r} is damaged: {exc!r}.", hint="Embed the images again."
        ) from exc


def _check_format(file: h5py.File, path: Path) -> None:
    mark = file.attrs.get("format")
    if not isinstance(mark, str) or mark != FORMAT:
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
    damage = _damage(file, path.stat().st_size)
    if damage:
        raise FeatureFileError(
            f"{str(path)!r} is damaged: {damage}.", hint="Embed the images again."
        )


def _damage(file: h5py.File, size_bytes: int) -> str:
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
        if dataset.size * dataset.dtype.itemsize > size_bytes:  # nothing is compressed
            return f"{name!r} claims {dataset.size} values in a file of {size_bytes} bytes"
        if name not in _OF_OTHER_LENGTH and dataset.shape[0] != count:
            return f"{name!r} has {dataset.shape[0]} rows and 'keys' has {count}"
    texts = ("keys", "classes", *(f"rejects/{name}" for name in REJECT_TEXTS))
    if any(h5py.check_string_dtype(file[name].dtype) is None for name in texts):
        return f"one of {list(texts)} is no text"
    if file["content_sha256"].shape[1] != 32:
        return f"'content_sha256' has the shape {file['content_sha256'].shape}"
    if not np.isin(file["splits"][:], list(Split)).all():
        return f"its splits are not all of {[int(split) for split in Split]}"
    labels = file["labels"][:]
    if labels.size and not -1 <= labels.min() <= labels.max() < file["classes"].shape[0]:
        return "its labels point beyond its classes"
    return ""


def _header(file: h5py.File) -> FeatureHeader:
    names = FeatureHeader.__dataclass_fields__
    return FeatureHeader(**{name: str(file.attrs[name]) for name in names})
