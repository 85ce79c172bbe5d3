"""What the templates show, worked out of the records: cells, shots, pairs, the map in words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tlpipe.stages.page.comparison import Comparison
from tlpipe.stages.page.content import Images, Report
from tlpipe.stages.page.figures import Matrix
from tlpipe.stages.page.words import last_part, names_of

_STEPS = 8
"""Shades of a cell, beside none."""

MOST_COLOURED = 10
"""Classes that the map can show in colours that people tell apart."""

_COLOURED_OF_MANY = 6


def shade_of(part: float) -> int:
    """Shade of a share, from 0 to 8: by its square root, so that few mistakes are seen as well."""
    return min(_STEPS, math.ceil(math.sqrt(part) * _STEPS - 1e-9)) if part > 0 else 0


@dataclass(frozen=True)
class Cell:
    """A cell of the confusion matrix: images, their share of the true class, and its shade."""

    count: int
    share: float
    kind: str


@dataclass(frozen=True)
class MatrixRow:
    """A true class: its images and its cells."""

    name: str
    total: int
    cells: list[Cell]


def matrix_rows(matrix: Matrix, classes: Sequence[str]) -> list[MatrixRow]:
    """The cells of a matrix that has counts; right ones in one hue, mistakes in another."""
    rows = []
    for true, counts in enumerate(matrix.counts or []):
        total = sum(counts)
        cells = []
        for guess, count in enumerate(counts):
            part = count / total if total else 0.0
            hue = "right" if guess == true else "wrong"
            cells.append(Cell(count, part, f"{hue}-{shade_of(part)}"))
        rows.append(MatrixRow(classes[true], total, cells))
    return rows


@dataclass(frozen=True)
class Shot:
    """An image in a list, in words."""

    image: int
    key: str
    name: str
    label: str
    guess: str
    confidence: float
    split: str
    wrong: bool


def shot_of(report: Report, image: int) -> Shot:
    """What a list says of an image."""
    images = report.images
    label, guess = images.labels[image], images.guesses[image]
    return Shot(
        image=image,
        key=images.keys[image],
        name=last_part(images.keys[image]),
        label=names_of(label, report.classes),
        guess=names_of(guess, report.classes),
        confidence=float(images.confidences[image]),
        split=images.splits[image],
        wrong=bool(label) and bool(guess) and set(label) != set(guess),
    )


def highlighted(report: Report) -> list[int]:
    """Classes that the map shows in colour at first: all, or those that are confused most."""
    classes = len(report.classes)
    if classes <= MOST_COLOURED:
        return list(range(classes))
    found: list[int] = []
    if report.matrix is not None:
        found = [number for t, p, _ in report.matrix.confused for number in (t, p)]
    frequent = Counter(n for numbers in report.images.labels for n in numbers).most_common()
    found += [number for number, _ in frequent]
    return list(dict.fromkeys(found))[:_COLOURED_OF_MANY]


@dataclass(frozen=True)
class Company:
    """A class in the map, in words: whose company its images keep.

    Attributes
    ----------
    name : str
    count : int
        Images with a label and a nearest training image.
    same : float
        Share of them whose nearest training image is of the same class.
    other : str
        The class that most of the others are nearest to; "" where there is none.
    other_count : int
    """

    name: str
    count: int
    same: float
    other: str
    other_count: int


def company(images: Images, classes: Sequence[str]) -> list[Company]:
    """The map in words, from the nearest training image of each labelled image."""
    if not len(images.keys) or images.neighbours.ndim != 2 or not images.neighbours.shape[1]:
        return []
    own = np.array([numbers[0] if len(numbers) == 1 else -1 for numbers in images.labels])
    nearest = images.neighbours[:, 0]
    theirs = np.where(nearest >= 0, own[np.maximum(nearest, 0)], -1)
    rows = []
    for number, name in enumerate(classes):
        found = theirs[(own == number) & (theirs >= 0)]
        if not found.size:
            continue
        others = Counter(found[found != number].tolist()).most_common(1)
        other, other_count = others[0] if others else (-1, 0)
        same = float(np.mean(found == number))
        rows.append(
            Company(name, int(found.size), same, classes[other] if others else "", other_count)
        )
    return rows


@dataclass(frozen=True)
class Recall:
    """A contender's recall of a class, its shade, and whether none is better."""

    value: float
    kind: str
    best: bool


def recall_rows(comparison: Comparison) -> list[tuple[str, list[Recall]]]:
    """The table of recalls, shaded from the least to 1."""
    finite = [v for _, values in comparison.rows for v in values if math.isfinite(v)]
    least = min(finite, default=0.0)
    span = max(1 - least, 1e-9)
    rows = []
    for name, values in comparison.rows:
        known = [value for value in values if math.isfinite(value)]
        best = max(known, default=math.nan)
        worst = min(known, default=math.nan)
        cells = []
        for value in values:
            step = round((value - least) / span * 6) if math.isfinite(value) else 0
            cells.append(Recall(value, f"right-{step}", value == best and best > worst))
        rows.append((name, cells))
    return rows
