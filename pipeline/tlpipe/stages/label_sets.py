"""Label sets: which labels each image has, where it may have several or none.

Takes the cells of a source's label column, gives a table of images and labels; says what such a
table can teach. Imports ``label_cells`` and NumPy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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


def grouped_strata(
    strata: NDArray[np.int32], units: NDArray[Any], counted: Bools, least: int
) -> tuple[NDArray[np.int32], list[list[int]]]:
    """Put small strata together until each group of them has `least` distinct units.

    Parameters
    ----------
    strata : int array (N,)
        Number of the stratum of each row; those below 0 belong to none.
    units : int array (N,)
        Equal for rows that must stay together.
    counted : bool array (N,)
        Rows whose units count.
    least : int

    Returns
    -------
    groups : int32 array (N,)
        Number of the group of each row, -1 for none.
    members : list of lists of int
        Strata of each group.
    """
    present = np.unique(strata[strata >= 0])
    if not present.size:
        return np.full(strata.shape, -1, np.int32), []
    taken = counted & (strata >= 0)
    pairs = np.unique(np.stack([strata[taken].astype(np.int64), units[taken]]), axis=1)
    sizes = np.bincount(pairs[0], minlength=int(present[-1]) + 1)
    members: list[list[int]] = []
    open_group: list[int] = []
    for stratum in sorted(present.tolist(), key=lambda k: (int(sizes[k]), k)):
        open_group.append(stratum)
        if sizes[open_group].sum() >= least:
            members.append(open_group)
            open_group = []
    if open_group:  # fewer in all than one group needs
        members = [*members[:-1], (members[-1] if members else []) + open_group]
    number = np.full(int(present[-1]) + 2, -1, np.int32)  # the last is that of -1
    for group, held in enumerate(members):
        number[held] = group
    return number[np.maximum(strata, -1)], members


def learnable(labels: Bools, trainings: Iterable[Rows]) -> Bools:
    """Which labels (K,) can be learned: in each set of rows, some have it and some do not."""
    found = np.ones(labels.shape[1], np.bool_)
    for rows in trainings:
        having = labels[rows].sum(axis=0)
        found &= (having > 0) & (having < rows.size)
    return found
