"""A tiny backbone, small labelled images, and a cache that is the tests' own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import error_recorder
from browser import browser as browser
from tlpipe.card import Card
from tlpipe.catalogue import read_card
from tlpipe.files import CACHE_VARIABLE, CARDS_VARIABLE, sha256_file
from tlpipe.graph.digest import weights_digest
from tlpipe.stages.store import FeatureFile, feature_writer

error_recorder.record_if_asked()  # in a worker of pytest-xdist, before any test is collected


def pytest_addoption(parser: pytest.Parser) -> None:
    error_recorder.add_option(parser)


def pytest_configure(config: pytest.Config) -> None:
    error_recorder.configure(config)


def pytest_sessionfinish(session: pytest.Session) -> None:
    error_recorder.finish(session)


TINY_SIZE = 16
TINY_DIM = 8
TINY_CLASSES = 5

_COLOURS = {"red": (200, 40, 40), "green": (40, 180, 60), "blue": (50, 60, 210)}


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    cards = tmp_path_factory.mktemp("cards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(folder))
        patch.setenv(CARDS_VARIABLE, str(cards))
        yield folder


def tiny_network() -> onnx.ModelProto:
    """Conv, Relu, pool, flatten (``features``), Gemm (``logits``), with random weights."""
    rng = np.random.default_rng(7)
    weights = {
        "conv.weight": rng.normal(size=(TINY_DIM, 3, 4, 4)) / 4,
        "conv.bias": rng.normal(size=TINY_DIM),
        "fc.weight": rng.normal(size=(TINY_CLASSES, TINY_DIM)),
        "fc.bias": rng.normal(size=TINY_CLASSES),
    }
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["a"], strides=[4, 4]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["features"]),
        helper.make_node("Gemm", ["features", "fc.weight", "fc.bias"], ["logits"], transB=1),
    ]
    size = TINY_SIZE
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", TINY_CLASSES])],
        [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    onnx.checker.check_model(model)
    return model


def card_text(network: Path, **changes: str) -> str:
    """TOML of a card for a tiny network; `changes` replace the values of single keys."""
    values = {
        "name": '"tiny.test"',
        "sha256": f'"{sha256_file(network)}"',
        "size_bytes": str(network.stat().st_size),
        "digest": f'"{weights_digest(onnx.load(network))}"',
        "colour": '"rgb"',
        "resize": '"exact"',
        "crop": '"none"',
        "crop_fraction": "0.0",
        "std": "[64.0, 65.0, 66.0]",
        "output_tensor": '"features"',
        "dim": str(TINY_DIM),
    } | changes
    return f"""
schema = 1
name = {values["name"]}
licence = "Apache-2.0"
origin = "made by the tests"
paper = "none"
[weights]
package = ""
file = "{network.name}"
format = "onnx"
architecture = ""
sha256 = {values["sha256"]}
size_bytes = {values["size_bytes"]}
digest = {values["digest"]}
[input]
tensor = "x"
height = {TINY_SIZE}
width = {TINY_SIZE}
layout = "NCHW"
dtype = "float32"
[preprocess]
colour = {values["colour"]}
resize = {values["resize"]}
size = 0
interpolation = "bilinear"
antialias = true
crop = {values["crop"]}
crop_fraction = {values["crop_fraction"]}
scale = 1
mean = [100.0, 110.0, 120.0]
std = {values["std"]}
[output]
tensor = {values["output_tensor"]}
pooling = "none"
dim = {values["dim"]}
logits = "logits"
[golden]
image = "none"
image_sha256 = "none"
values = []
tolerance = 0.0
reference = "none"
"""


@pytest.fixture(scope="session")
def tiny_card_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    onnx.save(tiny_network(), folder / "tiny.onnx")
    path = folder / "tiny.toml"
    path.write_text(card_text(folder / "tiny.onnx"), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_card(tiny_card_path: Path) -> Card:
    return read_card(tiny_card_path)


def write_image(path: Path, seed: int, colour: tuple[int, int, int] = (128, 128, 128)) -> Path:
    """A small image of one colour with noise, different for each seed."""
    rng = np.random.default_rng(seed)
    pixels = np.clip(np.array(colour) + rng.normal(0, 20, (24, 32, 3)), 0, 255)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def aged(root: Path) -> Path:
    """Set all files' times of change to long ago, so that they prove that nothing has changed."""
    for path in root.rglob("*"):
        if path.is_file():
            os.utime(path, ns=(1_600_000_000 * 10**9, 1_600_000_000 * 10**9 + path.stat().st_size))
    return root


def with_header(path: Path, **changes: str) -> None:
    """Write a feature file again, with another header."""
    with FeatureFile(path) as file:
        header, rows = replace(file.header, **changes), file.rows(0, file.count, vectors=True)
    with feature_writer(path, header, rows.vectors.shape[1]) as writer:
        writer.add(rows)


def write_classes(root: Path, count: int, seed: int = 0) -> Path:
    """A folder per class, `count` images in each."""
    for number, (name, colour) in enumerate(sorted(_COLOURS.items())):
        for index in range(count):
            write_image(root / name / f"{index:03d}.png", seed + 1000 * number + index, colour)
    return root


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 15 images; not to be changed."""
    return write_classes(tmp_path_factory.mktemp("photos"), 15)


@dataclass(frozen=True)
class Trained:
    """A feature file and a classifier made from ``photos`` with the tiny backbone."""

    features: Path
    classifier: Path


@pytest.fixture(scope="session")
def trained(photos: Path, tiny_card: Card, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    from tlpipe import embed, train_head

    folder = tmp_path_factory.mktemp("trained")
    features, classifier = folder / "features.h5", folder / "classifier.onnx"
    embed(photos, features, backbone=tiny_card)
    train_head(features, classifier)
    return Trained(features, classifier)


@pytest.fixture
def leftovers(tmp_path: Path) -> Callable[[], list[str]]:
    """Names of temporary files that a failed write left in ``tmp_path``."""
    return lambda: sorted(p.name for p in tmp_path.rglob("*.tmp"))
