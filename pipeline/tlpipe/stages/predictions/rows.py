"""What a row of predictions says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.types import FileStat, Split

if TYPE_CHECKING:
    from tlpipe.types import Item, Outcome

DIGITS = 6
"""Of a probability, after the point."""

OF_ITEMS = ("label", "split")
"""What every source may tell of an item beside its further columns."""


@dataclass(frozen=True)
class Columns:
    """What a row says.

    Attributes
    ----------
    top_k : int, optional
        How many classes it names with their probabilities, the most probable first; at most K. By
        default one; none where an image may have several labels.
    unknown : bool
        Whether it tells if the image is of none of the classes. Outcomes have the values "unknown"
        and "unknown_score", bool and float.
    sets : bool
        Whether it lists the classes that the image may be of. Outcomes have a value
        "prediction_set", bool (K,).
    keep : tuple of str
        Columns that the source has and the row takes over: "label", "split", and further columns
        of a manifest or table.
    """

    top_k: int | None = None
    unknown: bool = False
    sets: bool = False
    keep: tuple[str, ...] = ()

    @property
    def of_source(self) -> tuple[str, ...]:
        """Those of `keep` that are further columns of the source."""
        return tuple(name for name in self.keep if name not in OF_ITEMS)

    def kept(self, item: Item) -> tuple[str, ...]:
        """Values of `keep`, of an item that has the further columns."""
        further = dict(zip(self.of_source, item.more, strict=True))
        own = {
            "label": item.label or "",
            "split": "" if item.split == Split.NONE else item.split.name.lower(),
        }
        return tuple(own[name] if name in own else further[name] for name in self.keep)


@dataclass(frozen=True, slots=True)
class Row:
    """What is said of one image, or why nothing is.

    Attributes
    ----------
    key : str
    stat : FileStat
        Of the image's file, as it was read.
    top : tuple of (str, float)
        Classes with their probabilities, rounded; the most probable first.
    labels : tuple of str or None
        Labels that the image has, where it may have several; the most probable first.
    unknown : (bool, float) or None
        Whether the image is of none of the classes, and its score.
    possible : tuple of str or None
        Classes that the image may be of; the most probable first.
    reject : (str, str) or None
        Reason and detail.
    """

    key: str
    stat: FileStat
    top: tuple[tuple[str, float], ...] = ()
    labels: tuple[str, ...] | None = None
    unknown: tuple[bool, float] | None = None
    possible: tuple[str, ...] | None = None
    reject: tuple[str, str] | None = None


_TAIL = ("reason", "detail")


@dataclass(frozen=True)
class Form:
    """Makes rows of what a classifier gives.

    Attributes
    ----------
    classes : tuple of K str
    columns : Columns
    multilabel : bool
        Whether an image may have several labels. Outcomes have a value "labels", bool (K,).
    """

    classes: tuple[str, ...]
    columns: Columns
    multilabel: bool = False

    @property
    def top_k(self) -> int:
        """Number of classes that a row names with their probabilities."""
        return self.columns.top_k or (0 if self.multilabel else 1)

    def row(self, outcome: Outcome) -> Row:
        """Row of an outcome: with the value "probabilities", float (K,), or a reject."""
        key, reject = outcome.item.key, outcome.reject
        if reject is not None:
            return Row(key, reject.stat, reject=(str(reject.reason), reject.detail))
        stat = FileStat() if outcome.content is None else outcome.content.stat
        return self.said(key, stat, outcome.values)

    def said(self, key: str, stat: FileStat, values: Mapping[str, Any]) -> Row:
        """Row of an image that could be read."""
        columns, probabilities = self.columns, values["probabilities"]
        # Sorted by probability; equal ones keep the order of the classes.
        order = np.argsort(-probabilities, kind="stable").tolist()
        unknown = None
        if columns.unknown:
            unknown = bool(values["unknown"]), round(float(values["unknown_score"]), DIGITS)
        return Row(
            key,
            stat,
            top=tuple(
                (self.classes[k], round(float(probabilities[k]), DIGITS))
                for k in order[: self.top_k]
            ),
            labels=self._where(order, values["labels"]) if self.multilabel else None,
            unknown=unknown,
            possible=self._where(order, values["prediction_set"]) if columns.sets else None,
        )

    def _where(self, order: list[int], true: Any) -> tuple[str, ...]:
        return tuple(self.classes[k] for k in order if true[k])

    def kept_names(self) -> list[str]:
        """Names of the columns taken over from the source: those of our own get a prefix."""
        own = {"key", "status", "top", *self._said_names(), *_TAIL}
        return [f"source_{name}" if name in own else name for name in self.columns.keep]

    def header(self) -> list[str]:
        """Names of the columns of a table of rows."""
        return ["key", *self.kept_names(), "status", *self._said_names(), *_TAIL]

    def _said_names(self) -> list[str]:
        names = ["labels"] if self.multilabel else []
        names += ["class", "probability"] if self.top_k else []
        names += [n for k in range(2, self.top_k + 1) for n in (f"class_{k}", f"probability_{k}")]
        if self.columns.unknown:
            names += ["unknown", "unknown_score"]
        if self.columns.sets:
            names.append("set")
        return names
