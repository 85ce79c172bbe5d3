"""Manifests: CSV and TSV files that list images, in an order of their own."""

from __future__ import annotations

import csv
import os
import reprlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from tlpipe.addresses import folder_of, scheme_of, shown
from tlpipe.errors import SourceError
from tlpipe.files import RowLines, is_file
from tlpipe.stages.source.places import Address, Places, as_folder
from tlpipe.stages.source.survey import BLOCK_ITEMS, SPLIT_NAMES, Asked, Source, Survey, file_stat
from tlpipe.types import Block, Split

MANIFEST_DELIMITERS = {".csv": ",", ".tsv": "\t"}

MOST_CHARACTERS = 1 << 20
"""Of a row, which is in memory whole."""

MOST_COLUMNS = 10_000

_brief = reprlib.Repr()
_brief.maxlist, _brief.maxstring = 20, 200


def open_manifest(path: Path, allowed: Sequence[str]) -> Source:
    """Take a file as a manifest. Its header is read; its rows are when it is first scanned."""
    where = f"The manifest {str(path)!r}"
    with closing(_rows(path, where)) as rows:
        _columns(next(rows, (1, []))[1], where, Survey(""))

    def blocks(survey: Survey, asked: Asked) -> Iterator[Block]:
        survey.layout = "a manifest"
        folder = as_folder(str(path.parent))
        places = Places(folder, allowed)
        with closing(_rows(path, where)) as rows:
            columns = _columns(next(rows, (1, []))[1], where, survey)
            block = Block()
            for line, row in rows:
                if not row or row == [""]:
                    survey.skipped["blank line"] += 1
                    continue
                key, label, split = _values(row, columns, f"{where}, line {line}")
                block.keys.append(key)
                block.places.append(_path(key, folder, places, f"{where}, line {line}"))
                block.labels.append(label)
                block.splits.append(split)
                survey.labels[split, label] += 1
                if len(block) == BLOCK_ITEMS:
                    yield _with_stats(block, asked.stats)
                    block = Block()
            if len(block):
                yield _with_stats(block, asked.stats)

    return Source(str(path), blocks, paths=[path])


def _too_long(where: str, line: int) -> SourceError:
    return SourceError(
        f"{where}, line {line}: the row has more than {MOST_CHARACTERS:,} characters.",
        hint="A row holds a path, and maybe a label and a split.",
    )


def _rows(path: Path, where: str) -> Generator[tuple[int, list[str]]]:
    """Number of the last line of each row, and its values; the header is the first."""
    try:
        # Looked at before it is opened: opening a named pipe would wait for a writer.
        if not is_file(path):
            raise SourceError(f"{where} is no regular file any more.")
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = RowLines(stream, MOST_CHARACTERS, lambda line: _too_long(where, line))
            rows = csv.reader(
                lines, delimiter=MANIFEST_DELIMITERS[path.suffix.lower()], strict=True
            )
            for row in rows:
                if len(row) > MOST_COLUMNS:
                    raise SourceError(
                        f"{where}, line {rows.line_num}, has {len(row):,} columns; at most"
                        f" {MOST_COLUMNS:,} are read.",
                        hint="A row holds a path, and maybe a label and a split.",
                    )
                yield rows.line_num, row
                lines.next_row()
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise SourceError(
            f"{where} cannot be read: {exc}.", hint="It must be UTF-8 text with a header line."
        ) from exc


def _columns(header: list[str], where: str, survey: Survey) -> dict[str, int]:
    """Position of each known column."""
    names = [name.strip().lower() for name in header]
    known: dict[str, int] = {
        name: names.index(name) for name in ("path", "label", "split") if name in names
    }
    if "path" not in known:
        raise SourceError(
            f"{where} has no column 'path' in its first line, but {_brief.repr(header)}.",
            hint="The first line must name the columns: path, and optionally label and split.",
        )
    twice = sorted(name for name in known if names.count(name) > 1)
    if twice:
        raise SourceError(f"{where} names the columns {twice} more than once.")
    extra = [name for name in header if name.strip().lower() not in known]
    if extra:
        survey.notices.append(f"Columns of the manifest that are not used: {_brief.repr(extra)}.")
    return known


def _values(row: list[str], columns: dict[str, int], where: str) -> tuple[str, str | None, Split]:
    """Path as written, label and split of one row."""
    if len(row) <= max(columns.values()):
        raise SourceError(f"{where} has only {len(row)} values: {_brief.repr(row)}.")
    values = {name: row[position].strip() for name, position in columns.items()}
    if not values["path"]:
        raise SourceError(f"{where} has an empty path.")
    if any("\0" in value for value in values.values()):
        raise SourceError(f"{where} holds a NUL character.")
    split = values.get("split", "").lower()
    if split and split not in SPLIT_NAMES:
        raise SourceError(
            f"{where} has the split {_brief.repr(split)}.",
            hint="Use train, validation, test or nothing.",
        )
    return values["path"], values.get("label") or None, SPLIT_NAMES.get(split, Split.NONE)


def _path(written: str, folder: str, places: Places, where: str) -> str | Address:
    """Where a row's image lies: a place that may be read, even if nothing is there."""
    if scheme_of(written):
        place = places.address(written)
        if place is not None:
            return place
        raise SourceError(
            f"{where}, names {_brief.repr(shown(written))}: outside the manifest's folder.",
            hint="Allow what lies below an address with --allow-outside, for example"
            f" {folder_of(shown(written))}",
        )
    path = os.path.join(folder, written)  # noqa: PTH118  (a Path for each row is slow)
    real = places.real(path)
    # Where links have no end, nothing can be opened: that is this row's fault, and a reject.
    if real is None or places.hold(real):
        return path
    raise SourceError(
        f"{where}, names {_brief.repr(written)}, which leads to {_brief.repr(real)}: outside the"
        " manifest's folder.",
        hint="Allow the folder it lies in with --allow-outside FOLDER, or any place with"
        " --allow-outside /.",
    )


def _with_stats(block: Block, stats: bool) -> Block:
    if stats:
        block.stats.extend(map(file_stat, block.places))
    return block
