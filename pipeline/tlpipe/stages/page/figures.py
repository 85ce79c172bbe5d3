"""The numbers that a page shows: plain records."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A headline number.

    Attributes
    ----------
    name : str
        As people call it: "accuracy".
    value : float
    low, high : float or None
        95 % interval; None where there is none.
    meaning : str
        A sentence: what the number says, with its interval.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    meaning: str


@dataclass(frozen=True)
class ClassRow:
    """A class in the table; what does not apply is None.

    Attributes
    ----------
    name : str
    train, judged : int
        Images that train, and those that judge.
    precision, recall, f1, recall_low, recall_high : float or None
    average_precision, threshold : float or None
        Where an image may have several labels.
    """

    name: str
    train: int
    judged: int
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    recall_low: float | None = None
    recall_high: float | None = None
    average_precision: float | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class Matrix:
    """Who is taken for whom.

    Attributes
    ----------
    counts : list of lists of int, or None
        Rows: true class, columns: predicted class. None where there are too many classes.
    confused : list of (true, predicted, images)
        The most frequent mistakes, most frequent first.
    """

    counts: list[list[int]] | None
    confused: list[tuple[int, int, int]]


@dataclass(frozen=True)
class Bin:
    """Images of like confidence: how sure the classifier was of them, and how often right."""

    count: int
    confidence: float
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram's curve: "before calibration", "after calibration".

    Attributes
    ----------
    name : str
    bins : list of Bin
        By rising confidence; empty ones are left out.
    error : float
        Expected calibration error.
    """

    name: str
    bins: list[Bin]
    error: float


@dataclass(frozen=True)
class CurvePoint:
    """Accuracy of a head trained on `count` images, with its interval."""

    count: int
    accuracy: float
    low: float
    high: float
