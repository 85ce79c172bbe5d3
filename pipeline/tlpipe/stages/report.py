"""Report: what held-out data say of a classifier, or of several backbones, as a JSON file.

Takes plain values, gives a file that is whole or not there. ``docs/reference/results.md`` and
``docs/how-to/compare.md`` specify them. Imports ``files``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tlpipe.files import whole_file

FORMAT = "tlpipe-metrics"
FORMAT_VERSION = 2
COMPARISON_FORMAT = "tlpipe-comparison"
COMPARISON_FORMAT_VERSION = 1


def write_report(path: Path, content: dict[str, Any]) -> None:
    """Write `content` with the marks of a report.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    _write(path, {"format": FORMAT, "format_version": FORMAT_VERSION, **content})


def write_comparison(path: Path, content: dict[str, Any]) -> None:
    """Write `content` with the marks of a comparison.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    marks = {"format": COMPARISON_FORMAT, "format_version": COMPARISON_FORMAT_VERSION}
    _write(path, marks | content)


def _write(path: Path, marked: dict[str, Any]) -> None:
    with whole_file(path) as temporary:
        text = json.dumps(marked, indent=2, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def write_page(path: Path, text: str) -> None:
    """Write a page, such as HTML.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
