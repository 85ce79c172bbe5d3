"""What taking an ONNX file as a backbone costs. Run: ``make bench-import [NETWORK=file.onnx]``.

Time and peak memory, each in a process of its own and as a ratio to reading the file and to its
size, of: tlpipe's import (find the last layer, cut, free the batch, prove it, write the prepared
network); a second use, which finds it in the cache; and, side by side in each round, the peer: what
one would write by hand with ``onnx`` and ONNX Runtime for a network whose last layer is known (load
it, cut it with ``onnx.utils.extract_model``, run one image). That finds nothing and proves nothing.

Without a file a ResNet-50 of 102 MB is made: the graph that ``onnx`` ships for its own tests, with
random weights.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

IMPORT = """
from tlpipe import BackboneOptions, find_backbone
from tlpipe.stages.session import open_graph
from tlpipe.stages.weights import prepared_file
card = find_backbone(sys.argv[1], BackboneOptions(preprocess="imagenet"))
prepared_file(card, open_graph)
"""

PEER = """
import onnx, onnx.utils, onnxruntime, numpy
model = onnx.load(sys.argv[1])
weights = {t.name for t in model.graph.initializer}
(source,) = [v for v in model.graph.input if v.name not in weights]
onnx.utils.extract_model(sys.argv[1], sys.argv[2], [source.name], [sys.argv[3]])
session = onnxruntime.InferenceSession(sys.argv[2], providers=["CPUExecutionProvider"])
shape = [d.dim_value or 1 for d in source.type.tensor_type.shape.dim]
session.run(None, {source.name: numpy.zeros(shape, numpy.float32)})
"""

MEASURED = """
import pathlib, sys, time
start = time.perf_counter()
{body}
status = pathlib.Path("/proc/self/status").read_text()
print(time.perf_counter() - start, int(status.split("VmHWM:")[1].split()[0]) * 1024)
"""


def resnet50(path: Path) -> str:
    """Write the graph with random weights; give the tensor that feeds its last layer."""
    light = Path(onnx.__file__).parent / "backend/test/data/light/light_resnet50.onnx"
    model = onnx.load(light)
    rng = np.random.default_rng(0)
    shapes = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    made = [node for node in model.graph.node if node.op_type == "ConstantOfShape"]
    for node in made:
        shape = shapes[node.input[0]].tolist()
        scale = 1 / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 1.0
        array = rng.normal(0.0, scale, shape)
        array = np.abs(array) + 0.5 if len(shape) == 1 else array  # variances among them
        tensor = numpy_helper.from_array(array.astype(np.float32), node.output[0])
        model.graph.initializer.append(tensor)
    rest = [node for node in model.graph.node if node.op_type != "ConstantOfShape"]
    del model.graph.node[:]
    model.graph.node.extend(rest)
    known = {t.name for t in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in known]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = 8
    onnx.save(model, path)
    gemm = next(node for node in model.graph.node if node.op_type == "Gemm")
    return str(gemm.input[0])


def measured(body: str, *arguments: object, cache: Path) -> tuple[float, float]:
    """Seconds, start-up of the interpreter left out, and peak bytes of a script of its own."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED.format(body=body), *map(str, arguments)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "TLPIPE_CACHE": str(cache)},
    )
    seconds, peak = done.stdout.split()
    return float(seconds), float(peak)


def reading(path: Path) -> float:
    """Seconds to read the file."""
    start = time.perf_counter()
    with path.open("rb") as stream:
        while stream.read(1 << 24):
            pass
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", nargs="?", type=Path)
    parser.add_argument("--tensor", help="for the peer: what feeds the last layer")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path, tensor = arguments.network, arguments.tensor
        if path is None:
            path = Path(folder) / "resnet50.onnx"
            tensor = resnet50(path)
        size = path.stat().st_size
        rows: dict[str, list[tuple[float, float]]] = {}
        for number in range(arguments.rounds):
            cache = Path(folder) / f"cache{number}"
            read = reading(path)
            rows.setdefault("read the file", []).append((read, 0.0))
            first = measured(IMPORT, path, cache=cache)
            rows.setdefault("tlpipe, first use", []).append(first)
            second = measured(IMPORT, path, cache=cache)
            rows.setdefault("tlpipe, second use", []).append(second)
            if tensor:
                out = Path(folder) / "peer.onnx"
                peer = measured(PEER, path, out, tensor, cache=cache)
                rows.setdefault("peer: cut by hand", []).append(peer)
        print(f"{path.name}: {size / 1e6:.0f} MB, median of {arguments.rounds} rounds")
        for name, values in rows.items():
            seconds = statistics.median(v[0] for v in values)
            peak = statistics.median(v[1] for v in values)
            memory = f"   peak {peak / 1e6:4.0f} MB = {peak / size:.2f} x its size" if peak else ""
            print(f"  {name:20} {seconds:6.2f} s{memory}")


if __name__ == "__main__":
    main()
