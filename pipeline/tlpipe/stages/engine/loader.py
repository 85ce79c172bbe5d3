"""What the engine is given to make pixels of an item."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlpipe.types import Content, Item, Reject, Twin

if TYPE_CHECKING:
    from tlpipe.types import UInt8Array

Fetched = tuple[bytes, Content] | Reject


@dataclass(frozen=True)
class Loader:
    """From an item to its pixels, in two steps; each is called from several threads.

    Attributes
    ----------
    fetch : callable
        Reads the item: gives its bytes and what is known of them, or a reject.
    prepare : callable
        Makes of these the pixels, uint8 (H, W, 3), or the twin it takes its vector from, or a
        reject.
    interrupt : callable
        Called again and again while a run that is given up waits for its threads: has reading that
        is under way end, by raising whatever it likes.
    """

    fetch: Callable[[Item], Fetched]
    prepare: Callable[[Item, bytes, Content], UInt8Array | Twin | Reject]
    interrupt: Callable[[], None] = lambda: None
