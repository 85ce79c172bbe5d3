"""A source, and what is known of it before any work is done."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlpipe.errors import OptionError, SourceError
from tlpipe.near import did_you_mean, sentences
from tlpipe.seams import Reader
from tlpipe.stages.source.addressed import Address
from tlpipe.stages.source.anywhere import AnyReader
from tlpipe.types import Block, Item, Split

BLOCK_ITEMS = 4096
"""Most items of one block."""

SPLIT_NAMES = {
    "train": Split.TRAIN,
    "training": Split.TRAIN,
    "validation": Split.VALIDATION,
    "valid": Split.VALIDATION,
    "val": Split.VALIDATION,
    "dev": Split.VALIDATION,
    "test": Split.TEST,
    "testing": Split.TEST,
}

OUTSIDE = "link that leads outside the source"
LISTED_ANYWAY = "link to a folder that is listed anyway"


@dataclass
class Survey:
    """What a source holds, counted before any work is done.

    Attributes
    ----------
    layout : str
        How the source was understood, in words.
    labels : Counter of (Split, str or None)
        Items by split and label.
    skipped : Counter of str
        Entries that are no items, by the reason in words.
    notices : list of str
        What a user would want to know.
    """

    layout: str
    labels: Counter[tuple[Split, str | None]] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    notices: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Number of items, N."""
        return self.labels.total()

    @property
    def classes(self) -> list[str]:
        """Distinct labels, sorted."""
        return sorted({label for _, label in self.labels if label is not None})

    def by_split(self) -> dict[Split, int]:
        """Number of items per split."""
        counts: Counter[Split] = Counter()
        for (split, _), count in self.labels.items():
            counts[split] += count
        return {split: counts[split] for split in Split if counts[split]}


@dataclass(frozen=True, slots=True)
class Asked:
    """What blocks shall hold beside keys, places, labels and splits.

    Attributes
    ----------
    stats : bool
        Sizes and times of change.
    columns : tuple of str
        Further columns, some of those that the source has.
    used : tuple of str
        Further columns that another walk is asked for: no notice calls them unused.
    """

    stats: bool = False
    columns: tuple[str, ...] = ()
    used: tuple[str, ...] = ()

    def unused(self, columns: Sequence[str]) -> list[str]:
        """Those of a source's further columns that nobody asks for."""
        return [name for name in columns if name not in self.columns and name not in self.used]


ListBlocks = Callable[[Survey, Asked], Iterator[Block]]
"""Takes a ``Survey`` of no items; gives the blocks, and has the survey filled when they end."""


class Source:
    """Images that can be listed any number of times, always in the same order.

    Made by ``open_source``. Nothing is walked before the first scan.

    Parameters
    ----------
    name : str
        As the user gave it.
    list_blocks : ListBlocks
    reader : Reader, optional
        By default places are paths of files, or ``Address``.
    paths : sequence of pathlib.Path
        The folder, or the local files, that it consists of.
    walked : bool
        Whether its items are the files of a folder, listed by walking it: no two of them can have
        the same key.
    columns : sequence of str
        Names of the further columns it has.
    text : str
        Where it lies, as files note it; by default the absolute path of its only path, or `name`.

    Attributes
    ----------
    name, reader, paths, walked, columns
    """

    def __init__(
        self,
        name: str,
        list_blocks: ListBlocks,
        *,
        reader: Reader | None = None,
        paths: Sequence[Path] = (),
        walked: bool = False,
        columns: Sequence[str] = (),
        text: str = "",
    ) -> None:
        self.name = name
        self.reader: Reader = AnyReader() if reader is None else reader
        self.paths = tuple(paths)
        self.walked = walked
        self.columns = tuple(columns)
        self._list_blocks = list_blocks
        self._survey: Survey | None = None
        self._used: tuple[str, ...] = ()
        self._text = text

    @property
    def text(self) -> str:
        """Where it lies, as files note it: an absolute path, or what the user gave."""
        return (
            printable(self._text)
            if self._text
            else printable(str(self.paths[0].resolve()) if len(self.paths) == 1 else self.name)
        )

    def copied_from(self, name: str, path: Path, place: Callable[[Any], Any]) -> Source:
        """The source of which this one is a copy on this machine: the same items, and its name.

        Parameters
        ----------
        name : str
        path : pathlib.Path
            The copy, as errors name it.
        place : callable
            From the place of an item to where it really lies.
        """
        own = self._list_blocks

        def blocks(survey: Survey, asked: Asked) -> Iterator[Block]:
            with called(name, path):
                for block in own(survey, asked):
                    block.places[:] = map(place, block.places)
                    yield block

        return Source(name, blocks, reader=self.reader, walked=False, columns=self.columns)

    def check_columns(self, columns: Sequence[str]) -> None:
        """Refuse columns that the source has not; surveys then count these as used.

        Raises
        ------
        OptionError
        """
        missing = [name for name in columns if name not in self.columns]
        if missing:
            has = f"its further columns are {list(self.columns)}" if self.columns else "it has none"
            raise OptionError(
                f"The source {self.name!r} has no further columns {missing}; {has}.",
                hint=sentences(
                    did_you_mean(missing[0], self.columns),
                    "Further columns are those of a manifest or table beside path, label and"
                    " split.",
                ),
            )
        if tuple(columns) != self._used:
            self._used, self._survey = tuple(columns), None

    def scan(self, *, stats: bool, columns: Sequence[str] = ()) -> Iterator[Block]:
        """Walk the source once; when it ends, the survey is that of this walk.

        Parameters
        ----------
        stats : bool
            Whether blocks hold the sizes and times of change of the images.
        columns : sequence of str
            Further columns that blocks shall hold; see ``check_columns``.

        Yields
        ------
        Block
            At most 4,096 items each, in the source's order.

        Raises
        ------
        SourceError
            The source cannot be listed, is ambiguous, or ends without an image.
        """
        survey = Survey("")
        yield from self._list_blocks(survey, Asked(stats, tuple(columns), self._used))
        if not survey.count:
            raise self._without_image(survey)
        self._survey = survey

    def items(self, columns: Sequence[str] = ()) -> Iterator[Item]:
        """A new stream of all items; raises as ``scan``."""
        for block in self.scan(stats=False, columns=columns):
            for index in range(len(block)):
                yield block.item(index)

    @property
    def survey(self) -> Survey:
        """What the latest full scan found; raises as ``scan``, which is made where none was."""
        if self._survey is None:
            for _ in self.scan(stats=False):
                pass
        if self._survey is None:
            raise AssertionError("a full scan makes a survey")
        return self._survey

    def _without_image(self, survey: Survey) -> SourceError:
        skipped = ", ".join(f"{n} {what}" for what, n in sorted(survey.skipped.items()))
        follow = " Links that lead outside are followed with --allow-outside FOLDER."
        return SourceError(
            f"The source {self.name!r} holds no image"
            + (f" (skipped: {skipped})." if skipped else "."),
            hint="Images are recognised by their extension: .jpg, .png, .webp, .tif and so on."
            + (follow if survey.skipped[OUTSIDE] else ""),
        )


@contextlib.contextmanager
def called(name: str, path: Path) -> Iterator[None]:
    """Call a local copy by the name of what it is a copy of, in errors."""
    try:
        yield
    except SourceError as exc:
        said = exc.message.replace(repr(str(path)), repr(name)).replace(str(path), name)
        raise SourceError(said, hint=exc.hint) from exc


def printable(name: str) -> str:
    r"""`name` as valid UTF-8: bytes that are none become ``\xNN``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def file_stat(path: str | Address) -> tuple[int, int]:
    """Size in bytes and modification time in ns, links followed; (-1, -1) if it cannot be told."""
    if isinstance(path, Address):
        return path.size_bytes, path.mtime_ns  # asking for each would cost a request
    try:
        found = os.stat(path)  # noqa: PTH116  (a Path for each file is slow)
    except (OSError, ValueError):  # missing, forbidden, endless links; it becomes a reject later
        return -1, -1
    return found.st_size, found.st_mtime_ns
