"""Reads all of an HDF5 file of rows and names all that is wrong with it, not only the first."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.errors import FeatureFileError
from tlpipe.stages.store.index import DIGEST_BYTES, DigestIndex
from tlpipe.stages.store.layout import CHUNK_ROWS, COLUMNS, TEXT, VECTORS, FeatureHeader
from tlpipe.stages.store.remains import Piece, Remains, text_of
from tlpipe.types import Reason, Split, Stage

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_KEPT = 10_000
"""Findings that are kept; all are counted."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a feature file.

    Attributes
    ----------
    dataset : str
        Empty where it concerns the file.
    wrong : str
        In words.
    first, last : int or None
        Rows that it concerns.
    first_key, last_key : str or None
        Their keys, where they can be read.
    part : str
        The file of a set in which it is, whose rows are counted; empty where there is only one.
    """

    dataset: str
    wrong: str
    first: int | None = None
    last: int | None = None
    first_key: str | None = None
    last_key: str | None = None
    part: str = ""

    def __str__(self) -> str:
        where = self._where()
        return f"{self.part}: {where}: {self.wrong}" if self.part else f"{where}: {self.wrong}"

    def _where(self) -> str:
        if self.first is None:
            return self.dataset or "the file"
        if self.first == self.last:
            return f"{self.dataset}, row {self.first}" + _quoted(self.first_key)
        return (
            f"{self.dataset}, rows {self.first}{_quoted(self.first_key)} to"
            f" {self.last}{_quoted(self.last_key)}"
        )


def _quoted(key: str | None) -> str:
    return "" if key is None else f" ({key!r})"


@dataclass
class FileReport:
    """What was checked of a feature file, and found.

    Attributes
    ----------
    version : int
        Of the format.
    datasets, chunks, rows, rejects : int
        That were read.
    files : int
        HDF5 files that it consists of.
    found : int
        Number of findings.
    findings : list of Finding
        The first of them.
    """

    version: int
    datasets: int = 0
    chunks: int = 0
    rows: int = 0
    rejects: int = 0
    files: int = 1
    found: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.found

    @property
    def has_checksums(self) -> bool:
        """Whether a flipped bit would be found."""
        return self.version > 1

    def note(self, finding: Finding) -> None:
        """Add a finding."""
        self.found += 1
        if len(self.findings) < MOST_KEPT:
            self.findings.append(finding)


def digest_of(key: str) -> bytes:
    """What an index of keys takes for a key."""
    return hashlib.blake2b(key.encode(), digest_size=DIGEST_BYTES).digest()


class Check:
    """Checks one HDF5 file, which may be a part of a set.

    Parameters
    ----------
    remains : Remains
    report : FileReport
        What is found is added to it.
    keys : DigestIndex
        Of the keys of all rows, which are added to it.
    part : str
        What to call the file in the report, where it is one of several.
    """

    def __init__(
        self, remains: Remains, report: FileReport, keys: DigestIndex, part: str = ""
    ) -> None:
        self.remains, self.report, self.keys, self._part = remains, report, keys, part
        self._last: Finding | None = None  # kept back, since the next may go on with it

    def rows(self) -> None:
        """Check everything but the rejects."""
        remains, report = self.remains, self.report
        for dataset, wrong in remains.faults:
            self._find(Finding(dataset, wrong))
        self._check_attributes()
        for kind in ("classes", "items"):
            for chunk in remains.chunks(kind):
                self._check_chunk(kind, chunk)
        self._find(None)
        report.datasets += len(remains.columns)
        report.rows += remains.counts["items"]

    def rejects(self) -> None:
        """Check the rejects, when all rows are known."""
        for chunk in self.remains.chunks("rejects"):
            self._check_chunk("rejects", chunk)
        self._find(None)
        self.report.rejects += self.remains.counts["rejects"]

    def _find(self, finding: Finding | None) -> None:
        """Note a finding; one that goes on where the last has ended becomes one with it."""
        last = self._last
        if (
            last is not None
            and finding is not None
            and (last.dataset, last.wrong) == (finding.dataset, finding.wrong)
            and last.last is not None
            and finding.first == last.last + 1
            and finding.first % CHUNK_ROWS == 0  # whole chunks; single rows stay apart
        ):
            self._last = Finding(
                last.dataset, last.wrong, last.first, finding.last, last.first_key, finding.last_key
            )
            return
        if last is not None:
            self.report.note(replace(last, part=self._part))
        self._last = finding

    def _check_attributes(self) -> None:
        remains = self.remains
        if remains.sealed is False:
            self._find(
                Finding("", "its attributes, shapes and checksums do not belong together (seal)")
            )
        wrong = origin_fault(remains)
        if wrong:
            self._find(Finding("", wrong))

    def _check_chunk(self, kind: str, chunk: int) -> None:
        """Check a chunk of all datasets of one kind of rows."""
        remains = self.remains
        pieces: dict[str, Piece] = {}
        for name, column in remains.columns.items():
            if column.of == kind:
                pieces[name] = remains.piece(name, chunk)
                self.report.chunks += 1
        keys = _keys(pieces.get("keys" if kind == "items" else "rejects/key"))
        start, stop = remains.span(kind, chunk)
        for name, piece in pieces.items():
            if piece.wrong:
                self._find(Finding(name, piece.wrong, start, stop - 1, _at(keys, 0), _at(keys, -1)))
            if piece.values is not None:
                for row, wrong in self._senseless(name, piece.values):
                    key = _at(keys, row)
                    self._find(Finding(name, wrong, start + row, start + row, key, key))
        if kind == "items":
            self._check_twice(keys, start)
        elif kind == "rejects":
            self._check_rejects(keys, pieces, start)

    def _senseless(self, name: str, values: Any) -> list[tuple[int, str]]:
        """Rows whose values cannot be, and why."""
        if COLUMNS[name].dtype == TEXT:
            return [
                (n, "the text is not UTF-8") for n, raw in enumerate(values) if text_of(raw) is None
            ]
        if name == VECTORS:
            return [(n, "the vector holds NaN or infinity") for n in rows_not_finite(values)]
        if name == "labels":
            classes = self.remains.counts["classes"]
            bad = np.flatnonzero((values < -1) | (values >= classes)).tolist()
            return [(n, f"the label {values[n]} is not of the {classes} classes") for n in bad]
        if name == "splits":
            bad = np.flatnonzero(~np.isin(values, list(Split))).tolist()
            return [(n, f"the split {values[n]} is none") for n in bad]
        return []

    def _check_twice(self, keys: list[str | None], start: int) -> None:
        for row, key in enumerate(keys):
            if key is not None and self.keys.met(digest_of(key)):
                words = "an earlier row has the same key"
                self._find(Finding("keys", words, start + row, start + row, key, key))

    def _check_rejects(self, keys: list[str | None], pieces: dict[str, Piece], start: int) -> None:
        reasons = _keys(pieces.get("rejects/reason"))
        stages = _keys(pieces.get("rejects/stage"))
        for row in range(max(map(len, (keys, reasons, stages)))):
            key, reason, stage = _at(keys, row), _at(reasons, row), _at(stages, row)
            wrong = []
            if reason is not None and reason not in list(Reason):
                wrong.append(("rejects/reason", f"there is no reason {reason!r}"))
            if stage is not None and stage not in list(Stage):
                wrong.append(("rejects/stage", f"there is no stage {stage!r}"))
            twice = reason == Reason.DUPLICATE_KEY  # then the row is that of another item
            if key is not None and not twice and self.keys.get(digest_of(key)) is not None:
                wrong.append(("rejects/key", "the item was left out, and yet has a row"))
            for name, words in wrong:
                self._find(Finding(name, words, start + row, start + row, key, key))


def rows_not_finite(vectors: NDArray[np.float32]) -> list[int]:
    """Rows of vectors (n, D) that hold NaN or infinity."""
    found: list[int] = np.flatnonzero(~np.isfinite(vectors).all(axis=1)).tolist()
    return found


def origin_fault(remains: Remains) -> str:
    """Why it cannot be told what made the vectors of a file; empty where it can.

    Where no seal vouches for the fingerprint, it must be that of the card.
    """
    values = {name: remains.attributes.get(name) for name in remains.names}
    needed = ("fingerprint", "backbone", "precision", "decoder", "calibration")
    lost = [name for name in needed if values.get(name, "") is None]
    if lost:
        return f"what made its vectors cannot be told: {lost} cannot be read"
    header = FeatureHeader(**{name: value or "" for name, value in values.items()})
    if remains.sealed and header.declared is not None:
        return ""
    try:
        found = header.expected_fingerprint("the file")
    except FeatureFileError as exc:
        return f"what made its vectors cannot be told: {exc.message}"
    except (ArithmeticError, TypeError, ValueError) as exc:
        return f"what made its vectors cannot be told: {exc!r}"
    if found != header.fingerprint and not remains.sealed:
        return (
            f"its fingerprint is {header.fingerprint[:64]!r}, and that of the backbone it names is"
            f" {found!r}"
        )
    return ""


def _keys(piece: Piece | None) -> list[str | None]:
    """Texts of a piece; None for each that cannot be read."""
    if piece is None or piece.values is None:
        return []
    return [text_of(raw) for raw in piece.values]


def _at(keys: list[str | None], row: int) -> str | None:
    return keys[row] if -len(keys) <= row < len(keys) else None
