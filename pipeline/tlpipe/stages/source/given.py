"""Images that a program gives one by one, as a source: paths, addresses, or images in memory.

What comes once is kept in a temporary file as it is first scanned, so that the source can be listed
and read any number of times, in constant memory.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from tlpipe.addresses import scheme_of
from tlpipe.errors import SourceError
from tlpipe.files import is_utf8
from tlpipe.stages.source.addressed import Address, named
from tlpipe.stages.source.anywhere import AnyReader
from tlpipe.stages.source.reading import MAX_FILE_BYTES, too_large
from tlpipe.stages.source.spool import Spool
from tlpipe.stages.source.survey import (
    BLOCK_ITEMS,
    SPLIT_NAMES,
    Asked,
    Source,
    Survey,
    file_stat,
    printable,
)
from tlpipe.types import Block, FileStat, Reason, Reject, Split, Stage

_NAME = "images given one by one"
_FIELDS = {"image", "key", "label", "split"}
_WANTED = (
    "Give paths or addresses; or images: encoded bytes, images of Pillow's or uint8 arrays (H, W),"
    " (H, W, 3) or (H, W, 4); or pairs (key, image); or dicts of image, key, label and split."
)

_Record = tuple[str, Any, str | None, int]
"""Key, place, label and split, as JSON can hold them."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The place of an image that is in the spool; or, with a negative offset, why it is none."""

    offset: int
    size: int
    why: str = ""


class GivenReader(AnyReader):
    """Reads ``Kept`` places, and all that ``AnyReader`` reads."""

    def __init__(self, spool: Spool) -> None:
        super().__init__()
        self._spool = spool

    def __reduce__(self) -> NoReturn:
        raise SourceError(
            "Images given one by one are in a temporary file of this process; another one cannot"
            " read them.",
            hint="Write them to a folder or an archive, and use that as the source.",
        )

    def read(self, place: str | Address | Kept, /) -> tuple[bytes, FileStat] | Reject:
        """See ``Reader``."""
        if not isinstance(place, Kept):
            return super().read(place)
        stat = FileStat(place.size)
        if place.why:
            return Reject(Stage.DECODE, Reason.CORRUPT, place.why, stat)
        if place.size > MAX_FILE_BYTES:
            return too_large(place.size, stat)
        return self._spool.read(place.offset, place.size), stat


def open_given(images: Iterable[Any]) -> Source:
    """Take images that are given one by one as a source; the first is asked for by a scan."""
    given = _Given(images)

    def blocks(survey: Survey, asked: Asked) -> Iterator[Block]:
        survey.layout = _NAME
        for records in given.chunks():
            block = Block()
            for key, place, label, split in records:
                block.keys.append(key)
                block.places.append(_place(place))
                block.labels.append(label)
                block.splits.append(Split(split))
                survey.labels[Split(split), label] += 1
            if asked.stats:
                block.stats.extend(
                    (-1, -1) if isinstance(place, Kept) else file_stat(place)
                    for place in block.places
                )
            yield block

    return Source(_NAME, blocks, reader=GivenReader(given.contents))


class _Given:
    """What an iterable gave: its records in chunks of at most a block, and the contents apart."""

    def __init__(self, images: Iterable[Any]) -> None:
        self._images = iter(images)
        self._folder = os.getcwd()  # noqa: PTH109  (as text; the working folder may change)
        self._lock = threading.Lock()
        self._records, self.contents = Spool(), Spool()
        self._chunks: list[tuple[int, int]] = []
        self._count = 0
        self._ended = False
        self._failure: BaseException | None = None

    def chunks(self) -> Iterator[list[_Record]]:
        """All that was or will be given."""
        number = 0
        while True:
            with self._lock:
                if number == len(self._chunks):
                    if self._ended:
                        return
                    self._take()
                    continue
                offset, size = self._chunks[number]
            yield json.loads(self._records.read(offset, size))
            number += 1

    def _take(self) -> None:
        """Ask for a chunk."""
        if self._failure is not None:
            raise SourceError(
                f"The {_NAME} ended early, after {self._count:,}: {self._failure!r}.",
                hint="Make them, and the source, anew.",
            ) from self._failure
        records: list[_Record] = []
        try:
            for image in self._images:
                records.append(self._record(image))
                if len(records) == BLOCK_ITEMS:
                    break
            else:
                self._ended = True
        except BaseException as exc:  # where it stopped, it cannot be asked to go on
            self._failure = exc
            raise
        if records:
            data = json.dumps(records).encode()
            self._chunks.append((self._records.add(data), len(data)))

    def _record(self, given: Any) -> _Record:
        where = f"Number {self._count} (from 0) of the {_NAME}"
        self._count += 1
        key, label, split = None, None, Split.NONE
        image = given
        if isinstance(given, Mapping):
            image, key, label, split = _fields(given, where)
        elif isinstance(given, tuple):
            if len(given) != 2:
                raise SourceError(f"{where} is a tuple of {len(given)}, not of 2.", hint=_WANTED)
            key, image = given
        is_path = isinstance(image, str | os.PathLike)
        if key is None:
            key = _key(os.fsdecode(image)) if is_path else str(self._count - 1)
        if not _is_text(key) or not key:
            raise SourceError(f"{where} has the key {key!r}.", hint="A key is a text of its own.")
        place = self._named(image, where) if is_path else self._kept(image, where)
        return key, place, label, int(split)

    def _named(self, image: str | os.PathLike[Any], where: str) -> list[Any]:
        text = os.fsdecode(image)
        if not text:
            raise SourceError(f"{where} is an empty path.", hint=_WANTED)
        if not scheme_of(text):
            return [os.path.join(self._folder, text)]  # noqa: PTH118
        try:
            place = named(text)
        except SourceError as exc:
            raise SourceError(f"{where}: {exc.message}", hint=exc.hint) from exc
        return [place] if isinstance(place, str) else [place.url, place.inside]

    def _kept(self, image: Any, where: str) -> list[Any]:
        if isinstance(image, bytes | bytearray | memoryview):
            data = bytes(image)
        else:
            from tlpipe.stages.source.pictures import encoded, is_picture

            if not is_picture(image):
                what = f"shape {image.shape}, {image.dtype}" if hasattr(image, "dtype") else ""
                raise SourceError(
                    f"{where} is no image, but a {type(image).__name__}{what and f' of {what}'}.",
                    hint=_WANTED,
                )
            try:
                data = encoded(image)
            except Exception as exc:  # a damaged file, opened and not loaded yet: it costs one row
                return [0, 0, f"{type(exc).__name__}: {exc}"]
        return [self.contents.add(data), len(data), ""]


def _key(path: str) -> str:
    try:
        return printable(path)
    except UnicodeEncodeError:  # half a surrogate pair, which is no name of any file
        return ""


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value and is_utf8(value)


def _place(stored: list[Any]) -> str | Address | Kept:
    match stored:
        case [str() as path]:
            return path
        case [url, inside]:
            return Address(url, inside)
        case _:
            return Kept(*stored)


def _fields(given: Mapping[Any, Any], where: str) -> tuple[Any, Any, str | None, Split]:
    """Image, key, label and split of one that is given as a dict."""
    unknown = sorted(map(repr, given.keys() - _FIELDS))
    if unknown or "image" not in given:
        wrong = f"has the unknown fields {', '.join(unknown)}" if unknown else "has no 'image'"
        raise SourceError(f"{where} {wrong}.", hint=_WANTED)
    label: Any = given.get("label")
    if isinstance(label, int) and not isinstance(label, bool):
        label = str(label)
    if label is not None and not _is_text(label):
        raise SourceError(f"{where} has the label {label!r}.", hint="A label is a text or number.")
    split = given.get("split")
    if isinstance(split, Split):
        return given["image"], given.get("key"), label or None, split
    name = "" if split is None else str(split).lower()
    if name and name not in SPLIT_NAMES:
        raise SourceError(
            f"{where} has the split {split!r}.", hint="Use train, validation, test or None."
        )
    return given["image"], given.get("key"), label or None, SPLIT_NAMES.get(name, Split.NONE)
