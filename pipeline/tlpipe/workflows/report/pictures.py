"""Thumbnails of the images of a page, read again from where they were when they were embedded.

An image is shown only where its content is still the one that was embedded.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tlpipe.addresses import is_store, is_web, shown
from tlpipe.errors import SourceError, TlpipeError
from tlpipe.machine import usable_cores
from tlpipe.quantities import by_count
from tlpipe.stages.decode import decode, quiet_pillow
from tlpipe.stages.page import Sheet
from tlpipe.stages.source import STANDARD_INPUT, Source, is_remote, open_source
from tlpipe.stages.store import Features
from tlpipe.stages.thumbnails import MEDIA_TYPE, TILES, Budget, reduction, squared, tile_px
from tlpipe.types import Item, Progress, ProgressCallback, Reject
from tlpipe.workflows.pixels import interrupting
from tlpipe.workflows.report.options import ReportOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import UInt8Array

    Ints = NDArray[np.int64]

SHEETS_BYTES, LARGER_BYTES = 5_000_000, 800_000
"""As text in a page they take a third more."""

_LARGER_PX = 96
_NOT_FETCHED = "kept on a network"
_CHANGED = "changed since it was embedded"
_NOT_LISTED = "no longer in the source"
_NO_ROOM = "too many for the page"


@dataclass
class Pictures:
    """Pictures of the images of a page, as of ``Images``; and what is to be told of those without.

    Attributes
    ----------
    tiles : int32 array (M,)
    sheets : list of Sheet
    larger : dict of int to bytes
    notices : list of str
    """

    tiles: NDArray[np.int32]
    sheets: list[Sheet] = field(default_factory=list)
    larger: dict[int, bytes] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)


def pictures_of(
    data: Features,
    rows: Ints,
    large: Ints,
    given: Source | str | Path | None,
    options: ReportOptions,
    progress: ProgressCallback | None,
) -> Pictures:
    """Read images again and make them small.

    Parameters
    ----------
    data : Features
    rows : int64 array (M,)
        Of the images of the page.
    large : int64 array
        Numbers on the page of those that get a larger picture.
    given : Source, str or pathlib.Path, or None
        Where the images are; None for where the feature file says.
    options : ReportOptions
    progress : callable or None

    Raises
    ------
    SourceError
        `given` is no source, or cannot be listed. What the feature file names may be away.
    """
    found = Pictures(np.full(rows.size, -1, np.int32))
    if not options.pictures or not rows.size:
        return found
    where = data.header.source if given is None else given
    named = where.text if isinstance(where, Source) else str(where)
    remote = any(is_web(part) or is_store(part) for part in named.split("; "))
    if remote and not options.fetch:
        found.notices.append(
            f"The images are on a network ({shown(named)}), and were not read again: there are no"
            " pictures. --fetch reads them."
        )
        return found
    try:
        filling = _Filling(found, data, rows, large, options.fetch)
        with quiet_pillow():
            for source in _opened(where, options):
                filling.fill(source, progress)
    except TlpipeError as exc:
        if given is not None:
            raise
        found = Pictures(np.full(rows.size, -1, np.int32))
        found.notices.append(
            f"There are no pictures, since the images cannot be read again: {exc.message} Where"
            " they have moved, name the place with --source."
        )
        return found
    missing = filling.missing()
    if missing:
        fetch = " --fetch reads those on a network." if missing[_NOT_FETCHED] else ""
        found.notices.append(
            f"{missing.total():,} of {rows.size:,} images have no picture:"
            f" {by_count(missing)}.{fetch}"
        )
    return found


def _opened(where: Source | str | Path, options: ReportOptions) -> list[Source]:
    """The source; or those of the files that were merged."""
    if isinstance(where, Source):
        return [where]
    if str(where) in ("", STANDARD_INPUT):  # a file must not have this process wait for input
        raise SourceError("The feature file does not say where they are.")
    parts = str(where).split("; ")  # as ``merge`` joins them
    try:
        return [open_source(where, allow_outside=options.allow_outside)]
    except SourceError:
        if len(parts) == 1:
            raise
    return [open_source(part, allow_outside=options.allow_outside) for part in parts]


@dataclass(frozen=True)
class _Small:
    """Tiles of an image, or why there are none."""

    number: int
    tile: UInt8Array | None
    larger: UInt8Array | None = None
    reason: str = ""


class _Filling:
    """Fills sheets with tiles, in the order of the source; two sheets of them are in memory."""

    def __init__(
        self, found: Pictures, data: Features, rows: Ints, large: Ints, fetch: bool
    ) -> None:
        self._found = found
        self._digests = data.content_sha256[rows]
        self._number = {data.keys[row]: number for number, row in enumerate(rows.tolist())}
        self._large = set(large.tolist())
        self._fetch = fetch
        self._px = tile_px(rows.size, SHEETS_BYTES)
        self._sheets = Budget(SHEETS_BYTES, rows.size)
        self._larger = Budget(LARGER_BYTES, len(self._large))
        self._wanted = dict(self._number)
        self._done = self._count = 0
        self._missing: Counter[str] = Counter()

    def missing(self) -> Counter[str]:
        """Images without a picture, by reason, once all sources were read."""
        return self._missing + Counter({_NOT_LISTED: len(self._wanted)})

    def fill(self, source: Source, progress: ProgressCallback | None) -> None:
        """Take what a source has of the images that are still wanted."""

        def small(item: Item) -> _Small:
            return self._small(source, item)

        pool = ThreadPoolExecutor(usable_cores())
        before: Iterator[_Small] = iter(())
        try:
            for items in _chunks(source, self._wanted):
                made = pool.map(small, items)  # begun at once, while the sheet before is written
                self._take(list(before))
                before = made
                self._done += len(items)
                if progress is not None:
                    lost = self._missing.total()
                    progress(Progress("thumbnails", self._done, len(self._number), lost))
            self._take(list(before))
        except BaseException:
            interrupting(source.reader)()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _small(self, source: Source, item: Item) -> _Small:
        number = self._number[item.key]
        if is_remote(item.place) and not self._fetch:
            return _Small(number, None, reason=_NOT_FETCHED)
        read = source.reader.read(item.place)
        if isinstance(read, Reject):
            return _Small(number, None, reason=str(read.reason))
        raw, stat = read
        if hashlib.sha256(raw).digest() != self._digests[number].tobytes():
            return _Small(number, None, reason=_CHANGED)
        px = _LARGER_PX if number in self._large else self._px
        picture = decode(raw, stat, lambda size: reduction(size, px))
        if isinstance(picture, Reject):
            return _Small(number, None, reason=str(picture.reason))
        larger = squared(picture, _LARGER_PX) if number in self._large else None
        return _Small(number, squared(picture, self._px), larger)

    def _take(self, made: Sequence[_Small]) -> None:
        tiles = []
        for small in made:
            if small.tile is None:
                self._missing[small.reason] += 1
            else:
                tiles.append((small.number, small.tile))
            if small.larger is not None:
                data = self._larger.single(small.larger)
                if data is not None:  # else the tile is all there is
                    self._found.larger[small.number] = data
        if not tiles:
            return
        packed = self._sheets.packed([tile for _, tile in tiles])
        if packed is None:
            self._missing[_NO_ROOM] += len(tiles)
            return
        sheet = Sheet(packed.data, MEDIA_TYPE, packed.tile_px, packed.columns, packed.count)
        self._found.sheets.append(sheet)
        for number, _ in tiles:
            self._found.tiles[number] = self._count
            self._count += 1


def _chunks(source: Source, wanted: dict[str, int]) -> Iterator[list[Item]]:
    """Items whose keys are wanted, a sheet of them at a time; those found are taken out."""
    chunk: list[Item] = []
    for item in source.items():
        if wanted.pop(item.key, None) is None:
            continue
        chunk.append(item)
        if len(chunk) == TILES:
            yield chunk
            chunk = []
        if not wanted:
            break
    if chunk:
        yield chunk
