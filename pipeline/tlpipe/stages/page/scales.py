"""Scales of charts: from numbers to places in a picture, and the numbers to write at an axis."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
"""Distances of ticks that people count in, times a power of ten."""


@dataclass(frozen=True)
class Scale:
    """Takes the numbers from `low` to `high` to the places from `start` to `end`.

    Attributes
    ----------
    low, high : float
        Different from each other; above 0 where `log`.
    start, end : float
        In units of the picture.
    log : bool
        Equal ratios are equal distances.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Where a number lies; beyond the ends for numbers beyond the range."""
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(value)
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """Numbers to write at the axis."""
        return log_ticks(self.low, self.high) if self.log else ticks(self.low, self.high)


def step_of(low: float, high: float, most: int = 6) -> float:
    """The least nice distance that makes at most `most` steps from `low` to `high`."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * step for step in _STEPS if power * step >= rough * (1 - 1e-9))


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Multiples of a nice step from `low` to `high`, both ends included where they are such."""
    step = step_of(low, high, most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten from `low` to `high`; powers alone over many decades.

    Where fewer than two of them lie there, equal distances are taken instead.
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1,) if last - first > 4 else (1, 2, 5)
    found = [
        factor * 10.0**power
        for power in range(first, last + 1)
        for factor in factors
        if low * (1 - 1e-9) <= factor * 10.0**power <= high * (1 + 1e-9)
    ]
    return found if len(found) > 1 else ticks(low, high, 4)


def nice_range(
    values: Iterable[float], *, least: float, floor: float = -math.inf, ceiling: float = math.inf
) -> tuple[float, float]:
    """A range with nice ends around all `values`, at least `least` wide, within the two limits."""
    found = list(values)
    low, high = min(found), max(found)
    missing = max(0.0, least - (high - low)) / 2
    low, high = low - missing, high + missing
    step = step_of(low, high)
    return (
        max(floor, round(math.floor(low / step + 1e-9) * step, 12)),
        min(ceiling, round(math.ceil(high / step - 1e-9) * step, 12)),
    )


def log_range(values: Iterable[float]) -> tuple[float, float]:
    """A range around all `values`, which are above 0, with room at both ends."""
    found = list(values)
    return min(found) / 1.4, max(found) * 1.4


def tick_label(value: float) -> str:
    """A tick as text: as short as it can be, thousands set apart."""
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:.6g}"
