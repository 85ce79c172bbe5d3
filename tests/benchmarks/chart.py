"""Draws accuracy against time, for ``claim.py``: an SVG by hand, one panel per source.

Time is on a logarithmic axis. Of tlpipe there are two points, embedding and head together and a
further head from the cache; of each peer a line through its epochs. Peers that got nowhere near the
others leave the panel at its lower edge, cut off and not moved.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape
from typing import Any

COLOURS = ("#2b6cb0", "#2f855a", "#805ad5", "#8a95a3")
OWN, INK, FAINT, GRID = "#c05621", "#1f2933", "#55606e", "#e3e7ec"
PANEL_W, PANEL_H = 380, 250
LEFT, TOP, GAP = 62, 44, 76
TICKS_S = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000)
DEPTH = 0.25
"""Of accuracy: a panel shows at most this much below tlpipe's."""


def draw(report: dict[str, Any]) -> str:
    """The picture as text."""
    sources = report["sources"]
    width = LEFT + len(sources) * (PANEL_W + GAP) - GAP + 24
    names = [peer["name"] for peer in sources[0]["peers"]]
    foot = TOP + PANEL_H + 62
    height = foot + 22 * (len(names) + 2) - 2
    body = []
    for number, source in enumerate(sources):
        body.append(_panel(source, LEFT + number * (PANEL_W + GAP)))
    body.append(_legend(names, foot))
    label = "Held-out accuracy against seconds of training, for " + ", ".join(
        source["name"] for source in sources
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
        " font-family=\"system-ui, -apple-system, 'Segoe UI', sans-serif\""
        f' font-size="13" role="img" aria-label="{escape(label)}">\n'
        f'  <rect width="{width}" height="{height}" rx="10" fill="#ffffff"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _panel(source: dict[str, Any], left: float) -> str:
    own = source["tlpipe"]
    again_s, whole_s = own["train_head_s"], own["embed_s"] + own["train_head_s"]
    curves = [peer.get("curve", [])[1:] for peer in source["peers"]]
    seconds = [again_s, whole_s, *(at["seconds"] for curve in curves for at in curve)]
    values = [own["accuracy"], *(at["accuracy"] for curve in curves for at in curve)]
    least, most = min(seconds) * 0.8, max(seconds) * 1.15
    low, high, step = _value_range(values, own["accuracy"])

    def x(at_s: float) -> float:
        return left + PANEL_W * math.log(at_s / least) / math.log(most / least)

    def y(value: float) -> float:
        return TOP + PANEL_H * (high - value) / (high - low)

    clip = f"panel{left:.0f}"
    sizes = f"{source['train']:,} images, {source['classes']} classes"
    title = f"{source['name']}: {sizes}; held-out accuracy"
    middle, foot, height = left + PANEL_W / 2, TOP + PANEL_H + 38, y(own["accuracy"])
    parts = [
        f'<clipPath id="{clip}">',
        f'  <rect x="{left}" y="{TOP - 8}" width="{PANEL_W}" height="{PANEL_H + 8}"/>',
        "</clipPath>",
        f'<text x="{left}" y="24" fill="{INK}" font-weight="600">{escape(title)}</text>',
        *_value_grid(low, high, step, left, y),
        *_time_grid(least, most, x),
        f'<text x="{middle}" y="{foot}" fill="{FAINT}" text-anchor="middle">seconds</text>',
        f'<g clip-path="url(#{clip})" fill="none" stroke-width="2">',
    ]
    for curve, colour in zip(curves, COLOURS, strict=False):
        points = [(x(at["seconds"]), y(at["accuracy"])) for at in curve]
        line = " ".join(f"{right:.1f},{down:.1f}" for right, down in points)
        parts.append(f'  <polyline points="{line}" stroke="{colour}"/>')
        parts += [f"  {_dot(right, down, colour)}" for right, down in points]
    dashed = f'stroke="{OWN}" stroke-dasharray="3 4" fill="none"'
    parts += [
        "</g>",
        f'<path d="M{left} {height:.1f} h{PANEL_W}" {dashed}/>',
        _full(x(whole_s), height),
        _hollow(x(again_s), height),
    ]
    return "\n".join(f"  {part}" for part in parts)


def _value_range(values: list[float], own: float) -> tuple[float, float, float]:
    """Least and most accuracy of a panel, and the step of its grid."""
    floor = max(min(values), own - DEPTH)
    step = 0.05 if max(values) - floor > 0.1 else 0.02
    low = math.floor(floor / step + 1e-9) * step
    high = math.ceil(max(values) / step - 1e-9) * step
    if high - max(values) < 0.1 * step:  # room above the best
        high += step / 2
    return low, high, step


def _dot(x: float, y: float, colour: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>'


def _full(x: float, y: float) -> str:
    """tlpipe's whole run."""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{OWN}"/>'


def _hollow(x: float, y: float) -> str:
    """A further head."""
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="#ffffff" stroke="{OWN}" stroke-width="2"/>'
    )


def _value_grid(
    low: float, high: float, step: float, left: float, y: Callable[[float], float]
) -> list[str]:
    parts = []
    for number in range(int((high - low) / step + 1e-9) + 1):
        value = low + number * step
        parts += [
            f'<path d="M{left} {y(value):.1f} h{PANEL_W}" stroke="{GRID}"/>',
            _text(left - 8, y(value) + 4, f"{value:.2f}", f'fill="{FAINT}" text-anchor="end"'),
        ]
    return parts


def _time_grid(least: float, most: float, x: Callable[[float], float]) -> list[str]:
    parts = []
    for tick in TICKS_S:
        if least <= tick <= most:
            parts += [
                f'<path d="M{x(tick):.1f} {TOP} v{PANEL_H}" stroke="{GRID}"/>',
                _text(
                    x(tick),
                    TOP + PANEL_H + 18,
                    f"{tick:,}",
                    f'fill="{FAINT}" text-anchor="middle"',
                ),
            ]
    return parts


def _legend(names: list[str], top: float) -> str:
    ink = f'fill="{INK}"'
    parts = [
        _full(LEFT + 12, top),
        _text(LEFT + 32, top + 4, "tlpipe: embed once, train the head", ink),
        _hollow(LEFT + 12, top + 22),
        _text(LEFT + 32, top + 26, "tlpipe: a further head from the same embeddings", ink),
    ]
    for number, (name, colour) in enumerate(zip(names, COLOURS, strict=False), 2):
        at = top + 22 * number
        parts += [
            f'<path d="M{LEFT} {at} h24" stroke="{colour}" stroke-width="2"/>',
            _dot(LEFT + 12, at, colour),
            _text(LEFT + 32, at + 4, name, ink),
        ]
    return "\n".join(f"  {part}" for part in parts)


def _text(x: float, y: float, text: str, how: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {how}>{escape(text)}</text>'
