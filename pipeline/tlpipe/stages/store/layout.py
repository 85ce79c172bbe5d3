"""What a feature file consists of: its marks, header, datasets, chunks and checksums."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.card import Card
from tlpipe.errors import CardError, FeatureFileError
from tlpipe.precision import read_calibration

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = "tlpipe-features"
FORMAT_VERSION = 2
"""Raise it when a reader of the older version would misread a file; keep reading the older ones,
and add a file of each older version to the tests. Version 1 had no checksums and no groups."""

SET_FORMAT = "tlpipe-feature-set"
SET_VERSION = 1
"""The same of the index of a set of feature files."""

SET_ABOVE = 2_000_000
"""Rows above which the result of a command is a set of files, of so many rows each: at a D of 1,280
a file of 10 GB."""

CHUNK_ROWS = 256
"""Rows per chunk, per write and per checksum. Uncompressed chunks of 64 to 1,024 rows write and
read at the disk's speed; embeddings hardly compress."""

SPAN_ROWS = 32 * CHUNK_ROWS
"""Rows read at once where all are read: 8,192."""

LIBVER = ("v110", "v110")
"""Versions of HDF5's own structures: those of 1.10, which carry checksums, where those of 1.8 and
before do not. A flipped byte in them is found on opening, and not walked into."""

STAT_DTYPE = np.dtype([("size_bytes", "<i8"), ("mtime_ns", "<i8")])

TEXT = np.dtype(object)
"""Stands for UTF-8 text of any length."""


@dataclass(frozen=True)
class Column:
    """A dataset: type and shape of one row, which rows it belongs to, since which version."""

    dtype: np.dtype[Any]
    row: tuple[int, ...] = ()
    of: str = "items"  # items, rejects or classes
    since: int = 1


VECTORS = "embeddings"

COLUMNS = {
    "keys": Column(TEXT),
    "content_sha256": Column(np.dtype("u1"), (32,)),
    "stat": Column(STAT_DTYPE),
    "labels": Column(np.dtype("<i4")),
    "splits": Column(np.dtype("i1")),
    "groups": Column(np.dtype("<i8"), since=2),
    VECTORS: Column(np.dtype("<f4"), (-1,)),  # -1: D
    "classes": Column(TEXT, of="classes"),
    "rejects/key": Column(TEXT, of="rejects"),
    "rejects/stage": Column(TEXT, of="rejects"),
    "rejects/reason": Column(TEXT, of="rejects"),
    "rejects/detail": Column(TEXT, of="rejects"),
    "rejects/stat": Column(STAT_DTYPE, of="rejects"),
}
"""Every dataset of a feature file but the checksums, which stand under ``checksums/`` with the same
names."""

ITEM_COLUMNS = [name for name, column in COLUMNS.items() if column.of == "items"]
REJECT_COLUMNS = [name for name, column in COLUMNS.items() if column.of == "rejects"]

CHECKSUM_DTYPE = np.dtype("<u4")

SPLITS_FROM_SOURCE = "source"


@dataclass(frozen=True)
class FeatureHeader:
    """What a feature file says of itself: its root attributes.

    Attributes
    ----------
    backbone : str
        The card as JSON.
    splits_from : str
        "source", or how ``tlpipe split`` assigned the splits, as JSON.
    calibration, agreement : str
        As JSON (see ``precision``): what int8 was calibrated with, and how a reduced precision
        agrees with FP32; empty, and then not in the file, where there is none.
    """

    tlpipe_version: str
    fingerprint: str
    backbone: str
    provider: str
    precision: str
    decoder: str
    source: str
    created_at: str
    splits_from: str = SPLITS_FROM_SOURCE
    calibration: str = ""
    agreement: str = ""

    def to_attributes(self) -> dict[str, str]:
        """The root attributes, but for the format's marks and the seal."""
        return {n: text for n, text in vars(self).items() if text or n not in OPTIONAL_FIELDS}

    def expected_fingerprint(self, where: str) -> str:
        """The fingerprint that follows from card, precision, decoder and calibration.

        Raises
        ------
        FeatureFileError
            There is no card, or card or calibration make no sense.
        """
        calibration = read_calibration(self.calibration, where)
        network = "" if calibration is None else calibration.network
        return self.card(where).fingerprint(
            precision=self.precision, decoder=self.decoder, network=network
        )

    @property
    def declared(self) -> str | None:
        """What made the vectors, where a user stated that in words; None where a card says it."""
        try:
            table = json.loads(self.backbone)
        except (RecursionError, ValueError):
            return None
        if not isinstance(table, dict) or set(table) != {"declared"}:
            return None
        return str(table["declared"])

    def card(self, where: str) -> Card:
        """Card of the backbone; `where` is what messages call the file.

        Raises
        ------
        FeatureFileError
            The vectors were made elsewhere, or the file is damaged: it holds no card.
        """
        if self.declared is not None:
            raise FeatureFileError(
                f"{where} holds vectors that were made elsewhere, by {self.declared!r}: there is no"
                " backbone to run.",
                hint="Embed the images with tlpipe, or state the backbone that made the vectors:"
                " tlpipe import ... --backbone NAME|FILE.",
            )
        try:
            return Card.from_dict(json.loads(self.backbone), f"The card in {where}")
        except (ArithmeticError, CardError, LookupError, RecursionError, ValueError) as exc:
            text = str(exc)
            short = text if len(text) < 1000 else f"{text[:1000]}..."
            raise FeatureFileError(
                f"{where} is damaged: {short}", hint="Embed the images again."
            ) from exc


def declared_backbone(text: str) -> tuple[str, str]:
    """What a header has as backbone and as fingerprint where a user states what made the vectors.

    Equal texts stand for comparable vectors.
    """
    fingerprint = hashlib.sha256(f"declared:{text}".encode()).hexdigest()
    return json.dumps({"declared": text}, ensure_ascii=False), fingerprint


OPTIONAL_FIELDS = ("calibration", "agreement")
HEADER_FIELDS = [f.name for f in fields(FeatureHeader) if f.name not in OPTIONAL_FIELDS]
HEADER_FIELDS_OF_1 = [name for name in HEADER_FIELDS if name != "splits_from"]


def chunk_bytes(values: NDArray[Any] | Sequence[bytes]) -> Any:
    """Bytes of some rows of a dataset, as checksums take them.

    Numbers little-endian, row after row; of texts the UTF-8 of each, followed by one zero byte.
    """
    if isinstance(values, np.ndarray) and values.dtype != TEXT:
        return np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    return b"".join([text + b"\0" for text in values])


def checksums(values: NDArray[Any] | Sequence[bytes]) -> list[int]:
    """CRC-32 (that of zlib, ISO 3309) of each chunk of rows; `values` starts with a chunk."""
    return [
        zlib.crc32(chunk_bytes(values[start : start + CHUNK_ROWS]))
        for start in range(0, len(values), CHUNK_ROWS)
    ]


def seal(
    attributes: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    tables: Mapping[str, NDArray[np.uint32]],
) -> str:
    """SHA-256 that binds a file's attributes, its datasets' shapes and their checksums together.

    Parameters
    ----------
    attributes : mapping
        All text attributes of the root but the seal itself.
    shapes : mapping
        By dataset.
    tables : mapping
        The checksums of each dataset's chunks, uint32.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    whole = {
        "attributes": dict(attributes),
        "datasets": {
            name: [list(shape), tables[name].astype(CHECKSUM_DTYPE).tobytes().hex()]
            for name, shape in shapes.items()
        },
    }
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
