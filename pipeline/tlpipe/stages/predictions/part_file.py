"""A part of predictions: a line of JSON that describes it, and a line for each row."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlpipe.errors import OutputError
from tlpipe.files import whole_file
from tlpipe.stages.predictions.rows import Row
from tlpipe.types import FileStat

_log = logging.getLogger(__name__)

_FORMAT = "tlpipe-predictions-part-1"


@dataclass(frozen=True)
class PartFile:
    """What the first line of a part says of it.

    Attributes
    ----------
    path : pathlib.Path
    first : str
        Key of its first row.
    run : str
        Of the run that made it.
    sha256 : str
        Of the lines that follow.
    """

    path: Path
    first: str
    run: str
    sha256: str

    def rows(self) -> dict[str, Row]:
        """Its rows by key; none, and a warning, where it is damaged."""
        try:
            return {row.key: row for row in self.in_order()}
        except (OSError, ValueError) as exc:
            text = "The part %r of an earlier run cannot be used (%s): its images are read again."
            _log.warning(text, str(self.path), exc)
            return {}

    def in_order(self) -> list[Row]:
        """Its rows as they were written.

        Raises
        ------
        OSError, ValueError
            It cannot be read, or is damaged.
        """
        with self.path.open("rb") as stream:
            stream.readline()
            content = stream.read()
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise ValueError("its rows are not those that were written")
        return list(map(_parsed, content.splitlines()))


def write_part(folder: Path, number: int, rows: Sequence[Row], job: str, run: str) -> Path:
    """Write a part of one row or more; several processes may do so in one folder.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    path = folder / f"{number:06d}-{secrets.token_hex(4)}.jsonl"
    with whole_file(path, folder / f"part-{secrets.token_hex(4)}.tmp") as temporary:
        temporary.write_bytes(part_content(rows, job, run))
    return path


def rows_of_part(path: Path) -> list[Row]:
    """Rows of a part that was written a moment ago, in their order.

    Raises
    ------
    OutputError
        They are not what was written.
    """
    try:
        with path.open("rb") as stream:
            head = json.loads(stream.readline())
        return PartFile(path, head["first"], head["run"], head["sha256"]).in_order()
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise OutputError(
            f"The part {str(path)!r}, which was written a moment ago, cannot be read: {exc}.",
            hint="Remove it, and run the same command again: it goes on from the others.",
        ) from exc


def part_content(rows: Sequence[Row], job: str, run: str) -> bytes:
    """Content of a part of one row or more."""
    lines = b"".join(map(_line, rows))
    head = {
        "format": _FORMAT,
        "job": job,
        "run": run,
        "first": rows[0].key,
        "sha256": hashlib.sha256(lines).hexdigest(),
    }
    return json.dumps(head).encode() + b"\n" + lines


OTHER_JOB = PartFile(Path(), "", "", "")
"""Stands for a part of another job."""


def described(path: Path, job: str) -> PartFile | None:
    """What a part says of itself, or ``OTHER_JOB``; None, and a warning, where it is damaged."""
    try:
        with path.open("rb") as stream:
            head = json.loads(stream.readline())
        if not isinstance(head, dict) or head.get("format") != _FORMAT:
            raise ValueError(f"it is no {_FORMAT}")
        if head["job"] != job:
            return OTHER_JOB
        return PartFile(path, str(head["first"]), str(head["run"]), str(head["sha256"]))
    except (OSError, ValueError, KeyError) as exc:
        _log.warning("The part %r of an earlier run cannot be used: %s.", str(path), exc)
        return None


def _line(row: Row) -> bytes:
    """A row as a line of JSON."""
    values = (
        row.key,
        row.stat.size_bytes,
        row.stat.mtime_ns,
        row.top,
        row.labels,
        row.unknown,
        row.possible,
        row.reject,
    )
    return json.dumps(values).encode() + b"\n"


def _parsed(line: bytes) -> Row:
    """The row of a line.

    Raises
    ------
    ValueError
        It is none.
    """
    values: Any = json.loads(line)
    key, size, mtime, top, labels, unknown, possible, reject = values
    return Row(
        key,
        FileStat(size, mtime),
        top=tuple((name, probability) for name, probability in top),
        labels=None if labels is None else tuple(labels),
        unknown=None if unknown is None else (unknown[0], unknown[1]),
        possible=None if possible is None else tuple(possible),
        reject=None if reject is None else (reject[0], reject[1]),
    )
