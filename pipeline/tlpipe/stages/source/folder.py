"""Folders of images, walked in the order of their path components."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tlpipe.errors import SourceError
from tlpipe.stages.source.survey import SPLIT_NAMES, Source, Survey, printable
from tlpipe.types import Item, Split

# Extensions of the formats that Pillow decodes by itself (a test compares them with its registry).
IMAGE_EXTENSIONS = frozenset(
    (
        ".apng .avif .avifs .blp .bmp .bw .cur .dcx .dds .dib .fit .fits .flc .fli .ftc .ftu .gbr"
        " .gif .icb .icns .ico .iim .im .j2c .j2k .jfif .jp2 .jpc .jpe .jpeg .jpf .jpg .jpx .mpo"
        " .msp .pbm .pcd .pcx .pfm .pgm .png .pnm .ppm .psd .pxr .qoi .ras .rgb .rgba .sgi .tga"
        " .tif .tiff .vda .vst .webp .xbm .xpm"
    ).split()
)


@dataclass
class _Walk:
    """Walks a tree in the order of its path components."""

    root: Path
    skipped: Counter[str] = field(default_factory=Counter)
    empty: list[str] = field(default_factory=list)

    def images(self) -> Iterator[tuple[str, Path]]:
        """Key and path of each image; keys are valid UTF-8 with "/" between components."""
        yield from self._visit(self.root, "", (os.path.realpath(self.root),))

    def _visit(
        self, folder: Path, prefix: str, above: tuple[str, ...]
    ) -> Iterator[tuple[str, Path]]:
        try:
            with os.scandir(folder) as entries:
                found_here = [(printable(entry.name), entry) for entry in entries]
            named = sorted(found_here, key=lambda pair: pair[0])
            names = [name for name, _ in named]
            twice = next((a for a, b in itertools.pairwise(names) if a == b), None)
            if twice is not None:
                raise SourceError(
                    f"Two names in the folder {printable(str(folder))!r} read {twice!r}: one of"
                    " them is no UTF-8.",
                    hint="Rename one of them.",
                )
        except OSError as exc:
            raise SourceError(
                f"The folder {str(folder)!r} cannot be listed: {exc.strerror}.",
                hint="Correct its permissions, or leave it out of the source.",
            ) from exc
        found = False
        for name, entry in named:
            path = folder / entry.name
            if name.startswith("."):
                self.skipped["hidden"] += 1
            elif self._is_dir(entry):
                real = os.path.realpath(path)
                if real in above:
                    self.skipped["symbolic link to a folder it lies in"] += 1
                    continue
                for image in self._visit(path, f"{prefix}{name}/", (*above, real)):
                    found = True
                    yield image
            elif PurePosixPath(name).suffix.lower() in IMAGE_EXTENSIONS:
                found = True
                yield f"{prefix}{name}", path
            else:
                suffix = PurePosixPath(name).suffix.lower()
                self.skipped[f"not an image ({suffix or 'no extension'})"] += 1
        if not found:
            self.empty.append(prefix.rstrip("/"))

    @staticmethod
    def _is_dir(entry: os.DirEntry[str]) -> bool:
        try:
            return entry.is_dir()
        except OSError:  # a symbolic link that leads to itself: listed, then rejected as missing
            return False


def open_folder(root: Path) -> Source:
    """Understand a folder as classes, splits of classes or unlabelled images, and survey it."""
    walk = _Walk(root)
    counts: Counter[tuple[str, ...]] = Counter()
    for key, _ in walk.images():
        counts[tuple(key.split("/")[:-1][:2])] += 1  # at most: split folder, class folder
    top = {folders[0] for folders in counts if folders}
    split_of = _split_folders(root, top)
    skip = 1 if split_of else 0

    def describe(folders: tuple[str, ...]) -> tuple[Split, str | None]:
        split = split_of.get(folders[0], Split.NONE) if folders else Split.NONE
        return split, folders[skip] if len(folders) > skip else None

    survey = Survey(_layout(bool(split_of), top), skipped=walk.skipped)
    for folders, count in counts.items():
        survey.labels[describe(folders)] += count
    named_like_splits = sorted(name for name in top if name.lower() in SPLIT_NAMES)
    if named_like_splits and not split_of:
        survey.notices.append(
            f"The folder {named_like_splits[0]!r} is taken for a class, since other folders stand"
            " beside it that are no splits."
        )
    loose = sum(n for (_, label), n in survey.labels.items() if label is None)
    if loose and survey.classes:
        survey.notices.append(f"Images outside any class folder: {loose}. They have no label.")
    empty = [name for name in walk.empty if name]
    if empty:
        names = ", ".join(repr(name) for name in empty[:5]) + (" ..." if len(empty) > 5 else "")
        survey.notices.append(f"Folders without any image: {names}.")

    def items() -> Iterator[Item]:
        for key, path in _Walk(root).images():
            split, label = describe(tuple(key.split("/")[:-1][:2]))
            yield Item(key, path, label, split)

    return Source(root, items, survey)


def _split_folders(root: Path, top: set[str]) -> dict[str, Split]:
    """Top-level folders that are splits; empty where the folders are classes."""
    splits = {name: SPLIT_NAMES[name.lower()] for name in top if name.lower() in SPLIT_NAMES}
    if not splits or splits.keys() == top:
        return splits
    if len(splits) == 1:
        return {}  # a class may well be called "train", or "test"
    others = sorted(top - splits.keys())
    raise SourceError(
        f"The folder {str(root)!r} holds the splits {sorted(splits)} and beside them {others}.",
        hint="Move the others away, or list the images in a CSV with path, label and split.",
    )


def _layout(splits: bool, top: set[str]) -> str:
    if splits:
        return "a folder per class under split folders"
    return "a folder per class" if top else "a flat folder without labels"
