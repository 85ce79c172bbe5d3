"""Does ``tlpipe audit`` find wrong labels? Flips some on purpose, and counts.

Run: ``python tests/benchmarks/label_errors.py features.h5 ...`` with feature files whose labels are
as good as they get. In each, a part of the labels is changed to another class, all others being as
likely; the changed file is audited; and the table says how many of the flipped labels are among
those called wrong, and how many of those were flipped. Labels that were wrong from the start count
against the precision.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import tlpipe
from tlpipe.stages.store import SPAN_ROWS, FeatureFile, feature_writer


@dataclass(frozen=True)
class Score:
    """What an audit made of flipped labels."""

    flipped: int
    suspected: int
    found: int
    corrected: int
    seconds: float

    @property
    def recall(self) -> float:
        return self.found / self.flipped

    @property
    def precision(self) -> float:
        return self.found / max(self.suspected, 1)


def flip(source: Path, target: Path, part: float, seed: int) -> dict[str, str]:
    """Write `source` with a part of its labels flipped; give the true labels by key."""
    rng = np.random.default_rng(seed)
    truth: dict[str, str] = {}
    with FeatureFile(source) as file, feature_writer(target, file.header, file.dim) as writer:
        numbers = file.read("labels", 0, file.count)
        labelled = np.flatnonzero(numbers >= 0)
        chosen = rng.choice(labelled, round(part * labelled.size), replace=False)
        turns = dict(
            zip(
                chosen.tolist(),
                rng.integers(1, len(file.classes), chosen.size).tolist(),
                strict=True,
            )
        )
        for start in range(0, file.count, SPAN_ROWS):
            rows = file.rows(start, min(start + SPAN_ROWS, file.count), vectors=True)
            labels = list(rows.labels)
            for at, key in enumerate(rows.keys):
                if start + at in turns:
                    truth[key] = str(labels[at])
                    other = (int(numbers[start + at]) + turns[start + at]) % len(file.classes)
                    labels[at] = file.classes[other]
            writer.add(replace(rows, labels=labels))
    return truth


def measure(source: Path, folder: Path, part: float, seed: int) -> Score:
    """Flip, audit and count."""
    target = folder / "flipped.h5"
    target.unlink(missing_ok=True)
    truth = flip(source, target, part, seed) if part else {}
    start = time.perf_counter()
    check = tlpipe.audit(target if part else source).labels
    seconds = time.perf_counter() - start
    assert check is not None
    found = [error for error in check.errors if error.image.key in truth]
    corrected = sum(error.suggested == truth[error.image.key] for error in found)
    return Score(len(truth), len(check.errors), len(found), corrected, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("features", type=Path, nargs="+")
    parser.add_argument("--part", type=float, default=0.05, help="of the labels that are flipped")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    print(
        f"{'':24}{'seed':>5}{'flipped':>9}{'suspect':>9}{'found':>8}{'precision':>11}"
        f"{'corrected':>11}{'seconds':>9}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for source in arguments.features:
            scores = []
            for seed in range(arguments.seeds):
                scores.append(measure(source, Path(folder), arguments.part, seed))
                s = scores[-1]
                print(
                    f"{source.stem:24}{seed:5}{s.flipped:9,}{s.suspected:9,}{s.recall:8.3f}"
                    f"{s.precision:11.3f}{s.corrected / max(s.found, 1):11.3f}{s.seconds:9.1f}",
                    flush=True,
                )
            recall = np.mean([s.recall for s in scores])
            precision = np.mean([s.precision for s in scores])
            print(f"{source.stem + ', mean':24}{'':23}{recall:8.3f}{precision:11.3f}")
            own = measure(source, Path(folder), 0.0, 0)
            print(f"{source.stem}: nothing flipped, {own.suspected} suspect", flush=True)


if __name__ == "__main__":
    main()
