"""Finds the Parquet files of a folder, and what their names say of splits. Loads no library.

Files may be named as Hugging Face's ``datasets`` names them, ``train-00000-of-00002.parquet``, or
lie in folders named like splits, each also in a folder ``data``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tlpipe.files import is_dir, is_file
from tlpipe.stages.source.places import Places
from tlpipe.stages.source.survey import SPLIT_NAMES, printable
from tlpipe.types import Split

_SUFFIX = ".parquet"
_MOST_FILES = 100_000


@dataclass(frozen=True, slots=True)
class TablePath:
    """A Parquet file of a source.

    Attributes
    ----------
    path : pathlib.Path
    name : str
        Its path below the source, with "/".
    split : Split
        What its name, or that of its folder, says of its rows.
    """

    path: Path
    name: str
    split: Split


def split_of_name(name: str) -> Split:
    """What a file's name begins with, if that is the whole name of a split."""
    found = re.match("[A-Za-z]+", name)
    return SPLIT_NAMES.get(found[0].lower(), Split.NONE) if found else Split.NONE


def find_tables(root: Path, allowed: Sequence[str]) -> list[TablePath]:
    """Parquet files of a folder, in the order of their names; links that lead outside left out."""
    places = Places(str(root), allowed)
    found = sorted(_tables(root, "", Split.NONE, places), key=lambda table: table.name.split("/"))
    return found[:_MOST_FILES]


def _tables(folder: Path, prefix: str, split: Split, places: Places) -> Iterator[TablePath]:
    """Those of one folder, and of the folders in it that may hold some."""
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if _may_be_one(e, prefix)]
    except OSError:
        return  # whoever lists it says why
    for name in names:
        path = folder / name
        if places.outside(str(path)) is not None:
            continue
        shown = prefix + printable(name)
        lower = name.lower()
        if lower.endswith(_SUFFIX):
            if is_file(path):
                yield TablePath(path, shown, split_of_name(name) if split is Split.NONE else split)
        elif is_dir(path):
            below = SPLIT_NAMES.get(lower, split)
            yield from _tables(path, f"{shown}/", below, places)


def _may_be_one(entry: os.DirEntry[str], prefix: str) -> bool:
    name = entry.name.lower()
    if name.startswith("."):
        return False
    if name.endswith(_SUFFIX):
        return True
    within = prefix.lower().rstrip("/").split("/") if prefix else []
    if name == "data":
        return not within
    return name in SPLIT_NAMES and within in ([], ["data"])
