"""Manifests: tables that list images, in an order of their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from tlpipe.addresses import scheme_of, shown
from tlpipe.errors import SourceError
from tlpipe.near import did_you_mean, sentences
from tlpipe.stages.source.addressed import Address
from tlpipe.stages.source.json_rows import JsonRows
from tlpipe.stages.source.places import Places, as_folder
from tlpipe.stages.source.rows import (
    PATH_NAMES,
    Columns,
    RowBatch,
    Rows,
    brief,
    check_text,
    find_columns,
)
from tlpipe.stages.source.survey import SPLIT_NAMES, Asked, Source, Survey, file_stat
from tlpipe.stages.source.text_rows import TextRows
from tlpipe.types import Block, Split

OpenRows = Callable[[Path, str], Rows]


def open_text_manifest(path: Path, allowed: Sequence[str]) -> Source:
    """Take a CSV or TSV file as a manifest; raises as ``open_manifest``."""
    return open_manifest(path, allowed, TextRows)


def open_json_manifest(path: Path, allowed: Sequence[str]) -> Source:
    """Take a JSON Lines file as a manifest; raises as ``open_manifest``."""
    return open_manifest(path, allowed, JsonRows)


def open_manifest(path: Path, allowed: Sequence[str], open_rows: OpenRows) -> Source:
    """Take a file as a manifest. Its header is read; its rows are when it is first scanned.

    Parameters
    ----------
    path : pathlib.Path
    allowed : sequence of str
        Real paths of folders outside the manifest's own that its paths may lead into.
    open_rows : callable
        Opens the file; takes it and what errors call it.

    Raises
    ------
    SourceError
        Its header cannot be read, or names no column of paths.
    """
    where = f"The manifest {str(path)!r}"
    with closing(open_rows(path, where)) as rows:
        further = _names(rows, _columns(rows.names, where))

    def blocks(survey: Survey, asked: Asked) -> Iterator[Block]:
        survey.layout = "a manifest"
        with closing(open_rows(path, where)) as rows:
            columns = _columns(rows.names, where)
            names = _names(rows, columns)
            gone = [name for name in asked.columns if name not in names]
            if gone:
                raise SourceError(
                    f"{where} has no columns {brief.repr(gone)} any more.",
                    hint="Bring them back, or do not ask for them.",
                )
            more = [columns.more[names.index(name)] for name in asked.columns]
            unused = asked.unused(names)
            if unused:
                survey.notices.append(
                    f"Columns of the manifest that are not used: {brief.repr(unused)}."
                )
            lines = Manifest(where, as_folder(str(path.parent)), allowed)
            for batch in rows.batches(columns, more, survey):
                block = lines.block(batch)
                survey.labels.update(zip(block.splits, block.labels, strict=True))
                if asked.stats:
                    block.stats.extend(map(file_stat, block.places))
                yield block

    return Source(str(path), blocks, paths=[path], columns=further)


def _columns(names: Sequence[str], where: str) -> Columns:
    """Understand the columns, of which one must be that of the paths."""
    columns = find_columns(names, where)
    if columns.path is None:
        alike = [name for name in names if did_you_mean(name, PATH_NAMES)]
        raise SourceError(
            f"{where} has no column 'path', but {brief.repr(list(names))}.",
            hint=sentences(
                f"Call {alike[0]!r} 'path', if it holds the paths." if alike else "",
                "The columns must have names: path, and optionally label and split. Instead of"
                f" path it may be {', '.join(PATH_NAMES[1:-1])} or {PATH_NAMES[-1]}.",
            ),
        )
    return columns


def _names(rows: Rows, columns: Columns) -> list[str]:
    """Names of the further columns."""
    return [rows.names[at].strip() for at in columns.more]


class Manifest:
    """Makes items of the rows of one walk over a manifest.

    Parameters
    ----------
    where : str
        What errors call it.
    folder : str
        The folder that its paths start from, with a separator at its end.
    allowed : sequence of str
        Real paths of other folders that they may lead into.
    """

    def __init__(self, where: str, folder: str, allowed: Sequence[str]) -> None:
        self._where, self._folder = where, folder
        self._places = Places(folder, allowed)
        self._splits: dict[str, Split] = {}

    def block(self, batch: RowBatch) -> Block:
        """Items of some rows.

        Raises
        ------
        SourceError
            A row makes no sense; names it.
        """
        where = self._where
        check_text(batch, where)
        keys = [path.strip() for path in batch.paths]
        if not all(keys):
            raise SourceError(
                f"{where}, {batch.where(keys.index(''))} has an empty path.",
                hint="Each row needs the path or the address of an image.",
            )
        folder, places = self._folder, self._places
        try:
            found: list[str | Address] = []
            for key in keys:
                found.append(_path(key, folder, places))
        except _OutsideError as exc:
            raise SourceError(
                f"{where}, {batch.where(len(found))}, names {brief.repr(shown(keys[len(found)]))},"
                f" which leads to {brief.repr(exc.real)}: outside the manifest's folder.",
                hint="Allow the folder or the address it lies in with --allow-outside FOLDER, or"
                " any place on disk with --allow-outside /.",
            ) from None
        except SourceError as exc:
            raise SourceError(
                f"{where}, {batch.where(len(found))}: {exc.message}", hint=exc.hint
            ) from exc
        return Block(
            keys, found, batch.labels, as_splits(batch, self._splits, where), [], batch.more
        )


def as_splits(batch: RowBatch, known: dict[str, Split], where: str) -> list[Split]:
    """Splits by their names; `known` holds those that were met.

    Raises
    ------
    SourceError
        One has another name.
    """
    for text in set(batch.splits) - known.keys():
        name = text.strip().lower()
        if name and name not in SPLIT_NAMES:
            raise SourceError(
                f"{where}, {batch.where(batch.splits.index(text))} has the split"
                f" {brief.repr(name)}.",
                hint="Use train, validation, test or nothing.",
            )
        known[text] = SPLIT_NAMES.get(name, Split.NONE)
    return [known[text] for text in batch.splits]


class _OutsideError(Exception):
    """A path leads to where nothing may be read."""

    def __init__(self, real: str) -> None:
        super().__init__(real)
        self.real = real


def _path(written: str, folder: str, places: Places) -> str | Address:
    """Where a row's image lies: a place that may be read, even if nothing is there."""
    if "://" in written and scheme_of(written):
        place = places.address(written)
        if place is None:
            raise _OutsideError(shown(written))
        return place
    if os.sep == "/":  # as os.path.join does it, which takes as long as all the rest
        path = written if written.startswith("/") else folder + written
    else:
        path = os.path.join(folder, written)  # noqa: PTH118
    if (real := places.outside(path)) is not None:
        raise _OutsideError(real)
    return path
