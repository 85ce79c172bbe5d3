"""What the feature store costs. Run: ``make bench-store`` (``FILES=600000`` for more files).

Each figure stands beside a peer measured in turn over several rounds, because the speed of a
machine drifts; the ratio is taken within a round, and its median is the result.

* no change: ``embed`` on a source whose feature file is up to date, against a bare recursive stat
  of the same tree (``os.walk`` and ``os.stat``); and the whole command, with its peak memory;
* one per cent changed: ``embed`` on that source after one file in a hundred became another photo,
  against embedding those photos alone plus an update without change;
* storing: writing rows and parts, against the time that embedding as many images takes;
* reading: all vectors, as they are and checked against their checksums, against ``numpy.fromfile``
  of as many bytes.

The files are made here: their content is not read unless it has changed, so it is a few bytes; the
feature file holds random vectors for them. Those that change become photos of noise.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

import tlpipe
from tlpipe.stages.source import Source, open_source
from tlpipe.stages.store import FeatureFile, FeatureHeader, Parts, Rows, feature_writer
from tlpipe.types import DEFAULT_BACKBONE, FAST_DECODER
from tlpipe.workflows.backbones import find_backbone
from tlpipe.workflows.common import PRECISION

FOLDERS = 60
LONG_AGO_NS = 1_600_000_000 * 10**9

PEAK = """
import pathlib, sys, time, tlpipe
tlpipe.embed(sys.argv[1], sys.argv[2])
status = pathlib.Path("/proc/self/status").read_text()
print(int(status.split("VmHWM:")[1].split()[0]) * 1024)  # Linux counts in KiB
"""


def make_tree(root: Path, count: int) -> None:
    """Small files in folders, changed long ago."""
    for number in range(FOLDERS):
        folder = root / f"class{number:02d}"
        folder.mkdir(parents=True)
        for index in range(count // FOLDERS):
            path = folder / f"{index:06d}.jpg"
            path.write_bytes(b"%d %d" % (number, index))
            os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))


def header_for(source: Source) -> tuple[FeatureHeader, int]:
    """Header of a feature file of the default backbone, and D."""
    card = find_backbone(DEFAULT_BACKBONE)
    header = FeatureHeader(
        tlpipe_version="0",
        fingerprint=card.fingerprint(precision=PRECISION, decoder=FAST_DECODER),
        backbone=card.to_json(),
        provider="CPUExecutionProvider",
        precision=PRECISION,
        decoder=FAST_DECODER,
        source=source.text,
        created_at="2026-01-01T00:00:00+00:00",
    )
    return header, card.output.dim


def random_rows(rng: np.random.Generator, keys: list[str], dim: int) -> Rows:
    """Rows of no label."""
    count = len(keys)
    stat = np.zeros(count, [("size_bytes", "<i8"), ("mtime_ns", "<i8")])
    return Rows(
        keys=keys,
        content_sha256=rng.integers(0, 256, (count, 32), np.uint8),
        stat=stat,
        labels=[None] * count,
        splits=np.full(count, -1, np.int8),
        groups=np.full(count, -1, np.int64),
        vectors=rng.standard_normal((count, dim), np.float32),
    )


def make_features(source: Source, path: Path) -> None:
    """A feature file for all files of a source, with random vectors."""
    header, dim = header_for(source)
    rng = np.random.default_rng(0)
    with feature_writer(path, header, dim) as writer:
        for block in source.scan(stats=True):
            rows = random_rows(rng, block.keys, dim)
            rows.stat["size_bytes"], rows.stat["mtime_ns"] = zip(*block.stats, strict=True)
            rows.labels[:] = block.labels
            writer.add(rows)


def bare_stat(root: Path) -> int:
    """Stat every file below a folder."""
    count = 0
    for folder, _, names in os.walk(root):
        for name in names:
            os.stat(os.path.join(folder, name))  # noqa: PTH116, PTH118  (the bare calls)
            count += 1
    return count


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def report(name: str, unit: str, pairs: list[tuple[float, float]]) -> None:
    """Medians of both sides and of the ratios."""
    ratios = [ours / peer for ours, peer in pairs]
    ours, peer = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(
        f"{name}: {ours:.3f} {unit} against {peer:.3f} {unit}, ratio"
        f" {statistics.median(ratios):.3f} (from {min(ratios):.3f} to {max(ratios):.3f})"
    )


def no_change(root: Path, features: Path, rounds: int) -> None:
    pairs = []
    for _ in range(rounds):
        peer = timed(lambda: bare_stat(root))
        ours = timed(lambda: tlpipe.embed(root, features))
        pairs.append((ours, peer))
    report("no change / bare recursive stat", "s", pairs)
    command = [sys.executable, "-c", PEAK, str(root), str(features)]
    start = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    elapsed = time.perf_counter() - start
    print(f"no change, a process of its own: {elapsed:.2f} s, peak {int(done.stdout) / 1e6:.0f} MB")


def change(root: Path, changed: Path, count: int, seed: int) -> None:
    """Replace one file in a hundred by a photo of noise; the same photos alone in `changed`."""
    rng = np.random.default_rng(seed)
    for number, path in enumerate(sorted(root.rglob("*.jpg"))[seed % 100 :: 100][:count]):
        pixels = rng.integers(0, 256, (12, 16, 3), np.uint8)
        image = Image.fromarray(pixels).resize((500, 375), Image.Resampling.BICUBIC)
        image.save(path, quality=90)
        os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS + seed))
        target = changed / path.parent.name / f"{number:06d}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
        os.utime(target, ns=(LONG_AGO_NS, LONG_AGO_NS))


def one_per_cent(root: Path, features: Path, scratch: Path, rounds: int) -> None:
    pairs = []
    for number in range(1, rounds + 1):
        changed = scratch / f"changed{number}"
        change(root, changed, 10**9, number)
        alone = timed(lambda: tlpipe.embed(changed, scratch / f"changed{number}.h5"))  # noqa: B023
        ours = timed(lambda: tlpipe.embed(root, features))
        nothing = timed(lambda: tlpipe.embed(root, features))
        print(f"  update {ours:.2f} s, those images alone {alone:.2f} s, no change {nothing:.2f} s")
        pairs.append((ours, alone + nothing))
    report("1 % changed / those images alone + no change", "s", pairs)


def storing(source: Source, scratch: Path, rounds: int) -> None:
    """Rows one by one into a file and into parts, as ``embed`` does."""
    header, dim = header_for(source)
    rows = random_rows(np.random.default_rng(0), [f"{n:06d}" for n in range(4096)], dim)

    def write() -> None:
        path = scratch / "stored.h5"
        parts = Parts(path)
        parts.begin(header, dim, anew=False)
        with feature_writer(path, header, dim, temporary=parts.temporary) as writer:
            for index in range(len(rows)):
                row = rows.part(index, index + 1)
                writer.add(row)
                parts.add(row)
        parts.finish()
        parts.remove()

    seconds = [timed(write) / len(rows) for _ in range(rounds)]
    images = scratch / "changed1"
    count = open_source(images).survey.count
    whole = timed(lambda: tlpipe.embed(images, scratch / "again.h5")) / count
    report("storing / embedding, per image", "s", [(each, whole) for each in seconds])


def reading(features: Path, scratch: Path, rounds: int) -> None:
    with FeatureFile(features) as file:
        count, dim = file.count, file.dim
    raw = scratch / "raw.bin"
    with raw.open("wb") as stream, FeatureFile(features) as file:
        for start in range(0, count, 8192):
            file.vectors(start, min(start + 8192, count)).tofile(stream)

    def ours() -> None:
        with FeatureFile(features) as file:
            file.all_vectors()

    def unchecked() -> None:
        with h5py.File(features) as file:
            whole = np.empty((count, dim), np.float32)
            file["embeddings"].read_direct(whole)

    size = count * dim * 4e-9
    pairs: dict[str, list[tuple[float, float]]] = {"as it is": [], "checked": []}
    for _ in range(rounds + 2):
        peer = size / timed(lambda: np.fromfile(raw, np.float32).reshape(count, dim))
        pairs["as it is"].append((size / timed(unchecked), peer))
        pairs["checked"].append((size / timed(ours), peer))
    for name, found in pairs.items():
        report(f"reading, {name} / numpy.fromfile", "GB/s", found[2:])  # the first two warm up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only-no-change", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        root, features = scratch / "tree", scratch / "features.h5"
        make_tree(root, arguments.files)
        source = open_source(root)
        make_features(source, features)
        print(f"{arguments.files:,} files, {features.stat().st_size / 1e6:.0f} MB of features")
        no_change(root, features, arguments.rounds)
        if not arguments.only_no_change:
            reading(features, scratch, arguments.rounds)
            one_per_cent(root, features, scratch, max(2, arguments.rounds // 2))
            storing(source, scratch, arguments.rounds)


if __name__ == "__main__":
    main()
