"""Opens feature files from strangers in every way tlpipe has, and tells what became of it.

``python hostile_child.py FOLDER CARD FILE...`` prints a line of JSON per file, before and after.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import tlpipe
from tlpipe.catalogue import read_card
from tlpipe.errors import TlpipeError
from tlpipe.stages.store import FeatureFile, inspect_features, read_features, read_rejects

ROOM = 2 << 30  # bytes of address space beyond those in use


def rows(path: Path) -> object:
    with FeatureFile(path) as file:
        for start in range(0, min(file.count, 10_000), 500):
            stop = min(start + 500, file.count)
            found = file.rows(start, stop, vectors=True)
        return found, file.header.card("x")


def ways(folder: Path, card: Path) -> dict[str, Callable[[Path], object]]:
    return {
        "read": read_features,
        "inspect": inspect_features,
        "tlpipe.inspect": tlpipe.inspect,
        "rejects": read_rejects,
        "rows": rows,
        "verify": tlpipe.verify_features,
        "repair": lambda path: tlpipe.repair(path, folder / "mended.h5", overwrite=True),
        "train": lambda path: tlpipe.train_head(path, folder / "c.onnx", overwrite=True),
        "embed": lambda path: tlpipe.embed(folder / "photos", path, backbone=read_card(card)),
    }


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    folder, card, *paths = map(Path, sys.argv[1:])
    with Path("/proc/self/statm").open() as stream:
        used = int(stream.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
    for path in paths:
        print(json.dumps({"begun": path.name}), flush=True)
        found = {}
        for name, way in ways(folder, card).items():
            before, start = peak_mb(), time.monotonic()
            try:
                said = f"fine: {str(way(path))[:300]}"
            except TlpipeError as exc:
                said = f"refused: {type(exc).__name__}: {exc.message[:2000]}"
            except BaseException as exc:
                said = f"FOREIGN: {exc!r}"
            found[name] = [said, peak_mb() - before, time.monotonic() - start]
        print(json.dumps({"name": path.name, "found": found}), flush=True)


if __name__ == "__main__":
    main()
