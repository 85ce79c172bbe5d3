"""How long a network takes for an image.

Takes an open network and images, gives seconds and the size of batch. Imports ``seams``.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from tlpipe.seams import OpenedNetwork


def cpu_seconds(
    network: OpenedNetwork, images: np.ndarray[Any, Any], seconds: float
) -> tuple[float, int]:
    """Seconds of one core per image at the best size of batch, and that size.

    Those of the whole process are counted: a library may compute in threads of its own.
    """
    sizes = network.batch_sizes
    best = []
    for size in sizes:
        batch = np.resize(images, (size, *images.shape[1:]))
        network.run(batch)
        done, start, end = 0, time.process_time(), time.perf_counter() + seconds / len(sizes)
        while not done or time.perf_counter() < end:
            network.run(batch)
            done += size
        best.append(((time.process_time() - start) / done, size))
    return min(best)


def gpu_seconds(
    network: OpenedNetwork, images: np.ndarray[Any, Any], seconds: float
) -> tuple[float, int]:
    """Seconds per image with every lane of every GPU busy, and the size of batch."""
    size = network.batch_sizes[0]
    batch = np.resize(images, (size, *images.shape[1:]))
    threads = network.lanes

    def work(_: int) -> int:
        done, end = 0, time.perf_counter() + seconds
        while not done or time.perf_counter() < end:
            network.run(batch)
            done += size
        return done

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: network.run(batch), range(threads)))  # warm up every lane
        start = time.perf_counter()
        done = sum(pool.map(work, range(threads)))
        return (time.perf_counter() - start) / done, size
