"""inspect: says what any file of tlpipe's holds."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlpipe.catalogue import read_card
from tlpipe.errors import UnknownFileError
from tlpipe.files import is_file, sha256_file
from tlpipe.label_cells import parted
from tlpipe.near import no_file
from tlpipe.precision import Calibration, read_agreement, read_calibration
from tlpipe.stages.report import FORMAT
from tlpipe.types import Split
from tlpipe.workflows.jobs.record import FORMAT as RUN_FORMAT

if TYPE_CHECKING:
    from tlpipe.stages.store import FeatureHeader

_ANOTHER = "Name a feature file, a classifier, predictions, a report or a run record."


@dataclass(frozen=True)
class Inspection:
    """What a file holds.

    Attributes
    ----------
    kind : str
        In words.
    facts : dict
        Plain values, by name.
    """

    kind: str
    facts: dict[str, Any]


def inspect(path: str | Path) -> Inspection:
    """Describe a feature file, classifier, card, predictions, report or any other ONNX file.

    Raises
    ------
    UnknownFileError
        The file is missing or is none of these.
    FeatureFileError, ClassifierError, CardError, BackboneError
        It is one, but it is damaged.
    """
    path = Path(path)
    if not is_file(path):
        message, hint = no_file(path, "The file")
        raise UnknownFileError(message, hint=hint)
    suffix = path.suffix.lower()
    if is_hdf5(path):
        return _features(path)
    known = {
        ".onnx": _onnx,
        ".toml": _card,
        ".csv": _predictions,
        ".jsonl": _predictions,
        ".json": _report,
    }
    if suffix not in known:
        raise UnknownFileError(
            f"{str(path)!r} is no file that tlpipe knows.",
            hint="It knows feature files (.h5), classifiers and networks (.onnx), cards (.toml),"
            " predictions (.csv, .jsonl), reports (.metrics.json) and records (.run.json).",
        )
    return known[suffix](path)


def is_hdf5(path: Path) -> bool:
    """Whether a file's first bytes are those of an HDF5 file."""
    if not is_file(path):
        return False
    with path.open("rb") as stream:
        return stream.read(8) == b"\x89HDF\r\n\x1a\n"


def _features(path: Path) -> Inspection:
    from tlpipe.stages.store import inspect_features

    info = inspect_features(path)
    declared = info.header.declared
    if declared is None:
        backbone = info.header.card(repr(str(path))).name
    else:
        backbone = f"declared {declared!r}"
    by_class: dict[str, dict[str, int]] = {}
    for (split, label), count in sorted(info.labels.items(), key=_by_split):
        name = "(no label)" if label is None else label
        part = "no split" if split == Split.NONE else Split(split).name.lower()
        by_class.setdefault(name, {})[part] = count
    return Inspection(
        "feature file",
        {
            "embeddings": info.shape[0],
            "dim": info.shape[1],
            "format_version": info.version,
            **({"part_files": info.files} if info.files > 1 else {}),
            "backbone": backbone,
            "fingerprint": info.header.fingerprint,
            "precision": info.header.precision,
            **_reduced(info.header, repr(str(path))),
            "decoder": info.header.decoder,
            "provider": info.header.provider,
            "source": info.header.source,
            "created_at": info.header.created_at,
            "tlpipe_version": info.header.tlpipe_version,
            "rejects": dict(info.rejects),
            "classes": by_class,
        },
    )


def _reduced(header: FeatureHeader, where: str) -> dict[str, Any]:
    """What a file says of its reduced precision; nothing where it is FP32."""
    facts: dict[str, Any] = {}
    agreement = read_agreement(header.agreement, where)
    calibration = read_calibration(header.calibration, where)
    if agreement is not None:
        facts["agreement"] = asdict(agreement)
    if calibration is not None:
        facts["calibration"] = _calibration(calibration)
    return facts


def _calibration(calibration: Calibration) -> dict[str, Any]:
    return {
        "method": calibration.method,
        "images": calibration.images,
        "tensors": len(calibration.ranges),
        "network": calibration.network,
    }


def _by_split(pair: tuple[tuple[int, str | None], int]) -> tuple[int, str]:
    split, label = pair[0]
    return split, label or ""


def _onnx(path: Path) -> Inspection:
    from tlpipe.graph.digest import combined, tensor_digests
    from tlpipe.graph.io import load_model, metadata, signature
    from tlpipe.stages.classifier import FORMAT as CLASSIFIER
    from tlpipe.stages.classifier import read_metadata

    model = load_model(path)
    flat = metadata(model)
    digests = tensor_digests(model)
    facts: dict[str, Any] = {
        **signature(model),
        "backbone_tensors": len(digests),
        "backbone_digest": combined(digests),
    }
    if flat.get("format") != CLASSIFIER:
        file = {"sha256": sha256_file(path), "size_bytes": path.stat().st_size}
        return Inspection("ONNX network", facts | file)
    info = read_metadata(flat, repr(str(path)))
    return Inspection(
        "classifier",
        {
            "kind": info.kind,
            "classes": list(info.classes),
            **({"thresholds": list(info.thresholds)} if info.multilabel else {}),
            "backbone": info.card().name,
            "fingerprint": info.fingerprint,
            "precision": info.precision,
            "decoder": info.decoder,
            **({"calibration": _calibration(info.quantised)} if info.quantised else {}),
            **facts,
            "unknown": asdict(info.unknown) if info.unknown else None,
            "sets": asdict(info.sets) if info.sets else None,
            "image_size": list(info.image_size),
            "preprocess": info.preprocess.to_dict(),
            "training": {k: v for k, v in info.training.items() if k != "trials"},
            "metrics": {
                k: v
                for k, v in info.metrics.items()
                if k not in ("per_class", "confusion", "confused", "learning_curve")
            },
            "created_at": info.created_at,
            "tlpipe_version": info.tlpipe_version,
        },
    )


def _card(path: Path) -> Inspection:
    return Inspection("backbone card", json.loads(read_card(path).to_json()))


def _predictions(path: Path) -> Inspection:
    statuses: Counter[str] = Counter()
    classes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    try:
        for row in _rows(path):
            statuses[row["status"]] += 1
            if row["status"] == "ok":
                labels = row.get("labels")  # where an image may have several: a list, or its text
                if labels is None:
                    classes[row["class"]] += 1
                else:
                    classes.update(parted(labels) if isinstance(labels, str) else labels)
            else:
                reasons[row["reason"]] += 1
    except (KeyError, RecursionError, TypeError, ValueError, csv.Error) as exc:
        raise UnknownFileError(
            f"{str(path)!r} holds no predictions: {exc!r}.",
            hint="Predictions are what 'tlpipe classify' writes.",
        ) from exc
    if path.suffix.lower() == ".jsonl" and not statuses:
        raise UnknownFileError(
            f"{str(path)!r} is empty.",
            hint=_ANOTHER,
        )
    return Inspection(
        "predictions",
        {
            "rows": statuses.total(),
            "classes": dict(classes.most_common()),
            "rejects": dict(reasons.most_common()),
        },
    )


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as stream:
        if path.suffix.lower() == ".csv":
            rows = csv.DictReader(stream)
            names = set(rows.fieldnames or ())
            if not {"key", "status", "reason"} < names or names.isdisjoint({"class", "labels"}):
                raise ValueError(f"its first line is {rows.fieldnames}")
            yield from rows
        else:
            for line in stream:
                yield json.loads(line)


def _report(path: Path) -> Inspection:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (RecursionError, ValueError) as exc:
        raise UnknownFileError(
            f"{str(path)!r} is no JSON text: {exc}.",
            hint=_ANOTHER,
        ) from exc
    kind = _REPORTS.get(str(report.get("format"))) if isinstance(report, dict) else None
    if kind is None:
        raise UnknownFileError(
            f"{str(path)!r} is no report of tlpipe's.",
            hint=_ANOTHER,
        )
    facts = {k: v for k, v in report.items() if k not in ("format", "format_version")}
    return Inspection(kind, facts)


_REPORTS = {FORMAT: "report of a classifier", RUN_FORMAT: "record of a run"}
