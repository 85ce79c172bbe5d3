"""train-head: from a feature file to a classifier file.

The head is trained on the stored embeddings, judged on held-out ones, joined to the backbone that
made them, and the joined file is compared with what scikit-learn says before it gets its name.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.card import Card
from tlpipe.errors import ExportError, FeatureFileError
from tlpipe.execution import ON_CPU, PRECISIONS, parsed_arithmetic
from tlpipe.files import check_output, whole_file
from tlpipe.graph.digest import weights_digest
from tlpipe.graph.head import join_head
from tlpipe.graph.io import load_model, write_model
from tlpipe.label_cells import separator_of
from tlpipe.precision import read_calibration
from tlpipe.stages.classifier import ClassifierInfo
from tlpipe.stages.head import Head, HeadOptions, train
from tlpipe.stages.metrics import Metrics, MultilabelMetrics, measure
from tlpipe.stages.report import write_report
from tlpipe.stages.session import open_graph, open_network
from tlpipe.stages.splits import Plan, plan_splits
from tlpipe.stages.store import Features, read_features
from tlpipe.stages.weights import prepared_file, quantised_file, weight_files
from tlpipe.types import DECODERS, DEFAULT_SEED, Progress, ProgressCallback
from tlpipe.version import __version__
from tlpipe.workflows.common import now
from tlpipe.workflows.knowing import Knowing, knowing_of
from tlpipe.workflows.multilabel import check_labels, plan_labels
from tlpipe.workflows.notices import notices_of

if TYPE_CHECKING:
    from tlpipe.types import Float32Array

PARITY = 1e-4
"""Largest difference of a probability between the written file (float32) and the head as it was
trained (float64) to accept."""


@dataclass(frozen=True)
class TrainResult:
    """What ``train_head`` did.

    Attributes
    ----------
    path, metrics_path : pathlib.Path
        The classifier, and its report as JSON beside it.
    classes : list of str
    training : dict
        What the head was trained on, and with which settings.
    metrics : Metrics or MultilabelMetrics
        What held-out data say of it.
    parity : float
        Largest difference of a probability between the file and the head as it was trained.
    notices : list of str
        What a user would want to know.
    """

    path: Path
    metrics_path: Path
    classes: list[str]
    training: dict[str, Any]
    metrics: Metrics | MultilabelMetrics
    parity: float
    notices: list[str]


def metrics_path(classifier: Path) -> Path:
    """Where the report of a classifier stands: beside it, as ``<stem>.metrics.json``."""
    return classifier.with_suffix(".metrics.json")


def check_classifier_output(output: Path, *, overwrite: bool, inputs: Sequence[Path]) -> None:
    """Refuse a classifier's path, or that of its report, before any work is done for them."""
    check_output(output, overwrite=overwrite, suffixes=(".onnx",), inputs=inputs)
    check_output(metrics_path(output), overwrite=overwrite, inputs=inputs)


def train_head(
    features: str | Path,
    output: str | Path,
    *,
    seed: int = DEFAULT_SEED,
    multi_label: bool = False,
    label_separator: str | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> TrainResult:
    """Train a new last layer on stored embeddings, and write backbone and head as one file.

    Parameters
    ----------
    features : str or pathlib.Path
        A feature file with labels.
    output : str or pathlib.Path
        The classifier to write; ``<stem>.metrics.json`` is written beside it.
    seed : int
        Of the hold-out, where the source has no split of its own.
    multi_label : bool
        Whether an image may have several labels, or none.
    label_separator : str, optional
        What joins them in a stored label; by default "|".
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
        There are no labels, one class only, or a class with too few images.
    OptionError
        `label_separator` is empty, or separates nothing.
    WeightsError
        The backbone's pretrained weights cannot be had.
    ExportError
        The joined file disagrees with the head as it was trained; nothing is written.
    OutputError
        An output cannot be written.
    """
    separator = separator_of(multi_label, label_separator)
    output = Path(output)
    report_path = metrics_path(output)
    check_classifier_output(output, overwrite=overwrite, inputs=[Path(features)])
    data = read_features(Path(features))
    card = _card(data, Path(features))
    check_classifier_output(output, overwrite=overwrite, inputs=weight_files(card))
    task = None if separator is None else plan_labels(data, separator, seed)
    classes, plan = (task.classes, task.plan) if task else (data.classes, _plan(data, seed))

    def tried(count: int) -> None:
        if progress is not None:
            progress(Progress("train-head", count, None, 0))

    options = HeadOptions(scalings=("raw", "standardised"))
    head = train(
        data.vectors, task.labels if task else data.labels, plan.fit, plan.folds, options, tried
    )
    layer, training = head.layer(), _training(data, plan, head, seed)
    metrics: Metrics | MultilabelMetrics
    if task is None:
        judged = head.probabilities(data.vectors[plan.judge])
        metrics = measure(judged, data.labels[plan.judge], classes)
    else:
        thresholds = task.thresholds(head)
        layer, training = replace(layer, thresholds=thresholds), training | task.facts(head)
        metrics = task.measured(head, data.vectors, thresholds)
    knowing = knowing_of(data, plan, head)
    calibration = read_calibration(data.header.calibration, repr(str(features)))
    if calibration is None:
        prepared = prepared_file(card, open_graph)
    else:  # what is served must be what made the embeddings
        prepared = quantised_file(card, calibration, open_graph)
    network = load_model(prepared)
    info = ClassifierInfo(
        classes=tuple(classes),
        image_size=card.image_size,
        preprocess=card.arithmetic,
        backbone=json.loads(data.header.backbone),
        training=training,
        metrics=metrics.to_dict(),
        tlpipe_version=__version__,
        created_at=now(),
        fingerprint=data.header.fingerprint,
        precision=data.header.precision,
        decoder=data.header.decoder,
        backbone_digest=weights_digest(network),
        calibration=data.header.calibration,
        unknown=knowing.unknown,
        sets=knowing.sets,
        kind="single" if task is None else "multi-label",
        thresholds=() if layer.thresholds is None else tuple(layer.thresholds.tolist()),
    )
    joined = join_head(network, layer, knowing.novelty, knowing.set_threshold, info.to_metadata())
    with whole_file(output) as temporary:
        write_model(joined, temporary)
        parity = _check_parity(temporary, prepared, head, knowing, layer.thresholds)
    report = {"classes": classes, "training": training, "metrics": metrics.to_dict()}
    write_report(report_path, report)
    return TrainResult(
        output,
        report_path,
        classes,
        training,
        metrics,
        parity,
        [*notices_of(data, plan, task), *knowing.notices],
    )


def _plan(data: Features, seed: int) -> Plan:
    return plan_splits(
        data.labels, data.splits, data.content_sha256, data.classes, seed, data.groups
    )


def _card(data: Features, path: Path) -> Card:
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
    if expected != header.fingerprint or data.vectors.shape[1] != card.output.dim:
        raise FeatureFileError(
            f"{str(path)!r} is damaged: its fingerprint {header.fingerprint[:12]}... and its"
            f" embeddings of {data.vectors.shape[1]} numbers do not fit its backbone"
            f" {card.name!r} ({expected[:12]}..., {card.output.dim}).",
            hint="Embed the images again.",
        )
    return card


def _training(data: Features, plan: Plan, head: Head, seed: int) -> dict[str, Any]:
    counts = np.bincount(data.labels[plan.fit], minlength=len(data.classes)).tolist()
    return {
        "method": "linear probe: multinomial logistic regression on frozen embeddings",
        "features_created_at": data.header.created_at,
        "count": int(plan.fit.size),
        "count_by_class": dict(zip(data.classes, counts, strict=True)),
        "judged_on": plan.judged_on,
        "chosen_on": plan.chosen_on,
        "seed": seed,
        "scaling": head.scaling,
        "C": head.c,
        "temperature": head.temperature,
        "gap": head.gap,
        "trials": [asdict(trial) for trial in head.trials],
    }


def _check_parity(
    classifier: Path,
    prepared: Path,
    head: Head,
    knowing: Knowing,
    thresholds: Float32Array | None,
) -> float:
    """Compare the joined file with the backbone alone and with the head as it was trained.

    The file is run on four images of noise; its embeddings must be those of the prepared
    backbone by itself, its probabilities those that the head gives for them in float64, and what
    follows from these what NumPy makes of them.

    Returns
    -------
    float
        Largest difference of a probability.
    """
    joined = open_network(classifier, ON_CPU)
    image_shape, *_ = joined.shapes()
    noise = np.random.default_rng(0).integers(0, 256, (4, *image_shape), np.uint8)
    ours = joined.run(noise)
    alone = open_network(prepared, ON_CPU).run(noise)
    if not np.allclose(ours["embeddings"], alone["embeddings"], rtol=1e-5, atol=1e-5):
        raise ExportError(
            "The classifier's embeddings are not those of the backbone alone; it was not written."
        )
    knowing.check(ours)
    expected = head.probabilities(ours["embeddings"])
    difference = float(np.abs(ours["probabilities"] - expected).max())
    if not difference <= PARITY:
        raise ExportError(
            f"The classifier's probabilities differ from the trained head's by {difference:.2g}"
            f" (at most {PARITY:g} is accepted); it was not written."
        )
    if thresholds is not None:
        check_labels(ours, thresholds)
    return difference
