"""dry_run: what a job would do and what it would cost, from a measured sample of its source.

Takes a job, gives an ``Estimate``. The job's own verb runs over a sample into a temporary folder of
the system's, which is removed; nothing is written where the job reads and writes. (The cache of
prepared backbones is filled as by any command.)
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tlpipe.errors import OutputError
from tlpipe.stages.source import Source, Survey
from tlpipe.types import Split
from tlpipe.workflows.common import Surveyed
from tlpipe.workflows.jobs.job import Job
from tlpipe.workflows.jobs.plans import Plan, plan_of
from tlpipe.workflows.jobs.reading import read_job
from tlpipe.workflows.jobs.running import call
from tlpipe.workflows.jobs.sampling import Pace, Stopwatch, sampled

_FIRST = 48  # images of a first, short look at the rate
_LEAST, _MOST = 96, 2048  # images of the sample
_MEASURED_S = 10.0
_FIXED = 512  # images, where a precision must be settled on them first


@dataclass(frozen=True)
class Estimate:
    """What a job would do, and what it would cost.

    Attributes
    ----------
    job : Job
    survey : Survey
        What its source holds.
    meaning : str
        What becomes of the output, in a sentence.
    count : int
        Images that the network would run over.
    sampled : int
        Images that it ran over now; 0 where nothing was measured.
    rejects : Counter of str
        Those of them that could not be read, by reason.
    provider : str
        What ran it; "" where nothing did.
    rate : float or None
        Images per second, once everything is under way; None where nothing was measured.
    start_s : float
        Seconds until the first image is done.
    seconds, seconds_low, seconds_high : float or None
        Wall time of the job's images, with a 95 % interval as far as a sample tells.
    output_bytes : int or None
        Size of the output.
    notices : list of str
        What a user would want to know.
    """

    job: Job
    survey: Survey
    meaning: str
    count: int
    sampled: int
    rejects: Counter[str]
    provider: str
    rate: float | None
    start_s: float
    seconds: float | None
    seconds_low: float | None
    seconds_high: float | None
    output_bytes: int | None
    notices: list[str]


def dry_run(job: Job | str | Path, *, surveyed: Surveyed | None = None) -> Estimate:
    """Say what a job would do and what it would cost; write nothing.

    Parameters
    ----------
    job : Job, str or pathlib.Path
        A job file, or one that was read.
    surveyed : callable, optional
        Called once with the source's ``Survey``, before anything is measured.

    Raises
    ------
    JobError
        The job has mistakes.
    TlpipeError
        What the run itself would be refused with: an output of another backbone, a source without
        labels, no image that can be read ...
    """
    job = job if isinstance(job, Job) else read_job(job)
    plan = plan_of(job)
    if surveyed is not None:
        surveyed(plan.survey)
    nothing = Estimate(
        job=job,
        survey=plan.survey,
        meaning=plan.meaning,
        count=plan.count,
        sampled=0,
        rejects=Counter(),
        provider="",
        rate=None,
        start_s=0.0,
        seconds=None if job.source is None else 0.0,
        seconds_low=None,
        seconds_high=None,
        output_bytes=None,
        notices=plan.notices,
    )
    if job.source is None or not plan.count:
        return nothing
    return _measured(job, job.source, plan, nothing)


def _measured(job: Job, source: Source, plan: Plan, nothing: Estimate) -> Estimate:
    most = min(_FIXED, plan.candidates)
    if not plan.settles and plan.candidates > _LEAST:
        first = _run(job, sampled(source, plan.candidates, _FIRST, plan.wanted))
        most = round(_MEASURED_S / first.pace.seconds) if first.pace.seconds else _MOST
        most = min(max(most, _LEAST), _MOST)
    sample = _run(job, sampled(source, plan.candidates, most, plan.wanted))
    pace, start_s = sample.pace, sample.start_s
    size = _output_bytes(job, sample, plan)

    def total(seconds: float | None) -> float | None:
        return None if seconds is None else start_s + seconds * plan.count

    return replace(
        nothing,
        sampled=sample.count,
        rejects=sample.rejects,
        provider=sample.result.provider,
        rate=1 / pace.seconds if pace.seconds else None,
        start_s=start_s,
        seconds=total(pace.seconds) if pace.seconds else None,
        seconds_low=total(pace.low),
        seconds_high=total(pace.high),
        output_bytes=size,
        notices=[*nothing.notices, *_room(job.output, size)],
    )


@dataclass(frozen=True)
class _Sample:
    """What running the job's verb over a sample told."""

    result: Any
    count: int
    rejects: Counter[str]
    pace: Pace
    start_s: float
    size_bytes: int


def _run(job: Job, sample: Source) -> _Sample:
    command = "embed" if job.command == "train" else job.command  # heads take seconds
    arguments: dict[str, Any] = {
        name: value for name, value in job.arguments.items() if name in _TAKEN[command]
    }
    arguments |= {
        "options": replace(job.arguments["options"], profile=None, max_rejects=None),
        "overwrite": True,
    }
    watch = Stopwatch(command)
    try:
        with tempfile.TemporaryDirectory(prefix="tlpipe-dry-run-") as folder:
            suffix = ".h5" if command == "embed" else job.output.suffix
            output = Path(folder) / f"sample{suffix}"
            part = replace(job, command=command, output=output, source=sample, arguments=arguments)
            result = call(part, {"progress": watch})
            size = output.stat().st_size
    except OSError as exc:
        if isinstance(exc, OutputError):
            raise
        raise OutputError(
            f"No temporary folder can be made for the sample: {exc.strerror or exc}.",
            hint="Choose another one by the environment variable TMPDIR.",
        ) from exc
    count = sample.survey.count
    return _Sample(result, count, result.rejects, watch.pace(), watch.start_s, size)


_TAKEN = {"embed": (), "classify": ("columns",), "evaluate": ("split",)}
"""Arguments of a job that a run over a sample takes, beside how the network is run."""


def _output_bytes(job: Job, sample: _Sample, plan: Plan) -> int | None:
    """Size of the output, from that of the sample."""
    return _SIZES[job.command](sample, plan)


def _feature_bytes(sample: _Sample, plan: Plan) -> int:
    """Vectors fill whole chunks, the last of which has room for rows to come."""
    from tlpipe.stages.store.layout import CHUNK_ROWS

    def vectors(rows: int) -> int:
        return math.ceil(rows / CHUNK_ROWS) * CHUNK_ROWS * int(sample.result.dim) * 4

    good = sample.count - sample.rejects.total()
    rows = round(plan.rows * good / sample.count)
    beside = max(0, sample.size_bytes - vectors(good)) / max(1, good)
    return vectors(rows) + round(beside * rows)


_SIZES: dict[str, Callable[[_Sample, Plan], int | None]] = {
    "embed": _feature_bytes,
    "train": _feature_bytes,
    "classify": lambda sample, plan: round(sample.size_bytes / sample.count * plan.rows),
    "evaluate": lambda sample, plan: sample.size_bytes,
}


def _room(output: Path, size: int | None) -> list[str]:
    """A notice where the output may not fit on its disk."""
    free = shutil.disk_usage(output.parent).free
    if size is None or size < free:
        return []
    text = f"The output may not fit: it needs about {size / 1e9:,.1f} GB, and its disk has"
    return [f"{text} {free / 1e9:,.1f} GB free."]


def by_class(survey: Survey) -> dict[str, dict[str, int]]:
    """Number of items of each class by split; "" stands for no label."""
    found: dict[str, dict[str, int]] = {}
    for (split, label), count in sorted(
        survey.labels.items(), key=lambda entry: (entry[0][1] or "", entry[0][0])
    ):
        name = "none" if split == Split.NONE else split.name.lower()
        found.setdefault(label or "", {})[name] = count
    return found
