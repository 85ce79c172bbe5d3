"""run: a job, from its file to its outputs and its run record."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlpipe.errors import OutputError, TlpipeError
from tlpipe.stages.source import Survey
from tlpipe.types import ProgressCallback
from tlpipe.workflows.common import Surveyed
from tlpipe.workflows.jobs.job import Job
from tlpipe.workflows.jobs.reading import read_job
from tlpipe.workflows.jobs.record import Record, metrics_of, numbers_of, output_facts
from tlpipe.workflows.jobs.schema import EMBEDDINGS, SOURCE, shape_of

TOO_MANY_REJECTS = 3
INTERRUPTED = 130
"""As shells have it: 128 and the number of SIGINT."""


@dataclass(frozen=True)
class JobResult:
    """What ``run`` did.

    Attributes
    ----------
    job : Job
    result : object
        What the job's verb returned, such as an ``EmbedResult``.
    exit_code : int
        0, or 3 where there were more rejects than allowed.
    record : pathlib.Path
        The run record.
    """

    job: Job
    result: Any
    exit_code: int
    record: Path


def run(
    job: Job | str | Path,
    *,
    progress: ProgressCallback | None = None,
    surveyed: Surveyed | None = None,
) -> JobResult:
    """Run a job, and write its run record beside its output.

    Parameters
    ----------
    job : Job, str or pathlib.Path
        A job file, or one that was read.
    progress, surveyed : callable, optional
        As for ``embed``.

    Raises
    ------
    JobError
        The job has mistakes; nothing was done.
    TlpipeError
        As from the job's verb. The record tells it.
    OutputError
        An output, or the record, cannot be written.
    """
    job = job if isinstance(job, Job) else read_job(job)
    record = Record(job)
    record.begin()

    def noted(survey: Survey) -> None:
        record.surveyed(survey)
        if surveyed is not None:
            surveyed(survey)

    try:
        result = call(job, {"progress": progress, "surveyed": noted})
        record.take(_facts(job, result))
    except BaseException as exc:
        interrupted, exit_code = _ending(exc)
        try:
            record.end("interrupted" if interrupted else "failed", exit_code, exc)
        except OutputError as second:  # the first one is to be heard
            exc.add_note(f"The run record could not be written: {second.message}")
        raise
    over_images = result.embedded if job.command == "train" else result
    too_many = bool(getattr(over_images, "too_many_rejects", False))
    exit_code = TOO_MANY_REJECTS if too_many else 0
    record.end("too-many-rejects" if too_many else "done", exit_code)
    return JobResult(job, result, exit_code, job.record_path)


def call(job: Job, reporting: Mapping[str, Callable[..., None] | None]) -> Any:
    """Call the job's verb, with what it takes of `reporting`."""
    shape = shape_of(job.command)
    given: dict[str, Any] = {**job.inputs, "output": job.output, **job.arguments}
    embeddings = given.pop(EMBEDDINGS, None)
    if job.source is not None:
        given[SOURCE] = job.source
    if embeddings is not None:
        from tlpipe.workflows.classify import Cached

        given[SOURCE] = Cached(job.source, embeddings) if job.source else given[SOURCE]
    if job.card is not None:
        given["backbone"] = job.card
    taken = inspect.signature(shape.verb).parameters
    given |= {name: call for name, call in reporting.items() if name in taken}
    return shape.verb(**given)


def _ending(exc: BaseException) -> tuple[bool, int]:
    """Whether somebody stopped the run, and the exit code."""
    if isinstance(exc, KeyboardInterrupt):
        return True, INTERRUPTED
    if isinstance(exc, SystemExit):  # a signal, as the command line has it
        return True, exc.code if isinstance(exc.code, int) else 1
    return False, exc.exit_code if isinstance(exc, TlpipeError) else 1


def _facts(job: Job, result: Any) -> dict[str, Any]:
    """What a run record says of a run that came to its end."""
    return _FACTS[job.command](job, result) | output_facts(_outputs(job))


def _outputs(job: Job) -> list[Path]:
    """Files that the job wrote."""
    if job.command not in ("train", "train-head"):
        kept = job.arguments.get(EMBEDDINGS)
        return [job.output] if kept is None else [job.output, kept]
    from tlpipe.workflows.train import features_path
    from tlpipe.workflows.train_head import head_path, metrics_path

    beside = [metrics_path(job.output), head_path(job.output)]
    return [job.output, *beside, *([features_path(job.output)] if job.command == "train" else [])]


def _embed_facts(job: Job, result: Any) -> dict[str, Any]:
    from tlpipe.stages.store import FeatureFile

    with FeatureFile(result.path) as file:
        fingerprint = file.header.fingerprint
    return {
        "fingerprint": fingerprint,
        "provider": result.provider,
        "counts": numbers_of(result) | {"rejected": result.rejects.total()},
        "rejects": dict(result.rejects),
    }


def _train_head_facts(job: Job, result: Any) -> dict[str, Any]:
    return {
        "fingerprint": _fingerprint(job.output),
        "counts": {"trained_on": result.training["count"], "classes": len(result.classes)},
        "metrics": metrics_of(result.metrics),
    }


def _train_facts(job: Job, result: Any) -> dict[str, Any]:
    embedded, trained = _embed_facts(job, result.embedded), _train_head_facts(job, result.trained)
    return embedded | trained | {"counts": embedded["counts"] | trained["counts"]}


def _classify_facts(job: Job, result: Any) -> dict[str, Any]:
    return {
        "fingerprint": _fingerprint(job.inputs["classifier"]),
        "provider": result.provider,
        "counts": numbers_of(result)
        | {"rejected": result.rejects.total(), "predicted": dict(result.classes)},
        "rejects": dict(result.rejects),
    }


def _evaluate_facts(job: Job, result: Any) -> dict[str, Any]:
    return {
        "fingerprint": _fingerprint(job.inputs["classifier"]),
        "provider": result.provider,
        "counts": {"judged": result.metrics.count, "rejected": result.rejects.total()},
        "rejects": dict(result.rejects),
        "metrics": metrics_of(result.metrics),
    }


_FACTS: dict[str, Callable[[Job, Any], dict[str, Any]]] = {
    "embed": _embed_facts,
    "train": _train_facts,
    "train-head": _train_head_facts,
    "classify": _classify_facts,
    "evaluate": _evaluate_facts,
}


def _fingerprint(classifier: Path) -> str:
    """The fingerprint that a classifier states."""
    from tlpipe.stages.classifier import read_metadata
    from tlpipe.stages.session import properties_of

    return read_metadata(properties_of(classifier), repr(str(classifier))).fingerprint
