"""Run record: what a run was, with what, on what machine, and how it ended; JSON beside the output.

It is written when the run begins, with the status "running", and again when it ends, however that
is: each time whole. One that still says "running" was killed, or is running.
``docs/reference/jobs.md`` specifies it.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import re
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tlpipe.files import is_file, sha256_file, whole_file
from tlpipe.machine import usable_cores
from tlpipe.stages.hardware import memory_bytes, processor

if TYPE_CHECKING:
    from tlpipe.stages.source import Survey
    from tlpipe.workflows.jobs.job import Job

FORMAT = "tlpipe-run"
FORMAT_VERSION = 1
"""Raise it when a reader of the older version would misread a record."""

Status = Literal["running", "done", "too-many-rejects", "failed", "interrupted"]

_BEGINNING = f'{{\n  "format": "{FORMAT}",'


class Record:
    """The record of one run.

    Parameters
    ----------
    job : Job
    """

    def __init__(self, job: Job) -> None:
        self._path = job.record_path
        self._start = time.perf_counter()
        name, extensions = processor()
        self._facts: dict[str, Any] = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "status": "running",
            "exit_code": None,
            "error": None,
            "command": job.command,
            "job": {"path": str(job.path.absolute()), "sha256": job.sha256, **job.settings},
            "versions": versions(),
            "machine": {
                "host": platform.node(),
                "process": os.getpid(),
                "platform": platform.platform(),
                "processor": name,
                "extensions": extensions,
                "cores": usable_cores(),
                "all_cores": os.cpu_count(),
                "memory_bytes": memory_bytes(),
            },
            "inputs": _digests(job.inputs) | _card_digest(job),
            "fingerprint": None,
            "provider": None,
            "source": None,
            "counts": {},
            "rejects": {},
            "metrics": {},
            "outputs": {},
            "timings": {"start": _now(), "end": None, "seconds": None},
        }

    def surveyed(self, survey: Survey) -> None:
        """Take note of what the source holds."""
        labels: dict[str, int] = {}
        for (_, label), count in survey.labels.items():
            if label is not None:
                labels[label] = labels.get(label, 0) + count
        self._facts["source"] = {
            "layout": survey.layout,
            "count": survey.count,
            "splits": {split.name.lower(): n for split, n in survey.by_split().items()},
            "classes": dict(sorted(labels.items())),
            "skipped": dict(survey.skipped),
        }

    def take(self, facts: Mapping[str, Any]) -> None:
        """Take facts over; the names are those of the record."""
        self._facts.update(facts)

    def begin(self) -> None:
        """Write the record as that of a run that is going on.

        Raises
        ------
        OutputError
        """
        self._write()

    def end(self, status: Status, exit_code: int, error: BaseException | None = None) -> None:
        """Write the record as that of a run that has ended.

        Raises
        ------
        OutputError
        """
        timings = self._facts["timings"]
        timings |= {"end": _now(), "seconds": round(time.perf_counter() - self._start, 3)}
        self._facts |= {"status": status, "exit_code": exit_code}
        if error is not None:
            self._facts["error"] = {
                "type": type(error).__name__,
                "message": _message(error),
                "hint": getattr(error, "hint", ""),
                "notes": list(getattr(error, "__notes__", ())),
            }
        self._write()

    def _write(self) -> None:
        text = json.dumps(self._facts, indent=2, default=str)  # ASCII: names may be any bytes
        with whole_file(self._path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


def _message(error: BaseException) -> str:
    """What an error says; of an interruption, what it was."""
    if isinstance(error, KeyboardInterrupt):
        return "Interrupted."
    if isinstance(error, SystemExit) and isinstance(error.code, int) and error.code > 128:
        return f"Stopped by signal {error.code - 128}."
    return str(getattr(error, "message", error))


def is_record(path: Path) -> bool:
    """Whether a file is a run record, which a new one may replace; False if it cannot be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(len(_BEGINNING)).decode("utf-8", "replace") == _BEGINNING
    except OSError:
        return False


def output_facts(paths: list[Path]) -> dict[str, Any]:
    """Size and SHA-256 of the outputs that are there."""
    return {"outputs": _digests({str(path): path for path in paths if is_file(path)})}


def numbers_of(result: Any) -> dict[str, int]:
    """The whole numbers among a result's fields, by name."""
    found = {field.name: getattr(result, field.name) for field in fields(result)}
    return {name: value for name, value in found.items() if type(value) is int}


def metrics_of(metrics: Any) -> dict[str, float]:
    """The single numbers among a result's metrics; nothing where there are none."""
    found = {} if metrics is None else metrics.to_dict()
    return {name: v for name, v in found.items() if type(v) in (int, float)}


def versions() -> dict[str, str]:
    """Versions of Python, of tlpipe, and of what it needs, as far as that is installed."""
    found = {"python": platform.python_version()}
    for name in ("tlpipe", *sorted(_needed())):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _needed() -> set[str]:
    """Names of the distributions that tlpipe names, those of its extras as well."""
    try:
        lines = importlib.metadata.requires("tlpipe") or []
    except importlib.metadata.PackageNotFoundError:  # it runs from its sources
        return set()
    mine = (line for line in lines if "'dev'" not in line and '"dev"' not in line)
    return {re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0].lower() for line in mine}


def _digests(paths: Mapping[str, Path]) -> dict[str, Any]:
    return {
        name: {
            "path": str(path),
            "size_bytes": path.stat().st_size,
            "sha256": sha256_file(path),
        }
        for name, path in paths.items()
    }


def _card_digest(job: Job) -> dict[str, Any]:
    """The backbone, as its card states it: its weights are checked against that when they load."""
    if job.card is None:
        return {}
    weights = job.card.weights
    found = {"name": job.card.name, "size_bytes": weights.size_bytes, "sha256": weights.sha256}
    return {"backbone": found}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
