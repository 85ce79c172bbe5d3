"""Sources whose images are rows of arrays: what IDX files and NumPy files have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tlpipe.errors import CUT_OR_DAMAGED, SourceError
from tlpipe.stages.source.array_reader import (
    ArrayPlace,
    ArrayReader,
    PackedError,
    Piece,
    Pieces,
    Rasters,
)
from tlpipe.stages.source.open_files import ChangedError, Stamp
from tlpipe.stages.source.survey import BLOCK_ITEMS, Asked, Source, Survey
from tlpipe.types import Block, Split

_MOST_NAMES_BYTES = 1 << 20


@dataclass(frozen=True)
class Labels:
    """An array of labels, one for each image.

    Attributes
    ----------
    piece : Piece
    skip : int
        Bytes of the header that stands before them.
    count : int
    item_bytes : int
    decode : callable
        From the bytes of some labels to integers or texts.
    where : str
        What messages call it.
    names : list of str or None
        What integers stand for.
    """

    piece: Piece
    skip: int
    count: int
    item_bytes: int
    decode: Callable[[bytes], Sequence[int | str]]
    where: str
    names: list[str] | None = None

    def texts(self, values: Sequence[int | str], first: int) -> list[str | None]:
        """Labels as text; `first` is the index of the first, for the error."""
        if self.names is None:
            return [_text(value) for value in values]
        found: list[str | None] = []
        for at, value in enumerate(values):
            if isinstance(value, int) and not 0 <= value < len(self.names):
                raise SourceError(
                    f"{self.where}: label {first + at:,} is {value}, and the names of classes are"
                    f" {len(self.names)}, counted from 0.",
                    hint="Correct the names, or leave them out: then the numbers are the classes.",
                )
            found.append(self.names[value] if isinstance(value, int) else _text(value))
        return found


@dataclass(frozen=True)
class ArraySet:
    """Images, what their keys begin with, and what is told of them."""

    images: Rasters
    labels: Labels | None = None
    prefix: str = ""
    split: Split = Split.NONE


def array_source(
    name: str, pieces: Pieces, sets: Sequence[ArraySet], layout: str, text: str
) -> Source:
    """Make a source of arrays that were checked.

    Parameters
    ----------
    name, text : str
        As for ``Source``.
    pieces : Pieces
        Reads the files of all arrays.
    sets : sequence of ArraySet
    layout : str
        How the source was understood, in words.
    """
    reader = ArrayReader(pieces, [found.images for found in sets])
    paths = pieces.files.paths
    opened = [pieces.files.stamp(number) for number in range(len(paths))]

    def blocks(survey: Survey, asked: Asked) -> Iterator[Block]:
        survey.layout = layout
        stamps = [pieces.files.stamp(number) for number in range(len(paths))]
        if stamps != opened:
            raise ChangedError
        for number, found in enumerate(sets):
            for start in range(0, found.images.count, BLOCK_ITEMS):
                stop = min(start + BLOCK_ITEMS, found.images.count)
                yield _block(pieces, found, number, range(start, stop), stamps, survey, asked)

    def guarded(survey: Survey, asked: Asked) -> Iterator[Block]:
        try:
            yield from blocks(survey, asked)
        except ChangedError as exc:
            raise SourceError(
                f"The source {name!r} has changed since it was opened.",
                hint="Run the same command when nothing writes to it any more.",
            ) from exc
        except PackedError as exc:
            raise SourceError(
                f"A file of the source {name!r} {exc}.",
                hint=CUT_OR_DAMAGED,
            ) from exc
        except OSError as exc:
            raise unreadable_source(name, exc) from exc

    return Source(name, guarded, reader=reader, paths=[Path(path) for path in paths], text=text)


def _block(
    pieces: Pieces,
    found: ArraySet,
    number: int,
    rows: range,
    stamps: list[Stamp],
    survey: Survey,
    asked: Asked,
) -> Block:
    count = len(rows)
    labels: list[str | None] = [None] * count
    if found.labels is not None:
        told = found.labels
        offset, size = told.skip + rows.start * told.item_bytes, count * told.item_bytes
        content = pieces.read(told.piece, offset, size, stamps[told.piece.file])
        labels = told.texts(told.decode(content), rows.start)
    stamp = stamps[found.images.piece.file]
    split = found.split
    for label in labels:
        survey.labels[split, label] += 1
    return Block(
        [f"{found.prefix}{index:06d}" for index in rows],
        [ArrayPlace(number, index, stamp) for index in rows],
        labels,
        [split] * count,
        [(found.images.image_bytes, stamp[1])] * count if asked.stats else [],
        [("",) * len(asked.columns)] * count if asked.columns else [],
    )


def check_labels(labels: Labels, images: Rasters, where: str) -> None:
    """Refuse labels that are not one for each image.

    Raises
    ------
    SourceError
    """
    if labels.count != images.count:
        raise SourceError(
            f"{labels.where} has {labels.count:,} labels, and {where} has {images.count:,} images.",
            hint="Each image needs one label, in the same order.",
        )


def unreadable_source(name: str, exc: OSError) -> SourceError:
    """Why a source cannot be listed, where the system says it."""
    return SourceError(
        f"The source {name!r} cannot be read: {exc.strerror or exc}.",
        hint="Correct its permissions, or bring it back.",
    )


def class_names(path: Path) -> list[str]:
    """Names of classes in a text file, one a line, in the order of their numbers.

    Raises
    ------
    SourceError
        It is no such file.
    """
    where = f"The file of class names {str(path)!r}"
    try:
        with path.open("rb") as stream:
            content = stream.read(_MOST_NAMES_BYTES + 1)
        lines = content.decode("utf-8-sig").rstrip().splitlines()
    except OSError as exc:
        raise SourceError(
            f"{where} cannot be read: {exc.strerror}.",
            hint="Correct its permissions, or move it away: then the numbers are the classes.",
        ) from exc
    except UnicodeDecodeError as exc:
        raise SourceError(
            f"{where} is no UTF-8 text: {exc}.",
            hint="Save it in UTF-8, or move it away: then the numbers are the classes.",
        ) from exc
    names = [line.strip() for line in lines]
    bad = next((name for name in names if not name or not name.isprintable()), None)
    twice = sorted({name for name in names if names.count(name) > 1}) if len(names) < 10_000 else []
    if len(content) > _MOST_NAMES_BYTES or not names or bad is not None or twice:
        raise SourceError(
            f"{where} must hold one name a line, each another one and none empty"
            + (f"; it holds {twice[0]!r} twice." if twice else "."),
            hint="Correct it, or move it away: then the numbers are the classes.",
        )
    return names


def _text(value: int | str) -> str | None:
    text = str(value).strip().replace("\0", "\\x00")
    return text or None
