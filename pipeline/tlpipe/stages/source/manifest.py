"""Manifests: CSV and TSV files that list images, in an order of their own."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from tlpipe.errors import SourceError
from tlpipe.stages.source.survey import SPLIT_NAMES, Source, Survey
from tlpipe.types import Item, Split

MANIFEST_DELIMITERS = {".csv": ",", ".tsv": "\t"}


def open_manifest(path: Path) -> Source:
    """Read a whole manifest once, so that a mistake in its last line costs no work."""
    survey = Survey("a manifest")
    for item in _manifest_items(path, survey):
        survey.labels[item.split, item.label] += 1
    return Source(path, lambda: _manifest_items(path, Survey("")), survey)


def _manifest_items(path: Path, survey: Survey) -> Iterator[Item]:
    """Items of a manifest, in its order; the path as written is the key."""
    where = f"The manifest {str(path)!r}"
    folder = path.parent
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.reader(
                stream, delimiter=MANIFEST_DELIMITERS[path.suffix.lower()], strict=True
            )
            columns = _columns(next(rows, []), where, survey)
            for row in rows:
                if not row or row == [""]:
                    survey.skipped["blank line"] += 1
                    continue
                yield _manifest_item(row, columns, folder, f"{where}, line {rows.line_num}")
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
            f"{where} has no column 'path' in its first line, but {header}.",
            hint="The first line must name the columns: path, and optionally label and split.",
        )
    twice = sorted(name for name in known if names.count(name) > 1)
    if twice:
        raise SourceError(f"{where} names the columns {twice} more than once.")
    extra = [name for name in header if name.strip().lower() not in known]
    if extra:
        survey.notices.append(f"Columns of the manifest that are not used: {extra}.")
    return known


def _manifest_item(row: list[str], columns: dict[str, int], folder: Path, where: str) -> Item:
    if len(row) <= max(columns.values()):
        raise SourceError(f"{where} has only {len(row)} values: {row}.")
    values = {name: row[position].strip() for name, position in columns.items()}
    if not values["path"]:
        raise SourceError(f"{where} has an empty path.")
    if any("\0" in value for value in values.values()):
        raise SourceError(f"{where} holds a NUL character.")
    split = values.get("split", "").lower()
    if split and split not in SPLIT_NAMES:
        raise SourceError(
            f"{where} has the split {split!r}.", hint="Use train, validation, test or nothing."
        )
    return Item(
        values["path"],
        folder / values["path"],
        values.get("label") or None,
        SPLIT_NAMES.get(split, Split.NONE),
    )
