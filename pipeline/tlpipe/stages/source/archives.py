"""Tar and zip archives as sources: one, or the shards of a data set."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tlpipe.errors import SourceError
from tlpipe.stages.source.archive_reader import ArchiveReader
from tlpipe.stages.source.members import DAMAGE, BlockMaker, Entry, named
from tlpipe.stages.source.open_files import ChangedError, Stamp
from tlpipe.stages.source.packed_layout import FolderLayout, FolderStudy
from tlpipe.stages.source.shards import Shard, shards_of_pattern
from tlpipe.stages.source.sidecars import SidecarError, Sidecars
from tlpipe.stages.source.survey import Asked, Source, Survey
from tlpipe.stages.source.tar_list import NotAnArchiveError, TarWalk
from tlpipe.stages.source.walk import AS_WRITTEN, is_image_name
from tlpipe.stages.source.zip_list import ZipWalk
from tlpipe.types import Block, Reason, Reject, Stage

MOST_KEPT = 100_000
"""Members of which a listing is kept in memory (about 30 MB); of more, archives are listed anew."""

_PEEKED = 32  # members at the start, among which the first .json tells the further columns

_COMPRESSED = (".tgz", ".tbz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")


def open_archive(path: Path, allowed: Sequence[str]) -> Source:
    """Take one tar or zip file as a source; the beginning of its listing is read.

    Nothing outside it is ever read: `allowed` makes no difference.
    """
    del allowed
    return _source(str(path), [Shard(str(path))], str(path.resolve()))


def open_pattern(pattern: str, allowed: Sequence[str]) -> Source:
    """Take a pattern that stands for tar or zip files as a source."""
    return open_shards(pattern, shards_of_pattern(pattern, allowed))


def open_shards(name: str, shards: list[Shard]) -> Source:
    """Take archives as one source, the keys of each beginning with its name."""
    return _source(name, shards, os.path.abspath(name))  # noqa: PTH100  (it may be a pattern)


def refuse_compressed(path: Path) -> None:
    """Refuse a compressed tar archive by its name.

    Raises
    ------
    SourceError
    """
    if path.name.lower().endswith(_COMPRESSED):
        raise SourceError(
            f"The source {str(path)!r} is a compressed tar archive: its members cannot be read"
            " without unpacking all that stands before them.",
            hint="Unpack that layer once, for example with 'gunzip --keep FILE.tar.gz': images"
            " hardly get smaller by it.",
        )


def _source(name: str, shards: list[Shard], text: str) -> Source:
    listing = _Listing(name, shards)
    return Source(
        name,
        listing.blocks,
        reader=listing.reader,
        paths=[Path(shard.path) for shard in shards],
        columns=listing.columns(),
        text=text,
    )


@dataclass
class _Kept:
    """A listing that is kept in memory: entries of each archive, and what was left out."""

    stamps: list[Stamp]
    entries: list[list[Entry]]
    survey: Survey


class _Listing:
    """Lists the archives of a source any number of times."""

    def __init__(self, name: str, shards: list[Shard]) -> None:
        self.reader = ArchiveReader([shard.path for shard in shards])
        self._name, self._shards = name, shards
        self._layout: FolderLayout | None = None  # decided once: no later scan labels otherwise
        self._kept: _Kept | None = None

    def columns(self) -> list[str]:
        """Further columns, as the first JSON file tells them that stands near the beginning."""
        for name, place in itertools.islice(self._entries(0, Survey("")), _PEEKED):
            if not name.lower().endswith(".json"):
                continue
            read = self.reader.read(place)
            found = Sidecars()
            if isinstance(read, Reject):
                continue
            try:
                found.add(".json", read[0])
            except SidecarError:
                continue  # the scan says it
            return found.columns
        return []

    def blocks(self, survey: Survey, asked: Asked) -> Iterator[Block]:
        """Blocks of all members; see ``ListBlocks``."""
        kept = self._still_kept()
        if self._layout is None or (kept is None and self._kept is not None):
            kept = self._study()
        layout = self._layout
        if layout is None:
            raise AssertionError("a study makes a layout")
        maker = BlockMaker(layout, asked, survey, self.reader.read)
        for number, shard in enumerate(self._shards):
            if kept is not None:
                entries: Iterator[Entry] = iter(kept.entries[number])
            else:
                entries = self._entries(number, survey)
            yield from maker.archive(entries, shard.prefix, shard.split)
        if kept is not None:
            survey.skipped.update(kept.survey.skipped)
            survey.notices.extend(kept.survey.notices)
        yield from maker.last()
        layout.describe(survey, self._kind())

    def _kind(self) -> str:
        kinds = {Path(shard.path).suffix.lower()[1:] for shard in self._shards}
        kind = " and ".join(sorted(kinds))
        many = bool(self._shards[0].prefix)
        plural = "" if len(self._shards) == 1 else "s"
        return f"{len(self._shards):,} {kind} archive{plural}" if many else f"a {kind} archive"

    def _still_kept(self) -> _Kept | None:
        """The kept listing, if the archives are as they were."""
        kept = self._kept
        if kept is None:
            return None
        return kept if kept.stamps == self._stamps() else None

    def _stamps(self) -> list[Stamp]:
        try:
            return [self.reader.files.stamp(number) for number in range(len(self._shards))]
        except OSError as exc:
            raise self._unreadable(self._name, exc) from exc

    def _study(self) -> _Kept | None:
        """List all once: to learn how the folders stand, and to keep the listing if it is short."""
        study = FolderStudy()
        kept = _Kept(self._stamps(), [], Survey(""))
        ignored: Counter[str] = Counter()
        room = MOST_KEPT
        last: str | None = None
        for number in range(len(self._shards)):
            here: list[Entry] = []
            kept.entries.append(here)
            for entry in self._entries(number, kept.survey):
                name, place = entry
                if room > 0:
                    here.append(entry)
                    room -= 1
                slash = name.rfind("/")
                if not isinstance(place, Reject) and (
                    name[name.rfind(".") :] in AS_WRITTEN
                    or is_image_name(name[slash + 1 :], ignored)
                ):
                    folder = name[:slash] if slash > 0 else ""
                    if folder != last:
                        study.add(folder)
                        last = folder
        if self._layout is None:
            self._layout = study.layout(f"The source {self._name!r}")
        self._kept = kept if room > 0 else None
        return self._kept

    def _entries(self, number: int, survey: Survey) -> Iterator[Entry]:
        """Members of one archive; one of several that is no archive is a reject."""
        path = self._shards[number].path
        where = f"The archive {path!r}"
        kind = ZipWalk if path.lower().endswith(".zip") else TarWalk
        try:
            yield from named(kind(self.reader.files, number, where, survey).members(), survey)
        except NotAnArchiveError as exc:
            if len(self._shards) == 1:
                raise
            yield f"{DAMAGE}0", Reject(Stage.SOURCE, Reason.CORRUPT, str(exc))
        except ChangedError as exc:
            raise SourceError(
                f"{where} changed while it was listed.",
                hint="Run the same command when nothing writes to it any more.",
            ) from exc
        except OSError as exc:
            raise self._unreadable(path, exc) from exc

    def _unreadable(self, path: str, exc: OSError) -> SourceError:
        return SourceError(
            f"The archive {path!r} cannot be read: {exc.strerror or exc}.",
            hint="Correct its permissions, or bring it back.",
        )
