"""What a feature file consists of: its marks, header, datasets and chunks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
