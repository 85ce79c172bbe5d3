"""How close does listing a source come to a bare walk? Run: ``make bench-scan``.

Both look at every file of the same tree, of empty files: ``Source.scan`` with stats, and
``os.walk`` with ``os.stat``. They are measured in turn over several rounds, because the speed of a
machine drifts; the ratio is taken within a round, and its median is the result.
"""

from __future__ import annotations

import argparse
import os
import statistics
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folders", type=int, default=60)
    parser.add_argument("--files", type=int, default=1000, help="per folder")
    parser.add_argument("--rounds", type=int, default=11)
    arguments = parser.parse_args()
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


if __name__ == "__main__":
    main()
