"""Writes a classifier file: backbone and head joined, and held against what they were made from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tlpipe.card import Card
from tlpipe.errors import ExportError
from tlpipe.execution import ON_CPU
from tlpipe.files import whole_file
from tlpipe.graph import EMBEDDINGS, PROBABILITIES
from tlpipe.graph.digest import weights_digest
from tlpipe.graph.head import head_alone, join_head
from tlpipe.graph.io import load_model, write_model
from tlpipe.precision import read_calibration
from tlpipe.stages.classifier import ClassifierInfo
from tlpipe.stages.session import open_graph, open_network
from tlpipe.stages.store import FeatureHeader
from tlpipe.stages.weights import prepared_file, quantised_file
from tlpipe.version import __version__
from tlpipe.workflows.common import TRAIN_AGAIN, now
from tlpipe.workflows.multilabel import check_labels
from tlpipe.workflows.trained import Trained

HEAD_FORMAT = "tlpipe-head"
"""What the file of a head alone calls itself: nobody shall take it for a classifier of images."""

PARITY = 1e-4
"""Largest difference of a probability between the written file (float32) and the head as it was
trained (float64) to accept."""


def export_classifier(
    card: Card, header: FeatureHeader, trained: Trained, output: Path, head_output: Path
) -> float:
    """Write backbone and head as one file, and the head alone as another.

    Parameters
    ----------
    card : Card
        Of the backbone that made the embeddings.
    header : FeatureHeader
        Of the feature file.
    trained : Trained
    output, head_output : pathlib.Path
        Both appear whole, or not at all.

    Returns
    -------
    float
        Largest difference of a probability between the file and the head as it was trained.

    Raises
    ------
    WeightsError
        The backbone's pretrained weights cannot be had.
    ExportError
        The joined file disagrees with the head; nothing is written.
    OutputError
        An output cannot be written.
    """
    calibration = read_calibration(header.calibration, "the feature file")
    if calibration is None:
        prepared = prepared_file(card, open_graph)
    else:  # what is served must be what made the embeddings
        prepared = quantised_file(card, calibration, open_graph)
    network = load_model(prepared)
    layer, knowing = trained.layer, trained.knowing
    info = ClassifierInfo(
        classes=tuple(trained.classes),
        image_size=card.image_size,
        preprocess=card.arithmetic,
        backbone=json.loads(header.backbone),
        training=trained.training,
        metrics=trained.metrics,
        tlpipe_version=__version__,
        created_at=now(),
        fingerprint=header.fingerprint,
        precision=header.precision,
        decoder=header.decoder,
        backbone_digest=weights_digest(network),
        calibration=header.calibration,
        unknown=knowing.unknown,
        sets=knowing.sets,
        kind="single" if layer.thresholds is None else "multi-label",
        thresholds=() if layer.thresholds is None else tuple(layer.thresholds.tolist()),
    )
    about = info.to_metadata()
    parts = (layer, knowing.novelty, knowing.set_threshold)
    with whole_file(output) as temporary, whole_file(head_output) as alone:
        write_model(join_head(network, *parts, about), temporary)
        by_itself = head_alone(*parts, about | {"format": HEAD_FORMAT})
        write_model(by_itself, alone)
        return _check_parity(temporary, prepared, trained, by_itself.SerializeToString())


def _check_parity(classifier: Path, prepared: Path, trained: Trained, alone: bytes) -> float:
    """Compare the joined file with the backbone and the head alone, and with what was trained.

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
    backbone = open_network(prepared, ON_CPU).run(noise)
    if not np.allclose(ours[EMBEDDINGS], backbone[EMBEDDINGS], rtol=1e-5, atol=1e-5):
        raise ExportError(
            "The classifier's embeddings are not those of the backbone alone; it was not written.",
            hint=TRAIN_AGAIN,
        )
    trained.knowing.check(ours)
    (head_says,) = open_graph(alone, "")({EMBEDDINGS: ours[EMBEDDINGS]}, [PROBABILITIES])
    least, greatest = trained.head.bounds(ours[EMBEDDINGS])
    difference = max(
        float(np.maximum(least - said, said - greatest).max())
        for said in (ours[PROBABILITIES], head_says)
    )
    difference = max(difference, 0.0)
    if not difference <= PARITY:
        raise ExportError(
            f"The classifier's probabilities differ from the trained head's by {difference:.2g}"
            f" (at most {PARITY:g} is accepted); it was not written.",
            hint=TRAIN_AGAIN,
        )
    if trained.layer.thresholds is not None:
        check_labels(ours, trained.layer.thresholds)
    return difference
