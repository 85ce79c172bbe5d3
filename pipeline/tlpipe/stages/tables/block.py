"""Rows of a table as columns, an open table, and what is to be written as one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlpipe.types import Split

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tlpipe.types import Float32Array

MOST_NOTE = 8 << 20
"""Characters of the JSON text that says where a table comes from."""

SPLIT_TEXTS = {split: "" if split is Split.NONE else split.name.lower() for split in Split}


@dataclass(frozen=True)
class TableBlock:
    """Some rows of a table.

    Attributes
    ----------
    keys : list of str
    vectors : float32 array (n, D) or None
        None where they were not asked for.
    labels : list of str or None
    splits : int8 array (n,)
        Values of ``Split``.
    groups : int64 array (n,)
        -1 for none.
    content_sha256 : uint8 array (n, 32) or None
        None where the table has none.
    stat : int64 array (n, 2)
        Size in bytes and time of change in ns; -1 for unknown.
    """

    keys: list[str]
    vectors: Float32Array | None
    labels: list[str | None]
    splits: NDArray[np.int8]
    groups: NDArray[np.int64]
    content_sha256: NDArray[np.uint8] | None
    stat: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class TableSource:
    """What is to be written as a table.

    Attributes
    ----------
    blocks : callable
        Gives all rows, with or without their vectors, as often as it is asked.
    note : str
        JSON text that says where the table comes from.
    """

    count: int
    dim: int
    classes: Sequence[str]
    fingerprint: str
    note: str
    blocks: Callable[[bool], Iterator[TableBlock]]


class Table(ABC):
    """An open table.

    Attributes
    ----------
    where : str
        What messages call it.
    dim : int
        D.
    note : str or None
        As in ``TableSource``; None for a table made elsewhere.
    """

    where: str
    dim: int
    note: str | None = None

    @abstractmethod
    def blocks(self) -> Iterator[TableBlock]:
        """All rows with their vectors, a block at a time.

        Raises
        ------
        TableError
        """

    @abstractmethod
    def close(self) -> None:
        """Close the file."""
