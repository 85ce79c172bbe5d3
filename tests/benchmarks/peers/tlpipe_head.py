"""tlpipe's solver of the head by itself, on stored embeddings, and how near it is to the optimum.

Call: ``tlpipe_head.py FOLDER search`` or ``tlpipe_head.py FOLDER gap --c C``; the folder is that of
``head_data.py``. ``search`` tries its grid on its folds, on raw embeddings alone, so that the work
is that of LogisticRegressionCV, and trains on all rows with the value chosen. ``gap`` trains with
one C and compares the objective with that of a reference in float64. All that these benchmarks know
of the solver is in ``our_search`` and ``our_fit``.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from head_data import Pairs, read, report
from head_reference import penalty, reference, value
from measure import peak_bytes

from tlpipe.stages.head import HeadOptions, train


@dataclass(frozen=True)
class Found:
    """What a search took and chose: (D, K) weights and a (K,) bias on the embeddings given."""

    seconds: float
    c: float
    weights: np.ndarray
    bias: np.ndarray


def our_search(vectors: np.ndarray, labels: np.ndarray, grid: np.ndarray, folds: Pairs) -> Found:
    """Choose C on the folds, then train on all rows; raw embeddings, no temperature."""
    start = time.monotonic()
    options = HeadOptions(scalings=("raw",), c=tuple(map(float, grid)), calibrate=False)
    head = train(vectors, labels, np.arange(len(labels)), folds, options)
    return Found(time.monotonic() - start, head.c, head.weights, head.bias)


def our_fit(vectors: np.ndarray, labels: np.ndarray, c: float) -> tuple[np.ndarray, np.ndarray]:
    """Train with one C; raw embeddings, no temperature."""
    options = HeadOptions(scalings=("raw",), c=(c,), calibrate=False)
    head = train(vectors, labels, np.arange(len(labels)), [], options)
    return head.weights, head.bias


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (M, K)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def gap(vectors: np.ndarray, labels: np.ndarray, c: float) -> dict[str, float]:
    """How far the objective of our weights is above the least, relative to it."""
    weights, bias = our_fit(vectors, labels, c)
    exact = vectors.astype(np.float64)
    scale = penalty(weights.shape[1])
    ours = value(exact, labels, c, weights, bias, scale)
    best = reference(exact, labels, c, weights, bias, scale)
    return {
        "c": c,
        "ours": ours,
        "reference": best.value,
        "gap": (ours - best.value) / best.value,
        "uncertain": best.uncertain / best.value,
        "steps": best.steps,
    }


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("mode", choices=("search", "gap"))
    parser.add_argument("--c", type=float, default=1.0, help="of gap")
    chosen = parser.parse_args()
    data = read(chosen.folder)
    if chosen.mode == "gap":
        print(json.dumps({**gap(data.x_fit, data.y_fit, chosen.c), "peak_bytes": peak_bytes()}))
        return
    found = our_search(data.x_fit, data.y_fit, data.grid, data.folds)
    logits = data.x_judge.astype(np.float64) @ found.weights + found.bias
    report(data, softmax(logits), fit_s=found.seconds, c=found.c)


if __name__ == "__main__":
    main()
