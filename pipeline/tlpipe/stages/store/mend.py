"""Makes a whole feature file of what is good in a damaged one.

A row is good when its key, content digest, stat and vector are those that were stored (the checksum
of its chunk holds in each of these datasets), its vector is finite and no earlier row has its key.
Label, split and group are not needed for that: where theirs are damaged the row is kept without
them, since the next ``tlpipe embed`` takes them from the source again. Format 1 has no checksums:
of it what can be read is taken for good, and the result says so.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.errors import DamagedFileError
from tlpipe.stages.store.check import digest_of, origin_fault, rows_not_finite
from tlpipe.stages.store.index import DigestIndex
from tlpipe.stages.store.layout import REJECT_COLUMNS, SPLITS_FROM_SOURCE, VECTORS, FeatureHeader
from tlpipe.stages.store.remains import Piece, Remains, text_of
from tlpipe.stages.store.rows import Rows, no_splits
from tlpipe.stages.store.write import FeatureWriter, feature_writer
from tlpipe.types import FileStat, Reason, Reject, Split, Stage

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEEDED = ("keys", "content_sha256", "stat", VECTORS)

LONG_AGO = "1970-01-01T00:00:00+00:00"
"""Stands for a time of embedding that is not sure: an update then trusts no file's time of change,
and compares contents."""


@dataclass
class Mended:
    """What became of the rows of a damaged feature file.

    Attributes
    ----------
    kept, lost : int
        Rows.
    lost_keys : list of str
        Keys of lost rows, where they are sure.
    reasons : dict of str to int
        Lost rows by what was wrong.
    without_label, without_split, without_group : int
        Kept rows of which these were damaged.
    rejects_lost : int
        Rows of items that were left out.
    notes : list of str
        What else is to be known.
    source : str
        Where the images lay; empty where that is not sure.
    """

    kept: int = 0
    lost: int = 0
    lost_keys: list[str] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)
    without_label: int = 0
    without_split: int = 0
    without_group: int = 0
    rejects_lost: int = 0
    notes: list[str] = field(default_factory=list)
    source: str = ""

    def lose(self, keys: list[str | None], why: str) -> None:
        """Note rows that are lost."""
        if keys:
            self.lost += len(keys)
            self.lost_keys += [key for key in keys if key is not None]
            self.reasons[why] = self.reasons.get(why, 0) + len(keys)


def mend_file(path: Path, output: Path) -> Mended:
    """Write what is good in a feature file to another one.

    Raises
    ------
    FeatureFileError
        The file is missing, is no feature file or of a newer version, or nothing can be read of it.
    DamagedFileError
        Nothing in it is good, or it cannot be told what made its vectors.
    OutputError
        The output cannot be written.
    """
    with Remains(path) as remains:
        missing = [name for name in NEEDED if name not in remains.columns]
        if missing:
            faults = "; ".join(f"{name!r}: {wrong}" for name, wrong in remains.faults)
            raise DamagedFileError(
                f"Nothing of {str(path)!r} can be kept: without {missing} no row is whole."
                f" {faults}.",
                hint="Embed the images again.",
            )
        result = Mended()
        header = _header(remains, result)
        mend = _Mend(remains, result)
        try:
            with feature_writer(output, header, remains.dim) as writer:
                mend.write(writer)
                if not result.kept:
                    raise DamagedFileError(
                        f"Not one of the {result.lost} rows in {str(path)!r} is good:"
                        f" {_counted(result.reasons)}.",
                        hint="Embed the images again.",
                    )
        finally:
            mend.met.close()
        return result


def _counted(reasons: dict[str, int]) -> str:
    return "; ".join(f"{count} because {why}" for why, count in reasons.items()) or "there are none"


def _header(remains: Remains, result: Mended) -> FeatureHeader:
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


class _Mend:
    def __init__(self, remains: Remains, result: Mended) -> None:
        self.remains, self.result = remains, result
        self.met = DigestIndex()
        self._classes = self._read_classes()

    def write(self, writer: FeatureWriter) -> None:
        """Write all good rows."""
        for chunk in self.remains.chunks("items"):
            rows = self._rows(chunk)
            if rows is not None and len(rows):
                writer.add(rows)
                self.result.kept += len(rows)
        for chunk in self.remains.chunks("rejects"):
            self._write_rejects(chunk, writer)

    def _read_classes(self) -> list[str] | None:
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
