"""What a job would do: which images it would work on, and what its output would become.

Takes a job, gives a ``Plan``. The source is listed; what earlier runs left is looked at, and not
touched. What a run would be refused with is raised.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from tlpipe.errors import StaleFeaturesError
from tlpipe.stages.source import Source, Survey
from tlpipe.types import Split
from tlpipe.workflows.jobs.job import Job
from tlpipe.workflows.jobs.sampling import Wanted
from tlpipe.workflows.run_options import UpdateOptions

_ROWS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Plan:
    """What a job would do.

    Attributes
    ----------
    survey : Survey
    count : int
        Images that the network would run over.
    candidates : int
        Images of the source of that kind, some of which need no run.
    rows : int
        Rows of the output, rejects included.
    meaning : str
        What becomes of the output, in a sentence.
    settles : bool
        Whether a precision is settled on images of the source first.
    wanted : Wanted
        Whether an item is a candidate.
    notices : list of str
        What a user would want to know.
    """

    survey: Survey
    count: int
    candidates: int
    rows: int
    meaning: str
    settles: bool = False
    wanted: Wanted = lambda label, split: True
    notices: list[str] = field(default_factory=list)


def plan_of(job: Job) -> Plan:
    """What a job would do.

    Raises
    ------
    TlpipeError
        What the run would be refused with.
    """
    return _PLANS[job.command](job)


def _source_of(job: Job) -> Source:
    if job.source is None:
        raise AssertionError(f"a job {job.command!r} has a source")
    return job.source


def _embed_plan(job: Job) -> Plan:
    update = job.arguments.get("update") or UpdateOptions()
    return _features_plan(job, overwrite=job.arguments["overwrite"], update=update)


def _train_plan(job: Job) -> Plan:
    from tlpipe.workflows.train import check_labels, features_path

    check_labels(_source_of(job), job.arguments["head"])
    features = features_path(job.output)
    beside = replace(job, output=features)
    try:
        plan = _features_plan(beside, overwrite=False, update=UpdateOptions())
    except StaleFeaturesError:
        if not job.arguments["overwrite"]:
            raise
        plan = _features_plan(beside, overwrite=True, update=UpdateOptions())
    meaning = f"{_written(job)} {plan.meaning}"
    notices = ["The time and size are those of the embeddings; the head's training is not in them."]
    return replace(plan, meaning=meaning, notices=notices)


def _features_plan(job: Job, *, overwrite: bool, update: UpdateOptions) -> Plan:
    """What embedding would do with what earlier runs left."""
    from tlpipe.stages.store import FeatureHeader, Parts, parted_as
    from tlpipe.version import __version__
    from tlpipe.workflows.common import now
    from tlpipe.workflows.earlier import Comparison, check_gone, compare, earlier_runs
    from tlpipe.workflows.precision import Arithmetic

    assert job.card is not None, "what embeds has a backbone"
    source, output = _source_of(job), job.output
    header = FeatureHeader(
        tlpipe_version=__version__,
        fingerprint="",
        backbone=job.card.to_json(),
        provider="",
        precision="",
        decoder="",
        source=source.text,
        created_at=now(),
    )
    arithmetic = Arithmetic(job.card, job.arguments["options"])
    parts = Parts(output, most=sys.maxsize)  # they are looked at, not joined
    there = os.path.lexists(output)
    with earlier_runs(
        output,
        parts,
        partial(arithmetic.header, header),
        overwrite=overwrite,
        rehash=update.rehash,
    ) as earlier:
        if earlier.known.count:
            found = compare(source, earlier, lambda: None)
        else:
            found = Comparison(fresh=source.survey.count)
        if earlier.file is not None:
            check_gone(source, earlier.file, found, update.max_gone)
        meaning = f"The feature file {str(output)!r} would be written anew."
        as_asked = earlier.file is None or parted_as(earlier.file, update.set_above)
        if earlier.file is not None and found.same and as_asked:
            meaning = f"The feature file {str(output)!r} is up to date: nothing would be done."
        elif earlier.file is not None:
            meaning = (
                f"The feature file {str(output)!r} would be updated. Rows kept:"
                f" {found.kept:,}; images to embed: {found.fresh:,}; rows dropped: {found.gone:,}."
            )
        elif there:
            meaning = f"The feature file {str(output)!r} would be replaced; nothing of it is used."
        if earlier.taken_up:
            meaning += f" Embeddings taken up from a run that was cut short: {earlier.taken_up:,}."
    return Plan(
        survey=source.survey,
        count=found.fresh,
        candidates=source.survey.count,
        rows=source.survey.count,
        meaning=meaning,
        settles=arithmetic.execution.precision != "fp32",
    )


def _train_head_plan(job: Job) -> Plan:
    notices = ["A head takes seconds: its training is not measured beforehand."]
    survey = _features_survey(job.inputs["features"])
    return Plan(survey, 0, 0, 0, _written(job), notices=notices)


def _features_survey(path: Path) -> Survey:
    """What a feature file holds."""
    from tlpipe.stages.store import FeatureFile

    survey = Survey("a feature file")
    with FeatureFile(path) as file:
        for start in range(0, file.count, _ROWS_AT_ONCE):
            stop = min(start + _ROWS_AT_ONCE, file.count)
            splits = [Split(number) for number in file.read("splits", start, stop).tolist()]
            for label, split in zip(file.labels(start, stop), splits, strict=True):
                survey.labels[split, label] += 1
    return survey


def _classify_plan(job: Job) -> Plan:
    from tlpipe.stages.predictions import PredictionParts

    if job.source is None:
        survey = _features_survey(job.inputs["source"])
        notices = ["The source keeps its embeddings: the backbone is not run."]
        return Plan(survey, 0, 0, survey.count, _written(job), notices=notices)
    survey, notices = job.source.survey, []
    if PredictionParts(job.output, "").names() and not job.arguments["overwrite"]:
        notices.append(
            "A run was cut short: rows that it has finished are taken up where they were made in"
            " the same way, which saves time."
        )
    if job.arguments.get("embeddings") is not None:
        notices.append("Images whose embeddings are kept already need no run: that saves time.")
    meaning = _written(job)
    return Plan(survey, survey.count, survey.count, survey.count, meaning, notices=notices)


def _evaluate_plan(job: Job) -> Plan:
    from tlpipe.workflows.evaluate import chosen_splits

    source = _source_of(job)
    chosen = chosen_splits(source, job.arguments["split"])

    def wanted(label: str | None, split: Split) -> bool:
        return label is not None and split in chosen

    count = sum(n for (split, label), n in source.survey.labels.items() if wanted(label, split))
    return Plan(source.survey, count, count, count, _written(job), wanted=wanted)


def _written(job: Job) -> str:
    """What becomes of an output that is written as a whole; that it may be was checked."""
    how = "replaced" if os.path.lexists(job.output) else "written"
    return f"The output {str(job.output)!r} would be {how}."


_PLANS: dict[str, Callable[[Job], Plan]] = {
    "embed": _embed_plan,
    "train": _train_plan,
    "train-head": _train_head_plan,
    "classify": _classify_plan,
    "evaluate": _evaluate_plan,
}
