"""Classifier: what a ``classifier.onnx`` says of itself, in its metadata properties.

Takes and gives a flat mapping of str to str, the only form of metadata that ONNX has; values that
are more than text are JSON. ``docs/reference/classifier-file.md`` specifies them. Imports
``catalogue``, ``errors``, ``files``, ``records`` and ``types`` only: reading a classifier does not
need ``onnx``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_type_hints

from tlpipe.card import Card
from tlpipe.errors import ClassifierError
from tlpipe.files import is_utf8
from tlpipe.last_layer import SetsFacts, UnknownFacts
from tlpipe.precision import Calibration, read_calibration
from tlpipe.records import RecordError, build
from tlpipe.types import Preprocess

FORMAT = "tlpipe-classifier"
FORMAT_VERSION = 1
"""Raise it when a reader of the older version would misread a file; keep reading the older ones,
and add a file of each older version to the tests."""

_MARKS = ("format", "format_version")
_OPTIONAL: dict[str, Any] = {
    "calibration": "",
    "unknown": None,
    "sets": None,
    "kind": "single",
    "thresholds": (),
}

Kind = Literal["single", "multi-label"]


@dataclass(frozen=True)
class ClassifierInfo:
    """Metadata of a classifier.

    Attributes
    ----------
    classes : tuple of K str
        In the order of the outputs.
    image_size : tuple of 2 int
        Height and width in pixels.
    preprocess : Preprocess
        The geometry before the graph, the arithmetic in it.
    backbone : dict
        The backbone's card.
    training : dict
        What the head was trained on, and with which settings.
    metrics : dict
        What held-out data said.
    tlpipe_version, created_at : str
    fingerprint, precision, decoder : str
        Of the embeddings it was trained on.
    backbone_digest : str
        SHA-256 over the backbone's tensors.
    calibration : str
        What the backbone was quantised with, as JSON (see ``precision``); "" where it is FP32.
    unknown : UnknownFacts or None
        Of the outputs ``unknown_score`` and ``unknown``; None where the graph has none.
    sets : SetsFacts or None
        Of the output ``prediction_set``; None where the graph has none.
    kind : {"single", "multi-label"}
        Whether an image is of one class, or has any number of labels.
    thresholds : tuple of K float
        From which probability on an image is given a label; empty for "single".
    """

    classes: tuple[str, ...]
    image_size: tuple[int, int]
    preprocess: Preprocess
    backbone: dict[str, Any]
    training: dict[str, Any]
    metrics: dict[str, Any]
    tlpipe_version: str
    created_at: str
    fingerprint: str
    precision: str
    decoder: str
    backbone_digest: str
    calibration: str = ""
    unknown: UnknownFacts | None = None
    sets: SetsFacts | None = None
    kind: Kind = "single"
    thresholds: tuple[float, ...] = ()

    @property
    def multilabel(self) -> bool:
        """Whether an image may have several labels."""
        return self.kind == "multi-label"

    @property
    def quantised(self) -> Calibration | None:
        """What the backbone was quantised with.

        Raises
        ------
        FeatureFileError
            It is damaged.
        """
        return read_calibration(self.calibration, "the classifier")

    def card(self) -> Card:
        """Card of the backbone."""
        return Card.from_dict(self.backbone, "The classifier's card")

    def fits(self, card: Card) -> bool:
        """Whether preprocessing and fingerprint are those of `card`."""
        network = self.quantised.network if self.quantised else ""
        expected = card.fingerprint(precision=self.precision, decoder=self.decoder, network=network)
        return (self.image_size, self.preprocess, self.fingerprint) == (
            card.image_size,
            card.arithmetic,
            expected,
        )

    def to_metadata(self) -> dict[str, str]:
        """Flat text, for the file."""
        flat = {"format": FORMAT, "format_version": str(FORMAT_VERSION)}
        for name, value in asdict(self).items():
            if name in _OPTIONAL and value == _OPTIONAL[name]:
                continue
            text = json.dumps(value, ensure_ascii=False, sort_keys=True)
            if not is_utf8(text):  # the path of a network may be any bytes, metadata must be UTF-8
                text = json.dumps(value, sort_keys=True)
            flat[name] = value if isinstance(value, str) else text
        return flat


def read_metadata(flat: Mapping[str, str], where: str) -> ClassifierInfo:
    """Metadata of a classifier, checked.

    Parameters
    ----------
    flat : mapping of str to str
        The file's metadata properties.
    where : str
        What messages call the file.

    Raises
    ------
    ClassifierError
        The file is no classifier of tlpipe, is of a newer version, or is damaged.
    """
    if flat.get("format") != FORMAT:
        raise ClassifierError(
            f"{where} is an ONNX file, but no classifier of tlpipe.",
            hint="A classifier is what 'tlpipe train' or 'tlpipe train-head' writes.",
        )
    version = flat.get("format_version", "")
    if not version.isdecimal() or len(version) > 9 or int(version) > FORMAT_VERSION:
        raise ClassifierError(
            f"{where} has the format version {version!r}; this tlpipe reads up to"
            f" {FORMAT_VERSION}.",
            hint="Update tlpipe.",
        )
    hints = get_type_hints(ClassifierInfo)
    try:
        table = {
            name: text if hints.get(name) in (str, Kind) else json.loads(text)
            for name, text in flat.items()
            if name not in _MARKS
        }
        info = build(ClassifierInfo, _OPTIONAL | table, f"The metadata of {where}")
        least = 1 if info.multilabel else 2
        if len(info.classes) < least or len(set(info.classes)) < len(info.classes):
            raise RecordError(f"The classes of {where} are {list(info.classes)}.")
        if len(info.thresholds) != (len(info.classes) if info.multilabel else 0):
            raise RecordError(
                f"{where} is {info.kind!r}, with {len(info.thresholds)} thresholds for"
                f" {len(info.classes)} classes."
            )
        if not info.fits(info.card()):
            raise RecordError(f"The preprocessing or fingerprint of {where} is not its card's.")
    except (RecursionError, ValueError) as exc:  # CardError and RecordError are ValueErrors
        raise ClassifierError(
            f"{where} is damaged. {exc}",
            hint="Copy it from where it is whole, or train the head anew.",
        ) from exc
    return info
