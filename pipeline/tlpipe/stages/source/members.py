"""From the members of archives to items, in the archives' order: names, folders, label files."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tlpipe.stages.source.packed_layout import FolderLayout
from tlpipe.stages.source.reading import MAX_FILE_BYTES
from tlpipe.stages.source.sidecars import (
    MOST_SIDECAR_BYTES,
    SIDECAR_EXTENSIONS,
    SidecarError,
    Sidecars,
    base_of,
)
from tlpipe.stages.source.survey import BLOCK_ITEMS, Asked, Survey
from tlpipe.stages.source.walk import AS_WRITTEN, is_image_name
from tlpipe.types import Block, FileStat, Reason, Reject, Split, Stage

DAMAGE = "\0damaged at byte "
"""Beginning of the name of what is no member: a place where an archive is damaged, and where
members may have been lost. It is an item, and a reject."""

MOST_PACKED_BYTES = MAX_FILE_BYTES + (1 << 20)
"""Of a member that is read: deflate makes what cannot be made smaller a little larger."""

_WAITING = 64  # images of one sample that wait for its label files
_FULL = BLOCK_ITEMS - _WAITING - 1  # so that a block holds what one more file may make items of

Entry = tuple[str, Any]
"""Name of a member, valid UTF-8, and its place: see ``ArchiveReader``."""

ReadMember = Callable[[Any], tuple[bytes, FileStat] | Reject]


def plain_name(name: str) -> str | None:
    """`name` without parts that say nothing; empty for a hidden one, None if it leads outside."""
    slashed = name.replace("\\", "/")
    if slashed.startswith("/") or slashed[1:3] == ":/" or ".." in slashed.split("/"):
        return None
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if any(part[0] == "." for part in parts):
        return ""
    return "/".join(parts)


def is_odd(name: str) -> bool:
    """Whether ``plain_name`` has to look at a name; spares that for all the others."""
    return name[:1] in "./" or "/." in name or "//" in name or "\\" in name or name[1:2] == ":"


def named(entries: Iterable[Entry], survey: Survey) -> Iterator[Entry]:
    """Members by their plain names; what is hidden is left out, what leads outside a reject."""
    for entry in entries:
        name = entry[0]
        if not is_odd(name):
            yield entry
            continue
        plain = plain_name(name)
        if plain is None:
            if is_image_name(name[name.rfind("/") + 1 :], survey.skipped):
                detail = "Its name is absolute or holds '..': it leads outside the archive."
                yield name, Reject(Stage.SOURCE, Reason.UNREADABLE, detail)
        elif plain:
            yield plain, entry[1]
        else:
            survey.skipped["hidden"] += 1


@dataclass(slots=True)
class _Waiting:
    """An image whose label files may be still to come."""

    name: str
    place: Any


class BlockMaker:
    """Makes blocks of the members of one archive after the other.

    Parameters
    ----------
    layout : FolderLayout
    asked : Asked
    survey : Survey
        Filled with what is found.
    read : callable
        Reads a label file.
    """

    def __init__(
        self, layout: FolderLayout, asked: Asked, survey: Survey, read: ReadMember
    ) -> None:
        self.block = Block()
        self._layout, self._asked, self._survey, self._read = layout, asked, survey, read
        self._prefix, self._split = "", Split.NONE
        self._base = ""
        self._waiting: deque[_Waiting] = deque()
        self._sidecars: dict[str, Sidecars] = {}
        self._claimed = False  # whether the sample at hand has an image
        self._first_unusable = ""

    def archive(self, entries: Iterable[Entry], prefix: str, split: Split) -> Iterator[Block]:
        """Blocks that are full, of an archive's members as ``named`` gives them.

        `prefix` is put before the names; `split` is that of what has none by its folder.
        """
        self._prefix, self._split = prefix, split
        survey = self._survey
        for name, place in entries:
            slash = name.rfind("/")
            extension = name[name.rfind(".") :]
            if extension in AS_WRITTEN and name[slash + 1] != ".":
                self._image(name, place)
            elif extension.lower() in SIDECAR_EXTENSIONS:
                self._sidecar(name, extension, place)
            elif name.startswith(DAMAGE):
                self._end_sample()
                self._add(name[1:], place, (Split.NONE, None), None)
            elif is_image_name(name[slash + 1 :], survey.skipped):
                self._image(name, place)
            if len(self.block) >= _FULL:
                yield self._taken()
        self._end_sample()
        if len(self.block) >= _FULL:
            yield self._taken()

    def last(self) -> Iterator[Block]:
        """What is left when there is no archive any more."""
        if len(self.block):
            yield self._taken()
        if self._first_unusable:
            self._survey.notices.append(self._first_unusable)

    def _taken(self) -> Block:
        """The items since the block before."""
        block, self.block = self.block, Block()
        return block

    def _image(self, name: str, place: Any) -> None:
        self._begin(base_of(name))
        if len(self._waiting) >= _WAITING:
            self._settle(self._waiting.popleft())
        self._claimed = True
        self._waiting.append(_Waiting(name, place))

    def _sidecar(self, name: str, extension: str, place: Any) -> None:
        self._begin(base_of(name))
        stem = name[: -len(extension)]
        found = self._sidecars.get(stem)
        if found is None:
            while len(self._sidecars) >= _WAITING:
                self._sidecars.pop(next(iter(self._sidecars)))
            found = self._sidecars[stem] = Sidecars()
        try:
            found.add(extension.lower(), self._content(place))
        except SidecarError as exc:
            self._survey.skipped["label file that cannot be used"] += 1
            self._first_unusable = self._first_unusable or (
                f"The label file {self._prefix + name!r} {exc}; it says nothing of its image."
            )

    def _content(self, place: Any) -> bytes:
        """Content of a label file."""
        if not isinstance(place, Reject) and place.size > MOST_SIDECAR_BYTES:
            raise SidecarError(f"has {place.size:,} bytes; {MOST_SIDECAR_BYTES:,} are read")
        read = self._read(place)
        if isinstance(read, Reject):
            raise SidecarError(f"cannot be read ({read.detail.rstrip('.')})")
        return read[0]

    def _begin(self, base: str) -> None:
        """Turn to the sample of a file, which may be another one."""
        if base != self._base:
            self._end_sample()
            self._base = base

    def _end_sample(self) -> None:
        while self._waiting:
            self._settle(self._waiting.popleft())
        if self._sidecars:
            if not self._claimed:
                self._survey.skipped["label file without an image next to it"] += 1
            self._sidecars.clear()
        self._base, self._claimed = "", False

    def _settle(self, image: _Waiting) -> None:
        """Make an item of an image, now that its label files are known."""
        name = image.name
        slash = name.rfind("/")
        outside = isinstance(image.place, Reject) and is_odd(name)
        split, label = self._layout.meaning("" if slash <= 0 or outside else name[:slash])
        beside = None
        if self._sidecars:
            beside = self._sidecars.get(name[: name.rfind(".")]) or self._sidecars.get(self._base)
        if beside is not None:
            told = self._label(beside, name)
            label = label if told is None else told
        self._add(name, image.place, (split, label), beside)

    def _label(self, beside: Sidecars, name: str) -> str | None:
        try:
            return beside.label
        except SidecarError as exc:
            self._survey.skipped["label file that cannot be used"] += 1
            self._first_unusable = self._first_unusable or (
                f"The label in the .json file of {self._prefix + name!r} {exc}."
            )
            return None

    def _add(
        self, name: str, place: Any, meaning: tuple[Split, str | None], beside: Sidecars | None
    ) -> None:
        split = self._split if meaning[0] is Split.NONE else meaning[0]
        block = self.block
        block.keys.append(self._prefix + name)
        block.places.append(place)
        block.labels.append(meaning[1])
        block.splits.append(split)
        if self._asked.stats:
            block.stats.append(
                (place.stat.size_bytes, place.stat.mtime_ns)
                if isinstance(place, Reject)
                else (place.size, place.stamp[1])
            )
        if self._asked.columns:
            columns = self._asked.columns
            block.more.append(("",) * len(columns) if beside is None else beside.values(columns))
        self._survey.labels[split, meaning[1]] += 1
