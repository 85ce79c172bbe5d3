"""The archives that one source consists of: a file, a folder of them, a pattern with * or {..}."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tlpipe.errors import SourceError
from tlpipe.files import is_file
from tlpipe.stages.source.places import Places, as_folder
from tlpipe.stages.source.survey import SPLIT_NAMES, printable
from tlpipe.types import Split

ARCHIVE_EXTENSIONS = (".tar", ".zip")

_MOST_SHARDS = 100_000

_MAGIC = re.compile(r"[*?\[{]")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})")
_WORDS = re.compile(r"[^A-Za-z]+")


@dataclass(frozen=True, slots=True)
class Shard:
    """An archive of a source.

    Attributes
    ----------
    path : str
    prefix : str
        What its members' keys begin with; empty for an archive that is the whole source.
    split : Split
        What its name or folder says of all its members.
    """

    path: str
    prefix: str = ""
    split: Split = Split.NONE


def is_pattern(name: str) -> bool:
    """Whether a name stands for several files."""
    return _MAGIC.search(name) is not None


def expanded(pattern: str) -> list[str]:
    """Paths that a pattern stands for: braces in their own order, the others sorted.

    Raises
    ------
    SourceError
        Nothing matches it, or it stands for too much.
    """
    paths: dict[str, None] = {}
    for name in itertools.islice(_without_braces(pattern), _MOST_SHARDS + 1):
        paths.update(dict.fromkeys(sorted(glob.glob(name)) if is_pattern(name) else [name]))  # noqa: PTH207
        if len(paths) > _MOST_SHARDS:
            raise SourceError(
                f"The source {pattern!r} stands for more than {_MOST_SHARDS:,} files.",
                hint="Name fewer with a narrower pattern.",
            )
    if not paths:
        raise SourceError(
            f"The source {pattern!r} does not exist, and no file matches it.",
            hint="* stands for any text, {000..099} for numbers, {a,b} for words.",
        )
    return list(paths)


def shards_of_pattern(pattern: str, allowed: Sequence[str]) -> list[Shard]:
    """Archives that a pattern stands for; their keys begin below its fixed part.

    Raises
    ------
    SourceError
        One is missing, is no archive by its name, or a link that leads outside.
    """
    magic = _MAGIC.search(pattern)
    fixed = os.path.dirname(pattern[: magic.start()] if magic else pattern)  # noqa: PTH120
    found = expanded(pattern)
    for path in found:
        if not path.lower().endswith(ARCHIVE_EXTENSIONS):
            raise SourceError(
                f"The source {pattern!r} stands for {path!r} among others, which is no archive.",
                hint="A pattern may name .tar and .zip files; for a folder of images give the"
                " folder.",
            )
        if not is_file(Path(path)):
            raise SourceError(
                f"The source {pattern!r} names {path!r}, which is no file that exists.",
                hint="Correct the numbers in braces, or bring the file back.",
            )
    return _as_shards(found, fixed, pattern, allowed)


def shards_of_folder(folder: str, allowed: Sequence[str]) -> list[Shard]:
    """Archives of a folder that holds archives and no images, in it or in its folders; else none.

    Raises
    ------
    SourceError
        One is a link that leads outside.
    """
    found: list[str] = []
    with os.scandir(folder) as entries:
        here = sorted(entries, key=lambda entry: entry.name) if _only_archives(folder) else []
    for entry in here:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            with os.scandir(entry.path) as below:
                names = [e.path for e in below if not e.name.startswith(".")]
            found += sorted(name for name in names if name.lower().endswith(ARCHIVE_EXTENSIONS))
        elif entry.name.lower().endswith(ARCHIVE_EXTENSIONS):
            found.append(entry.path)
    return _as_shards(found, folder, folder, allowed)


def _only_archives(folder: str) -> bool:
    """Whether a folder holds archives and no images; ends at the first file that is neither."""
    from tlpipe.stages.source.walk import IMAGE_EXTENSIONS

    some = False
    folders = [folder]
    for number, path in enumerate(folders):
        with os.scandir(path) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith("."):
                    continue
                extension = name[name.rfind(".") :].lower() if "." in name else ""
                if extension in IMAGE_EXTENSIONS:
                    return False
                if extension in ARCHIVE_EXTENSIONS:
                    some = True
                elif entry.is_dir(follow_symlinks=False):
                    if number:
                        return False
                    folders.append(entry.path)
    return some


def _as_shards(paths: list[str], folder: str, where: str, allowed: Sequence[str]) -> list[Shard]:
    """Archives with the splits that their names and folders tell."""
    root = as_folder(folder or ".")
    places = Places(root, allowed)
    shards = []
    for path in paths:
        real = places.real(path)
        if real is None or not places.hold(real):
            raise SourceError(
                f"The archive {path!r} is a link that leads outside the source {where!r}.",
                hint="Name the folder it leads into with --allow-outside FOLDER.",
            )
        below = os.path.relpath(path, root).replace(os.sep, "/")
        shards.append(Shard(path, printable(f"{below}/"), _split_of(below)))
    told = {shard.split for shard in shards}
    if Split.NONE in told and len(told) > 1:
        first = {shard.split is Split.NONE: shard.path for shard in reversed(shards)}
        raise SourceError(
            f"Among the archives of {where!r}, {first[False]!r} names a split and {first[True]!r}"
            " does not.",
            hint="Name those to use with a pattern, such as 'FOLDER/train-*.tar'.",
        )
    return shards


def _split_of(below: str) -> Split:
    """Split that the words of a path tell; none where they tell two."""
    words = {SPLIT_NAMES[w] for w in _WORDS.split(below.lower()) if w in SPLIT_NAMES}
    return words.pop() if len(words) == 1 else Split.NONE


def _without_braces(pattern: str) -> Iterator[str]:
    """What a pattern stands for when each {000..099} and {a,b} is one of its values."""
    match = _BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    for value in _values(match[1]):
        yield from _without_braces(pattern[: match.start()] + value + pattern[match.end() :])


def _values(inside: str) -> Iterator[str]:
    bounds = _RANGE.fullmatch(inside)
    if bounds is None:
        yield from inside.split(",")
        return
    first, last = int(bounds[1]), int(bounds[2])
    width = len(bounds[1]) if bounds[1].startswith("0") or len(bounds[1]) == len(bounds[2]) else 0
    for number in range(first, last + 1):
        yield str(number).zfill(width)
