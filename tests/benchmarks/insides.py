"""All that the benchmarks with peers know of tlpipe's insides, in one place.

Gives what the limit is measured with (the loader of images, the network), the network in the form
that peers take, vectors as stored, and what ``train-head`` does with which row. The rest of these
benchmarks uses the command line and the public API; but for the head's solver by itself, which
``peers/tlpipe_head.py`` calls.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.utils

from tlpipe.catalogue import find_card
from tlpipe.execution import Execution, parsed_arithmetic
from tlpipe.machine import usable_cores
from tlpipe.precision import read_calibration
from tlpipe.seams import OpenedNetwork
from tlpipe.stages.session import open_graph, open_network
from tlpipe.stages.source import FileReader, open_source
from tlpipe.stages.splits import Plan, plan_splits
from tlpipe.stages.store import FeatureFile, Features, read_features
from tlpipe.stages.weights import full_network, prepared_file, quantised_file
from tlpipe.types import DEFAULT_BACKBONE, DEFAULT_SEED, Item, Reject
from tlpipe.workflows.pixels import loader

__all__ = [
    "Planned",
    "items",
    "loader_and_network",
    "peer_network",
    "planned",
    "stored",
    "usable_cores",
]


def items(source: Path) -> list[Item]:
    """What is in a source, in order."""
    return list(open_source(source).items())


Load = Callable[[Item], np.ndarray | None]
"""Pixels of an item, uint8 (H, W, 3), or None where it is rejected."""


def loader_and_network(features: Path) -> tuple[Load, OpenedNetwork]:
    """What the images of a feature file were read with, and what ran over them, on the CPU."""
    with FeatureFile(features) as file:
        header = file.header
    where = str(features)
    card = header.card(where)
    precision, runtime = parsed_arithmetic(header.precision) or ("fp32", "auto")
    calibration = read_calibration(header.calibration, where)
    if calibration is None:
        path = prepared_file(card, open_graph)
    else:
        path = quantised_file(card, calibration, open_graph)
    # In one thread, which is all that the limit is measured with.
    execution = Execution(device="cpu", precision=precision, runtime=runtime, threads=1)
    loads = loader(FileReader(), card.image_size, card.arithmetic, header.decoder)

    def load(item: Item) -> np.ndarray | None:
        fetched = loads.fetch(item)
        if isinstance(fetched, Reject):
            return None
        found = loads.prepare(item, *fetched)
        return found if isinstance(found, np.ndarray) else None

    return load, open_network(path, execution)


def peer_network(folder: Path) -> Path:
    """Write the default backbone as peers take it, with what fastembed reads beside it.

    ``model.onnx``: float32 (N, 3, 224, 224), RGB, (x - 127) / 128, in; features (N, 1280) out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    card = find_card(DEFAULT_BACKBONE)
    full, path = folder / "full.onnx", folder / "model.onnx"
    onnx.save(full_network(card), full)
    onnx.utils.extract_model(full, path, [card.input.tensor], list(card.output.tensors))
    full.unlink()
    recipe = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": 256},
        "resample": 3,  # Pillow's number of bicubic
        "do_center_crop": True,
        "crop_size": 224,
        "do_rescale": False,
        "do_normalize": True,
        "image_mean": list(card.arithmetic.mean),
        "image_std": list(card.arithmetic.std),
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(recipe))
    return folder


def stored(features: Path) -> tuple[list[str], np.ndarray]:
    """Keys and vectors, (N, D) float32, of a feature file."""
    with FeatureFile(features) as file:
        rows = file.rows(0, file.count, vectors=True)
    assert rows.vectors is not None
    return rows.keys, rows.vectors


@dataclass(frozen=True)
class Planned:
    """A feature file, and what ``train-head`` does with its rows by default."""

    data: Features
    plan: Plan


def planned(features: Path, seed: int = DEFAULT_SEED) -> Planned:
    """Read a feature file, and plan as ``train-head`` does."""
    data = read_features(features)
    plan = plan_splits(
        data.labels, data.splits, data.content_sha256, data.classes, seed, data.groups
    )
    return Planned(data, plan)
