"""Images that stand in more than one split, with the very same content: they flatter a judgement.

Rows of no split count as training: where others have a split, they train the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tlpipe.stages.store import SPAN_ROWS, FeatureFile
from tlpipe.types import Split

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_PAIRS = 20


@dataclass(frozen=True)
class SharedPair:
    """Two rows of the same content in different splits."""

    first: str
    first_split: Split
    second: str
    second_split: Split


@dataclass(frozen=True)
class Shared:
    """Contents that stand in more than one split.

    Attributes
    ----------
    count : int
        Distinct contents.
    pairs : list of SharedPair
        Of each of the first of them two rows, in the file's order.
    """

    count: int
    pairs: list[SharedPair]


def shared_between_splits(file: FeatureFile, *, most: int = MOST_PAIRS) -> Shared:
    """Find the contents that stand in more than one split of a feature file.

    Takes 40 bytes of memory for each row.

    Parameters
    ----------
    file : FeatureFile
    most : int
        How many pairs of keys are named at most.

    Raises
    ------
    DamagedFileError
    """
    contents = content_numbers(content_heads(file))
    splits = np.empty(file.count, np.int8)
    for start in range(0, file.count, SPAN_ROWS):
        stop = min(start + SPAN_ROWS, file.count)
        splits[start:stop] = file.read("splits", start, stop)
    found = shared_rows(contents, splits)
    pairs = []
    for first, second in found[:most]:
        keys = [file.read("keys", row, row + 1)[0].decode() for row in (first, second)]
        pairs.append(
            SharedPair(keys[0], Split(int(splits[first])), keys[1], Split(int(splits[second])))
        )
    return Shared(len(found), pairs)


def shared_rows(contents: NDArray[np.int64], splits: NDArray[np.int8]) -> list[tuple[int, int]]:
    """Of each content that stands in more than one split, the first row and the first elsewhere.

    Parameters
    ----------
    contents : int64 array (N,)
        Equal for rows of the same content.
    splits : int8 array (N,)
    """
    sides = np.where(splits == Split.NONE, np.int8(Split.TRAIN), splits)
    order = np.lexsort((np.arange(len(contents)), contents))
    sorted_contents = contents[order]
    starts = np.flatnonzero(np.r_[True, sorted_contents[1:] != sorted_contents[:-1]])
    firsts = np.repeat(order[starts], np.diff(np.r_[starts, len(order)]))  # of each row's content
    away = np.flatnonzero(sides[order] != sides[firsts])
    if not away.size:
        return []
    _, at = np.unique(sorted_contents[away], return_index=True)
    found = zip(firsts[away[at]].tolist(), order[away[at]].tolist(), strict=True)
    return sorted(found)


def content_heads(file: FeatureFile) -> NDArray[np.uint64]:
    """The first 16 bytes of each row's content digest, uint64 (N, 2).

    Two contents agree in them with a probability of 10^-23 among 10^8 (birthday bound).

    Raises
    ------
    DamagedFileError
    """
    heads = np.empty((file.count, 2), np.uint64)
    for start in range(0, file.count, SPAN_ROWS):
        stop = min(start + SPAN_ROWS, file.count)
        digests = np.ascontiguousarray(file.read("content_sha256", start, stop)[:, :16])
        heads[start:stop] = digests.view("<u8")
    return heads


def content_numbers(heads: NDArray[np.uint64]) -> NDArray[np.int64]:
    """A number from 0 on for each row, int64 (N,), equal where the digests' heads are."""
    order = np.lexsort((heads[:, 1], heads[:, 0]))
    new = np.zeros(len(heads), np.int64)
    new[1:] = (heads[order][1:] != heads[order][:-1]).any(axis=1)
    numbers = np.empty(len(heads), np.int64)
    numbers[order] = np.cumsum(new)
    return numbers
