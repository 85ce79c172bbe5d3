"""How close does ``embed`` come to what the cores can give? Run: ``make bench SOURCE=folder``.

The limit is ``cores / (decode + inference core-seconds per image)``, each measured alone on one
core at its best setting (``DESIGN``: no pipeline can beat it, since every image needs both). Limit
and pipeline are measured in turn over several rounds, because the speed of a machine drifts; the
ratio is taken within a round, and its median is the result.

Prints one line per round, then the medians. The pipeline's rate is that of its steady state: the
first and last twentieth of the images are left out, as is start-up. Memory is the peak of a
whole ``tlpipe embed`` in a process of its own.
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

from tlpipe.catalogue import find_card
from tlpipe.stages.backbone import OrtNetwork
from tlpipe.stages.engine import CPU_BATCH_SIZE, run, usable_cores
from tlpipe.stages.source import Source, open_source
from tlpipe.stages.weights import prepared_file
from tlpipe.types import DEFAULT_BACKBONE
from tlpipe.workflows.common import loader
from tlpipe.workflows.embed import embed

SAMPLE = 200
BATCHES = (1, 2, 4, 8)


def core_seconds(source: Source, network: OrtNetwork) -> tuple[float, float]:
    """Seconds of one core per image to load, and to infer at the best batch size."""
    card = find_card(DEFAULT_BACKBONE)
    load = loader(card.image_size, card.preprocess)
    items = list(source.items())
    items = items[:: max(1, len(items) // SAMPLE)][:SAMPLE]
    start = time.thread_time()
    images = [load(item)[0] for item in items]
    decode = (time.thread_time() - start) / len(items)
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
    marks: list[float] = []

    def mark(at: object) -> None:
        if getattr(at, "done") in (first, last):  # noqa: B009
            marks.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        embed(source, Path(folder) / "features.h5", progress=mark)
    return (last - first) / (marks[1] - marks[0])


def peak_bytes(folder: Path) -> int:
    """Peak resident memory of a whole ``tlpipe embed`` (Linux: ru_maxrss in KiB)."""
    code = (
        "import resource, sys\n"
        "from tlpipe import embed\n"
        "embed(sys.argv[1], sys.argv[2])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)\n"
    )
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, "-c", code, str(folder), str(Path(output) / "features.h5")]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    source = open_source(arguments.source)
    network = OrtNetwork(prepared_file(find_card(DEFAULT_BACKBONE)), "cpu")
    list(run(list(source.items())[:64], lambda item: _load(item), network))  # warm up
    cores = usable_cores()
    print(f"{source.survey.count} images, {cores} cores, batch {CPU_BATCH_SIZE}")
    rows = []
    for number in range(1, arguments.rounds + 1):
        before = core_seconds(source, network)
        rate = steady_rate(source)
        after = core_seconds(source, network)
        decode, inference = ((a + b) / 2 for a, b in zip(before, after, strict=True))
        limit = cores / (decode + inference)
        rows.append((decode, inference, limit, rate, rate / limit))
        print(
            f"round {number}: decode {decode * 1e3:.2f} ms, inference {inference * 1e3:.2f} ms,"
            f" limit {limit:.1f}/s, embed {rate:.1f}/s, ratio {rate / limit:.3f}"
        )
    medians = [statistics.median(column) for column in zip(*rows, strict=True)]
    print(
        f"median: limit {medians[2]:.1f}/s, embed {medians[3]:.1f}/s, ratio {medians[4]:.3f}"
        f" (lowest {min(r[4] for r in rows):.3f}, highest {max(r[4] for r in rows):.3f})"
    )
    print(f"peak memory of embed: {peak_bytes(arguments.source) / 1e6:.0f} MB")


def _load(item: object) -> object:
    card = find_card(DEFAULT_BACKBONE)
    return loader(card.image_size, card.preprocess)(item)  # type: ignore[arg-type]


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
