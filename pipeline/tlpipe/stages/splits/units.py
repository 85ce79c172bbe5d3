"""Units: rows that must stay together in a split.

A unit are the rows of a group, and rows of no group with the same content; groups that share a
content are one unit too, so that no content stands on two sides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]


def units_of(groups: Ints, contents: Ints) -> tuple[Ints, Ints]:
    """For each row what names it (its group, else its content), and its unit; both from 0 on."""
    _, numbers = np.unique(groups, return_inverse=True)
    names: Ints = np.where(groups >= 0, numbers, int(numbers.max()) + 1 + contents)
    order = np.lexsort((names, contents))
    same = contents[order][1:] == contents[order][:-1]
    a, b = names[order][:-1][same], names[order][1:][same]
    root: dict[int, int] = {}

    def top(name: int) -> int:
        while (above := root.get(name, name)) != name:
            root[name] = root.get(above, above)  # half of the way is saved for the next
            name = above
        return name

    for one, other in zip(a[a != b].tolist(), b[a != b].tolist(), strict=True):
        first, second = sorted((top(one), top(other)))
        root[second] = first
    joined = names.copy()
    if root:
        table = np.arange(int(names.max()) + 1)
        for name in root:
            table[name] = top(name)
        joined = table[names]
    return names, np.unique(joined, return_inverse=True)[1].reshape(-1)
