"""What a backbone costs: the size of its network, and its time for an image on this machine.

Takes the header of a feature file, gives a ``NetworkCost``. The network is the one that made the
file's embeddings, at its precision; it is given images of noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tlpipe.errors import FeatureFileError
from tlpipe.execution import Execution, parsed_arithmetic
from tlpipe.precision import read_calibration
from tlpipe.stages.session import open_graph, open_network, settled
from tlpipe.stages.store import FeatureHeader
from tlpipe.stages.weights import prepared_file, quantised_file
from tlpipe.workflows.timing import cpu_seconds, gpu_seconds


@dataclass(frozen=True)
class NetworkCost:
    """What running a backbone costs.

    Attributes
    ----------
    size_bytes : int
        Of the network's file, without its own last layer.
    inference_s : float or None
        Seconds per image: of one core on the CPU, of all GPUs together else. None where it was not
        measured.
    device : str or None
        On what that was measured.
    """

    size_bytes: int
    inference_s: float | None
    device: str | None


class Costs:
    """Measures networks, each of them once, however many files it made.

    Parameters
    ----------
    seconds : float
        For how long each is run; none is where it is 0.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._known: dict[tuple[Path, str], NetworkCost] = {}

    def of(self, header: FeatureHeader, where: str) -> NetworkCost:
        """Measure the network that made a file's embeddings; `where` is what messages call it.

        Raises
        ------
        FeatureFileError
            The embeddings were made elsewhere, or in a way that this tlpipe does not know.
        WeightsError, CardError, BackboneError, OutputError, DeviceError
            The network cannot be had, or not be run.
        """
        arithmetic = parsed_arithmetic(header.precision)
        card = header.card(where)
        if arithmetic is None:
            raise FeatureFileError(
                f"{where} was made at {header.precision!r}, which is unknown.",
                hint="Update tlpipe, or embed the images again.",
            )
        calibration = read_calibration(header.calibration, where)
        if calibration is None:
            path = prepared_file(card, open_graph)
        else:
            path = quantised_file(card, calibration, open_graph)
        known = (path, header.precision)
        if known not in self._known:
            precision, runtime = arithmetic
            execution = Execution(precision=precision, runtime=runtime)
            self._known[known] = self._measured(path, execution)
        return self._known[known]

    def _measured(self, path: Path, execution: Execution) -> NetworkCost:
        size = path.stat().st_size
        if not self._seconds:
            return NetworkCost(size, None, None)
        device = settled(execution).device
        network = open_network(path, execution)
        image, *_ = network.shapes()
        noise = np.random.default_rng(0).integers(0, 256, (1, *image), np.uint8)
        timed = cpu_seconds if device == "cpu" else gpu_seconds
        inference_s, _ = timed(network, noise, self._seconds)
        return NetworkCost(size, inference_s, device)
