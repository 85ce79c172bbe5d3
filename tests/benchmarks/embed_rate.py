"""How close does ``embed`` come to what the cores can give? Run: ``make bench SOURCE=folder``.

The limit is ``cores / (decode + inference core-seconds per image)``, each measured alone on one
core at its best setting: no pipeline can beat it, since every image needs both. Limit and pipeline
are measured in turn over several rounds, because the speed of a machine drifts; the ratio is taken
within a round, and its median is the result.

The pipeline's rate is that of its steady state: the first and last twentieth of the images are left
out, as is start-up. Memory is the peak of a whole ``embed`` in a process of its own.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tlpipe.catalogue import find_card
from tlpipe.execution import ON_CPU
from tlpipe.seams import OpenedNetwork
from tlpipe.stages.engine import Loader, usable_cores
from tlpipe.stages.session import open_graph, open_network
from tlpipe.stages.source import Source, open_source
from tlpipe.stages.weights import prepared_file
from tlpipe.types import DEFAULT_BACKBONE, Progress
from tlpipe.workflows.common import loader
from tlpipe.workflows.embed import embed

SAMPLE = 200
BATCHES = (1, 2, 4, 8)

# The kernel's own high-water mark of the process; getrusage would report that of the process which
# started it, if that was larger.
PEAK = """
import pathlib, sys, tlpipe
tlpipe.embed(sys.argv[1], sys.argv[2])
status = pathlib.Path("/proc/self/status").read_text()
print(int(status.split("VmHWM:")[1].split()[0]) * 1024)  # Linux counts in KiB
"""


def core_seconds(source: Source, load: Loader, network: OpenedNetwork) -> tuple[float, float]:
    """Seconds of one core per image to load, and to infer at the best batch size."""
    items = list(source.items())
    items = items[:: max(1, len(items) // SAMPLE)][:SAMPLE]
    start = time.thread_time()
    loaded = [load(item) for item in items]
    decode = (time.thread_time() - start) / len(items)
    images = [result[0] for result in loaded if isinstance(result, tuple)]
    inference = []
    for size in BATCHES:
        batches = [np.stack(images[i : i + size]) for i in range(0, len(images) - size + 1, size)]
        start = time.thread_time()
        for batch in batches:
            network.run(batch)
        inference.append((time.thread_time() - start) / (len(batches) * size))
    return decode, min(inference)


def steady_rate(source: Source) -> float:
    """Images per second of ``embed``, start and end left out."""
    total = source.survey.count
    first, last = total // 20, total - total // 20
    marks: dict[int, float] = {}

    def mark(at: Progress) -> None:
        if at.done in (first, last):
            marks[at.done] = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        embed(source, Path(folder) / "features.h5", progress=mark)
    return (last - first) / (marks[last] - marks[first])


def peak_bytes(path: Path) -> int:
    """Peak resident memory of a whole ``embed``, on Linux."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", PEAK, str(path), str(Path(folder) / "features.h5")]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    source = open_source(arguments.source)
    card = find_card(DEFAULT_BACKBONE)
    load = loader(card.image_size, card.preprocess)
    network = open_network(prepared_file(card, open_graph), ON_CPU)
    core_seconds(source, load, network)  # warm up
    print(f"{source.survey.count} images, {usable_cores()} cores")
    rows = []
    for number in range(1, arguments.rounds + 1):
        before = core_seconds(source, load, network)
        rate = steady_rate(source)
        after = core_seconds(source, load, network)
        decode, inference = ((a + b) / 2 for a, b in zip(before, after, strict=True))
        limit = usable_cores() / (decode + inference)
        rows.append((limit, rate, rate / limit))
        print(
            f"round {number}: decode {decode * 1e3:.2f} ms, inference {inference * 1e3:.2f} ms,"
            f" limit {limit:.1f}/s, embed {rate:.1f}/s, ratio {rate / limit:.3f}"
        )
    limits, rates, ratios = zip(*rows, strict=True)
    print(
        f"median: limit {statistics.median(limits):.1f}/s, embed {statistics.median(rates):.1f}/s,"
        f" ratio {statistics.median(ratios):.3f} (from {min(ratios):.3f} to {max(ratios):.3f})"
    )
    print(f"peak memory of embed: {peak_bytes(arguments.source) / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
