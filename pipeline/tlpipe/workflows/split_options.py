"""What a user may say of how a feature file is split."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from tlpipe.errors import OptionError
from tlpipe.types import DEFAULT_SEED, Split

TEST = 0.2
"""Part of the rows that judges, where nothing else is said."""


@dataclass(frozen=True)
class SplitOptions:
    """How rows are assigned.

    Attributes
    ----------
    train, validation, test : float or None
        Parts of each class, from 0 to 1. By default 0.2 is for test, nothing for validation, and
        the rest for train; the three add up to 1.
    seed : int
        Another seed assigns otherwise.
    group_pattern : str or None
        A regular expression that is searched for in each key: what its first group matches, or
        else all it matches, names the row's group.
    groups : str or None
        ``FILE.csv:COLUMN``: a table with a column 'path' or 'key', and the one that names groups.
    anew : bool
        Assign rows again that have a split of the same recipe already.
    """

    train: float | None = None
    validation: float = 0.0
    test: float | None = None
    seed: int = DEFAULT_SEED
    group_pattern: str | None = None
    groups: str | None = None
    anew: bool = False

    def __post_init__(self) -> None:
        if type(self.seed) is not int or self.seed < 0:
            raise OptionError(f"The seed is {self.seed!r}; it must be an int of at least 0.")
        if self.group_pattern is not None and self.groups is not None:
            raise OptionError(
                "Groups come from a pattern or from a file, not from both.",
                hint="Leave one of them out.",
            )
        if self.group_pattern is not None:
            try:
                re.compile(self.group_pattern)
            except re.error as exc:
                raise OptionError(
                    f"The pattern of the groups {self.group_pattern!r} is no regular expression:"
                    f" {exc}.",
                    hint=r"For example '^(.+)_\d+\.jpg$' for images like 'cat/7_001.jpg'.",
                ) from exc
        if self.groups is not None and not all(self.groups.rpartition(":")[::2]):
            raise OptionError(
                f"The groups {self.groups!r} name no column of a file.",
                hint="Write FILE.csv:COLUMN.",
            )
        self.fractions()

    def fractions(self) -> dict[Split, float]:
        """Part of each class for each split; their sum is 1.

        Raises
        ------
        OptionError
            They are no such parts.
        """
        train, validation, test = self.train, self.validation, self.test
        given = [part for part in (train, validation, test) if part is not None]
        if not all(isinstance(part, (int, float)) and 0 <= part <= 1 for part in given):
            raise OptionError(f"The parts of the splits are {given}; each must be from 0 to 1.")
        if test is None:
            test = TEST if train is None else 1 - train - validation
        if train is None:
            train = 1 - validation - test
        parts = [round(part, 9) + 0.0 for part in (train, validation, test)]
        if min(parts) < 0 or abs(sum(parts) - 1) > 1e-6:
            raise OptionError(
                f"The parts for train, validation and test are {parts}; they must add up to 1.",
                hint="State two of them; the third is the rest.",
            )
        return dict(zip((Split.TRAIN, Split.VALIDATION, Split.TEST), parts, strict=True))

    def recipe(self) -> str:
        """What determines an assignment, as JSON: a file's ``splits_from``."""
        groups: Any = None
        if self.group_pattern is not None:
            groups = {"pattern": self.group_pattern}
        elif self.groups is not None:
            groups = {"column": self.groups.rpartition(":")[2]}
        fractions = {split.name.lower(): part for split, part in self.fractions().items()}
        recipe = {"seed": self.seed, "fractions": fractions, "groups": groups}
        return json.dumps(recipe, sort_keys=True, ensure_ascii=False)
