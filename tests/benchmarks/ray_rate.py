"""How close do a Ray cluster's workers come to the local engine? Run: ``make bench-ray``.

Both embed the same images with the default backbone, start-up left out: the local engine with as
many threads as there are workers of one core each on a Ray cluster on this machine, which is
started once. They are measured in turn over several rounds, the first of which is left out, and
each round begins with the other one; the ratio is taken within a round, and its median is the
result. Both files must be the same, byte for byte in the arrays.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import ray
from conditions import conditions

sys.path.insert(0, str(Path(__file__).parents[1]))

from stored import datasets
from tlpipe import RunOptions, embed
from tlpipe.stages.source import open_source


def linked(source: Path, most: int, folder: Path) -> Path:
    """Up to `most` images, evenly chosen, in a folder of their own."""
    found = [Path(item.place) for item in open_source(source).items()]
    most = min(most, len(found))
    folder.mkdir()
    for number in range(most):
        path = found[number * len(found) // most].resolve()
        place = folder / f"{number:06d}{path.suffix}"
        try:
            os.link(path, place)
        except OSError:  # another file system
            shutil.copy2(path, place)
    return folder


def rate(images: Path, output: Path, options: RunOptions) -> float:
    result = embed(images, output, options=options, overwrite=True)
    return result.embedded / result.elapsed_s


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="for files that are made, and removed again")
    given = parser.parse_args()
    for name, value in conditions().items():
        print(f"{name}: {value}")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(address="local", num_cpus=given.workers, include_dashboard=False, log_to_driver=False)
    here, spread = RunOptions(threads=given.workers), RunOptions(engine="ray", threads=1)
    if given.folder is not None:
        given.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given.folder) as work:
        images = linked(given.source, given.images, Path(work) / "images")
        files = {"local": Path(work) / "local.h5", "ray": Path(work) / "ray.h5"}
        options = {"local": here, "ray": spread}
        ratios = []
        for number in range(given.rounds + 1):
            order = ["local", "ray"] if number % 2 else ["ray", "local"]
            rates = {name: rate(images, files[name], options[name]) for name in order}
            if number == 0:
                continue
            ratios.append(rates["ray"] / rates["local"])
            print(
                f"round {number}: local {rates['local']:.1f} images/s, ray {rates['ray']:.1f},"
                f" ratio {ratios[-1]:.3f}"
            )
        same = datasets(files["local"]) == datasets(files["ray"])
        count = len(list(images.iterdir()))
    ray.shutdown()
    median = statistics.median(ratios)
    print(f"{count} images, {given.workers} workers of one core: median {median:.3f}")
    print(f"the arrays are {'the same' if same else 'NOT THE SAME'}")
    sys.exit(not same)


if __name__ == "__main__":
    main()
