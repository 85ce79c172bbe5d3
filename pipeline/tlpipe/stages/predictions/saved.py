"""Rows that earlier runs of a job left, found again item by item while the source is listed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from tlpipe.stages.predictions.part_file import PartFile
from tlpipe.stages.predictions.rows import Row

_LOADED = 4  # parts in memory


class SavedRows:
    """Rows of parts, asked for in the order of the source.

    A part is loaded when its first item is met, or when the one before it holds no more of what is
    asked for; a few are kept. So memory does not grow with their number, and items that came, went
    or changed since cost no more than themselves.

    Parameters
    ----------
    parts : sequence of PartFile
        In the order in which they were written.
    run : str
        Of this run: rejects of others are not used, since the images may be readable now.
    by_key : bool
        Whether an item of which neither size nor time of change is known is taken to be unchanged.
    """

    def __init__(self, parts: Sequence[PartFile], run: str, *, by_key: bool) -> None:
        self._parts, self._run, self._by_key = list(parts), run, by_key
        self._by_first: defaultdict[str, list[int]] = defaultdict(list)
        for number, part in enumerate(self._parts):
            self._by_first[part.first].append(number)
        self._loaded: dict[int, dict[str, Row]] = {}  # the latest stand last
        self._ahead = -1  # the part that was loaded to see whether it comes next

    def __bool__(self) -> bool:
        return bool(self._parts)

    def find(self, key: str, stat: tuple[int, int]) -> Row | None:
        """The row of an item, if it may be used.

        Parameters
        ----------
        key : str
        stat : tuple of int
            Size in bytes and time of change in ns of its file now; (-1, -1) where not known.
        """
        for number in self._by_first.pop(key, ()):
            self._load(number)
        found = self._among_loaded(key, stat)
        if found is None:
            following = max(self._loaded, default=-1) + 1
            if following < len(self._parts) and self._ahead not in self._loaded:
                self._load(following)
                self._ahead = following
                found = self._among_loaded(key, stat)
        return found

    def _among_loaded(self, key: str, stat: tuple[int, int]) -> Row | None:
        for number in reversed(self._loaded):
            row = self._loaded[number].get(key)
            if row is None or not self._is_same(row, stat):
                continue
            if row.reject is not None and self._parts[number].run != self._run:
                continue
            if number == self._ahead:
                self._ahead = -1
            return row
        return None

    def _is_same(self, row: Row, stat: tuple[int, int]) -> bool:
        """Whether a row is of a file as it is now."""
        if self._by_key and stat == (-1, -1):
            return True
        return (row.stat.size_bytes, row.stat.mtime_ns) == stat

    def _load(self, number: int) -> None:
        self._loaded.pop(number, None)
        self._loaded[number] = self._parts[number].rows()
        if len(self._loaded) > _LOADED:
            del self._loaded[next(iter(self._loaded))]
