"""How close does listing a source come to a bare walk? Run: ``make bench-scan``.

Both look at every file of the same tree, of empty files: ``Source.scan`` with stats, and
``os.walk`` with ``os.stat``. They are measured in turn over several rounds, because the speed of a
machine drifts; the ratio is taken within a round, and its median is the result.

Then manifests of 1,000,000 rows with path and label, in CSV, JSON Lines and Parquet, are listed,
each in a process of its own: seconds of ``Source.survey`` and of a scan, and the process's peak
memory.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tlpipe.stages.source import open_source


def make_tree(root: Path, folders: int, files: int) -> None:
    """Empty files whose names are not written in their order."""
    for number in range(folders):
        folder = root / f"class{number:03d}"
        folder.mkdir()
        for index in range(files):
            (folder / f"IMG_{index * 7919 % 100_003:06d}.jpg").touch()


def bare_walk(root: Path) -> int:
    count = 0
    for folder, _, names in os.walk(root):
        for name in names:
            os.stat(os.path.join(folder, name))  # noqa: PTH116, PTH118  (the bare calls)
            count += 1
    return count


def scan(root: Path) -> int:
    return sum(len(block) for block in open_source(root).scan(stats=True))


def seconds(job: Callable[[Path], int], root: Path, expected: int) -> float:
    start = time.perf_counter()
    if job(root) != expected:
        raise AssertionError(f"{job.__name__} does not find every file")
    return time.perf_counter() - start


def make_manifests(root: Path, rows: int) -> list[Path]:
    """The same rows in each format; no file is at their paths."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = [(number * 7919 % 1000, number) for number in range(rows)]
    paths = [f"train/class_{label:03d}/IMG_{number:07d}.jpg" for label, number in numbers]
    labels = [f"class_{label:03d}" for label, _ in numbers]
    with (root / "m.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "label"), *zip(paths, labels, strict=True)])
    with (root / "m.jsonl").open("w") as stream:
        for path, label in zip(paths, labels, strict=True):
            stream.write(json.dumps({"path": path, "label": label}) + "\n")
    pq.write_table(pa.table({"path": paths, "label": labels}), root / "m.parquet")
    return [root / f"m.{kind}" for kind in ("csv", "jsonl", "parquet")]


def peak_mib() -> float:
    """Most memory that this process held; what is told of a child includes its parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        found = next(line for line in status.read_text().splitlines() if "VmHWM" in line)
        return int(found.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def list_manifest(path: Path) -> None:
    """Measure one manifest; meant for a process of its own."""
    start = time.perf_counter()
    source = open_source(path)
    count = source.survey.count
    surveyed = time.perf_counter()
    if sum(len(block) for block in source.scan(stats=False)) != count:
        raise AssertionError("two scans differ")
    scanned = time.perf_counter()
    peak = peak_mib()
    print(
        f"{path.suffix[1:]}: {count:,} rows: survey {surveyed - start:.2f} s, scan"
        f" {scanned - surveyed:.2f} s, peak {peak:.0f} MiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folders", type=int, default=60)
    parser.add_argument("--files", type=int, default=1000, help="per folder")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the manifests")
    parser.add_argument("--list", type=Path, help="list this manifest, and nothing else")
    arguments = parser.parse_args()
    if arguments.list is not None:
        list_manifest(arguments.list)
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_tree(root, arguments.folders, arguments.files)
        total = arguments.folders * arguments.files
        bare_walk(root)  # warm up
        rows = []
        for _ in range(arguments.rounds):
            rows.append((seconds(bare_walk, root, total), seconds(scan, root, total)))
    walked, scanned = (statistics.median(column) for column in zip(*rows, strict=True))
    ratio = statistics.median(b / a for a, b in rows)
    print(f"{total:,} files: os.walk and os.stat {walked:.3f} s, scan {scanned:.3f} s")
    print(f"median ratio {ratio:.3f}")
    with tempfile.TemporaryDirectory() as folder:
        for path in make_manifests(Path(folder), arguments.rows):
            subprocess.run([sys.executable, __file__, "--list", str(path)], check=True)


if __name__ == "__main__":
    main()
