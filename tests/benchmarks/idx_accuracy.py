"""Embed an IDX data set, train a head, and test it. Run: ``make bench-idx SOURCE=folder``.

SOURCE is a folder with ``train-images-idx3-ubyte``, ``t10k-images-idx3-ubyte`` and their labels,
packed by gzip or not: MNIST, Fashion-MNIST (Debian's package ``dataset-fashion-mnist``), one set of
EMNIST. All is done by the commands that a user runs; the accuracy is that on the test images, which
no choice has seen. ``--images N`` takes the first N of the training images, and a sixth as many of
the test images, into IDX files of their own.
"""

from __future__ import annotations

import argparse
import gzip
import json
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tlpipe.stages.source import open_source
from tlpipe.types import Split


def cut(source: Path, folder: Path, images: int) -> None:
    """Write the first images and labels of each split as IDX files."""
    files = sorted(path for path in source.iterdir() if "ubyte" in path.name)
    for path in files:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
        axes = raw[3]
        shape = struct.unpack_from(f">{axes}I", raw, 4)
        first = images if "train" in path.name else max(1, images // 6)
        count = min(shape[0], first)
        skip = 4 + 4 * axes
        row = (len(raw) - skip) // shape[0]
        header = raw[:4] + struct.pack(f">{axes}I", count, *shape[1:])
        name = path.name.removesuffix(".gz")
        (folder / name).write_bytes(header + raw[skip : skip + count * row])


def timed(*arguments: str | Path) -> float:
    """Run a command of tlpipe; seconds, start-up included."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "tlpipe", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--images", type=int, help="take the first of the training images alone")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        source = arguments.source
        if arguments.images:
            source = work / "cut"
            source.mkdir()
            cut(arguments.source, source, arguments.images)
        splits = open_source(source).survey.by_split()
        features, classifier = work / "features.h5", work / "classifier.onnx"
        embed_s = timed("embed", source, "-o", features, "--device", arguments.device)
        again_s = timed("embed", source, "-o", features, "--device", arguments.device)
        train_s = timed("train-head", features, "-o", classifier)
        metrics = json.loads((work / "classifier.metrics.json").read_text(encoding="utf-8"))
    count = sum(splits.values())
    print(f"images      {splits[Split.TRAIN]:,} to train, {splits[Split.TEST]:,} to test")
    print(f"embed       {embed_s:8.1f} s  ({count / embed_s:,.0f} images/s)")
    print(f"embed again {again_s:8.1f} s")
    print(f"train-head  {train_s:8.1f} s")
    print(f"accuracy    {accuracy(metrics):8.4f} on the test images")


def accuracy(metrics: dict) -> float:
    """Of the held-out images, as ``train-head`` writes it."""
    return float(metrics["metrics"]["accuracy"])


if __name__ == "__main__":
    main()
