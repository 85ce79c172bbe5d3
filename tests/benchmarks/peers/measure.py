"""What the scripts of this folder do alike: list images, note times, write features, print figures.

Each script is called with a folder of images (a folder per class, names that sort in one way only)
and the .npy file to write, loops over all images, and prints one line of JSON::

    {"images": n, "seconds_total": ..., "seconds_steady": ..., "steady_images": ...,
     "peak_bytes": ...}

`seconds_total` counts from the moment the process was started (``BENCH_STARTED``, on the system's
monotonic clock) to the written file. The steady state leaves out start-up and the first and last
twentieth of the images, whole batches at a time. `peak_bytes` is of this process alone; that of
processes it starts is watched by the caller. Needs NumPy only.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

START = float(os.environ.get("BENCH_STARTED", time.monotonic()))


def images(folder: Path) -> list[Path]:
    """All images in the order in which every script takes them."""
    return sorted(folder.glob("*/*"))


def cores() -> int:
    """Number of cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def batch_size(count: int, most: int) -> int:
    """At most `most`, and smaller for few images: a steady state needs some twenty batches."""
    return max(1, min(most, count // 20))


def peak_bytes() -> int:
    """The kernel's own high-water mark of this process, on Linux; else 0."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return int(status.split("VmHWM:")[1].split()[0]) * 1024  # the kernel counts in KiB


class Marks:
    """When how many images were done."""

    def __init__(self) -> None:
        self.times: list[tuple[int, float]] = []

    def mark(self, done: int) -> None:
        """Note that `done` images are done; call it when a batch is."""
        self.times.append((done, time.monotonic()))

    def steady(self, total: int) -> tuple[int, float]:
        """Images and seconds between the first mark past a twentieth and the last before the end's.

        Where so few batches were made that there is no such span, that from the first to the last.
        """
        margin = total // 20
        inner = [mark for mark in self.times if margin <= mark[0] <= total - margin]
        if len(inner) < 2:
            inner = self.times
        (first, start), (last, end) = inner[0], inner[-1]
        return last - first, end - start

    def report(self, total: int, **more: float) -> None:
        """Print the figures."""
        steady_images, seconds_steady = self.steady(total)
        figures = {
            "images": total,
            "seconds_total": time.monotonic() - START,
            "seconds_steady": seconds_steady,
            "steady_images": steady_images,
            "peak_bytes": peak_bytes(),
        }
        print(json.dumps({**figures, **more}))


def finish(marks: Marks, features: list[np.ndarray], output: Path) -> None:
    """Write the features, (N, D) float32, and print the figures."""
    whole = np.concatenate(features).astype(np.float32, copy=False)
    np.save(output, whole)
    marks.report(len(whole))


def arguments() -> tuple[Path, Path, list[str]]:
    """The folder, the file to write, and what else was said."""
    folder, output, *rest = sys.argv[1:]
    return Path(folder), Path(output), rest
