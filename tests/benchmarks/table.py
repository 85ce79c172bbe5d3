"""Figures over rounds, as lines of text: medians, with the least and the most behind them.

Ratios are taken within a round, whose runs follow each other: the speed of a machine drifts.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

WIDTH = 46


@dataclass
class Row:
    """What was measured of one way of embedding, a value per round.

    Attributes
    ----------
    name : str
    steady, whole : list of float
        Images per second: start and end left out; and from the call to the end of the process.
    ratio : list of float
        tlpipe's steady rate as a multiple of this one's.
    peak_bytes : int
        The largest of all rounds.
    cosine : float or None
        Mean, of its vectors to tlpipe's.
    failure : str
        Why there is nothing, if so.
    """

    name: str
    steady: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    ratio: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    cosine: float | None = None
    failure: str = ""


def middle(values: Sequence[float], digits: int = 1) -> str:
    """Median, and the range where there is one."""
    if not values:
        return "-"
    text = f"{statistics.median(values):.{digits}f}"
    if len(values) == 1:
        return text
    return f"{text} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def head() -> str:
    """The line above the rows."""
    return (
        f"{'images per second':{WIDTH}}{'steady':>24}{'whole command':>24}"
        f"{'tlpipe is ... times':>24}{'memory':>10}{'cosine':>10}"
    )


def line(row: Row) -> str:
    """A row of the table."""
    if row.failure:
        return f"{row.name:{WIDTH}}    not measured: {row.failure}"
    memory = f"{row.peak_bytes / 1e6:.0f} MB" if row.peak_bytes else "-"
    cosine = "-" if row.cosine is None else f"{row.cosine:.5f}"
    return (
        f"{row.name:{WIDTH}}{middle(row.steady):>24}{middle(row.whole):>24}"
        f"{middle(row.ratio, 2):>24}{memory:>10}{cosine:>10}"
    )
