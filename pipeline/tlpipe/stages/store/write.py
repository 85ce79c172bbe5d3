"""Writes feature files, a chunk at a time."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from tlpipe.errors import FeatureFileError
from tlpipe.files import whole_file
from tlpipe.stages.store.guard import GuardedFile
from tlpipe.stages.store.layout import (
    CHUNK_ROWS,
    FORMAT,
    FORMAT_VERSION,
    LIBVER,
    REJECT_TEXTS,
    STAT_DTYPE,
    FeatureHeader,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import FileStat, Outcome, Reject

_TEXT = h5py.string_dtype("utf-8")


@dataclass
class FeatureSummary:
    """What was written."""

    count: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    classes: list[str] = field(default_factory=list)


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
    with whole_file(path) as temporary, _hdf5(temporary) as (file, guard):
        writer = _Writer(file, dim)
        for outcome in outcomes:
            writer.add(outcome)
            guard.check()
            if outcome.reject is None:
                summary.count += 1
            else:
                summary.rejects[outcome.reject.reason] += 1
        if not summary.count:
            raise FeatureFileError(
                f"None of the {summary.rejects.total()} images could be embedded"
                f" ({counted(summary.rejects)}); nothing was written."
            )
        summary.classes = writer.finish()
        for name, value in vars(header).items():
            file.attrs[name] = value
        file.attrs["format"] = FORMAT
        file.attrs["format_version"] = FORMAT_VERSION
    return summary


@contextlib.contextmanager
def _hdf5(path: Path) -> Iterator[tuple[h5py.File, GuardedFile]]:
    """An HDF5 file to write, and the guard that knows whether writing went well."""
    guard = GuardedFile(path)
    try:
        with h5py.File(guard, "w", libver=LIBVER) as file:
            yield file, guard
    finally:
        guard.close()
    guard.check()


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
        for name in REJECT_TEXTS:
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

    def finish(self) -> list[str]:
        """Write what is buffered, number the classes in sorted order, and give them."""
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
        return classes


def _stats(stats: list[FileStat]) -> NDArray[Any]:
    return np.array([(stat.size_bytes, stat.mtime_ns) for stat in stats], STAT_DTYPE)
