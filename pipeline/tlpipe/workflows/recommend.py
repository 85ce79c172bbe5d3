"""Which of several backbones to use, and why, in a sentence.

Takes what was measured of each, gives a ``Recommendation``. The rule: of the backbones that cannot
be told from the most accurate one, the cheapest. What costs almost the same counts as equal, and
then the more accurate one is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tlpipe.stages.metrics import Difference

SAME_COST = 1.1
"""Costs within this factor of each other count as the same: timings differ by as much."""

MUCH = 0.02
"""Where a loss of more accuracy than this cannot be excluded, the sentence says so."""


@dataclass(frozen=True)
class Candidate:
    """What counts of a backbone.

    Attributes
    ----------
    name : str
        As the sentence shows it.
    accuracy : float
    log_loss : float
    accuracy_difference, log_loss_difference : Difference or None
        To the best; None of the best itself.
    inference_s, size_bytes : float or None
        None where not known.
    dim : int
    """

    name: str
    accuracy: float
    log_loss: float
    accuracy_difference: Difference | None
    log_loss_difference: Difference | None
    inference_s: float | None
    size_bytes: int | None
    dim: int


@dataclass(frozen=True)
class Recommendation:
    """Number of the backbone to use, and why."""

    index: int
    text: str


def best_of(accuracies: Sequence[float], log_losses: Sequence[float]) -> int:
    """Number of the most accurate; of equal ones that of least log loss, then the first."""
    return min(range(len(accuracies)), key=lambda i: (-accuracies[i], log_losses[i], i))


def recommend(candidates: Sequence[Candidate], best: int) -> Recommendation:
    """Choose, and say why.

    Parameters
    ----------
    candidates : sequence of Candidate
        Two or more.
    best : int
        Number of the most accurate.
    """
    good = [
        i
        for i, c in enumerate(candidates)
        if c.accuracy_difference is None or not c.accuracy_difference.distinguishable
    ]
    cost, said = _cost(candidates)
    least = min(cost(candidates[i]) for i in good)
    cheap = [i for i in good if cost(candidates[i]) <= SAME_COST * least]
    chosen = cheap[best_of(*zip(*(_quality(candidates[i]) for i in cheap), strict=True))]
    found, top = candidates[chosen], candidates[best]
    if len(good) == 1:
        text = _clear(candidates, best)
    elif chosen == best:
        others = [candidates[i].name for i in good if i != best]
        text = (
            f"Use {top.name}: it is the most accurate ({top.accuracy:.4f}). On these images"
            f" {_listed(others)} cannot be told from it, but {'does' if len(others) == 1 else 'do'}"
            f" not cost less than it does ({said(top)})."
        )
    else:
        text = (
            f"Use {found.name}: it costs less ({said(found)}) than {top.name} ({said(top)}), the"
            f" most accurate, and cannot be told from it on these images: {_points(found)}."
        )
        text += _caveats(found)
    worse = [c for i, c in enumerate(candidates) if i not in good and cost(c) < cost(found)]
    if worse and len(candidates) > 2:
        cheapest = min(worse, key=cost)
        text += f" The cheapest, {cheapest.name} ({said(cheapest)}), is worse: {_points(cheapest)}."
    return Recommendation(chosen, text)


def _caveats(found: Candidate) -> str:
    """What speaks against one that is not the most accurate."""
    accuracy, loss, text = found.accuracy_difference, found.log_loss_difference, ""
    if accuracy is not None and accuracy.low < -MUCH:
        text += " More images would tell whether it is much worse."
    if loss is not None and loss.low > 0:
        text += (
            f" Its probabilities are worse: the log loss is higher by {loss.value:.4f}"
            f" ({loss.low:.4f} to {loss.high:.4f})."
        )
    return text


def _quality(candidate: Candidate) -> tuple[float, float]:
    return candidate.accuracy, candidate.log_loss


def _clear(candidates: Sequence[Candidate], best: int) -> str:
    others = [c for i, c in enumerate(candidates) if i != best]
    nearest = max(others, key=lambda c: c.accuracy)
    every = "every other is less accurate; the nearest," if len(others) > 1 else "the other,"
    return (
        f"Use {candidates[best].name}: {every} {nearest.name}, is distinguishably less accurate:"
        f" {_points(nearest)}."
    )


def _points(candidate: Candidate) -> str:
    difference = candidate.accuracy_difference
    assert difference is not None
    value, low, high = (100 * x for x in (difference.value, difference.low, difference.high))
    return f"{value:+.2f} points of accuracy ({low:+.2f} to {high:+.2f})"


def _cost(
    candidates: Sequence[Candidate],
) -> tuple[Callable[[Candidate], float], Callable[[Candidate], str]]:
    """What is compared as cost, and how it is said: what is known of all."""

    def time(c: Candidate) -> Any:
        return c.inference_s

    def size(c: Candidate) -> Any:
        return c.size_bytes

    if all(time(c) is not None for c in candidates):
        return time, lambda c: f"{1e3 * time(c):.2f} ms per image"
    if all(size(c) is not None for c in candidates):
        return size, lambda c: f"a network of {size(c) / 1e6:.1f} MB"
    return lambda c: c.dim, lambda c: f"embeddings of {c.dim:,} numbers"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
