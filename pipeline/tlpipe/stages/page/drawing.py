"""Draws SVG: elements, axes and markers. Colours come from the page's style sheet, by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from tlpipe.stages.page.scales import Scale, tick_label


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")


class Drawing:
    """A picture in SVG that grows by elements.

    Parameters
    ----------
    width, height : float
        Of its own coordinates; the page scales it.
    label : str
        What it shows, for those who do not see it.
    stretched : bool
        It fills its box, whatever that box's shape.
    kind : str
        Class of the style sheet.
    """

    def __init__(
        self,
        width: float,
        height: float,
        label: str,
        *,
        stretched: bool = False,
        kind: str = "chart",
    ) -> None:
        self._root = ElementTree.Element("svg")
        self._set(self._root, {"class": kind, "viewBox": f"0 0 {_text(width)} {_text(height)}"})
        if label:
            self._set(self._root, {"role": "img", "aria-label": label})
        else:
            self._set(self._root, {"aria-hidden": "true"})
        if stretched:
            self._root.set("preserveAspectRatio", "none")

    @staticmethod
    def _set(element: ElementTree.Element, attributes: dict[str, str | float]) -> None:
        for name, value in attributes.items():
            element.set(name, _text(value))

    def add(self, name: str, kind: str = "", text: str = "", **attributes: str | float) -> None:
        """Add an element; underscores in the names of attributes stand for hyphens."""
        element = ElementTree.SubElement(self._root, name)
        if kind:
            element.set("class", kind)
        self._set(element, {key.replace("_", "-"): value for key, value in attributes.items()})
        if text:
            element.text = text

    def line(self, kind: str, start: tuple[float, float], end: tuple[float, float]) -> None:
        """A straight line."""
        self.add("line", kind, x1=start[0], y1=start[1], x2=end[0], y2=end[1])

    def path(self, kind: str, points: Sequence[tuple[float, float]]) -> None:
        """A line through points."""
        self.add("polyline", kind, points=" ".join(f"{_text(x)},{_text(y)}" for x, y in points))

    def words(
        self, text: str, x: float, y: float, *, anchor: str = "start", kind: str = ""
    ) -> None:
        """A line of text."""
        self.add("text", kind, text, x=x, y=y, text_anchor=anchor)

    def marker(self, shape: str, x: float, y: float, kind: str) -> None:
        """A round, square or diamond-shaped point."""
        if shape == "circle":
            self.add("circle", kind, cx=x, cy=y, r=4)
        elif shape == "square":
            self.add("rect", kind, x=x - 3.5, y=y - 3.5, width=7, height=7)
        else:
            self.add("path", kind, d=f"M{_text(x)},{_text(y - 5.5)}l5.5,5.5 -5.5,5.5 -5.5,-5.5z")

    def __str__(self) -> str:
        """The picture as markup, every text escaped."""
        return ElementTree.tostring(self._root, encoding="unicode")


@dataclass(frozen=True)
class Axes:
    """Two scales and what they are called."""

    across: Scale
    up: Scale
    across_name: str
    up_name: str

    def draw(self, drawing: Drawing) -> None:
        """Grid lines, ticks, and the names of both axes."""
        left, right = self.across.start, self.across.end
        bottom, top = self.up.start, self.up.end
        for value in self.up.ticks:
            y = self.up(value)
            drawing.line("grid", (left, y), (right, y))
            drawing.words(tick_label(value), left - 8, y + 4, anchor="end", kind="tick")
        for value in self.across.ticks:
            x = self.across(value)
            drawing.line("notch", (x, bottom), (x, bottom + 4))
            drawing.words(tick_label(value), x, bottom + 18, anchor="middle", kind="tick")
        drawing.line("axis", (left, bottom), (right, bottom))
        drawing.words(self.up_name, 0, top - 12, kind="axis-name")
        drawing.words(self.across_name, right, bottom + 36, anchor="end", kind="axis-name")
