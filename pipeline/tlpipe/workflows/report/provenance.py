"""What was made of what: sections of names and values; what was left out, and why."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.errors import CardError, FeatureFileError
from tlpipe.stages.store import FeatureHeader, Features, read_rejects
from tlpipe.types import Reason, Split
from tlpipe.version import __version__
from tlpipe.workflows.report.judgement import Judgement

if TYPE_CHECKING:
    from tlpipe.workflows.report.by_classifier import Given

    Section = tuple[str, list[tuple[str, str]]]

_MOST_CLASSES = 30
_SETTINGS = (
    ("head", "head"),
    ("method", "method"),
    ("scaling", "embeddings scaled"),
    ("C", "C (1 / regularisation)"),
    ("temperature", "temperature"),
    ("class_weight", "class weights"),
    ("k", "nearest images"),
    ("label_separator", "labels joined by"),
    ("chosen_on", "settings chosen on"),
    ("judged_on", "judged on"),
    ("count", "images that trained it"),
    ("seed", "seed"),
    ("features_created_at", "features made at"),
)


def rejects_of(path: Path) -> list[tuple[str, int, str]]:
    """Reason, number of images and meaning, the most frequent first.

    Raises
    ------
    FeatureFileError, DamagedFileError
    """
    counts = Counter(reason for _, _, reason, _ in read_rejects(path))
    return [(reason, count, Reason(reason).meaning) for reason, count in counts.most_common()]


def provenance_of(
    path: Path, data: Features, judgement: Judgement, given: Given | None
) -> list[Section]:
    """All sections."""
    header = data.header
    sections = [
        ("Backbone", _backbone(header, path)),
        (
            "Embeddings",
            [
                ("file", path.name),
                ("source", header.source),
                ("images", f"{len(data.keys):,}"),
                ("numbers per image", f"{data.vectors.shape[1]:,}"),
                ("fingerprint", header.fingerprint),
                ("precision", header.precision),
                ("decoder", header.decoder),
                ("made on", header.provider),
                ("made at", header.created_at),
                ("splits from", "the source" if header.splits_from == "source" else "tlpipe split"),
            ],
        ),
        ("Images", _counts(data, judgement)),
    ]
    if given is not None:
        sections.append(("Classifier", _classifier(given)))
    versions = [("of the embeddings", header.tlpipe_version)]
    if given is not None:
        versions.append(("of the classifier", given.info.tlpipe_version))
    return [*sections, ("Versions of tlpipe", [*versions, ("of this report", __version__)])]


def _backbone(header: FeatureHeader, path: Path) -> list[tuple[str, str]]:
    if header.declared is not None:
        return [("declared as", header.declared)]
    try:
        card = header.card(repr(str(path)))
    except (CardError, FeatureFileError) as exc:
        return [("unknown", exc.args[0])]
    return [
        ("name", card.name),
        ("licence", card.licence),
        ("origin", card.origin),
        ("weights, SHA-256", card.weights.sha256),
        ("tensors, SHA-256", card.weights.digest),
    ]


def _counts(data: Features, judgement: Judgement) -> list[tuple[str, str]]:
    found = [
        (
            split.name.lower() if split != Split.NONE else "no split",
            int((data.splits == split).sum()),
        )
        for split in Split
    ]
    rows = [(f"split: {name}", f"{count:,}") for name, count in found if count]
    labels = judgement.labels
    has = labels.any(axis=1) if judgement.multilabel else labels >= 0
    per_class = labels.sum(axis=0) if judgement.multilabel else np.bincount(labels[has])
    named = zip(judgement.classes, per_class.tolist(), strict=False)
    rows += [(f"class: {name}", f"{count:,}") for name, count in list(named)[:_MOST_CLASSES]]
    if len(judgement.classes) > _MOST_CLASSES:
        rows.append(("further classes", f"{len(judgement.classes) - _MOST_CLASSES:,}"))
    return [
        *rows,
        ("without a label", f"{int((~has).sum()):,}"),
        ("that train", f"{int(judgement.trains.sum()):,}"),
        ("that judge", f"{int(judgement.judged.sum()):,}"),
    ]


def _classifier(given: Given) -> list[tuple[str, str]]:
    info = given.info
    rows = [
        ("file", given.path.name),
        ("SHA-256", given.sha256),
        ("made at", info.created_at),
        ("backbone's tensors, SHA-256", info.backbone_digest),
    ]
    return rows + [
        (said, _said(info.training[name])) for name, said in _SETTINGS if name in info.training
    ]


def _said(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
