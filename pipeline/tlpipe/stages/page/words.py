"""Numbers and names as the pages write them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath

NONE = "\u2013"
"""What stands for a number that does not apply."""

_SPACE = "\u00a0"  # keeps a number and its unit on one line


def whole(number: float) -> str:
    """A count, with its thousands set apart."""
    return f"{int(number):,}"


def decimal(value: float | None, places: int = 3) -> str:
    """A number with as many places."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:.{places}f}".replace("-", "\u2212")


def share(value: float | None) -> str:
    """A probability or share in percent; nothing less than all is called 100 %."""
    if value is None or not math.isfinite(value):
        return NONE
    percent = 100 * value
    if 99.95 <= percent < 100:
        return f">99.9{_SPACE}%"
    places = 1 if 99 < percent < 100 or 0 < percent < 1 else 0
    return f"{percent:.{places}f}{_SPACE}%"


def listed(count: int, shown: int) -> str:
    """How many findings a list holds, of how many."""
    return f"The first {whole(shown)} of {whole(count)}." if shown < count else whole(count)


def names_of(numbers: Sequence[int], classes: Sequence[str]) -> str:
    """Classes, with commas between them."""
    return ", ".join(classes[number] for number in numbers)


def last_part(key: str) -> str:
    """The name of a file without its folders."""
    return PurePosixPath(key.replace("\\", "/")).name or key


def size(number: float | None) -> str:
    """Bytes as people read them."""
    if number is None:
        return NONE
    value, unit = float(number), 0
    while value >= 1000 and unit < 4:
        value, unit = value / 1000, unit + 1
    digits = 0 if unit == 0 or value >= 100 else 1
    return f"{value:.{digits}f}{_SPACE}{('B', 'kB', 'MB', 'GB', 'TB')[unit]}"


def seconds(value: float | None) -> str:
    """A time as people read it."""
    if value is None:
        return NONE
    if value < 1:
        return f"{value * 1000:.3g}{_SPACE}ms"
    return f"{value:,.3g}{_SPACE}s" if value < 1000 else f"{value:,.0f}{_SPACE}s"


def when(moment: str) -> str:
    """A moment as people write it; what is none stays as it is."""
    try:
        read = datetime.fromisoformat(moment)
    except ValueError:
        return moment
    at = read.astimezone(UTC) if read.tzinfo else read
    return f"{at.day} {at:%B %Y, %H:%M}{' UTC' if read.tzinfo else ''}"
