"""What a table says of the feature file it was made of: a JSON text that goes with its rows.

It holds the file's header and its rejects, so that importing the table gives the file back.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from tlpipe.errors import TableError
from tlpipe.records import RecordError, build
from tlpipe.stages.store import OPTIONAL_FIELDS, FeatureFile, FeatureHeader
from tlpipe.stages.tables import MOST_NOTE
from tlpipe.types import FileStat, Reason, Reject, Stage

FORMAT = "tlpipe-table"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Note:
    """Header and rejects of the feature file that a table was made of."""

    header: FeatureHeader
    rejects: list[tuple[str, Reject]]


def note_of(file: FeatureFile) -> tuple[str, int]:
    """The note of a feature file, and how many rejects it leaves out.

    Where the text would be longer than a table may carry it has no rejects at all.

    Raises
    ------
    DamagedFileError
    """
    head = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "header": file.header.to_attributes(),
    }
    rejects: list[Any] = []
    length = 0
    for start in range(0, file.reject_count, 1024):
        for key, r in file.rejects(start, start + 1024):
            stat = [r.stat.size_bytes, r.stat.mtime_ns]
            rejects.append([key, str(r.stage), str(r.reason), r.detail, *stat])
            length += len(json.dumps(rejects[-1])) + 2
        if length > MOST_NOTE - (1 << 20):
            return json.dumps(head | {"rejects": []}), file.reject_count
    return json.dumps(head | {"rejects": rejects}), 0


def read_note(text: str, where: str) -> Note:
    """Read a note, which may come from a stranger.

    Raises
    ------
    TableError
        It is none.
    """
    try:
        table = json.loads(text)
        if not isinstance(table, dict) or table.get("format") != FORMAT:
            raise RecordError("it is no note of tlpipe's")
        if table.get("format_version") != FORMAT_VERSION:
            version = table.get("format_version")
            raise RecordError(f"its format version is {version!r}, not {FORMAT_VERSION}")
        given = table.get("header")
        if isinstance(given, dict):
            given = dict.fromkeys(OPTIONAL_FIELDS, "") | given
        header = build(FeatureHeader, given, "its header")
        for name, value in asdict(header).items():
            value.encode()  # half a surrogate pair cannot be stored
            if "\0" in value:
                raise RecordError(f"{name!r} holds a NUL character")
        return Note(header, [_reject(*row) for row in table.get("rejects", [])])
    except (RecursionError, TypeError, ValueError) as exc:
        raise TableError(
            f"{where} has a damaged header: {str(exc)[:300]}.",
            hint="Remove the header, and state what made the vectors: --backbone NAME|FILE, or"
            " --declare TEXT.",
        ) from exc


def _reject(
    key: str, stage: str, reason: str, detail: str, size: int, mtime: int
) -> tuple[str, Reject]:
    for text in (key, detail):
        if not isinstance(text, str) or "\0" in text:
            raise ValueError(f"a reject has the text {text!r}")
        text.encode()
    for number in (size, mtime):
        if type(number) is not int or not -(2**63) <= number < 2**63:
            raise ValueError(f"a reject has the number {number!r}")
    return key, Reject(Stage(stage), Reason(reason), detail, FileStat(size, mtime))
