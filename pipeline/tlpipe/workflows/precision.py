"""In what arithmetic a run's embeddings are made: calibration, and agreement with FP32.

int8 is calibrated, and each reduced precision is compared with FP32, on images of the source: once,
when a feature file is begun. Updates take over what its header says, so that all rows of a file
come from the very same network.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.card import Card
from tlpipe.errors import BackboneError, SourceError
from tlpipe.execution import ON_CPU, Execution
from tlpipe.files import cache_dir, make_folder
from tlpipe.precision import FLOORS, Agreement, Calibration, read_agreement, read_calibration
from tlpipe.seams import Network, Reader
from tlpipe.stages.session import open_graph, open_network, settled
from tlpipe.stages.source import FileReader, Source
from tlpipe.stages.store import FeatureHeader
from tlpipe.stages.weights import calibrated, prepared_file, quantised_file, range_file
from tlpipe.types import Item, Outcome, ProgressCallback
from tlpipe.workflows.pixels import decoder_of, loader
from tlpipe.workflows.run_options import RunOptions
from tlpipe.workflows.running import run_over
from tlpipe.workflows.samples import CALIBRATION_IMAGES, HELD_BACK_IMAGES, samples

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import UInt8Array


class Arithmetic:
    """How the numbers of a feature file are made.

    Parameters
    ----------
    card : Card
    options : RunOptions

    Attributes
    ----------
    card, options
    execution : Execution
        With device and library settled.
    unsettled : bool
        Whether ``settle`` must be called: calibration and agreement are not known yet.

    Raises
    ------
    OptionError, DeviceError
        As from ``settled``.
    """

    def __init__(self, card: Card, options: RunOptions) -> None:
        self.card, self.options = card, options
        self.execution = settled(options.execution)
        self.unsettled = False
        self._calibration: Calibration | None = None
        self._decoder = decoder_of(options.decode)
        self._reader: Reader = FileReader()

    @property
    def _is_int8(self) -> bool:
        return self.execution.precision == "int8"

    def header(self, header: FeatureHeader, begun: FeatureHeader | None) -> FeatureHeader:
        """Header of a file: what determines its vectors is filled in.

        Parameters
        ----------
        header : FeatureHeader
            All else.
        begun : FeatureHeader or None
            That of the file, or of the parts, which this run goes on with.
        """
        kind = self.execution.arithmetic
        self._decoder = decoder_of(self.options.decode, None if begun is None else begun.decoder)
        header = replace(header, precision=kind, decoder=self._decoder)
        self.unsettled = kind != "fp32" and begun is None
        if begun is not None and begun.precision == kind:
            header = replace(header, calibration=begun.calibration, agreement=begun.agreement)
        where = "the feature file"
        self._calibration = read_calibration(header.calibration, where)
        return replace(header, fingerprint=header.expected_fingerprint(where))

    def settle(
        self, source: Source, header: FeatureHeader, progress: ProgressCallback | None
    ) -> FeatureHeader:
        """Calibrate and compare, where a file is begun; its header.

        Raises
        ------
        BackboneError
            The network cannot be quantised, or its embeddings differ too much from those at FP32.
        WeightsError, CardError, OutputError, SourceError, DeviceError
            As from ``embed``.
        """
        if not self.unsettled:
            known = read_agreement(header.agreement, "the feature file")
            if known is not None and self.options.min_agreement is not None:
                self._check(replace(known, floor=self.options.min_agreement))
            return header
        self._reader = source.reader
        calibrating, comparing = samples(source, calibrate=self._is_int8)
        used: set[bytes] = set()
        if self._is_int8:
            found = self._calibrate(calibrating, progress)
            if found is None:
                found = self._calibrate(list(source.items()), progress)
            if found is None:  # not one image can be read: embedding will say so
                return header
            self._calibration, used = found
            header = replace(header, calibration=self._calibration.to_json())
        header = replace(header, fingerprint=header.expected_fingerprint("the feature file"))
        agreement = self._agreement(comparing, used, progress)
        if agreement is None and calibrating:
            agreement = self._agreement(calibrating, set(), progress)
        if agreement is None:
            agreement = self._agreement(list(source.items()), set(), progress)
        if agreement is None:
            return header
        self._check(agreement)
        self.unsettled = False
        return replace(header, agreement=agreement.to_json())

    def opened(self, opener: Callable[[Path, Execution], Network]) -> Network:
        """The network, opened by `opener`; raises as ``network_file`` and `opener`."""
        return _NoImages() if self.unsettled else opener(self.network_file(), self.execution)

    def network_file(self) -> Path:
        """The network to run, as an ONNX file in the cache.

        Raises
        ------
        WeightsError, BackboneError, CardError, OutputError
            As from ``prepared_file`` and ``quantised_file``.
        """
        if not self._is_int8:
            return prepared_file(self.card, open_graph)
        if self._calibration is None:
            raise AssertionError("a network is calibrated before it is quantised")
        return quantised_file(self.card, self._calibration, open_graph)

    def _run(
        self,
        items: Sequence[Item],
        network: Network,
        progress: ProgressCallback | None,
        stage: str,
    ) -> Iterator[Outcome]:
        load = loader(self._reader, self.card.image_size, self.card.arithmetic, self._decoder)
        options = RunOptions(threads=self.options.threads)
        outcomes = run_over(items, len(items), network, load, options, progress, stage)
        return (outcome for outcome in outcomes if outcome.reject is None)

    def _calibrate(
        self, items: Sequence[Item], progress: ProgressCallback | None
    ) -> tuple[Calibration, set[bytes]] | None:
        """The calibration, and the contents that told it; None where no image can be read."""
        make_folder(cache_dir())
        with tempfile.TemporaryDirectory(dir=cache_dir(), prefix="calibrate-") as folder:
            path = Path(folder) / "ranges.onnx"
            tensors = range_file(self.card, open_graph, path)
            alone = replace(ON_CPU, batch_size=1)  # ranges are those of one call
            network = open_network(path, alone)
            low: Any = np.inf
            high: Any = -np.inf
            used: set[bytes] = set()
            for outcome in self._run(items, network, progress, "calibrate"):
                low = np.minimum(low, outcome.values["minima"])
                high = np.maximum(high, outcome.values["maxima"])
                used.add(_digest(outcome))
                if len(used) == CALIBRATION_IMAGES:
                    break
            del network  # some systems remove no file that is open
        if not used:
            return None
        ranges = {
            name: (float(str(least)), float(str(most)))  # the shortest text of each float32
            for name, least, most in zip(tensors, low, high, strict=True)
        }
        return calibrated(self.card, open_graph, ranges, len(used)), used

    def _agreement(
        self, items: Sequence[Item], used: set[bytes], progress: ProgressCallback | None
    ) -> Agreement | None:
        """Agreement on images that were not used, or None where none of `items` is such a one.

        One network after the other, so that never two of them are in memory; that which may be
        refused comes first.
        """
        rough = self._vectors(items, used, progress, reduced=True)
        if not rough:
            return None
        exact = self._vectors(items, used, progress, reduced=False)
        both = sorted(exact.keys() & rough.keys())
        cosines = np.array([_cosine(exact[digest], rough[digest]) for digest in both] or [0.0])
        return Agreement(
            images=len(both),
            held_back=bool(used) or not self._is_int8,
            mean=round(float(cosines.mean()), 6),
            p1=round(float(np.percentile(cosines, 1)), 6),
            floor=self._floor,
        )

    def _vectors(
        self,
        items: Sequence[Item],
        without: set[bytes],
        progress: ProgressCallback | None,
        *,
        reduced: bool,
    ) -> dict[bytes, NDArray[np.float32]]:
        """Embeddings by content."""
        if reduced:
            network = open_network(self.network_file(), self.execution)
        else:
            exact = replace(self.execution, precision="fp32", runtime="auto")
            network = open_network(prepared_file(self.card, open_graph), exact)
        stage = f"run at {self.execution.precision if reduced else 'fp32'}"
        found: dict[bytes, NDArray[np.float32]] = {}
        for outcome in self._run(items, network, progress, stage):
            if _digest(outcome) not in without and len(found) < HELD_BACK_IMAGES:
                found[_digest(outcome)] = outcome.values["embeddings"]
        return found

    @property
    def _floor(self) -> float:
        least = self.options.min_agreement
        return FLOORS[self.execution.precision] if least is None else least

    def _check(self, agreement: Agreement) -> None:
        if agreement.mean >= agreement.floor:
            return
        precision = self.execution.precision
        known = "" if agreement.held_back else ", the ones that calibrated it"
        raise BackboneError(
            f"Embeddings of {self.card.name!r} at {precision} agree with those at fp32 only to a"
            f" mean cosine of {agreement.mean:g} (1st percentile {agreement.p1:g}; on"
            f" {agreement.images} images of the source{known}); at least {agreement.floor:g} is"
            " asked for.",
            hint="Use another --precision; or take it as it is, with --min-agreement COSINE (0"
            " takes anything).",
        )


class _NoImages:
    """Stands for a network where there was not one image to settle its precision with.

    If none can be read there is nothing to run, and embedding says why.
    """

    provider = ""
    lanes = 0
    batch_sizes = (1,)

    def run(self, images: UInt8Array) -> dict[str, Any]:
        """Refuse images that can be read after all."""
        raise SourceError(
            "Not one image could be used to settle the precision: none could be read when the run"
            " began, or the network gives NaN or infinity for all.",
            hint="If images have come, run the same command again; with --precision fp32 each image"
            " that is left out is listed with its reason.",
        )


def _digest(outcome: Outcome) -> bytes:
    assert outcome.content is not None, "what is no reject has a content"
    return outcome.content.sha256


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Cosine of the angle between two vectors; 1 if both are zero."""
    x, y = a.astype("f8").ravel(), b.astype("f8").ravel()
    lengths = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / lengths if lengths else float(not x.any() and not y.any())
