"""Folders of images: what their layout says, and their items in the order of path components."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tlpipe.errors import SourceError
from tlpipe.stages.source.places import Places, as_folder
from tlpipe.stages.source.survey import (
    BLOCK_ITEMS,
    OUTSIDE,
    SPLIT_NAMES,
    Asked,
    ListBlocks,
    Source,
    Survey,
    file_stat,
)
from tlpipe.stages.source.walk import Folder, Walker, Walks
from tlpipe.types import Block, Split

_MOST_NAMED = 5  # of the folders without any image


def open_folder(root: Path, allowed: Sequence[str]) -> Source:
    """Take a folder as classes, splits of classes or unlabelled images; nothing is walked yet."""
    start = as_folder(str(root))
    blocks = walking(str(root), start, lambda: Walker(Places(start, allowed)))
    return Source(str(root), blocks, paths=[root], walked=True)


def walking(name: str, start: str, new_walker: Callable[[], Walks]) -> ListBlocks:
    """What lists the images of a folder.

    Parameters
    ----------
    name : str
        The folder, as people read it.
    start : str
        Its path, as the walkers take it.
    new_walker : callable
        Makes what lists folders; one for each walk.
    """
    known: list[dict[str, Split]] = []  # decided once, so that no later scan labels otherwise

    def blocks(survey: Survey, asked: Asked) -> Iterator[Block]:
        if not known:
            known.append(_split_folders(name, new_walker(), start))
        scan = _Scan(new_walker(), known[0], asked.stats, survey)
        yield from scan.blocks(start)

    return blocks


@dataclass(slots=True)
class _Visit:
    """How far a walk has come in one folder."""

    folder: Folder
    name: str
    split: Split
    label: str | None
    files_done: int = 0
    folders_done: int = 0
    found: bool = False


@dataclass
class _Scan:
    """One walk over a source's folder, which makes blocks and fills a survey."""

    walker: Walks
    split_of: dict[str, Split]
    stats: bool
    survey: Survey
    top: set[str] = field(default_factory=set)
    empty: list[str] = field(default_factory=list)

    def blocks(self, start: str) -> Iterator[Block]:
        """All items, at most ``BLOCK_ITEMS`` at a time."""
        block = Block()
        open_ = [_Visit(self.walker.listing(start, ""), "", Split.NONE, None)]
        while open_:
            here = open_[-1]
            files, folders = here.folder.files, here.folder.folders
            into = folders[here.folders_done] if here.folders_done < len(folders) else None
            end = len(files) if into is None else bisect_left(files, into, here.files_done)
            while here.files_done < end:
                self._take(here, block, end)
                if len(block) == BLOCK_ITEMS:
                    yield block
                    block = Block()
            if into is None:
                open_.pop()
                self._leave(here, open_)
            else:
                here.folders_done += 1
                open_.append(self._enter(here, into, len(open_)))
        if len(block):
            yield block
        self._finish()

    def _take(self, here: _Visit, block: Block, end: int) -> None:
        """Put a folder's next files into a block, as many as fit."""
        start = here.files_done
        names = here.folder.files[start : min(end, start + BLOCK_ITEMS - len(block))]
        prefix = here.folder.prefix
        places = here.folder.places(names)
        block.keys.extend([prefix + name for name in names])
        block.places.extend(places)
        block.labels.extend([here.label] * len(names))
        block.splits.extend([here.split] * len(names))
        if self.stats:
            block.stats.extend(map(file_stat, places))
        self.survey.labels[here.split, here.label] += len(names)
        here.files_done += len(names)
        here.found = True

    def _enter(self, here: _Visit, name: str, depth: int) -> _Visit:
        """Open a folder; of the folders down to it, at most two say something of its images."""
        split, label = here.split, here.label
        if depth == 1 and self.split_of:
            split = self.split_of.get(name, Split.NONE)
        elif depth == (2 if self.split_of else 1):
            label = name
        return _Visit(self.walker.listing(*here.folder.below(name)), name, split, label)

    def _leave(self, here: _Visit, above: list[_Visit]) -> None:
        if not above:
            return
        if here.found:
            above[-1].found = True
            if len(above) == 1:
                self.top.add(here.name)
        elif len(self.empty) <= _MOST_NAMED:
            self.empty.append(here.folder.prefix.rstrip("/"))

    def _finish(self) -> None:
        """Say what the walk was like."""
        survey = self.survey
        survey.skipped.update(self.walker.skipped)
        survey.layout = _layout(bool(self.split_of), self.top)
        named_like_splits = sorted(name for name in self.top if name.lower() in SPLIT_NAMES)
        if named_like_splits and not self.split_of:
            survey.notices.append(
                f"The folder {named_like_splits[0]!r} is taken for a class, since other folders"
                " stand beside it that are no splits."
            )
        loose = sum(n for (_, label), n in survey.labels.items() if label is None)
        if loose and survey.classes:
            survey.notices.append(f"Images outside any class folder: {loose}. They have no label.")
        if self.empty:
            more = " ..." if len(self.empty) > _MOST_NAMED else ""
            names = ", ".join(repr(name) for name in self.empty[:_MOST_NAMED]) + more
            survey.notices.append(f"Folders without any image: {names}.")
        if self.walker.first_outside:
            others = survey.skipped[OUTSIDE] - 1
            survey.notices.append(
                f"The link {self.walker.first_outside!r} leads outside the source and is left out"
                + (f", like {others} more" if others else "")
                + ": name the folder it leads into with --allow-outside FOLDER to follow it."
            )


def _split_folders(name: str, walker: Walks, start: str) -> dict[str, Split]:
    """Top-level folders that are splits; empty where the folders are classes.

    Folders without any image say nothing. They are looked into only where a name is a split's.
    """
    here = walker.listing(start, "")
    if not any(name.lower() in SPLIT_NAMES for name in here.folders):
        return {}
    top = {name for name in here.folders if walker.has_image(*here.below(name))}
    splits = {name: SPLIT_NAMES[name.lower()] for name in top if name.lower() in SPLIT_NAMES}
    if not splits or splits.keys() == top:
        return splits
    if len(splits) == 1:
        return {}  # a class may well be called "train", or "test"
    others = sorted(top - splits.keys())
    raise SourceError(
        f"The folder {name!r} holds the splits {sorted(splits)} and beside them {others}.",
        hint="Move the others away, or list the images in a CSV with path, label and split.",
    )


def _layout(splits: bool, top: set[str]) -> str:
    if splits:
        return "a folder per class under split folders"
    return "a folder per class" if top else "a flat folder without labels"
