"""What the folders in the names of an archive's members say: a class, a split, or nothing.

The rules are those for folders on a disk, with one more: a folder that all images lie in, and below
which they lie in other folders, is the one that was packed, and says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tlpipe.errors import SourceError
from tlpipe.stages.source.survey import SPLIT_NAMES, Survey
from tlpipe.types import Split

_MOST_KNOWN = 1 << 16  # folders whose meaning is remembered

_Meaning = tuple[Split, str | None]


@dataclass
class FolderStudy:
    """Learns how the folders of all images stand, in the memory of their names at one depth."""

    _common: list[str] | None = None
    _next: set[str | None] = field(default_factory=set)

    def add(self, folder: str) -> None:
        """Take in the folder of an image, such as "cat/sub"; empty for none."""
        parts = folder.split("/") if folder else []
        if self._common is None:
            self._common, self._next = parts, {None}
            return
        depth = 0
        for ours, theirs in zip(self._common, parts, strict=False):
            if ours != theirs:
                break
            depth += 1
        if depth < len(self._common):
            self._next = {self._common[depth]}
            self._common = self._common[:depth]
        self._next.add(parts[depth] if depth < len(parts) else None)

    def layout(self, where: str) -> FolderLayout:
        """How they are to be understood.

        Raises
        ------
        SourceError
            Folders that are splits stand beside others.
        """
        packed = list(self._common or [])
        top = self._next
        if packed and top == {None}:
            top = {packed.pop()}
        splits = [i for i, name in enumerate(packed) if name.lower() in SPLIT_NAMES]
        if splits:
            top = {packed[splits[0]]}
            packed = packed[: splits[0]]
        names = {name for name in top if name is not None}
        found = {name: SPLIT_NAMES[name.lower()] for name in names if name.lower() in SPLIT_NAMES}
        if found and found.keys() != names:
            if len(found) > 1:
                raise SourceError(
                    f"{where} holds the splits {sorted(found)} and beside them"
                    f" {sorted(names - found.keys())[:20]}.",
                    hint="Leave the others out of it, or put the images into archives of their own"
                    " for each split.",
                )
            found = {}  # a class may well be called "train", or "test"
        return FolderLayout("".join(f"{name}/" for name in packed), found, bool(names))


@dataclass
class FolderLayout:
    """What the folder of an image says.

    Attributes
    ----------
    packed : str
        The folder that was packed, with a slash; empty where there is none.
    split_of : dict of str to Split
        Folders that are splits; empty where the folders are classes.
    folders : bool
        Whether there is any folder below it.
    """

    packed: str
    split_of: dict[str, Split]
    folders: bool
    _known: dict[str, _Meaning] = field(default_factory=dict, repr=False)

    def meaning(self, folder: str) -> _Meaning:
        """Split and label of the images in a folder."""
        known = self._known.get(folder)
        if known is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            known = self._known[folder] = self._meaning(folder)
        return known

    def _meaning(self, folder: str) -> _Meaning:
        if not folder or not f"{folder}/".startswith(self.packed):
            return Split.NONE, None
        parts = f"{folder}/"[len(self.packed) :].split("/")[:-1]
        if not self.split_of:
            return Split.NONE, parts[0] if parts else None
        split = self.split_of.get(parts[0], Split.NONE) if parts else Split.NONE
        return split, parts[1] if len(parts) > 1 else None

    def describe(self, survey: Survey, kind: str) -> None:
        """Say in a survey how the folders were understood."""
        if self.split_of:
            survey.layout = f"{kind}, a folder per class under split folders"
        elif self.folders:
            survey.layout = f"{kind}, a folder per class"
        else:
            survey.layout = kind
        if self.packed:
            survey.notices.append(
                f"All images lie in the folder {self.packed[:-1]!r}, which is taken for the one"
                " that was packed and says nothing of them."
            )
