"""How a head is to be trained: the options of train-head, checked."""

from __future__ import annotations

import os
from dataclasses import dataclass

from tlpipe.errors import OptionError
from tlpipe.label_cells import separator_of
from tlpipe.last_layer import CLASS_WEIGHTS, HEAD_KINDS, ClassWeight, HeadKind
from tlpipe.types import DEFAULT_SEED

LEAST_MEMORY_BYTES = 400 << 20
"""What training takes beside the embeddings: the libraries, a backbone of 50 MB, and what the
solver works on."""


@dataclass(frozen=True)
class TrainOptions:
    """How a head is trained and judged.

    Attributes
    ----------
    seed : int
        Of the hold-out, where the source has no split of its own.
    head : {"linear", "centroid", "knn"}
        A linear probe, or a quick baseline: the nearest class mean, or the nearest images.
    class_weight : {"none", "balanced"}
        "balanced": each class counts the same, however many images it has.
    multi_label : bool
        Whether an image may have several labels, or none.
    label_separator : str or None
        What joins them in a stored label; None for "|".
    memory_bytes : int or None
        Where embeddings are too large for it, they are read anew in each pass. By default half of
        the machine's memory.
    threads : int or None
        None for one for each usable core.
    false_alarms : float
        Share of the classes' own images that may count as "none of these".
    coverage : float or None
        How often prediction sets hold the true class; None to choose one above the accuracy.
    """

    seed: int = DEFAULT_SEED
    head: HeadKind = "linear"
    class_weight: ClassWeight = "none"
    multi_label: bool = False
    label_separator: str | None = None
    memory_bytes: int | None = None
    threads: int | None = None
    false_alarms: float = 0.05
    coverage: float | None = None

    def __post_init__(self) -> None:
        separator_of(self.multi_label, self.label_separator)
        if self.head not in HEAD_KINDS:
            raise OptionError(
                f"The head {self.head!r} is unknown.", hint=f"Use one of {list(HEAD_KINDS)}."
            )
        if self.class_weight not in CLASS_WEIGHTS:
            raise OptionError(
                f"The class weight {self.class_weight!r} is unknown.",
                hint=f"Use one of {list(CLASS_WEIGHTS)}.",
            )
        if self.multi_label and (self.head != "linear" or self.class_weight != "none"):
            raise OptionError(
                "Several labels per image take a linear head without class weights.",
                hint="Leave out --head and --class-weight.",
            )
        if self.head != "linear" and self.class_weight != "none":
            raise OptionError(
                f"A head {self.head!r} has no class weights.", hint="Leave out --class-weight."
            )
        for name, share in (("false-alarms", self.false_alarms), ("coverage", self.coverage)):
            if share is not None and not 0 < share < 1:
                raise OptionError(f"--{name} is {share}; it must lie between 0 and 1.")
        if self.seed < 0:
            raise OptionError(f"--seed is {self.seed}; it must be at least 0.")
        if self.threads is not None and self.threads < 1:
            raise OptionError(f"--threads is {self.threads}; it must be at least 1.")
        if self.memory_bytes is not None and self.memory_bytes < LEAST_MEMORY_BYTES:
            raise OptionError(
                f"--memory is {self.memory_bytes >> 20} MB; training needs at least"
                f" {LEAST_MEMORY_BYTES >> 20} MB, however few the embeddings."
            )

    @property
    def separator(self) -> str | None:
        """What stands between the labels of a cell; None where a cell is one label."""
        return separator_of(self.multi_label, self.label_separator)

    def streams(self, size_bytes: int) -> bool:
        """Whether embeddings of this size are read anew in each pass rather than held."""
        budget = _half_of_memory() if self.memory_bytes is None else self.memory_bytes
        return size_bytes * 5 // 4 + LEAST_MEMORY_BYTES > budget


def _half_of_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):  # this system does not tell
        return 8 << 30
