"""train-head: from a feature file to a classifier file.

The head is chosen and trained on the stored embeddings of some rows, judged on those of others,
joined to the backbone that made them, and the joined file is compared with the head as it was
trained before it gets its name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tlpipe.card import Card
from tlpipe.errors import FeatureFileError
from tlpipe.execution import PRECISIONS, parsed_arithmetic
from tlpipe.files import check_output
from tlpipe.last_layer import HeadKind, LastLayer
from tlpipe.stages.head import AnyHead, HeadOptions, train, train_baseline
from tlpipe.stages.metrics import Metrics, MultilabelMetrics
from tlpipe.stages.report import write_report
from tlpipe.stages.splits import Plan
from tlpipe.stages.store import FeatureFile
from tlpipe.stages.weights import weight_files
from tlpipe.types import DECODERS, ProgressCallback
from tlpipe.workflows.common import trying
from tlpipe.workflows.judging import judge
from tlpipe.workflows.knowing import knowing_of, novelty_of
from tlpipe.workflows.multilabel import plan_classes, plan_labels
from tlpipe.workflows.notices import notices_of
from tlpipe.workflows.train_options import TrainOptions
from tlpipe.workflows.trained import Trained
from tlpipe.workflows.training_data import Labelled, Training, parted, read_labelled

_log = logging.getLogger(__name__)

LOPSIDED = 10
"""How many times more images the largest class has than the smallest, to be told."""


@dataclass(frozen=True)
class TrainResult:
    """What ``train_head`` did.

    Attributes
    ----------
    path, metrics_path, head_path : pathlib.Path
        The classifier; beside it its report as JSON, and the head alone.
    classes : list of str
    training : dict
        What the head was trained on, and with which settings.
    metrics : Metrics, MultilabelMetrics or None
        What held-out data say of it; None where there are none.
    parity : float
        Largest difference of a probability between the file and the head as it was trained.
    notices : list of str
        What a user would want to know.
    """

    path: Path
    metrics_path: Path
    head_path: Path
    classes: list[str]
    training: dict[str, Any]
    metrics: Metrics | MultilabelMetrics | None
    parity: float
    notices: list[str]


def metrics_path(classifier: Path) -> Path:
    """Where the report of a classifier stands: beside it, as ``<stem>.metrics.json``."""
    return classifier.with_suffix(".metrics.json")


def head_path(classifier: Path) -> Path:
    """Where the head alone stands: beside the classifier, as ``<stem>.head.onnx``."""
    return classifier.with_suffix(".head.onnx")


def check_classifier_output(output: Path, *, overwrite: bool, inputs: Sequence[Path]) -> None:
    """Refuse the path of a classifier, or of what stands beside it, before any work is done."""
    check_output(output, overwrite=overwrite, suffixes=(".onnx",), inputs=inputs)
    for beside in (metrics_path(output), head_path(output)):
        check_output(beside, overwrite=overwrite, inputs=inputs)


def train_head(
    features: str | Path,
    output: str | Path,
    *,
    options: TrainOptions | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> TrainResult:
    """Train a new last layer on stored embeddings, and write backbone and head as one file.

    Parameters
    ----------
    features : str or pathlib.Path
        A feature file with labels.
    output : str or pathlib.Path
        The classifier to write; ``<stem>.metrics.json`` and ``<stem>.head.onnx`` are written beside
        it.
    options : TrainOptions, optional
    overwrite : bool
        Whether existing outputs may be replaced.
    progress : callable, optional
        Called with a ``Progress`` after each setting tried.

    Returns
    -------
    TrainResult

    Raises
    ------
    FeatureFileError
        `features` is not a usable feature file.
    TrainingDataError
        There are no labels, one class only, or a class without an image to train with.
    ConvergenceError
        The optimum could not be found.
    WeightsError
        The backbone's pretrained weights cannot be had.
    ExportError
        The joined file disagrees with the head as it was trained; nothing is written.
    OutputError
        An output cannot be written.
    """
    options = options or TrainOptions()
    output = Path(output)
    check_classifier_output(output, overwrite=overwrite, inputs=[Path(features)])
    with FeatureFile(Path(features)) as file:
        data = read_labelled(file)
        card = _card(data, Path(features))
        check_classifier_output(output, overwrite=overwrite, inputs=weight_files(card))
        made = _make(file, data, options, progress)
    # Loaded once the embeddings are let go: it brings the libraries for networks.
    from tlpipe.workflows.export_classifier import export_classifier

    parity = export_classifier(card, data.header, made.trained, output, head_path(output))
    report = {
        "classes": made.trained.classes,
        "training": made.trained.training,
        "metrics": made.trained.metrics,
    }
    write_report(metrics_path(output), report)
    _log.info("The classifier is joined, written, and compared with the head.")
    return TrainResult(
        output,
        metrics_path(output),
        head_path(output),
        made.trained.classes,
        made.trained.training,
        made.metrics,
        parity,
        made.notices,
    )


@dataclass(frozen=True)
class _Made:
    """A trained head, and what is to be said of it."""

    trained: Trained
    metrics: Metrics | MultilabelMetrics | None
    notices: list[str]


def _make(
    file: FeatureFile, data: Labelled, options: TrainOptions, progress: ProgressCallback | None
) -> _Made:
    """Choose, train and judge."""
    task, classes = None, data.classes
    if options.separator is None:
        plan = plan_classes(data, options.seed)
    else:
        task = plan_labels(data, options.separator, options.seed)
        classes, plan = task.classes, task.plan
    _log.info(
        "%s rows train, %s judge (%s); settings are chosen on %s; seed %d.",
        *(f"{plan.fit.size:,}", f"{plan.judge.size:,}", plan.judged_on, plan.chosen_on),
        options.seed,
    )
    streamed = options.streams(plan.fit.size * data.dim * 4)
    training, judging = parted(file, plan, task.labels if task else data.labels, streamed=streamed)

    unknown = novelty_of(training, options.false_alarms)  # before training overwrites the vectors
    how = HeadOptions(
        class_weight=options.class_weight,
        fewer=task is None and plan.judge.size > 0,  # else no learning curve is judged
        consume=True,
        seed=options.seed,
        threads=options.threads,
    )
    head = _trained(training, options.head, how, trying(progress))
    training = training.spent()
    layer, facts = head.layer(), _facts(data, plan, head, options)
    if task is not None and isinstance(layer, LastLayer):
        layer = replace(layer, thresholds=task.thresholds(head.held_out, training))
        facts |= task.facts(head)
    _log.info("The head is trained.")
    metrics = judge(head, training, judging, classes, layer.thresholds)
    _log.info("The head is judged.")
    knowing = knowing_of(unknown, training, head.held_out, options.coverage)
    notices = [*notices_of(data, plan, task), *_own_notices(training, head, options)]
    trained = Trained(
        classes, head, layer, knowing, facts, {} if metrics is None else metrics.to_dict()
    )
    return _Made(trained, metrics, [*notices, *knowing.notices])


def _trained(
    training: Training, kind: HeadKind, how: HeadOptions, tried: Callable[[int], None]
) -> AnyHead:
    """Train a head of the kind that is asked for."""
    vectors, labels, folds = training.vectors, training.labels, training.folds
    if kind == "linear":
        return train(vectors, labels, training.rows, folds, how, tried)
    return train_baseline(kind, vectors, labels, folds, how, tried)


def _card(data: Labelled, path: Path) -> Card:
    """Card of the backbone that made the embeddings, after its fingerprint was checked."""
    header = data.header
    card = header.card(repr(str(path)))
    arithmetic = parsed_arithmetic(header.precision)
    if header.decoder not in DECODERS or arithmetic is None:
        raise FeatureFileError(
            f"{str(path)!r} was made with the decoder {header.decoder!r} at {header.precision!r};"
            f" this tlpipe knows {list(DECODERS)} at {list(PRECISIONS)}, and a classifier trained"
            " on other pixels than it is served would be wrong.",
            hint="Embed the images again.",
        )
    if (arithmetic[0] == "int8") != bool(header.calibration):
        raise FeatureFileError(
            f"{str(path)!r} is damaged: its precision is {header.precision!r}, and it has"
            f" {'a' if header.calibration else 'no'} calibration.",
            hint="Embed the images again.",
        )
    expected = header.expected_fingerprint(repr(str(path)))
    if expected != header.fingerprint or data.dim != card.output.dim:
        raise FeatureFileError(
            f"{str(path)!r} is damaged: its fingerprint {header.fingerprint[:12]}... and its"
            f" embeddings of {data.dim} numbers do not fit its backbone"
            f" {card.name!r} ({expected[:12]}..., {card.output.dim}).",
            hint="Embed the images again.",
        )
    return card


def _facts(data: Labelled, plan: Plan, head: AnyHead, options: TrainOptions) -> dict[str, Any]:
    counts = np.bincount(data.labels[plan.fit], minlength=len(data.classes)).tolist()
    return {
        "features_created_at": data.header.created_at,
        "count": int(plan.fit.size),
        "count_by_class": dict(zip(data.classes, counts, strict=True)),
        "judged_on": plan.judged_on,
        "chosen_on": plan.chosen_on
        if _chosen(head, options)
        else "nothing: too few images to choose on",
        "grouped": plan.grouped,
        "seed": options.seed,
        "class_weight": options.class_weight,
        "head": options.head,
    } | head.facts()


def _chosen(head: AnyHead, options: TrainOptions) -> bool:
    """Whether held-out rows set anything."""
    return bool(head.trials) or (options.head == "centroid" and head.held_out is not None)


def _own_notices(training: Training, head: AnyHead, options: TrainOptions) -> list[str]:
    """What the head's training has to tell."""
    notices = []
    if options.head == "linear" and training.labels.ndim == 1 and options.class_weight == "none":
        counts = np.bincount(training.labels)
        most, least = int(counts.max()), int(counts[counts > 0].min())
        if most >= LOPSIDED * least:
            notices.append(
                f"The classes are lopsided: {most:,} images of one, {least:,} of another. The head"
                " leans to the large ones, as it must to be right most often; --class-weight"
                " balanced makes all classes count the same."
            )
    return [*notices, *head.notices()]
