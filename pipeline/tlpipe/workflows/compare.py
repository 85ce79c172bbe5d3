"""compare: which of several backbones to use, by feature files of the same images.

A head is trained and judged on each file's embeddings in the same way, on the same rows, and the
differences are taken image by image. One file's embeddings are in memory at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tlpipe.errors import OptionError, TlpipeError
from tlpipe.files import check_output
from tlpipe.stages.metrics import (
    Difference,
    Metrics,
    PerImage,
    joint_level,
    judge_each,
    measure,
    paired,
)
from tlpipe.stages.report import write_comparison
from tlpipe.types import DEFAULT_SEED, Progress, ProgressCallback
from tlpipe.version import __version__
from tlpipe.workflows.costs import Costs
from tlpipe.workflows.judging import JudgeOn, judge, plan_judging
from tlpipe.workflows.matching import Common, Described, described, match, vectors_at
from tlpipe.workflows.recommend import Candidate, best_of, recommend

_SPEED_S = 1.5  # for how long each network is run


@dataclass(frozen=True)
class Cost:
    """What a backbone costs.

    Attributes
    ----------
    dim : int
        D.
    stored_bytes : float
        Of the feature file, per image.
    head_s : float
        Seconds to train a head, its search for settings included.
    network_bytes : int or None
        Of the network without its own last layer; None where it cannot be had.
    inference_s : float or None
        Seconds per image: of one core on the CPU, of all GPUs together else.
    device : str or None
        On what that was measured; None where it was not.
    """

    dim: int
    stored_bytes: float
    head_s: float
    network_bytes: int | None
    inference_s: float | None
    device: str | None


@dataclass(frozen=True)
class Compared:
    """One feature file.

    Attributes
    ----------
    path : pathlib.Path
    name : str
        That of the file; the path, where several files have the same name.
    backbone : str
        Its name, or what was declared in its place.
    fingerprint, precision, decoder : str
    count, left_out : int
        Images of the file, and how many of them not all files have.
    metrics : Metrics
    accuracy, log_loss : Difference or None
        Less those of the best; None of the best itself.
    cost : Cost
    """

    path: Path
    name: str
    backbone: str
    fingerprint: str
    precision: str
    decoder: str
    count: int
    left_out: int
    metrics: Metrics
    accuracy: Difference | None
    log_loss: Difference | None
    cost: Cost


@dataclass(frozen=True)
class CompareResult:
    """What ``compare`` found.

    Attributes
    ----------
    files : list of Compared
        In the order in which they were given.
    classes : list of str
    common, judged : int
        Images that all files have, and how many of them judged.
    heads : int
        Trained for each file.
    judged_on : str
        In words.
    level : float
        Of the interval of each difference: so that all of them hold at once with 95 % certainty.
    seed : int
    best, recommended : int
        Numbers of files: the most accurate, and the one to use.
    recommendation : str
        The reason in numbers.
    notices : list of str
        What a user would want to know.
    """

    files: list[Compared]
    classes: list[str]
    common: int
    judged: int
    heads: int
    judged_on: str
    level: float
    seed: int
    best: int
    recommended: int
    recommendation: str
    notices: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON, as ``docs/compare.md`` specifies them."""
        plain = asdict(self)
        for entry, file in zip(plain["files"], self.files, strict=True):
            entry["path"] = str(file.path)
            entry["difference"] = {"accuracy": entry.pop("accuracy")}
            entry["difference"]["log_loss"] = entry.pop("log_loss")
            if file.accuracy is None or file.log_loss is None:
                entry["difference"] = None
            else:
                for name, of in (("accuracy", file.accuracy), ("log_loss", file.log_loss)):
                    entry["difference"][name]["distinguishable"] = of.distinguishable
        return {"tlpipe_version": __version__, **plain}


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
