"""Page: writes what a report holds as one HTML file that needs nothing else.

Takes a ``Report`` or a ``Comparison``, gives text. Owns Jinja2; imports ``quantities`` and
``types`` only.
"""

from __future__ import annotations

from tlpipe.stages.page.comparison import Comparison, Contender
from tlpipe.stages.page.content import (
    Images,
    Mistakes,
    Pairs,
    Projection,
    Report,
    Sheet,
    Suspect,
    Suspects,
    Twins,
)
from tlpipe.stages.page.figures import Bin, ClassRow, CurvePoint, Figure, Matrix, Reliability
from tlpipe.stages.page.render import comparison_page, report_page

__all__ = [
    "Bin",
    "ClassRow",
    "Comparison",
    "Contender",
    "CurvePoint",
    "Figure",
    "Images",
    "Matrix",
    "Mistakes",
    "Pairs",
    "Projection",
    "Reliability",
    "Report",
    "Sheet",
    "Suspect",
    "Suspects",
    "Twins",
    "comparison_page",
    "report_page",
]
