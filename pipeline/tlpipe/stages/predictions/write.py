"""Writes rows of predictions to a file: CSV or JSON Lines."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tlpipe.files import whole_file
from tlpipe.label_cells import joined
from tlpipe.stages.predictions.rows import DIGITS, Form, Row

Write = Callable[[Row, Sequence[str]], None]
"""Writes a row, with the values that it takes over from its source."""


@dataclass
class PredictionSummary:
    """What was written.

    Attributes
    ----------
    images : int
        Rows of images that could be read.
    classes : Counter of str
        These by most probable class; or by label, where an image may have several.
    without : int
        Those of them that have none of the labels.
    rejects : Counter of str
        Rows of the others, by reason.
    unknown : int
        Rows of images that are of none of the classes, where that was asked for.
    """

    images: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    without: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    unknown: int = 0

    def count(self, row: Row) -> None:
        """Count one row."""
        if row.reject is not None:
            self.rejects[row.reject[0]] += 1
            return
        self.images += 1
        self.classes.update([row.top[0][0]] if row.labels is None else row.labels)
        self.without += row.labels == ()
        self.unknown += row.unknown is not None and row.unknown[0]


class PredictionWriter:
    """Writes rows and counts them.

    Attributes
    ----------
    summary : PredictionSummary
    """

    def __init__(self, write: Write) -> None:
        self.summary = PredictionSummary()
        self._write = write

    def add(self, row: Row, kept: Sequence[str] = ()) -> None:
        """Write a row; `kept` are the values that it takes over from its source.

        Raises
        ------
        OSError
            It cannot be written.
        """
        self._write(row, kept)
        self.summary.count(row)


@contextmanager
def prediction_writer(
    path: Path,
    form: Form,
    temporary: Path | None = None,
    complete: Callable[[], object] = lambda: None,
) -> Iterator[PredictionWriter]:
    """Give a writer; the file appears whole when the block has ended well, or not at all.

    Parameters
    ----------
    path : pathlib.Path
        One of ``FORMATS``; replaced if it exists.
    form : Form
    temporary : pathlib.Path, optional
        As for ``whole_file``.
    complete : callable, optional
        Called when all is written, before the file takes its name.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    open_writer = _WRITERS[path.suffix.lower()]
    with whole_file(path, temporary) as under_way:
        with open_writer(under_way, form) as write:
            yield PredictionWriter(write)
        complete()


@contextmanager
def _csv(path: Path, form: Form) -> Iterator[Write]:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        header = form.header()
        writer.writerow(header)
        blank = [""] * (len(header) - 4 - len(form.columns.keep))

        def write(row: Row, kept: Sequence[str]) -> None:
            cells = [row.key, *kept]
            if row.reject is not None:
                writer.writerow([*cells, "rejected", *blank, *row.reject])
                return
            cells.append("ok")
            if row.labels is not None:
                cells.append(joined(row.labels))
            cells += [cell for name, p in row.top for cell in (name, f"{p:.{DIGITS}f}")]
            if row.unknown is not None:
                cells += [str(row.unknown[0]).lower(), f"{row.unknown[1]:.{DIGITS}f}"]
            if row.possible is not None:
                cells.append(joined(row.possible))
            writer.writerow([*cells, "", ""])

        yield write


@contextmanager
def _jsonl(path: Path, form: Form) -> Iterator[Write]:
    stream: IO[str]
    names = form.kept_names()
    lists_top = form.top_k > (0 if form.multilabel else 1)
    with path.open("w", encoding="utf-8") as stream:

        def write(row: Row, kept: Sequence[str]) -> None:
            table: dict[str, Any] = {"key": row.key, **dict(zip(names, kept, strict=True))}
            if row.reject is not None:
                table |= {"status": "rejected", "reason": row.reject[0], "detail": row.reject[1]}
            else:
                table["status"] = "ok"
                if row.labels is None:
                    table["class"], table["probability"] = row.top[0]
                else:
                    table["labels"] = row.labels
                if lists_top:
                    table["top"] = [{"class": name, "probability": p} for name, p in row.top]
                if row.unknown is not None:
                    table["unknown"], table["unknown_score"] = row.unknown
                if row.possible is not None:
                    table["set"] = row.possible
            stream.write(json.dumps(table, ensure_ascii=False) + "\n")

        yield write


def _parquet(path: Path, form: Form) -> AbstractContextManager[Write]:
    from tlpipe.stages.predictions.parquet import parquet_writer

    return parquet_writer(path, form)


_WRITERS: dict[str, Callable[[Path, Form], AbstractContextManager[Write]]] = {
    ".csv": _csv,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}
FORMATS = tuple(_WRITERS)
