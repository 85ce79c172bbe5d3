"""A job that was read and checked: what it runs, on what, and with which settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlpipe.card import Card
from tlpipe.stages.source import Source

RECORD_SUFFIX = ".run.json"


@dataclass(frozen=True)
class Job:
    """A command with all that it needs.

    Attributes
    ----------
    path : pathlib.Path
        The job file.
    sha256 : str
        Of its content.
    command : str
    output : pathlib.Path
    inputs : dict of str to pathlib.Path
        "features" and "classifier", where the command reads them; "source" where that is a
        feature file.
    source : Source or None
        Of images: opened, not walked.
    card : Card or None
        Of the backbone.
    arguments : dict of str to object
        What the verb takes beside these: option records, flags.
    settings : dict of str to object
        Every key of the job with its value, defaults included, as plain values.
    """

    path: Path
    sha256: str
    command: str
    output: Path
    inputs: dict[str, Path]
    source: Source | None
    card: Card | None
    arguments: dict[str, Any]
    settings: dict[str, Any]

    @property
    def record_path(self) -> Path:
        """Where the record of its run is written: beside the output."""
        return record_path(self.output)


def record_path(output: Path) -> Path:
    """Where the record of a run stands: beside its output, as ``<output>.run.json``."""
    return output.with_name(output.name + RECORD_SUFFIX)
