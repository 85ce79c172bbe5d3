"""The charts of the pages: reliability, learning curve, accuracy against cost, intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tlpipe.stages.page.comparison import Comparison, Contender
from tlpipe.stages.page.drawing import Axes, Drawing
from tlpipe.stages.page.figures import CurvePoint, Figure, Reliability
from tlpipe.stages.page.scales import Scale, log_range, nice_range, tick_label
from tlpipe.stages.page.words import decimal, whole

_WIDTH = 440.0
_LEFT, _RIGHT, _TOP = 44.0, 432.0, 32.0
_SHAPES = ("circle", "square", "diamond")


def reliability_chart(curves: Sequence[Reliability]) -> str:
    """How often right against how sure, and below it how many images are how sure."""
    told = "; ".join(f"{c.name}: calibration error {decimal(c.error)}" for c in curves)
    drawing = Drawing(_WIDTH, 488, f"Share right against confidence. {told}.")
    least = _least(curves)
    axes = Axes(
        Scale(least, 1, _LEFT, _RIGHT),
        Scale(least, 1, 336, _TOP),
        "",
        "share of images that are right",
    )
    axes.draw(drawing)
    across, up = axes.across, axes.up
    drawing.line("diagonal", (across(least), up(least)), (across(1), up(1)))
    for number, curve in enumerate(curves):
        kind = f"curve-{number}"
        for b in curve.bins:
            x = across(b.confidence)
            drawing.line(f"{kind} spread", (x, up(b.low)), (x, up(b.high)))
        drawing.path(f"{kind} path", [(across(b.confidence), up(b.accuracy)) for b in curve.bins])
        for b in curve.bins:
            drawing.marker(
                _SHAPES[number % 3], across(b.confidence), up(b.accuracy), f"{kind} point"
            )
    _legend(drawing, [curve.name for curve in curves])
    _histogram(drawing, curves[-1], across)
    return str(drawing)


def _least(curves: Sequence[Reliability]) -> float:
    """Where both axes begin: 0, or a tenth below all where all are sure and right."""
    found = [v for c in curves for b in c.bins for v in (b.confidence, b.accuracy, b.low)]
    least = math.floor(10 * min(found, default=0.0) - 1e-9) / 10
    return least if least >= 0.3 else 0.0


def _legend(drawing: Drawing, names: Sequence[str]) -> None:
    """Marks and names at the lower right of the diagram, where no curve is likely to run."""
    top = 312 - 20 * (len(names) - 1) - 12
    drawing.add("rect", "plate", x=226, y=top, width=_RIGHT - 226, height=324 - top)
    for number, name in enumerate(names):
        y = 312 - 20 * (len(names) - 1 - number)
        kind = f"curve-{number}"
        drawing.line(f"{kind} path", (232, y), (264, y))
        drawing.marker(_SHAPES[number % 3], 248, y, f"{kind} point")
        drawing.words(name, 272, y + 4)


def _histogram(drawing: Drawing, curve: Reliability, across: Scale) -> None:
    """Bars of `curve`'s counts, each as wide as its confidences are apart."""
    most = max((b.count for b in curve.bins), default=1)
    up = Scale(0, most, 448, 392)
    half = (1 - across.low) / 20
    middles = [b.confidence for b in curve.bins]
    edges = [across.low, *((a + b) / 2 for a, b in pairwise(middles)), 1.0]
    for number, b in enumerate(curve.bins):
        left = max(edges[number], b.confidence - half)
        right = min(edges[number + 1], b.confidence + half)
        drawing.add(
            "rect",
            "bar",
            x=across(left),
            y=up(b.count),
            width=max(across(right) - across(left) - 1, 0.5),
            height=up(0) - up(b.count),
        )
    drawing.line("axis", (across.start, up(0)), (across.end, up(0)))
    drawing.words(f"images, {curve.name}", 0, 384, kind="axis-name")
    drawing.words(whole(most), _LEFT - 8, up(most) + 8, anchor="end", kind="tick")
    drawing.words("confidence", _RIGHT, 472, anchor="end", kind="axis-name")


def learning_chart(points: Sequence[CurvePoint]) -> str:
    """Accuracy against the images trained on, on a logarithmic axis."""
    last = points[-1]
    label = (
        f"Accuracy against images trained on: {decimal(points[0].accuracy)} with "
        f"{whole(points[0].count)}, {decimal(last.accuracy)} with {whole(last.count)}."
    )
    drawing = Drawing(_WIDTH, 344, label)
    low, high = nice_range(
        [v for p in points for v in (p.low, p.high)], least=0.05, floor=0, ceiling=1
    )
    across = Scale(*log_range(max(p.count, 1) for p in points), _LEFT, _RIGHT, log=True)
    axes = Axes(across, Scale(low, high, 288, _TOP), "images trained on", "accuracy")
    axes.draw(drawing)
    places = [(across(max(p.count, 1)), p) for p in points]
    band = [(x, axes.up(p.high)) for x, p in places]
    band += [(x, axes.up(p.low)) for x, p in reversed(places)]
    drawing.add("polygon", "band", points=" ".join(f"{x:.2f},{y:.2f}" for x, y in band))
    for x, p in places:
        drawing.line("curve-1 spread", (x, axes.up(p.low)), (x, axes.up(p.high)))
    drawing.path("curve-1 path", [(x, axes.up(p.accuracy)) for x, p in places])
    for x, p in places:
        drawing.marker("square", x, axes.up(p.accuracy), "curve-1 point")
    return str(drawing)


def interval_bar(figure: Figure) -> str:
    """A value and its interval, as a stretched line from 0 to `interval_end`."""
    scale = Scale(0, float(interval_end(figure)), 0, 100)
    return _bar(scale, figure.value, figure.low, figure.high)


def interval_end(figure: Figure) -> str:
    """Where the line of a figure ends: 1, or a nice number beyond what is more."""
    most = max(v for v in (figure.value, figure.high, 0.0) if v is not None and math.isfinite(v))
    return "1" if most <= 1 else tick_label(nice_range([0, most], least=1)[1]).replace(",", "")


def recall_bar(value: float, low: float | None, high: float | None) -> str:
    """A share and its interval, from 0 to 1."""
    return _bar(Scale(0, 1, 0, 100), value, low, high)


def difference_bar(figure: Figure, widest: float) -> str:
    """A difference and its interval, from -`widest` to `widest`, and 0 in the middle."""
    scale = Scale(-widest, widest, 0, 100)
    return _bar(scale, figure.value, figure.low, figure.high, zero=True)


def _bar(
    scale: Scale, value: float, low: float | None, high: float | None, *, zero: bool = False
) -> str:
    drawing = Drawing(100, 12, "", stretched=True, kind="bar-of")
    drawing.line("track", (0, 6), (100, 6))
    if zero:
        drawing.line("zero", (50, 0), (50, 12))
    if low is not None and high is not None and math.isfinite(low) and math.isfinite(high):
        ends = sorted(min(max(scale(v), 0), 100) for v in (low, high))
        drawing.add("rect", "range", x=ends[0], y=3, width=ends[1] - ends[0], height=6)
    if math.isfinite(value):
        drawing.line("value", (scale(value), 0), (scale(value), 12))
    return str(drawing)


@dataclass(frozen=True)
class Cost:
    """What accuracy is drawn against: its name, and that of each contender."""

    name: str
    values: list[float]


def cost_of(contenders: Sequence[Contender]) -> Cost:
    """The time per image where it was measured of all, else the length of the embeddings."""
    times = [c.inference_s for c in contenders if c.inference_s is not None]
    if len(times) == len(contenders) and all(time > 0 for time in times):
        return Cost("milliseconds per image", [time * 1000 for time in times])
    return Cost("numbers in an embedding", [float(c.dim) for c in contenders])


def cost_chart(comparison: Comparison) -> str:
    """Accuracy, with intervals, against cost; a point per contender, with its name."""
    contenders = comparison.contenders
    cost = cost_of(contenders)
    said = "; ".join(
        f"{c.name}: {decimal(c.accuracy.value)} at {value:.4g}"
        for c, value in zip(contenders, cost.values, strict=True)
    )
    drawing = Drawing(640, 400, f"Accuracy against {cost.name}. {said}.", kind="chart wide")
    limits = [v for c in contenders for v in (c.accuracy.low, c.accuracy.value, c.accuracy.high)]
    low, high = nice_range([v for v in limits if v is not None], least=0.02, floor=0, ceiling=1)
    across = Scale(*log_range(cost.values), 48, 632, log=True)
    axes = Axes(across, Scale(low, high, 344, _TOP), cost.name, "accuracy")
    axes.draw(drawing)
    taken: list[tuple[float, float, float]] = []
    for contender, value in zip(contenders, cost.values, strict=True):
        _contender(drawing, axes, contender, value, taken)
    return str(drawing)


def _contender(
    drawing: Drawing,
    axes: Axes,
    contender: Contender,
    cost: float,
    taken: list[tuple[float, float, float]],
) -> None:
    """A point, its interval, and its name at a place that no other name has taken."""
    kind = "curve-0" if contender.recommended else "curve-1"
    x, figure = axes.across(cost), contender.accuracy
    y = axes.up(figure.value)
    if figure.low is not None and figure.high is not None:
        drawing.line(f"{kind} spread", (x, axes.up(figure.low)), (x, axes.up(figure.high)))
    drawing.marker("diamond" if contender.recommended else "circle", x, y, f"{kind} point")
    name = contender.name if len(contender.name) <= 28 else f"{contender.name[:27]}…"
    length = 7.0 * len(name)
    to_left = x + 10 + length > axes.across.end
    left = max(x - 10 - length, 0) if to_left else x + 10
    at = y + 4
    while any(abs(at - b) < 16 and left < end and start < left + length for start, end, b in taken):
        at += 16
        if at > axes.up.start:  # nowhere below: above all that is taken
            at = min(b for _, _, b in taken) - 16
            break
    taken.append((left, left + length, at))
    kind_of_name = "name recommended" if contender.recommended else "name"
    drawing.words(
        name,
        x - 10 if to_left else x + 10,
        at,
        anchor="end" if to_left else "start",
        kind=kind_of_name,
    )
