"""The machine's limit: what its cores can give at most, whatever the pipeline.

``cores / (decode + inference core-seconds per image)``, each measured alone on one core at its best
setting: no pipeline can beat it, since every image needs both.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from insides import items, loader_and_network, usable_cores

SAMPLE = 200
SAMPLE_SECONDS = 6.0  # large images: fewer of them
BATCHES = (1, 2, 4, 8)


@dataclass(frozen=True)
class Cost:
    """Core-seconds per image."""

    decode: float
    inference: float

    @property
    def limit(self) -> float:
        """Images per second that all cores can give at most."""
        return usable_cores() / (self.decode + self.inference)

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.decode + other.decode, self.inference + other.inference)

    def __truediv__(self, number: float) -> Cost:
        return Cost(self.decode / number, self.inference / number)


class Limit:
    """Measures what loading and inferring the images of a folder cost.

    The clock is that of the process, so that threads inside a library are counted as well.

    Attributes
    ----------
    share : float
        Least part of a core that decoding was given; on an idle machine nearly 1.
    """

    def __init__(self, folder: Path, features: Path) -> None:
        self.share = 1.0
        found = items(folder)
        self._items = found[:: max(1, len(found) // SAMPLE)][:SAMPLE]
        self._load, self._network = loader_and_network(features)
        self.measure()  # warms up, and reads files from the disk
        self.share = 1.0

    def measure(self) -> Cost:
        """Cost of an image, now."""
        decode, images = self._decode()
        return Cost(decode, min(self._inference(images, size) for size in BATCHES))

    def _decode(self) -> tuple[float, list[np.ndarray]]:
        images, count = [], 0
        wall = time.monotonic()
        start = time.process_time()
        end = start
        for item in self._items:
            pixels = self._load(item)
            count += 1
            if pixels is not None:
                images.append(pixels)
            end = time.process_time()
            if end - start > SAMPLE_SECONDS:
                break
        self.share = min(self.share, (end - start) / (time.monotonic() - wall))
        return (end - start) / count, images

    def _inference(self, images: list[np.ndarray], size: int) -> float:
        batches = [np.stack(images[i : i + size]) for i in range(0, len(images) - size + 1, size)]
        start = time.process_time()
        for batch in batches:
            self._network.run(batch)
        return (time.process_time() - start) / (len(batches) * size)
