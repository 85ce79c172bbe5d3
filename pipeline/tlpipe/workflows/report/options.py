"""What a report may be asked for, and what was made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tlpipe.errors import OptionError
from tlpipe.types import DEFAULT_SEED
from tlpipe.workflows.row_checks import NEAR

MapKind = Literal["pca", "umap"]
MAP_KINDS: tuple[MapKind, ...] = ("pca", "umap")

MOST_IMAGES = 10_000
FEWEST_SAMPLED, MOST_SAMPLED = 1_000, 50_000
"""Least and most that may be asked for: all images of the lists must fit, and a page must open."""


@dataclass(frozen=True)
class ReportOptions:
    """What a report shows.

    Attributes
    ----------
    images : int
        Images that the page holds at most; of more a sample.
    map_kind : {"pca", "umap"}
        "umap": a second map, which takes the package umap-learn.
    pictures : bool
        Whether the page holds pictures of the images.
    fetch : bool
        Whether images on a network are read again for that.
    near : float
        Images are nearly the same whose embeddings have at least this cosine.
    seed : int
        Of the sample, of the folds, and of UMAP.
    allow_outside : tuple of str
        As for ``source``, where the source that the feature file names is opened.
    """

    images: int = MOST_IMAGES
    map_kind: MapKind = "pca"
    pictures: bool = True
    fetch: bool = False
    near: float = NEAR
    seed: int = DEFAULT_SEED
    allow_outside: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not FEWEST_SAMPLED <= self.images <= MOST_SAMPLED:
            raise OptionError(
                f"A report of at most {self.images:,} images was asked for; it must be"
                f" {FEWEST_SAMPLED:,} to {MOST_SAMPLED:,}."
            )
        if self.map_kind not in MAP_KINDS:
            raise OptionError(
                f"The map {self.map_kind!r} is unknown.", hint=f"Use one of {list(MAP_KINDS)}."
            )
        if not 0 < self.near <= 1:
            raise OptionError(f"near is {self.near!r}; it must be above 0 and at most 1.")


@dataclass(frozen=True)
class ReportResult:
    """A report that was written.

    Attributes
    ----------
    path : pathlib.Path
    size_bytes : int
    count, shown, pictured : int
        Images of the feature file, those that the page holds, and those with a picture.
    judged_on : str
        In words; empty where nothing could be judged.
    notices : list of str
        What a user would want to know.
    """

    path: Path
    size_bytes: int
    count: int
    shown: int
    pictured: int
    judged_on: str
    notices: list[str]
