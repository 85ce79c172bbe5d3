"""How many rows of a Parquet file are unpacked together: what bounds the memory that it takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tlpipe.parquet_pages import Page

_WORST_BYTES = 256 << 20  # unpacked at once, if the values that lie together are the largest


def rows_at_once(pages: Sequence[Page], most_rows: int, most_bytes: int = _WORST_BYTES) -> int:
    """How many rows of a row group are read together, by the pages of one of its columns.

    As many as have `most_bytes` on average; fewer where the pages, of which nobody knows how their
    bytes are spread over their values, might hold far more in so many rows.

    Parameters
    ----------
    pages : sequence of Page
        All those of a column that holds one value for each row.
    most_rows, most_bytes : int
    """
    data = [page for page in pages if page.values]
    if not data:
        return most_rows
    values = np.array([page.values for page in data], np.int64)
    unpacked = np.array([page.unpacked for page in data], np.int64)
    named = sum(page.unpacked for page in pages if page.is_dictionary)
    mean = max(1, int(unpacked.sum() + named) // int(values.sum()))
    rows = max(1, min(most_rows, most_bytes // mean))
    if named:  # each value may be the largest of the dictionary
        rows = max(1, min(rows, _WORST_BYTES // named))
    ends = np.cumsum(values)
    sums = np.concatenate([[0], np.cumsum(unpacked)])
    worst = max(_WORST_BYTES, 2 * int(unpacked.max()))
    while rows > 1:  # the worst stretches begin with the last value of a page
        last = np.minimum(np.searchsorted(ends, ends + rows - 2, side="right"), len(data) - 1)
        if int((sums[last + 1] - sums[:-1]).max()) <= worst:
            break
        rows //= 2
    return rows
