"""compare: which of several backbones to use, by feature files of the same images.

A head is trained and judged on each file's embeddings in the same way, on the same rows, and the
differences are taken image by image. One file's embeddings are in memory at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tlpipe.errors import OptionError, TlpipeError
from tlpipe.files import check_output
from tlpipe.stages.metrics import Metrics, PerImage, joint_level, judge_each, measure, paired
from tlpipe.stages.report import write_comparison
from tlpipe.types import DEFAULT_SEED, Progress, ProgressCallback
from tlpipe.workflows.comparison import Compared, CompareResult, Cost
from tlpipe.workflows.costs import Costs
from tlpipe.workflows.cross_judging import JudgeOn, judge, plan_judging
from tlpipe.workflows.matching import Common, Described, described, match, vectors_at
from tlpipe.workflows.recommend import Candidate, best_of, recommend

_SPEED_S = 1.5  # for how long each network is run


def compare(
    features: Sequence[str | Path],
    output: str | Path | None = None,
    *,
    judge_on: JudgeOn = "training",
    speed: bool = True,
    seed: int = DEFAULT_SEED,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> CompareResult:
    """Compare backbones by feature files of the same images, with the cost of each.

    Parameters
    ----------
    features : sequence of str or pathlib.Path
        Two or more feature files with labels. Images are matched by key and content; labels, splits
        and groups are those of the first.
    output : str or pathlib.Path, optional
        A JSON file to write.
    judge_on : {"training", "test"}
        "training": all labelled images but those of the test split, in cross-validation, or a part
        of them where they are 20,000 or more. "test": those of the test split.
    speed : bool
        Whether to run each network for a second or two, to measure its time for an image.
    seed : int
        Of the folds.
    overwrite : bool
        Whether an existing output may be replaced.
    progress : callable, optional
        Called with a ``Progress`` after each head.

    Returns
    -------
    CompareResult

    Raises
    ------
    OptionError
        There are fewer than two files; or "test" is asked for, and there is no test split.
    FeatureFileError, DamagedFileError
        One is no feature file, or a damaged one; or there is no image that all of them have.
    TrainingDataError
        There are no labels, one class only, or too few images.
    ConvergenceError
        A head's optimum was not found.
    OutputError
        The output cannot be written.
    """
    paths = [Path(path) for path in features]
    if len(paths) < 2:
        raise OptionError(
            f"There must be two or more feature files to compare, not {len(paths)}.",
            hint="Embed the same images with another --backbone.",
        )
    if output is not None:
        check_output(Path(output), overwrite=overwrite, suffixes=(".json",), inputs=paths)
    files = [described(path) for path in paths]
    common = match(files)
    judging = plan_judging(common, judge_on, seed)
    total = len(files) * len(judging.plans)
    done = 0

    def told() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(Progress("compare", done, total, 0))

    truth = common.labels[judging.rows]
    measured = []
    for path, rows in zip(paths, common.rows, strict=True):
        judged = judge(vectors_at(path, rows), common, judging, told)
        metrics = measure(judged.probabilities, truth, common.classes)
        each = judge_each(judged.probabilities, truth)
        measured.append(_Measured(metrics, each, judged.head_s))
    costs, unknown = _costs(files, measured, _SPEED_S if speed else 0)
    compared, best = _compared(files, common, measured, costs)
    chosen = recommend([_candidate(file) for file in compared], best)
    result = CompareResult(
        files=compared,
        classes=common.classes,
        common=common.labels.size,
        judged=truth.size,
        heads=len(judging.plans),
        judged_on=judging.judged_on,
        level=joint_level(len(files)),
        seed=seed,
        best=best,
        recommended=chosen.index,
        recommendation=chosen.text,
        notices=[*common.notices, *judging.notices, *unknown],
    )
    if output is not None:
        write_comparison(Path(output), result.to_dict())
    return result


@dataclass(frozen=True)
class _Measured:
    """What was measured with a file's embeddings."""

    metrics: Metrics
    each: PerImage
    head_s: float


def _costs(
    files: Sequence[Described], measured: Sequence[_Measured], seconds: float
) -> tuple[list[Cost], list[str]]:
    """The cost of each, and what could not be measured."""
    found, notices, networks = [], [], Costs(seconds)
    for file, its in zip(files, measured, strict=True):
        size: int | None = None
        inference_s: float | None = None
        device: str | None = None
        try:
            network = networks.of(file.header, file.name)
            size, inference_s, device = network.size_bytes, network.inference_s, network.device
        except TlpipeError as exc:
            notices.append(f"The cost of the network is not known of {file.name}: {exc.message}")
        stored = file.path.stat().st_size / max(file.count, 1)
        found.append(Cost(file.dim, stored, its.head_s, size, inference_s, device))
    return found, notices


def _compared(
    files: Sequence[Described],
    common: Common,
    measured: Sequence[_Measured],
    costs: Sequence[Cost],
) -> tuple[list[Compared], int]:
    """The record of each file, and the number of the best."""
    accuracies = [its.metrics.accuracy for its in measured]
    best = best_of(accuracies, [its.metrics.log_loss for its in measured])
    level = joint_level(len(files))
    names = Counter(file.path.name for file in files)
    found = []
    for i, (file, its, cost) in enumerate(zip(files, measured, costs, strict=True)):
        accuracy = log_loss = None
        if i != best:
            accuracy, log_loss = paired(its.each, measured[best].each, level)
        found.append(
            Compared(
                path=file.path,
                name=file.path.name if names[file.path.name] == 1 else str(file.path),
                backbone=file.header.declared or file.header.card(file.name).name,
                fingerprint=file.header.fingerprint,
                precision=file.header.precision,
                decoder=file.header.decoder,
                count=file.count,
                left_out=file.count - common.labels.size,
                metrics=its.metrics,
                accuracy=accuracy,
                log_loss=log_loss,
                cost=cost,
            )
        )
    return found, best


def _candidate(file: Compared) -> Candidate:
    return Candidate(
        name=repr(file.name),
        accuracy=file.metrics.accuracy,
        log_loss=file.metrics.log_loss,
        accuracy_difference=file.accuracy,
        log_loss_difference=file.log_loss,
        inference_s=file.cost.inference_s,
        size_bytes=file.cost.network_bytes,
        dim=file.cost.dim,
    )
