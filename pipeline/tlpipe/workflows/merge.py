"""merge: several feature files of one fingerprint become one."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tlpipe.errors import FeatureFileError, OptionError, StaleFeaturesError
from tlpipe.files import check_output
from tlpipe.lock import writer_lock
from tlpipe.precision import read_agreement
from tlpipe.stages.store import (
    SPAN_ROWS,
    SPLITS_FROM_SOURCE,
    DigestIndex,
    FeatureFile,
    FeatureHeader,
    FeatureWriter,
    Parts,
    Rows,
    feature_writer,
    rows_per_file,
)
from tlpipe.types import FEATURE_SUFFIXES
from tlpipe.workflows.run_options import check_set_above
from tlpipe.workflows.staleness import differences

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NAMED = 5
"""Keys that a message names."""


@dataclass(frozen=True)
class MergeResult:
    """What ``merge`` did.

    Attributes
    ----------
    path : pathlib.Path
    count, dim : int
        N and D.
    classes : list of str
    rejects : int
    repeated : int
        Rows left out since an earlier file has one of the same key and content.
    other_splits : int
        Those of them that had another split or group there; the earlier file's are kept.
    """

    path: Path
    count: int
    dim: int
    classes: list[str]
    rejects: int
    repeated: int
    other_splits: int


def merge(
    features: Sequence[str | Path],
    output: str | Path,
    *,
    overwrite: bool = False,
    set_above: int | None = None,
) -> MergeResult:
    """Write one feature file with the rows of several, in the order in which they are given.

    A row whose key stands in an earlier file is left out if content and label are the same.

    Parameters
    ----------
    features : sequence of str or pathlib.Path
        Two or more feature files of the same fingerprint.
    output : str or pathlib.Path
        It appears whole or not at all.
    overwrite : bool
        Whether an existing `output` may be replaced.
    set_above : int, optional
        Most rows of one HDF5 file, as in ``UpdateOptions``; 2,000,000 by default.

    Returns
    -------
    MergeResult

    Raises
    ------
    OptionError
        There are fewer than two files, or `set_above` makes no sense.
    StaleFeaturesError
        Their embeddings were made in different ways.
    FeatureFileError, DamagedFileError
        One is no feature file, or a damaged one; or a key stands in several with different content
        or labels.
    LockedError, OutputError
        The output cannot be written.
    """
    check_set_above(set_above)
    paths, output = [Path(path) for path in features], Path(output)
    if len(paths) < 2:
        raise OptionError(f"There must be two or more feature files to merge, not {len(paths)}.")
    check_output(output, overwrite=overwrite, suffixes=FEATURE_SUFFIXES, inputs=paths)
    with ExitStack() as stack:
        files = [stack.enter_context(FeatureFile(path)) for path in paths]
        for file in files[1:]:
            _check_same(files[0], file)
        stack.enter_context(writer_lock(output))
        merging = stack.enter_context(closing(_Merging(files)))
        header, most = _header(files), rows_per_file(set_above)
        with feature_writer(output, header, files[0].dim, set_above=most) as writer:
            merging.write(writer)
        Parts(output).remove()
    summary = writer.summary
    return MergeResult(
        path=output,
        count=summary.count,
        dim=files[0].dim,
        classes=summary.classes,
        rejects=summary.rejects.total(),
        repeated=merging.repeated,
        other_splits=merging.other_splits,
    )


def _check_same(first: FeatureFile, other: FeatureFile) -> None:
    a, b = first.header, other.header
    if a.fingerprint != b.fingerprint:
        differing = "; ".join(differences(a, b)) or "how tlpipe prepares networks"
        raise StaleFeaturesError(
            f"{str(first.path)!r} and {str(other.path)!r} hold embeddings that cannot be compared:"
            f" their fingerprints are {a.fingerprint[:12]}... and {b.fingerprint[:12]}.... They"
            f" differ in: {differing}.",
            hint="Embed the images of one of them again, with the backbone of the other.",
        )
    if first.dim != other.dim:
        raise FeatureFileError(
            f"{str(first.path)!r} has embeddings of {first.dim} numbers and {str(other.path)!r} of"
            f" {other.dim}, though their fingerprints are the same: one of them is damaged.",
            hint="'tlpipe verify FILE' says what is wrong with a file; embed its images again.",
        )


def _header(files: Sequence[FeatureFile]) -> FeatureHeader:
    """Header of the whole.

    It is as old as the oldest of the files: an update trusts the time of change of an image only
    if that is before the file's.
    """
    headers = [file.header for file in files]
    providers = {name for h in headers for name in h.provider.split(", ") if name}
    recipes = {header.splits_from for header in headers}
    return replace(
        headers[0],
        provider=", ".join(sorted(providers)),
        source=_sources(headers),
        created_at=min((header.created_at for header in headers), key=_moment),
        splits_from=recipes.pop() if len(recipes) == 1 else SPLITS_FROM_SOURCE,
        agreement=_agreement(files),
    )


def _agreement(files: Sequence[FeatureFile]) -> str:
    """The agreement with FP32 that is the worst of the files'."""
    stated = {file.header.agreement: repr(str(file.path)) for file in files}
    found = {text: read_agreement(text, where) for text, where in stated.items()}
    return min(found, key=lambda text: getattr(found[text], "mean", 2.0))


def _sources(headers: Sequence[FeatureHeader]) -> str:
    """The sources, each once."""
    return "; ".join(dict.fromkeys(header.source for header in headers))


def _moment(created_at: str) -> float:
    """Seconds since 1970; 0 where the text says no time, which counts as the oldest."""
    try:
        moment = datetime.datetime.fromisoformat(created_at)
    except ValueError:
        return 0.0
    return moment.replace(tzinfo=moment.tzinfo or datetime.UTC).timestamp()


class _Merging:
    """Rows go to a writer but for those whose key it has; memory does not grow with their number.

    Attributes
    ----------
    repeated, other_splits : int
        As in ``MergeResult``.
    """

    def __init__(self, files: Sequence[FeatureFile]) -> None:
        self.repeated = self.other_splits = 0
        self._files = files
        self._bases = np.cumsum([0, *(file.count for file in files)]).tolist()
        self._index = DigestIndex()
        self._span: tuple[int, int, Rows] | None = None  # the latest that was looked into
        self._contents: list[str] = []  # the first few keys
        self._labels: list[str] = []
        self._other_contents = self._other_labels = 0

    def close(self) -> None:
        """Free the index."""
        self._index.close()

    def write(self, writer: FeatureWriter) -> None:
        """Write all rows, and the rejects whose key has no row."""
        for number, file in enumerate(self._files):
            for start in range(0, file.count, SPAN_ROWS):
                rows = file.rows(start, min(start + SPAN_ROWS, file.count), vectors=True)
                writer.add(rows.only(self._new(rows, self._bases[number] + start)))
        self._refuse()
        for file in self._files:
            for start in range(0, file.reject_count, SPAN_ROWS):
                for key, reject in file.rejects(start, start + SPAN_ROWS):
                    digest = _digest(key)
                    if self._index.get(digest) is None:
                        self._index.put(digest, -1)
                        writer.reject(key, reject)

    def _new(self, rows: Rows, base: int) -> NDArray[np.bool_]:
        """Which rows have a key that was not met before."""
        new = np.ones(len(rows), np.bool_)
        met = []
        for row, key in enumerate(rows.keys):
            digest = _digest(key)
            place = self._index.get(digest)
            if place is None:
                self._index.put(digest, base + row)
            else:
                new[row] = False
                met.append((place, row))
        self.repeated += len(met)
        for place, row in sorted(met):  # by place, so that each stretch of a file is read once
            self._compare(rows, row, *self._find(place))
        return new

    def _find(self, place: int) -> tuple[Rows, int]:
        """The rows around one that was met before, and where among them it stands."""
        number = int(np.searchsorted(self._bases, place, side="right")) - 1
        row = place - self._bases[number]
        start = row - row % SPAN_ROWS
        if self._span is None or self._span[:2] != (number, start):
            file = self._files[number]
            rows = file.rows(start, min(start + SPAN_ROWS, file.count))
            self._span = number, start, rows
        return self._span[2], row - start

    def _compare(self, rows: Rows, row: int, earlier: Rows, at: int) -> None:
        key = rows.keys[row]
        if not np.array_equal(rows.content_sha256[row], earlier.content_sha256[at]):
            self._other_contents += 1
            self._contents += [repr(key)] * (len(self._contents) < _NAMED)
        elif rows.labels[row] != earlier.labels[at]:
            self._other_labels += 1
            both = f"{key!r} ({earlier.labels[at]!r} and {rows.labels[row]!r})"
            self._labels += [both] * (len(self._labels) < _NAMED)
        elif (rows.splits[row], rows.groups[row]) != (earlier.splits[at], earlier.groups[at]):
            self.other_splits += 1

    def _refuse(self) -> None:
        """Refuse keys that mean different things in two files."""
        if self._other_contents:
            raise FeatureFileError(
                f"{self._other_contents:,} keys stand in several of the files with different"
                f" content: {_named(self._contents, self._other_contents)}.",
                hint="Embed the changed images again in one of the files; or, if they are other"
                " images of the same name, embed from the folder above so that their keys differ.",
            )
        if self._other_labels:
            raise FeatureFileError(
                f"{self._other_labels:,} images have different labels in the files:"
                f" {_named(self._labels, self._other_labels)}.",
                hint="Correct the labels at the source, and run 'tlpipe embed' again: it updates"
                " the file without embedding anew.",
            )


def _named(some: list[str], count: int) -> str:
    more = f" and {count - len(some):,} more" if count > len(some) else ""
    return ", ".join(some) + more


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=16).digest()
