"""Groups of rows that belong to one object: by a pattern of their keys, or from a table."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tlpipe.errors import TableError
from tlpipe.files import is_file
from tlpipe.near import similar_file
from tlpipe.stages.splits import group_number
from tlpipe.stages.store import SPAN_ROWS, DigestIndex, FeatureFile
from tlpipe.stages.tables import read_pairs
from tlpipe.workflows.split_options import SplitOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray


def groups_of(
    file: FeatureFile, options: SplitOptions, stored: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Groups as the options name them, int64 (N,), -1 for none; `stored` where they do not.

    Raises
    ------
    TableError
        The file of groups cannot be read, or has two groups for one key.
    DamagedFileError
    """
    if options.group_pattern is not None:
        pattern = re.compile(options.group_pattern)
        return _by_key(file, lambda key: _matched(pattern, key))
    if options.groups is None:
        return stored
    name, _, column = options.groups.rpartition(":")
    with closing(_listed(Path(name), column)) as index:

        def number(key: str) -> int:
            found = index.get(_digest(key))
            return -1 if found is None else found

        return _by_key(file, number)


def _by_key(file: FeatureFile, number: Callable[[str], int]) -> NDArray[np.int64]:
    found = np.empty(file.count, np.int64)
    for start in range(0, file.count, SPAN_ROWS):
        stop = min(start + SPAN_ROWS, file.count)
        keys = file.read("keys", start, stop)
        found[start:stop] = [number(key.decode()) for key in keys]
    return found


def _matched(pattern: re.Pattern[str], key: str) -> int:
    match = pattern.search(key)
    name = match and (match[1] if pattern.groups else match[0])
    return group_number(name) if name else -1


def _listed(path: Path, column: str) -> DigestIndex:
    """Number of the group of each key in a CSV file."""
    index = DigestIndex()
    try:
        if not is_file(path):
            raise TableError(
                f"The table {str(path)!r} does not exist, or is no regular file.",
                hint=similar_file(path),
            )
        for key, name in read_pairs(path, column):
            number = group_number(name) if name else -1
            before = index.get(_digest(key))
            if before is not None and before != number:
                raise TableError(
                    f"The table {str(path)!r} has two groups for {key!r}.",
                    hint="Each image has one row, or the same group in all.",
                )
            index.put(_digest(key), number)
    except BaseException:
        index.close()
        raise
    return index


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=16).digest()
