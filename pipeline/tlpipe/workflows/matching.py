"""Which images several feature files have in common.

Takes the paths of feature files, gives row numbers, and what the first file says of those rows.
A row is the same image where key and content are the same. No embedding is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.errors import FeatureFileError
from tlpipe.stages.store import SPAN_ROWS, FeatureFile, FeatureHeader, Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import Float32Array

_Identity = tuple[str, bytes, int]  # key, content, how many rows before have the same


@dataclass(frozen=True)
class Described:
    """A feature file without its embeddings.

    Attributes
    ----------
    name : str
        The path in quotes, as messages show it.
    count, dim : int
        N and D.
    rows : Rows
    """

    path: Path
    header: FeatureHeader
    count: int
    dim: int
    rows: Rows

    @property
    def name(self) -> str:
        """The path in quotes, as messages show it."""
        return repr(str(self.path))


@dataclass(frozen=True)
class Common:
    """The images that all files have, M of them, in the order of the first file.

    Attributes
    ----------
    rows : list of int arrays (M,)
        For each file, where they stand in it.
    labels : int32 array (M,)
        Index into `classes`, -1 for none.
    classes : list of str
        Those that occur, sorted.
    splits, groups : int8 and int64 arrays (M,)
    content_sha256 : uint8 array (M, 32)
    notices : list of str
        What was left out, and where the files do not agree.
    """

    rows: list[NDArray[np.intp]]
    labels: NDArray[np.int32]
    classes: list[str]
    splits: NDArray[np.int8]
    groups: NDArray[np.int64]
    content_sha256: NDArray[np.uint8]
    notices: list[str]


def described(path: Path) -> Described:
    """Read all of a feature file but its embeddings.

    Raises
    ------
    FeatureFileError, DamagedFileError
        As from ``FeatureFile``.
    """
    with FeatureFile(path) as file:
        return Described(path, file.header, file.count, file.dim, file.rows(0, file.count))


def match(files: Sequence[Described]) -> Common:
    """Find the images that all files have.

    Labels, splits and groups are the first file's.

    Raises
    ------
    FeatureFileError
        There is no such image.
    """
    first = files[0]
    identities = _identities(first.rows)
    places = [np.arange(first.count)]
    for other in files[1:]:
        at = {identity: row for row, identity in enumerate(_identities(other.rows))}
        found = np.array([at.get(identity, -1) for identity in identities], np.intp)
        if not (found >= 0).any():
            raise _nothing_in_common(first, other)
        places.append(found)
    everywhere = np.all([place >= 0 for place in places], axis=0)
    if not everywhere.any():
        raise FeatureFileError(
            f"No image stands in all {len(files)} feature files.",
            hint="Compare files of the same images.",
        )
    rows = [place[everywhere] for place in places]
    kept = first.rows.only(everywhere)
    notices = [
        f"{file.name}: {file.count - kept_rows.size:,} of {file.count:,} images are left out, which"
        " not all files have."
        for file, kept_rows in zip(files, rows, strict=True)
        if file.count > kept_rows.size
    ]
    for other, there in zip(files[1:], rows[1:], strict=True):
        notices += _disagreements(first, kept, other, there)
    classes = sorted({label for label in kept.labels if label is not None})
    number: dict[str | None, int] = {name: k for k, name in enumerate(classes)}
    lost = sorted({label for label in first.rows.labels if label is not None} - set(classes))
    if lost:
        notices.append(f"No common image is of {lost}; the other classes are compared.")
    return Common(
        rows=rows,
        labels=np.array([number.get(label, -1) for label in kept.labels], np.int32),
        classes=classes,
        splits=kept.splits,
        groups=kept.groups,
        content_sha256=kept.content_sha256,
        notices=notices,
    )


def vectors_at(path: Path, rows: NDArray[np.intp]) -> Float32Array:
    """Embeddings float32 (M, D) of some rows of a feature file, in the order of `rows` (M,).

    No more than these and a span of the file are in memory.

    Raises
    ------
    FeatureFileError, DamagedFileError
        As from ``FeatureFile``.
    """
    with FeatureFile(path) as file:
        found: Float32Array = np.empty((rows.size, file.dim), np.float32)
        order = np.argsort(rows)
        sorted_rows = rows[order]
        for start in range(0, file.count, SPAN_ROWS):
            stop = min(start + SPAN_ROWS, file.count)
            low, high = np.searchsorted(sorted_rows, [start, stop])
            if low < high:
                block = file.vectors(start, stop)
                found[order[low:high]] = block[sorted_rows[low:high] - start]
    return found


def _identities(rows: Rows) -> list[_Identity]:
    seen: Counter[tuple[str, bytes]] = Counter()
    found = []
    for key, content in zip(rows.keys, rows.content_sha256, strict=True):
        pair = (key, content.tobytes())
        found.append((*pair, seen[pair]))
        seen[pair] += 1
    return found


def _nothing_in_common(first: Described, other: Described) -> FeatureFileError:
    keys = set(first.rows.keys)
    same_keys = sum(key in keys for key in other.rows.keys)
    contents = {row.tobytes() for row in first.rows.content_sha256}
    same = sum(row.tobytes() in contents for row in other.rows.content_sha256)
    hint = "Compare files of the same images."
    if same_keys:
        hint = (
            "The images have changed since, so embed them anew; or the vectors came from a table"
            " without 'content_sha256', which must be in it to be compared."
        )
    elif same:
        hint = "Embed the same source for each, so that the keys are the same."
    return FeatureFileError(
        f"{first.name} and {other.name} have no image in common: of {other.count:,} images in the"
        f" second {same_keys:,} have a key of the first, with another content, and {same:,} a"
        " content of the first, under another key.",
        hint=hint,
    )


def _disagreements(
    first: Described, kept: Rows, other: Described, there: NDArray[np.intp]
) -> list[str]:
    """Where the other file says something else of the common images than the first."""
    notices = []
    labels = [other.rows.labels[row] for row in there.tolist()]
    differ = [i for i, label in enumerate(labels) if label != kept.labels[i]]
    if differ:
        at = differ[0]
        notices.append(
            f"{other.name} has another label than {first.name} for {len(differ):,} images, such as"
            f" {kept.keys[at]!r} ({labels[at]!r}, not {kept.labels[at]!r}); the first file's are"
            " used."
        )
    for what, ours, theirs in (
        ("split", kept.splits, other.rows.splits[there]),
        ("group", _numbered(kept.groups), _numbered(other.rows.groups[there])),
    ):
        count = int((ours != theirs).sum())
        if count:
            notices.append(
                f"{other.name} has another {what} than {first.name} for {count:,} images; the first"
                " file's are used."
            )
    return notices


def _numbered(groups: NDArray[np.int64]) -> NDArray[Any]:
    """Groups by the first row that is of each, so that only who is together counts; -1 for none."""
    _, first, at = np.unique(groups, return_index=True, return_inverse=True)
    return np.where(groups >= 0, first[at.reshape(-1)], -1)
