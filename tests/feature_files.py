"""Feature files to damage: small, of every dataset, written as tlpipe writes them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from tlpipe.card import Card
from tlpipe.stages.store import FeatureHeader, Rows, feature_writer
from tlpipe.stages.store.rows import stats_of
from tlpipe.types import FileStat, Reason, Reject, Stage

DIM = 8


def header_of(card: Card) -> FeatureHeader:
    return FeatureHeader(
        tlpipe_version="1",
        fingerprint=card.fingerprint(precision="fp32", decoder="pillow-exact-1"),
        backbone=card.to_json(),
        provider="CPUExecutionProvider",
        precision="fp32",
        decoder="pillow-exact-1",
        source="photos",
        created_at="2026-01-02T03:04:05+00:00",
    )


def some_rows(first: int, count: int, dim: int = DIM) -> Rows:
    keys = [f"class/{first + i:06d}.png" for i in range(count)]
    digests = b"".join(hashlib.sha256(key.encode()).digest() for key in keys)
    return Rows(
        keys=keys,
        content_sha256=np.frombuffer(digests, np.uint8).reshape(count, 32),
        stat=stats_of([(first + i, 10**18 + i) for i in range(count)]),
        labels=[("ants", "bees", None)[(first + i) % 3] for i in range(count)],
        splits=np.array([(first + i) % 4 - 1 for i in range(count)], np.int8),
        groups=np.arange(first, first + count, dtype=np.int64) // 2,
        vectors=np.random.default_rng(first).normal(size=(count, dim)).astype(np.float32),
    )


def write_features(path: Path, card: Card, count: int, *, rejects: int = 5) -> Path:
    """A whole feature file."""
    with feature_writer(path, header_of(card), DIM) as writer:
        for start in range(0, count, 100):
            writer.add(some_rows(start, min(100, count - start)))
        for number in range(rejects):
            stat = FileStat(number, 10**18)
            writer.reject(f"bad/{number}.png", Reject(Stage.DECODE, Reason.EMPTY, "empty", stat))
    return path
