"""What a block of a source says of its items: their splits, and which keys were met before."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from tlpipe.stages.store import DigestIndex
from tlpipe.types import Block, Item, Outcome, Reason, Reject, Stage

if TYPE_CHECKING:
    from numpy.typing import NDArray


def splits_of(block: Block, start: int, count: int) -> NDArray[np.int8]:
    """Splits of some items of a block; mostly they are all the same."""
    splits = block.splits[start : start + count]
    if splits.count(splits[0]) == count:
        return np.full(count, splits[0], np.int8)
    return np.array(splits, np.int8)


def met_before(keys: list[str], met: DigestIndex) -> set[int]:
    """Positions of the keys that were met before."""
    digests = (hashlib.blake2b(key.encode(), digest_size=16).digest() for key in keys)
    return {index for index, digest in enumerate(digests) if met.met(digest)}


def twice_rejected(item: Item) -> Outcome:
    """What becomes of an item whose key an earlier one has."""
    detail = "An earlier item of the source has the same key; that one is kept."
    return Outcome(item, reject=Reject(Stage.SOURCE, Reason.DUPLICATE_KEY, detail))
