"""How fast is ``embed``: against the machine's limit, and against what others use?

Run: ``make bench SOURCE=folder [PEERS=none] [IMAGES=200] [BENCH_ROUNDS=5]``. Over the images of
that folder, and over photos of 12 megapixels that it makes itself (``photos.py``), it measures in
turn, round by round, each in a process of its own:

* the limit of the machine (``limit.py``), before and after tlpipe's steady rate;
* tlpipe's steady rate, start-up and the first and last twentieth of the images left out, and the
  time to the first embedding; its whole command, ``tlpipe embed``, up to the finished file; and
  the steady rate of ``tlpipe classify`` with a classifier trained on the same images;
* the peers (``contenders.py``): the same network over the same images, each in an environment of
  its own that is made at the first use, which needs pip and, for PyTorch, 6 GB.

Printed are medians over the rounds, with ranges. All run on the CPU. That the work is equal is seen
by the mean cosine between a peer's vectors and tlpipe's.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from children import RunError, run
from contenders import (
    CONTENDERS,
    PACKAGES,
    SKIPPED,
    Contender,
    Environments,
    chosen,
    run_contender,
    run_tlpipe,
)
from image_set import ImageSet, embed_command, make_image_set
from insides import peer_network, usable_cores
from limit import Limit
from photos import COUNT, make_photos
from table import Row, head, line, middle

import tlpipe
from tlpipe.execution import PRECISIONS

IDLE = 0.95
"""Part of a core that a single thread is given on an idle machine, at the least."""


@dataclass
class Measured:
    """What was measured over one set of images, a value per round."""

    limit: Row = field(default_factory=lambda: Row("limit of the machine"))
    embed: Row = field(default_factory=lambda: Row("tlpipe embed"))
    classify: Row = field(default_factory=lambda: Row("tlpipe classify"))
    peers: dict[str, Row] = field(default_factory=dict)
    decode_ms: list[float] = field(default_factory=list)
    inference_ms: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    share: float = 1.0


class Bench:
    """Measures over one set of images.

    Parameters
    ----------
    images : ImageSet
    work : pathlib.Path
        A folder for what is written.
    precision : str
        Of tlpipe.
    contenders : sequence of Contender
    environments : Environments
        Of these, made already.
    """

    def __init__(
        self,
        images: ImageSet,
        work: Path,
        precision: str,
        contenders: Sequence[Contender],
        environments: Environments,
    ) -> None:
        self._images, self._work, self._precision = images, work, precision
        self._contenders, self._environments = contenders, environments
        self._network = peer_network(work / "network")
        self._limit = Limit(images.folder, images.features)
        self.measured = Measured()
        self._classifier = self._trained()

    def round(self) -> None:
        """Measure everything once."""
        rate = self._tlpipe()
        for contender in self._contenders:
            self._peer(contender, rate)

    def last_round(self) -> str:
        """Rates of the round that was just measured, in a line."""
        measured = self.measured
        rows = [measured.limit, measured.embed, measured.classify, *measured.peers.values()]
        rates = [f"{row.steady[-1]:.1f}" for row in rows if row.steady and not row.failure]
        return f"{', '.join(rates)} images/s, in the order of the table"

    def _trained(self) -> Path | None:
        path = self._work / "classifier.onnx"
        try:
            tlpipe.train_head(self._images.features, path)
        except tlpipe.TlpipeError as exc:
            self.measured.classify.failure = f"no classifier: {exc}"
            return None
        return path

    def _tlpipe(self) -> float:
        """Measure the limit and tlpipe; its steady rate."""
        into, images = self.measured, self._images
        before = self._limit.measure()
        steady = run_tlpipe(images.folder, self._work / "own.npy", self._precision)
        cost = (before + self._limit.measure()) / 2
        rate = steady.steady_rate
        into.share = self._limit.share
        into.decode_ms.append(cost.decode * 1e3)
        into.inference_ms.append(cost.inference * 1e3)
        into.limit.steady.append(cost.limit)
        into.limit.ratio.append(rate / cost.limit)
        into.first_s.append(steady.figures["seconds_first"])
        whole = run(embed_command(images.folder, self._work / "whole.h5", self._precision))
        _note(into.embed, rate, len(images) / whole.seconds, rate)
        into.embed.peak_bytes = max(into.embed.peak_bytes, whole.peak_bytes)
        if self._classifier is not None:
            done = run_tlpipe(
                images.folder, self._work / "none.npy", self._precision, self._classifier
            )
            _note(into.classify, done.steady_rate, len(images) / done.seconds, rate)
            into.classify.peak_bytes = max(into.classify.peak_bytes, done.peak_bytes)
        return rate

    def _peer(self, contender: Contender, rate: float) -> None:
        row = self.measured.peers.setdefault(contender.name, Row(contender.name))
        if row.failure:
            return
        output = self._work / "peer.npy"
        output.unlink(missing_ok=True)
        try:
            done = run_contender(
                contender, self._environments, self._images.folder, output, self._network
            )
        except RunError as exc:
            row.failure = str(exc)
            return
        _note(row, done.steady_rate, len(self._images) / done.seconds, rate)
        row.peak_bytes = max(row.peak_bytes, done.peak_bytes)
        row.cosine = _mean_cosine(np.load(output), self._images.vectors)


def _note(row: Row, steady: float, whole: float, rate: float) -> None:
    row.steady.append(steady)
    row.whole.append(whole)
    row.ratio.append(rate / steady)


def _mean_cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Mean cosine between the rows of two arrays (N, D); one of another shape is an error."""
    if one.shape != other.shape:
        raise ValueError(f"a peer gave vectors of the shape {one.shape}, not {other.shape}")
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(np.mean((one * other).sum(axis=1) / norms))


def show(images: ImageSet, measured: Measured, precision: str) -> None:
    """Print the table of one set."""
    print(
        f"\n{images.name}: {len(images):,} images of {images.mean_bytes / 1e6:.2f} MB,"
        f" {usable_cores()} cores, tlpipe in {precision};"
        f" rounds: {len(measured.first_s)}; medians (least-most)"
    )
    print(head())
    for row in (measured.limit, measured.embed, measured.classify, *measured.peers.values()):
        print(line(row))
    print(
        f"of a core, per image: {middle(measured.decode_ms, 2)} ms to load,"
        f" {middle(measured.inference_ms, 2)} ms to infer"
    )
    if measured.share < IDLE:
        print(
            f"THE MACHINE WAS NOT IDLE: a single thread was given {measured.share:.2f} of a core;"
            " these figures tell nothing"
        )
    rated = [row for row in measured.peers.values() if row.ratio]
    if rated:
        best = min(rated, key=lambda row: sorted(row.ratio)[len(row.ratio) // 2])
        print(f"the best peer: {best.name}; tlpipe is {middle(best.ratio, 2)} times as fast")
    if measured.classify.ratio:
        ratios = [1 / ratio for ratio in measured.classify.ratio]
        print(f"classify / embed: {middle(ratios, 3)}; asked: within 5 %")
    print(f"first embedding after {middle(measured.first_s, 2)} s; asked: less than 1.0 s")


def parsed() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, nargs="?", help="a folder of images")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default="all", help="all, none, or of " + ",".join(PACKAGES))
    parser.add_argument("--images", type=int, help="this many of the source, evenly chosen")
    parser.add_argument("--photos", type=int, default=COUNT, help="of 12 megapixels; 0 for none")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of tlpipe")
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="what is kept")
    arguments = parser.parse_args()
    try:
        arguments.peers = chosen(arguments.peers)
    except ValueError as exc:
        parser.error(str(exc))
    if arguments.source is not None and not arguments.source.exists():
        parser.error(f"there is nothing at {arguments.source}")
    if arguments.source is None and not arguments.photos:
        parser.error("there is nothing to run over: name a folder of images")
    if arguments.precision != "fp32" and "--precision" not in _help_of_embed():
        parser.error("this tlpipe has no option --precision")
    return arguments


def _help_of_embed() -> str:
    command = [sys.executable, "-m", "tlpipe", "embed", "--help"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> None:
    """Measure and print."""
    arguments = parsed()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    environments = Environments(arguments.folder.resolve() / "environments")
    skipped, usable = dict(SKIPPED), []
    for peer in arguments.peers:
        try:
            environments.make(peer)
            usable.append(peer)
        except RunError as exc:
            skipped[peer] = str(exc)
    sources = [] if arguments.source is None else [(arguments.source.name, arguments.source)]
    if arguments.photos:
        made = make_photos(arguments.folder / "photos", arguments.photos)
        sources.append(("photos of 12 megapixels", made))
    contenders = [contender for contender in CONTENDERS if contender.peer in usable]
    for name, source in sources:
        with tempfile.TemporaryDirectory(dir=arguments.folder.resolve()) as folder:
            work = Path(folder)
            most = arguments.images if source is arguments.source else None
            images = make_image_set(name, source, work, most, arguments.precision)
            bench = Bench(images, work, arguments.precision, contenders, environments)
            for number in range(1, arguments.rounds + 1):
                bench.round()
                print(f"{name}: round {number}: {bench.last_round()}", flush=True)
            show(images, bench.measured, arguments.precision)
    print()
    for peer in usable:
        print(f"{peer}: {environments.versions(peer)}")
    if arguments.peers:
        for peer, reason in skipped.items():
            print(f"not measured: {peer}: {reason}")


if __name__ == "__main__":
    main()
