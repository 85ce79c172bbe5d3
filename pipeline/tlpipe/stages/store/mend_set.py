"""Makes a whole feature file of what is good in a damaged one, or in the parts of a set."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tlpipe.errors import FeatureFileError
from tlpipe.stages.store.check import origin_fault
from tlpipe.stages.store.check_set import part_fault
from tlpipe.stages.store.index import DigestIndex
from tlpipe.stages.store.layout import FeatureHeader
from tlpipe.stages.store.many import PartPaths
from tlpipe.stages.store.mend import LONG_AGO, Mend, check_needed, mended_header
from tlpipe.stages.store.mended import Mended, check_kept
from tlpipe.stages.store.remains import Remains
from tlpipe.stages.store.set_index import SetIndex, index_of
from tlpipe.stages.store.write import feature_writer


def mend_file(path: Path, output: Path) -> Mended:
    """Write what is good in a feature file, or in the parts of a set, to another one.

    Raises
    ------
    FeatureFileError
        The file is missing, is no feature file or of a newer version, or nothing can be read of it.
    DamagedFileError
        Nothing in it is good, or it cannot be told what made its vectors.
    OutputError
        The output cannot be written.
    """
    index = index_of(path)
    result = Mended()
    with contextlib.closing(DigestIndex()) as met:
        if index is not None:
            _MendSet(path, index, result, met).write(output)
            return result
        with Remains(path) as remains:
            check_needed(remains)
            header = mended_header(remains, result)
            mend = Mend(remains, result, met)
            with feature_writer(output, header, remains.dim) as writer:
                mend.write_rows(writer)
                check_kept(path, result)
                mend.write_rejects(writer)
    return result


class _MendSet:
    """Takes what is good out of the parts; what they all have in common the index says, sealed."""

    def __init__(self, path: Path, index: SetIndex, result: Mended, met: DigestIndex) -> None:
        self._path, self._index, self._result, self._met = path, index, result, met
        self._paths = PartPaths(path, index)
        self._good: list[int] = []  # parts of which something may be kept
        self._classes: list[str] | None = None  # of the first part in which they are whole
        self._dim = 0
        self._sure = True  # whether each of them bears its seal
        result.source = index.header.source

    def write(self, output: Path) -> None:
        """Write all good rows and rejects."""
        for number, part in enumerate(self._index.parts):
            why = self._looked_at(number)
            if why:
                self._result.lose_unnamed(part.rows, f"of the part {part.file}: {why}")
                self._result.rejects_lost += part.rejects
        if not self._good:
            check_kept(self._path, self._result)
        most = self._index.parts[0].rows
        with feature_writer(output, self._header(), self._dim, set_above=most) as writer:
            for mend in self._mends():
                mend.write_rows(writer)
            check_kept(self._path, self._result)
            for mend in self._mends():
                mend.write_rejects(writer)

    def _mends(self) -> Iterator[Mend]:
        for number in self._good:
            with Remains(self._paths.path(number)) as remains:
                yield Mend(remains, self._result, self._met, self._classes)

    def _looked_at(self, number: int) -> str:
        """Why nothing of a part can be kept; empty where something may be."""
        try:
            with Remains(self._paths.checked(number)) as remains:
                check_needed(remains)
                wrong = part_fault(remains, self._index, number)
                if not remains.sealed:
                    same = remains.attributes.get("fingerprint") == self._index.header.fingerprint
                    wrong = wrong or origin_fault(remains) or ("" if same else "another backbone")
                if self._good and remains.dim != self._dim:
                    wrong = wrong or f"its embeddings have {remains.dim} numbers"
                if wrong:
                    return wrong
                self._dim = remains.dim
                if self._classes is None and remains.sealed:
                    self._classes = Mend(remains, Mended(), self._met).classes()
                self._sure = self._sure and bool(remains.sealed)
        except FeatureFileError as exc:
            return exc.message
        self._good.append(number)
        return ""

    def _header(self) -> FeatureHeader:
        header = self._index.header
        if self._sure:
            return header
        self._result.notes.append(
            "Attributes, shapes or checksums of some parts were altered. Since the time of"
            " embedding is not sure, the next 'tlpipe embed' compares the content of every image."
        )
        return replace(header, created_at=LONG_AGO)
