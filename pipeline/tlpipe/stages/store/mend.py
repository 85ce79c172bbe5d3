"""Takes out of a damaged HDF5 file of rows what is good.

A row is good when its key, content digest, stat and vector are those that were stored (the checksum
of its chunk holds in each of these datasets), its vector is finite and no earlier row has its key.
Label, split and group are not needed for that: where theirs are damaged the row is kept without
them, since the next ``tlpipe embed`` takes them from the source again. Format 1 has no checksums:
of it what can be read is taken for good, and the result says so.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.errors import DamagedFileError
from tlpipe.stages.store.check import digest_of, origin_fault, rows_not_finite
from tlpipe.stages.store.index import DigestIndex
from tlpipe.stages.store.layout import REJECT_COLUMNS, SPLITS_FROM_SOURCE, VECTORS, FeatureHeader
from tlpipe.stages.store.mended import Mended
from tlpipe.stages.store.remains import Piece, Remains, text_of
from tlpipe.stages.store.rows import Rows, no_splits
from tlpipe.stages.store.write import FeatureWriter
from tlpipe.types import FileStat, Reason, Reject, Split, Stage

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEEDED = ("keys", "content_sha256", "stat", VECTORS)

LONG_AGO = "1970-01-01T00:00:00+00:00"
"""Stands for a time of embedding that is not sure: an update then trusts no file's time of change,
and compares contents."""


def check_needed(remains: Remains) -> None:
    """Refuse a file in which no row can be whole.

    Raises
    ------
    DamagedFileError
    """
    missing = [name for name in NEEDED if name not in remains.columns]
    if missing:
        faults = "; ".join(f"{name!r}: {wrong}" for name, wrong in remains.faults)
        raise DamagedFileError(
            f"Nothing of {str(remains.path)!r} can be kept: without {missing} no row is whole."
            f" {faults}.",
            hint="Embed the images again.",
        )


def mended_header(remains: Remains, result: Mended) -> FeatureHeader:
    """Header of the new file."""
    header = FeatureHeader(**{name: remains.attributes.get(name, "") for name in remains.names})
    wrong = origin_fault(remains)
    if wrong:
        raise DamagedFileError(
            f"{str(remains.path)!r} is damaged, and {wrong}. Vectors of unknown origin are not"
            " used.",
            hint="Embed the images again.",
        )
    if remains.sealed:
        result.source = header.source
        return header
    if remains.version == 1:
        result.notes.append(
            "Format 1 has no checksums: whether bits of the vectors were flipped cannot be told."
        )
        result.source = header.source
        return replace(header, created_at=header.created_at or LONG_AGO)
    result.notes.append(_broken_seal(remains))
    if not _is_table(header.splits_from):
        header = replace(header, splits_from=SPLITS_FROM_SOURCE)
    return replace(header, created_at=LONG_AGO, agreement="")  # no seal vouches for it


def _broken_seal(remains: Remains) -> str:
    lost = [name for name in remains.names if name not in remains.attributes]
    what = f"the attributes {lost} cannot be read" if lost else "it is not known which"
    return (
        "Attributes, shapes or checksums of the file were altered"
        f" ({what}); the backbone it names fits its fingerprint. Since the time of embedding is not"
        " sure, the next 'tlpipe embed' compares the content of every image."
    )


def _is_table(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (RecursionError, ValueError):
        return False


class Mend:
    """Takes what is good out of one HDF5 file, which may be a part of a set.

    Parameters
    ----------
    remains : Remains
    result : Mended
        What becomes of its rows is added to it.
    met : DigestIndex
        Of the keys that have a row, which are added to it.
    classes : list of str, optional
        Names of the classes, where they are known from another file of the same numbering.
    """

    def __init__(
        self,
        remains: Remains,
        result: Mended,
        met: DigestIndex,
        classes: list[str] | None = None,
    ) -> None:
        self.remains, self.result, self.met, self._classes = remains, result, met, classes

    def write_rows(self, writer: FeatureWriter) -> None:
        """Write all good rows."""
        if self._classes is None:
            self._classes = self.classes()
        for chunk in self.remains.chunks("items"):
            rows = self._rows(chunk)
            if rows is not None and len(rows):
                writer.add(rows)
                self.result.kept += len(rows)

    def write_rejects(self, writer: FeatureWriter) -> None:
        """Write all good rejects, when all rows are known."""
        for chunk in self.remains.chunks("rejects"):
            self._write_rejects(chunk, writer)

    def classes(self) -> list[str] | None:
        """Names of the classes; None where they are not sure, all or in part."""
        if "classes" not in self.remains.columns:
            return None
        names: list[str] = []
        for chunk in self.remains.chunks("classes"):
            piece = self.remains.piece("classes", chunk)
            texts = [] if piece.wrong else [text_of(raw) for raw in piece.values]
            if piece.wrong or None in texts:
                self.result.notes.append("The names of the classes are damaged.")
                return None
            names += [text for text in texts if text is not None]
        return names

    def _rows(self, chunk: int) -> Rows | None:
        """Good rows of a chunk."""
        remains, result = self.remains, self.result
        start, stop = remains.span("items", chunk)
        pieces = {name: remains.piece(name, chunk) for name in NEEDED}
        keys: list[str | None] = [None] * (stop - start)
        if not pieces["keys"].wrong:
            keys = [text_of(raw) for raw in pieces["keys"].values]
        for name, piece in pieces.items():
            if piece.wrong:
                result.lose(keys, f"of {name!r}: {piece.wrong}")
                return None
        infinite = set(rows_not_finite(pieces[VECTORS].values))
        good = np.ones(stop - start, bool)
        for row, key in enumerate(keys):
            why = ""
            if key is None:
                why = "the key is not UTF-8"
            elif row in infinite:
                why = "the vector holds NaN or infinity"
            elif self.met.met(digest_of(key)):
                why = "an earlier row has the same key"
            if why:
                good[row] = False
                # A key that an earlier row has is not lost.
                result.lose([key if row in infinite else None], why)
        rows = Rows(
            keys=[key or "" for key in keys],
            content_sha256=pieces["content_sha256"].values,
            stat=pieces["stat"].values,
            labels=self._labels(chunk, good),
            splits=self._splits(chunk, good),
            groups=self._groups(chunk, good),
            vectors=pieces[VECTORS].values,
        )
        return rows.only(good)

    def _numbers(self, name: str, chunk: int) -> NDArray[Any] | None:
        """Numbers of a dataset that is not needed, where they are sure."""
        piece = self.remains.piece(name, chunk)
        return None if piece.wrong else piece.values

    def _labels(self, chunk: int, good: NDArray[np.bool_]) -> list[str | None]:
        numbers = self._numbers("labels", chunk)
        classes = self._classes
        if numbers is None or classes is None:
            if numbers is None or (numbers >= 0).any():
                self.result.without_label += int(good.sum())
            return [None] * len(good)
        bad = (numbers < -1) | (numbers >= len(classes))
        self.result.without_label += int((bad & good).sum())
        return [
            None if wrong or number < 0 else classes[number]
            for number, wrong in zip(numbers.tolist(), bad.tolist(), strict=True)
        ]

    def _splits(self, chunk: int, good: NDArray[np.bool_]) -> NDArray[np.int8]:
        numbers = self._numbers("splits", chunk)
        if numbers is None:
            self.result.without_split += int(good.sum())
            return no_splits(len(good))
        right = np.isin(numbers, list(Split))
        self.result.without_split += int((good & ~right).sum())
        return np.where(right, numbers, np.int8(Split.NONE)).astype(np.int8)

    def _groups(self, chunk: int, good: NDArray[np.bool_]) -> NDArray[np.int64]:
        none = np.full(len(good), -1, np.int64)
        if self.remains.version == 1:
            return none
        numbers = self._numbers("groups", chunk)
        if numbers is None:
            self.result.without_group += int(good.sum())
        return none if numbers is None else numbers

    def _write_rejects(self, chunk: int, writer: FeatureWriter) -> None:
        start, stop = self.remains.span("rejects", chunk)
        pieces = {name: self.remains.piece(name, chunk) for name in REJECT_COLUMNS}
        if any(piece.wrong for piece in pieces.values()):
            self.result.rejects_lost += stop - start
            return
        for row in range(stop - start):
            found = _reject(pieces, row)
            if found is None or (
                found[1].reason is not Reason.DUPLICATE_KEY
                and self.met.get(digest_of(found[0])) is not None
            ):
                self.result.rejects_lost += 1
            else:
                writer.reject(*found)


def _reject(pieces: dict[str, Piece], row: int) -> tuple[str, Reject] | None:
    """Key and reject of a row; None where it makes no sense."""
    try:
        key, stage, reason, detail = (
            pieces[f"rejects/{name}"].values[row].decode()
            for name in ("key", "stage", "reason", "detail")
        )
        stat = FileStat(*pieces["rejects/stat"].values[row].tolist())
        return key, Reject(Stage(stage), Reason(reason), detail, stat)
    except ValueError:
        return None
