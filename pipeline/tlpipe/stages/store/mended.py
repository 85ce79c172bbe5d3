"""What became of the rows of a damaged feature file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tlpipe.errors import DamagedFileError


@dataclass
class Mended:
    """What became of the rows of a damaged feature file.

    Attributes
    ----------
    kept, lost : int
        Rows.
    lost_keys : list of str
        Keys of lost rows, where they are sure.
    reasons : dict of str to int
        Lost rows by what was wrong.
    without_label, without_split, without_group : int
        Kept rows of which these were damaged.
    rejects_lost : int
        Rows of items that were left out.
    notes : list of str
        What else is to be known.
    source : str
        Where the images lay; empty where that is not sure.
    """

    kept: int = 0
    lost: int = 0
    lost_keys: list[str] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)
    without_label: int = 0
    without_split: int = 0
    without_group: int = 0
    rejects_lost: int = 0
    notes: list[str] = field(default_factory=list)
    source: str = ""

    def lose(self, keys: list[str | None], why: str) -> None:
        """Note rows that are lost."""
        self.lost_keys += [key for key in keys if key is not None]
        self.lose_unnamed(len(keys), why)

    def lose_unnamed(self, count: int, why: str) -> None:
        """Note rows that are lost, whose keys are not known."""
        if count:
            self.lost += count
            self.reasons[why] = self.reasons.get(why, 0) + count


def check_kept(path: Path, result: Mended) -> None:
    """Refuse a result without rows.

    Raises
    ------
    DamagedFileError
    """
    if not result.kept:
        raise DamagedFileError(
            f"Not one of the {result.lost} rows in {str(path)!r} is good:"
            f" {_counted(result.reasons)}.",
            hint="Embed the images again.",
        )


def _counted(reasons: dict[str, int]) -> str:
    return "; ".join(f"{count} because {why}" for why, count in reasons.items()) or "there are none"
