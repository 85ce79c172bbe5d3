"""Checks a feature file, or each part of a set and that all of them are there."""

from __future__ import annotations

import contextlib
from pathlib import Path

from tlpipe.errors import FeatureFileError
from tlpipe.stages.store.check import Check, FileReport, Finding
from tlpipe.stages.store.index import DigestIndex
from tlpipe.stages.store.layout import FORMAT_VERSION
from tlpipe.stages.store.many import PartPaths
from tlpipe.stages.store.read import FeatureFile
from tlpipe.stages.store.remains import Remains
from tlpipe.stages.store.set_index import SetIndex, index_of
from tlpipe.stages.store.set_views import shown_classes, view_fault
from tlpipe.stages.store.structure import FOREIGN, open_hdf5


def check_file(path: Path) -> FileReport:
    """Check all of a feature file: structure, checksums, and whether the values make sense.

    Of a set all parts are checked, and that the index shows those and no others. Memory does not
    grow with the file.

    Raises
    ------
    FeatureFileError
        The file is missing, is no feature file or of a newer version, or nothing can be read of it.
    OutputError
        There is no room for a temporary index.
    """
    index = index_of(path)
    with contextlib.closing(DigestIndex()) as keys:
        if index is not None:
            return _Set(path, index, keys).report
        with Remains(path) as remains:
            report = FileReport(remains.version)
            check = Check(remains, report, keys)
            check.rows()
            check.rejects()
            return report


class _Set:
    """Checks a set when it is made."""

    def __init__(self, path: Path, index: SetIndex, keys: DigestIndex) -> None:
        self.report = FileReport(FORMAT_VERSION, files=len(index.parts))
        self._index, self._keys = index, keys
        self._paths = PartPaths(path, index)
        good = [number for number in range(len(index.parts)) if self._check_part(number)]
        for number in good:  # when all rows are known
            with Remains(self._paths.path(number)) as remains:
                self._check(remains, number).rejects()
        if self.report.whole:
            self._check_views(path)

    def _check(self, remains: Remains, number: int) -> Check:
        return Check(remains, self.report, self._keys, self._index.parts[number].file)

    def _note(self, number: int, wrong: str) -> None:
        self.report.note(Finding("", wrong, part=self._index.parts[number].file))

    def _check_part(self, number: int) -> bool:
        """Check the rows of a part; whether it could be read."""
        try:
            with Remains(self._paths.checked(number)) as remains:
                self._check(remains, number).rows()
                wrong = part_fault(remains, self._index, number)
                if wrong:
                    self._note(number, wrong)
        except FeatureFileError as exc:
            self._note(number, exc.message)
            return False
        return True

    def _check_views(self, path: Path) -> None:
        """Compare what the index shows with the parts, which are all there; then open it."""
        content, file = open_hdf5(path)
        with contextlib.closing(content), contextlib.closing(file):
            try:
                with FeatureFile(path) as whole:
                    name, wrong = view_fault(file, self._index, whole.dim)
                    if not wrong and shown_classes(file, content) != whole.classes:
                        name, wrong = "classes", "the index has other names than the parts"
            except FeatureFileError as exc:
                name, wrong = "", exc.message
            except FOREIGN as exc:
                name, wrong = "", f"what it shows cannot be read: {exc!r}"
        if wrong:
            self.report.note(Finding(name, wrong, part=path.name))


def part_fault(remains: Remains, index: SetIndex, number: int) -> str:
    """How a part is another one than the index lists; empty where it is the one, or damaged."""
    if remains.sealed is False:
        return ""
    listed = index.parts[number]
    if remains.version < FORMAT_VERSION or remains.attributes.get("seal") != listed.seal:
        return "it is another file than the one that belongs there"
    return ""
