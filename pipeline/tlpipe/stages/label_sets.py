"""Label sets: which labels each image has, where it may have several or none.

Takes the cells of a source's label column, gives a table of images and labels; says what such a
table can teach. Imports ``label_cells`` and NumPy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tlpipe.label_cells import names_in

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]
    Rows = NDArray[np.intp]

_BLOCK = 4_000_000  # answers looked at together


@dataclass(frozen=True)
class CellTable:
    """What distinct cells name.

    Attributes
    ----------
    names : list of K str
        Sorted.
    holds : bool array (C, K)
        Which of them each of the cells has.
    """

    names: list[str]
    holds: Bools


def table_of(cells: Sequence[str], separator: str) -> CellTable:
    """Read C distinct cells; see ``label_cells.names_in``."""
    parts = [names_in(cell, separator) for cell in cells]
    names = sorted({name for part in parts for name in part})
    number = {name: k for k, name in enumerate(names)}
    holds = np.zeros((len(cells), len(names)), np.bool_)
    for row, part in enumerate(parts):
        holds[row, [number[name] for name in part]] = True
    return CellTable(names, holds)


def labels_of(table: CellTable, cell_of: NDArray[np.int32]) -> Bools:
    """Which labels each row has, bool (N, K), from the number of its cell (N,); -1 has none."""
    if not len(table.holds):
        return np.zeros((cell_of.size, len(table.names)), np.bool_)
    found: Bools = table.holds[np.maximum(cell_of, 0)]
    found[cell_of < 0] = False
    return found


def rarest_labels(labels: Bools, among: Bools) -> NDArray[np.int32]:
    """Number of the label of each row that the fewest rows `among` (N,) have; K for none.

    Of equally rare ones it is the first. Rows spread evenly by it spread the rare labels evenly,
    which are those that chance would spread badly: the greedy idea of Sechidis, Tsoumakas &
    Vlahavas, "On the stratification of multi-label data", ECML PKDD 2011, in one pass.
    """
    count, classes = labels.shape
    order = np.argsort(labels[among].sum(axis=0), kind="stable")
    found = np.full(count, classes, np.int32)
    step = max(1, _BLOCK // max(classes, 1))
    for start in range(0, count if classes else 0, step):
        block = labels[start : start + step][:, order]
        has = block.any(axis=1)
        found[start : start + step][has] = order[block[has].argmax(axis=1)]
    return found


def as_strata(rarest: NDArray[np.int32], among: Bools) -> tuple[NDArray[np.int32], list[int]]:
    """Renumber them, 0 to S - 1, so that each number occurs `among` (N,) the rows that may train.

    Rows of a number that does not, whose use is settled by their split, take the first one.

    Returns
    -------
    strata : int32 array (N,)
    meant : list of S int
        What each of them was in `rarest`.
    """
    present = np.unique(rarest[among])
    place = np.minimum(np.searchsorted(present, rarest), max(present.size - 1, 0))
    known = present[place] == rarest if present.size else np.zeros(rarest.shape, np.bool_)
    return np.where(known, place, 0).astype(np.int32), [int(k) for k in present]


def learnable(labels: Bools, trainings: Iterable[Rows]) -> Bools:
    """Which labels (K,) can be learned: in each set of rows, some have it and some do not."""
    found = np.ones(labels.shape[1], np.bool_)
    for rows in trainings:
        having = labels[rows].sum(axis=0)
        found &= (having > 0) & (having < rows.size)
    return found
