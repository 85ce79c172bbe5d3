"""Report: what held-out data say of a classifier, as a JSON file.

Takes plain values, gives a file that is whole or not there. ``docs/results.md`` specifies it.
Imports ``files``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tlpipe.files import whole_file

FORMAT = "tlpipe-metrics"
FORMAT_VERSION = 2


def write_report(path: Path, content: dict[str, Any]) -> None:
    """Write `content` with the marks of a report.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    marked = {"format": FORMAT, "format_version": FORMAT_VERSION, **content}
    with whole_file(path) as temporary:
        text = json.dumps(marked, indent=2, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")
