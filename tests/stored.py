"""What a feature file holds, to be compared; and a network that stands in for the backbone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tlpipe.card import Card
from tlpipe.execution import Execution
from tlpipe.stages.engine import Fetched
from tlpipe.stages.predictions import Columns, Form, PredictionSummary, prediction_writer
from tlpipe.stages.source import FileReader
from tlpipe.stages.store import FeatureFile
from tlpipe.types import DecodeMode, Item, Outcome
from tlpipe.workflows import embed as workflow
from tlpipe.workflows import precision
from tlpipe.workflows.pixels import decoder_of, fetching, loader

DIM = 8


class FakeNetwork:
    """Gives a vector that is a function of the pixels alone, and counts the images it saw."""

    provider = "CPUExecutionProvider"
    batch_sizes: tuple[int, ...] = (4,)
    lanes = 0

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def run(self, images: Any) -> dict[str, Any]:
        digests = [hashlib.sha256(image.tobytes()).digest() for image in images]
        self.seen += digests
        return {"embeddings": np.stack([vector_of(digest) for digest in digests])}


def vector_of(digest: bytes) -> Any:
    """The fake vector of pixels with a SHA-256."""
    return np.frombuffer(digest[:DIM], np.uint8).astype(np.float32)


def read_file(path: Path) -> Fetched:
    """Content of a file, as the engine is given it."""
    return fetching(FileReader())(Item(path.name, str(path)))


def pixels_of_item(card: Card, item: Item, mode: DecodeMode = "auto") -> Any:
    """Pixels of an item as a backbone gets them."""
    load = loader(FileReader(), card.image_size, card.arithmetic, decoder_of(mode))
    fetched = load.fetch(item)
    assert isinstance(fetched, tuple)
    found = load.prepare(item, *fetched)
    assert isinstance(found, np.ndarray)
    return found


def use_network(patch: pytest.MonkeyPatch, network: Any) -> Any:
    """Have ``embed`` run `network` in place of the backbone."""
    patch.setattr(precision, "prepared_file", lambda card, open_graph: Path("none"))

    def open_network(path: Path, execution: Execution) -> Any:
        if execution.batch_size is not None:
            network.batch_sizes = (execution.batch_size,)
        return network

    patch.setattr(workflow, "open_network", open_network)
    return network


def datasets(path: Path) -> dict[str, bytes]:
    """Bytes of every dataset and attribute of a feature file, all chunks checked; {} for none."""
    if not path.exists():
        return {}
    with FeatureFile(path) as file:
        file.rows(0, file.count, vectors=True)
        file.rejects()
    found: dict[str, bytes] = {}

    def take(name: str, node: object) -> None:
        if isinstance(node, h5py.Dataset):
            values = node[:]
            if values.dtype == object:
                found[name] = b"\0".join(values.tolist())
            else:
                found[name] = f"{values.dtype} {values.shape} ".encode() + values.tobytes()

    with h5py.File(path, locking=False) as file:
        file.visititems(take)
        for name, value in file.attrs.items():
            if name not in ("created_at", "seal"):
                found[f"@{name}"] = str(value).encode()
    return found


def digests(path: Path) -> set[bytes]:
    """Contents that a whole feature file holds."""
    with FeatureFile(path) as file:
        rows = file.rows(0, file.count, vectors=True)
    return {row.tobytes() for row in rows.content_sha256}


def write_predictions(
    path: Path,
    classes: Sequence[str],
    columns: Columns,
    outcomes: Iterable[Outcome],
    *,
    multilabel: bool = False,
) -> PredictionSummary:
    """Write what outcomes say."""
    form = Form(tuple(classes), columns, multilabel)
    with prediction_writer(path, form) as writer:
        for outcome in outcomes:
            writer.add(form.row(outcome), columns.kept(outcome.item))
    return writer.summary
