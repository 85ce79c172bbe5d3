"""Reads what a feature file holds as a whole: all of it, or a description of it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tlpipe.errors import DamagedFileError
from tlpipe.stages.store.layout import CHUNK_ROWS, SPAN_ROWS, FeatureHeader
from tlpipe.stages.store.read import FeatureFile
from tlpipe.stages.store.rows import Rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tlpipe.types import Float32Array


_log = logging.getLogger(__name__)


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
    groups : int64 array (N,)
        Equal for images of one object; -1 for none.
    """

    header: FeatureHeader
    vectors: Float32Array
    keys: list[str]
    content_sha256: NDArray[np.uint8]
    labels: NDArray[np.int32]
    classes: list[str]
    splits: NDArray[np.int8]
    groups: NDArray[np.int64]


def read_features(path: Path) -> Features:
    """Read a whole feature file.

    Raises
    ------
    FeatureFileError
        The file is missing, is no feature file or of a newer version.
    DamagedFileError
        It is damaged.
    """
    with FeatureFile(path) as file:
        rows = file.rows(0, file.count)
        return Features(
            header=file.header,
            vectors=file.all_vectors(),
            keys=rows.keys,
            content_sha256=rows.content_sha256,
            labels=file.read("labels", 0, file.count),
            classes=file.classes,
            splits=rows.splits,
            groups=rows.groups,
        )


@dataclass(frozen=True)
class FeatureInfo:
    """What ``tlpipe inspect`` says of a feature file, without reading the vectors."""

    header: FeatureHeader
    version: int
    shape: tuple[int, int]
    classes: list[str]
    labels: Counter[tuple[int, str | None]]  # (split, label): rows
    rejects: Counter[str]
    files: int  # HDF5 files that hold the rows


def inspect_features(path: Path) -> FeatureInfo:
    """Describe a feature file.

    Raises
    ------
    FeatureFileError, DamagedFileError
        As from ``read_features``.
    """
    with FeatureFile(path) as file:
        labels: Counter[tuple[int, str | None]] = Counter()
        for start in range(0, file.count, SPAN_ROWS):
            rows = file.rows(start, min(start + SPAN_ROWS, file.count))
            labels.update(zip(rows.splits.tolist(), rows.labels, strict=True))
        rejects = Counter(str(reject.reason) for _, reject in file.rejects())
        shape = (file.count, file.dim)
        return FeatureInfo(
            file.header, file.version, shape, file.classes, labels, rejects, file.files
        )


def read_rejects(path: Path) -> list[tuple[str, str, str, str]]:
    """Key, stage, reason and detail of each item that was left out.

    Raises
    ------
    FeatureFileError, DamagedFileError
        As from ``read_features``.
    """
    with FeatureFile(path) as file:
        return [(key, str(r.stage), str(r.reason), r.detail) for key, r in file.rejects()]


def sound_rows(file: FeatureFile) -> Iterator[Rows]:
    """All rows of a file, with their vectors, but for damaged chunks, which are said."""
    for start in range(0, file.count, CHUNK_ROWS):
        try:
            yield file.rows(start, min(start + CHUNK_ROWS, file.count), vectors=True)
        except DamagedFileError as exc:
            _log.warning("%s The images are embedded again.", exc.message)
