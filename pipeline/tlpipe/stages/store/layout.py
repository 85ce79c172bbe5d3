"""What a feature file consists of: its marks, header, datasets and chunks."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from tlpipe.card import Card
from tlpipe.errors import CardError, FeatureFileError

FORMAT = "tlpipe-features"
FORMAT_VERSION = 1
"""Raise it when a reader of the older version would misread a file; keep reading the older ones,
and add a file of each older version to the tests."""

CHUNK_ROWS = 256
"""Rows per chunk and per write. Uncompressed chunks of 64 to 1,024 rows write and read at the
disk's speed; embeddings hardly compress."""

LIBVER = ("v110", "v110")
"""Versions of HDF5's own structures: those of 1.10, which carry checksums, where those of 1.8 and
before do not. A flipped byte in them is found on opening, and not walked into."""

REJECT_TEXTS = ("key", "stage", "reason", "detail")
"""Text columns of the group ``rejects``."""

STAT_DTYPE = np.dtype([("size_bytes", "<i8"), ("mtime_ns", "<i8")])


@dataclass(frozen=True)
class FeatureHeader:
    """What a feature file says of itself: its root attributes.

    Attributes
    ----------
    backbone : str
        The card as JSON.
    """

    tlpipe_version: str
    fingerprint: str
    backbone: str
    provider: str
    precision: str
    decoder: str
    source: str
    created_at: str

    def card(self, where: str) -> Card:
        """Card of the backbone; `where` is what messages call the file.

        Raises
        ------
        FeatureFileError
            The file is damaged: it holds no such card.
        """
        try:
            return Card.from_dict(json.loads(self.backbone), f"The card in {where}")
        except (CardError, json.JSONDecodeError) as exc:
            raise FeatureFileError(f"{where} is damaged: {exc}") from exc
