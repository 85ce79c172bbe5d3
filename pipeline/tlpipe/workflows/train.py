"""train: embed and train-head in one, keeping the features beside the classifier."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tlpipe.catalogue import Card
from tlpipe.files import check_output
from tlpipe.stages.source import Source
from tlpipe.types import DEFAULT_BACKBONE, DEFAULT_SEED, ProgressCallback
from tlpipe.workflows.common import RunOptions
from tlpipe.workflows.embed import EmbedResult, embed
from tlpipe.workflows.train_head import TrainResult, metrics_path, train_head


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
    seed: int = DEFAULT_SEED,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> TrainRun:
    """Embed a source's images and train a classifier on them.

    The feature file is kept beside the classifier, so that ``train_head`` can be run again without
    the backbone. Should training be refused (too few images of a class, say), it is there already.

    Parameters
    ----------
    source, backbone, options, overwrite, progress
        As for ``embed``.
    output : str or pathlib.Path
        The classifier to write; ``<stem>.features.h5`` and ``<stem>.metrics.json`` are written
        beside it.
    seed : int
        As for ``train_head``.

    Raises
    ------
    TlpipeError
        As from ``embed`` and ``train_head``.
    """
    output = Path(output)
    features = features_path(output)
    for path in (output, metrics_path(output), features):
        check_output(path, overwrite=overwrite)
    embedded = embed(
        source,
        features,
        backbone=backbone,
        options=options,
        overwrite=overwrite,
        progress=progress,
    )
    trained = train_head(features, output, seed=seed, overwrite=overwrite, progress=progress)
    return TrainRun(embedded, trained)
