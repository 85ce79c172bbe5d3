"""Writes the pages: templates, style sheet and scripts of this package, joined to one file."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined

from tlpipe.quantities import counted
from tlpipe.stages.page import charts, views, words
from tlpipe.stages.page.comparison import Comparison
from tlpipe.stages.page.content import Report
from tlpipe.stages.page.figures import Figure
from tlpipe.stages.page.payload import payload_of

_EARLY = "document.documentElement.classList.add('js')"
"""Runs before anything is drawn, so that what only scripts can fill takes its place at once."""

_REPORT_SCRIPTS = (
    *("start", "data", "pictures", "gallery", "detail", "matrix", "points", "map", "map-use"),
    *("tables", "contents", "report"),
)
_COMPARISON_SCRIPTS = ("start", "tables", "contents", "comparison")


def report_page(report: Report) -> str:
    """Write the report of one feature file as an HTML page that needs nothing beside itself.

    Parameters
    ----------
    report : Report

    Returns
    -------
    str
        The page. It loads nothing, and its own policy forbids it to.
    """
    coloured = views.highlighted(report)
    return _page(
        "report.html",
        _REPORT_SCRIPTS,
        report=report,
        sections=_sections(report),
        payload=payload_of(report, coloured),
        matrix_rows=[]
        if report.matrix is None
        else views.matrix_rows(report.matrix, report.classes),
        company=views.company(report.images, report.classes) if report.projections else [],
        shot_of=lambda image: views.shot_of(report, image),
    )


def comparison_page(comparison: Comparison) -> str:
    """Write a comparison of feature files as an HTML page that needs nothing beside itself.

    Parameters
    ----------
    comparison : Comparison

    Returns
    -------
    str
        The page. It loads nothing, and its own policy forbids it to.
    """
    differences = [c.difference for c in comparison.contenders if c.difference is not None]
    return _page(
        "comparison.html",
        _COMPARISON_SCRIPTS,
        comparison=comparison,
        sections=_comparison_sections(comparison),
        recall_rows=views.recall_rows(comparison),
        cost=charts.cost_of(comparison.contenders) if comparison.contenders else None,
        widest=_widest(differences),
    )


def _widest(differences: list[Figure]) -> float:
    """Half of the width of a picture that holds all differences and their intervals."""
    limits = [abs(v) for d in differences for v in (d.value, d.low, d.high) if v is not None]
    return max(limits, default=0.0) or 1.0


def _sections(report: Report) -> list[tuple[str, str]]:
    """Anchors and titles of what the report has, in order."""
    labelled = report.matrix is not None and bool(report.matrix.counts or report.matrix.confused)
    found = [
        ("figures", "Headline figures", bool(report.figures)),
        ("notices", "Worth knowing", bool(report.notices)),
        ("confusion", "Confusion matrix", labelled),
        ("classes", "Class by class", bool(report.rows)),
        ("reliability", "Can the probabilities be trusted?", bool(report.reliability)),
        ("learning", "Would more images help?", bool(report.learning)),
        ("map", "Map of the embeddings", bool(report.projections and report.images.keys)),
        ("mistakes", "Most confident mistakes", report.mistakes is not None),
        ("label-errors", "Likely label errors", report.suspects is not None),
        ("near-duplicates", "Near-duplicates", report.near_duplicates is not None),
        ("leaks", "Split leaks", report.leaks is not None),
        ("find", "Find an image", bool(report.images.keys)),
        ("provenance", "Provenance", bool(report.provenance)),
        ("rejects", "Rejects", True),
    ]
    return [(anchor, title) for anchor, title, has in found if has]


def _comparison_sections(comparison: Comparison) -> list[tuple[str, str]]:
    found = [
        ("recommendation", "Recommendation", bool(comparison.recommendation)),
        ("notices", "Worth knowing", bool(comparison.notices)),
        ("cost", "Accuracy against cost", bool(comparison.contenders)),
        ("contenders", "The contenders", bool(comparison.contenders)),
        ("differences", "Differences", any(c.difference for c in comparison.contenders)),
        ("classes", "Class by class", bool(comparison.rows)),
        ("provenance", "Provenance", bool(comparison.provenance)),
    ]
    return [(anchor, title) for anchor, title, has in found if has]


def _page(template: str, scripts: tuple[str, ...], **content: object) -> str:
    style = _asset("page.css")
    script = "\n".join(_asset(f"{name}.js") for name in scripts)
    script = f"(() => {{\n'use strict';\n{script}\n}})();\n"
    policy = (
        f"default-src 'none'; img-src data: blob:; style-src {_hash(style)}; "
        f"script-src {_hash(_EARLY)} {_hash(script)}; base-uri 'none'; form-action 'none'"
    )
    text = (
        _environment()
        .get_template(template)
        .render(style=style, script=script, early=_EARLY, policy=policy, **content)
    )
    # Names of files may hold what UTF-8 cannot: a page must be writable all the same.
    return text.encode("utf-8", "replace").decode("utf-8")


def _hash(text: str) -> str:
    """How a content security policy names a script or style that may run."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


@cache
def _asset(name: str) -> str:
    text = files(__package__).joinpath("assets", name).read_text(encoding="utf-8")
    return text.replace("\r\n", "\n")  # a browser does so before it takes the hash


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("tlpipe.stages.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        whole=words.whole,
        decimal=words.decimal,
        share=words.share,
        size=words.size,
        when=words.when,
        seconds=words.seconds,
        last_part=words.last_part,
    )
    environment.globals.update(
        counted=counted,
        listed=words.listed,
        reliability_chart=charts.reliability_chart,
        learning_chart=charts.learning_chart,
        interval_bar=charts.interval_bar,
        interval_end=charts.interval_end,
        recall_bar=charts.recall_bar,
        difference_bar=charts.difference_bar,
        cost_chart=charts.cost_chart,
    )
    return environment
