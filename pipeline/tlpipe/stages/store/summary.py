"""What was written to a feature file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class FeatureSummary:
    """What was written."""

    count: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    classes: list[str] = field(default_factory=list)
