"""The lists of a page: mistakes, likely label errors, near-duplicates and leaks, by row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tlpipe.stages import page
from tlpipe.stages.label_errors import find_label_errors
from tlpipe.stages.neighbours import Pairs
from tlpipe.stages.store import Features
from tlpipe.types import Split
from tlpipe.workflows.report.judgement import Judgement
from tlpipe.workflows.row_checks import Alike, Checked, clusters_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

LISTED = 100
"""Findings of each kind that a page holds."""


@dataclass(frozen=True)
class Findings:
    """The lists, whose images are rows of the feature file; None for what does not apply."""

    mistakes: page.Mistakes | None
    suspects: page.Suspects | None
    near_duplicates: page.Pairs | None
    leaks: page.Pairs | None

    def rows(self) -> Ints:
        """All rows that they name, each once, ascending."""
        return np.unique(np.fromiter(self._named(), np.int64))

    def _named(self) -> Iterator[int]:
        yield from self.mistakes.images if self.mistakes else ()
        for suspect in self.suspects.suspects if self.suspects else ():
            yield suspect.image
        for pairs in (self.near_duplicates, self.leaks):
            for pair in pairs.pairs if pairs else ():
                yield pair.first
                yield pair.second

    def numbered(self, place: Ints) -> Findings:
        """The same, by the number that each row has on the page: ``place`` (N,)."""
        mistakes, suspects = self.mistakes, self.suspects
        return Findings(
            mistakes and replace(mistakes, images=[int(place[row]) for row in mistakes.images]),
            suspects
            and replace(
                suspects,
                suspects=[replace(s, image=int(place[s.image])) for s in suspects.suspects],
            ),
            _numbered(self.near_duplicates, place),
            _numbered(self.leaks, place),
        )


def _numbered(pairs: page.Pairs | None, place: Ints) -> page.Pairs | None:
    return pairs and replace(
        pairs,
        pairs=[
            replace(p, first=int(place[p.first]), second=int(place[p.second])) for p in pairs.pairs
        ],
    )


def find(
    data: Features, judgement: Judgement, checked: Checked | None, alike: Alike, near: float
) -> Findings:
    """Gather all lists."""
    return Findings(
        _mistakes(judgement),
        None if judgement.multilabel or checked is None else _suspects(data, judgement, checked),
        _duplicates(alike, near),
        _leaks(alike, near) if (data.splits != Split.NONE).any() else None,
    )


def _mistakes(judgement: Judgement) -> page.Mistakes | None:
    if judgement.metrics is None:
        return None
    note = "Images that were judged and got a wrong answer, the surest answers first."
    if judgement.multilabel:
        note = (
            "Images that were judged and got a wrong label, or lack one of theirs; those first"
            " whose wrong answer is the surest."
        )
    note += " Look at them: some labels may be wrong, and what the others share is what to collect."
    rows = judgement.mistakes
    return page.Mistakes(int(rows.size), note, rows[:LISTED].tolist())


def _suspects(data: Features, judgement: Judgement, checked: Checked) -> page.Suspects:
    found = find_label_errors(checked.probabilities, checked.labels)
    number = {name: k for k, name in enumerate(judgement.classes)}
    suspects = []
    for at in found.rows[:LISTED].tolist():
        suggested = data.classes[int(checked.present[found.suggested[at]])]
        own = float(found.self_confidence[at])
        suspects.append(
            page.Suspect(
                int(checked.rows[at]), number[suggested], own, own - float(found.margin[at])
            )
        )
    note = (
        f"Of {checked.rows.size:,} labels checked, those that heads which the image did not train"
        " contradict. Correct what is wrong at the source, and embed again."
    )
    return page.Suspects(int(found.rows.size), note, suspects)


def _duplicates(alike: Alike, near: float) -> page.Pairs:
    same = [
        (int(cluster[0]), int(other))
        for cluster in clusters_of(alike.contents)
        for other in cluster[1:]
    ]
    note = (
        f"Images of the very same content, and pairs whose embeddings have a cosine of {near:g} or"
        " more. They count twice, in training and in figures: keep one of each."
    )
    return _pairs(same, alike.near.pairs, note)


def _leaks(alike: Alike, near: float) -> page.Pairs:
    note = (
        "The same image on two sides of the splits, or nearly (a cosine of"
        f" {near:g} or more): what judges has been seen in training, and the figures flatter. Move"
        " or remove one of each; 'tlpipe split' keeps the same content together."
    )
    return _pairs(alike.shared, alike.near.across, note)


def _pairs(same: list[tuple[int, int]], close: Pairs, note: str) -> page.Pairs:
    """Those of the same content first, then those most alike."""
    some = [page.Twins(a, b, None) for a, b in same[:LISTED]]
    both = zip(close.rows.tolist(), close.cosines.tolist(), strict=True)
    some += [
        page.Twins(a, b, cosine) for (a, b), cosine in list(both)[: max(0, LISTED - len(some))]
    ]
    return page.Pairs(len(same) + close.count, note, some)
