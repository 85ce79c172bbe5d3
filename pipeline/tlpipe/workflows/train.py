"""train: embed and train-head in one, keeping the features beside the classifier."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tlpipe.card import Card
from tlpipe.errors import StaleFeaturesError, TrainingDataError
from tlpipe.files import check_output
from tlpipe.label_cells import names_in
from tlpipe.stages.source import Source
from tlpipe.stages.weights import weight_files
from tlpipe.types import DEFAULT_BACKBONE, ProgressCallback
from tlpipe.workflows.backbones import find_backbone
from tlpipe.workflows.common import Surveyed, as_source, opened
from tlpipe.workflows.embed import embed
from tlpipe.workflows.embed_result import EmbedResult
from tlpipe.workflows.run_options import RunOptions
from tlpipe.workflows.train_head import TrainResult, check_classifier_output, train_head
from tlpipe.workflows.train_options import TrainOptions


@dataclass(frozen=True)
class TrainRun:
    """What ``train`` did, step by step."""

    embedded: EmbedResult
    trained: TrainResult


def features_path(classifier: Path) -> Path:
    """Where the features of a classifier are kept: beside it, as ``<stem>.features.h5``."""
    return classifier.with_suffix(".features.h5")


def train(
    source: Source | str | Path,
    output: str | Path,
    *,
    backbone: str | Card = DEFAULT_BACKBONE,
    options: RunOptions | None = None,
    head: TrainOptions | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
    surveyed: Surveyed | None = None,
) -> TrainRun:
    """Embed a source's images and train a classifier on them.

    The feature file is kept beside the classifier, so that ``train_head`` can be run again without
    the backbone. Where one is there already, or a run was cut short, it is updated as by ``embed``;
    one of another backbone is replaced if `overwrite` says so.

    Parameters
    ----------
    source, backbone, options, overwrite, progress, surveyed
        As for ``embed``.
    output : str or pathlib.Path
        The classifier to write; ``<stem>.features.h5``, ``<stem>.metrics.json`` and
        ``<stem>.head.onnx`` are written beside it.
    head : TrainOptions, optional
        How the head is trained.

    Raises
    ------
    TrainingDataError
        The source has fewer than two classes; nothing is embedded.
    TlpipeError
        As from ``embed`` and ``train_head``.
    """
    head = head or TrainOptions()
    output = Path(output)
    features = features_path(output)
    card = find_backbone(backbone)
    source = opened(source)
    inputs = [*source.paths, *weight_files(card)]
    check_classifier_output(output, overwrite=overwrite, inputs=inputs)
    check_output(features, overwrite=True, inputs=inputs)
    source = as_source(source, surveyed)
    check_labels(source, head)
    try:
        embedded = embed(source, features, backbone=card, options=options, progress=progress)
    except StaleFeaturesError:
        if not overwrite:
            raise
        embedded = embed(
            source, features, backbone=card, options=options, overwrite=True, progress=progress
        )
    try:
        trained = train_head(
            features,
            output,
            options=head,
            overwrite=overwrite,
            progress=progress,
        )
    except (KeyboardInterrupt, SystemExit) as exc:  # a signal
        exc.add_note(f"All embeddings are kept in {str(features)!r}; the same command uses them.")
        raise
    return TrainRun(embedded, trained)


def check_labels(source: Source, head: TrainOptions) -> None:
    """Refuse a source that cannot be learned from before its images are embedded.

    Raises
    ------
    TrainingDataError
    """
    if head.separator is None:
        _check_classes(source)
    else:
        _check_label_sets(source, head.separator)


def _check_classes(source: Source) -> None:
    """Refuse fewer than two classes."""
    classes = source.survey.classes
    if len(classes) < 2:
        found = f"only the class {classes[0]!r}" if classes else "no labels"
        raise TrainingDataError(
            f"The source {source.name!r} has {found}; a classifier needs two classes or more.",
            hint="Sort the images into one folder per class, or list them in a CSV with a label"
            " column.",
        )


def _check_label_sets(source: Source, separator: str) -> None:
    """The same, where an image may have several labels."""
    cells = source.survey.classes
    if not any(names_in(cell, separator) for cell in cells):
        found = f"the labels {cells[:10]}, which name nothing" if cells else "no labels"
        raise TrainingDataError(
            f"The source {source.name!r} has {found}.",
            hint="List the images in a CSV with a label column, the labels of an image joined by"
            f" {separator!r}.",
        )
