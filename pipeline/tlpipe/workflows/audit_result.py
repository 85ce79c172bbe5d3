"""What an audit found: records of rows by their keys, and the same as plain values for JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Image:
    """A row: its key, its label or None, and its split ("train" ..., or None)."""

    key: str
    label: str | None
    split: str | None


@dataclass(frozen=True)
class LabelError:
    """A label that is probably wrong.

    Attributes
    ----------
    image : Image
    suggested : str
        The likeliest class other than the label.
    self_confidence, suggested_probability : float
        Probabilities of the label and of `suggested`, from a head that the image did not train.
    """

    image: Image
    suggested: str
    self_confidence: float
    suggested_probability: float


@dataclass(frozen=True)
class LabelCheck:
    """The search for label errors.

    Attributes
    ----------
    checked : int
        Images that were held out once.
    estimated : int
        Wrong labels, estimated from the confident joint.
    errors : list of LabelError
        The most suspect first.
    """

    checked: int
    estimated: int
    errors: list[LabelError]


@dataclass(frozen=True)
class Pair:
    """Two images that are nearly the same, and the cosine of their embeddings."""

    first: Image
    second: Image
    cosine: float


@dataclass(frozen=True)
class NearDuplicates:
    """Images whose embeddings are nearly the same, but not their contents.

    Attributes
    ----------
    threshold : float
    count : int
        Pairs at or above the threshold.
    pairs : list of Pair
        The most alike first; the first 10,000 of them.
    clusters : list of list of Image
        What chains of pairs join; the largest first.
    """

    threshold: float
    count: int
    pairs: list[Pair]
    clusters: list[list[Image]]


@dataclass(frozen=True)
class Leaks:
    """Images that stand in two splits; those of no split count as training.

    Attributes
    ----------
    exact, near : int
        Contents that stand in several splits, and pairs of near-duplicates in two.
    exact_pairs, near_pairs : list of Pair
        The first of them.
    """

    exact: int
    near: int
    exact_pairs: list[Pair]
    near_pairs: list[Pair]


@dataclass(frozen=True)
class Outlier:
    """An image far from all classes, and its distance as a multiple of the median's."""

    image: Image
    distance: float


@dataclass(frozen=True)
class Outliers:
    """Images far from all classes.

    Attributes
    ----------
    limit : float
        Outliers lie beyond it: one and a half interquartile ranges above the upper quartile.
    count : int
        Images beyond it.
    ranked : list of Outlier
        The farthest first: all beyond the limit, and in any case the first twenty.
    """

    limit: float
    count: int
    ranked: list[Outlier]


@dataclass(frozen=True)
class Example:
    """An image that shows what a class is.

    Attributes
    ----------
    key : str
    guess : str or None
        The class held-out probabilities favour; None of a typical image.
    score : float
        Of a typical image its distance as for outliers; else the probability of its label less
        that of the likeliest other class.
    """

    key: str
    guess: str | None
    score: float


@dataclass(frozen=True)
class ClassExamples:
    """Images of a class: nearest to its mean; right by the least; most confidently wrong."""

    name: str
    count: int
    typical: list[Example]
    least_sure: list[Example]
    most_wrong: list[Example]


@dataclass(frozen=True)
class AuditResult:
    """What ``audit`` found.

    Attributes
    ----------
    path : pathlib.Path or None
        The JSON file, where one was asked for.
    features : pathlib.Path
    count, labelled : int
        Images, and those with a label.
    labels : LabelCheck or None
        None where labels cannot be checked: `notices` says why.
    exact_duplicates : list of list of Image
        Images of the same content.
    near : NearDuplicates
    leaks : Leaks
    outliers : Outliers
    classes : list of ClassExamples
    notices : list of str
        What a user would want to know.
    """

    path: Path | None
    features: Path
    count: int
    labelled: int
    labels: LabelCheck | None
    exact_duplicates: list[list[Image]]
    near: NearDuplicates
    leaks: Leaks
    outliers: Outliers
    classes: list[ClassExamples]
    notices: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; ``docs/reference/audit.md`` specifies them."""
        plain = asdict(self)
        del plain["path"]
        return plain | {"features": str(self.features)}
