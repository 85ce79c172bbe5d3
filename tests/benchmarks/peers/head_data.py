"""What the scripts that train a head from stored embeddings do alike: read them, print figures.

The folder they are given (written by ``head_cost.py``) holds, as ``.npy``: ``x_fit`` float32 (N, D)
and ``y_fit`` int32 (N,), ``x_judge`` and ``y_judge`` likewise, ``folds`` int8 (F, N), and ``grid``
(C,), the values of C. A row of `folds` has 0 for rows that train, 1 for rows that are held out, -1
for rows that do neither. Needs NumPy only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from measure import peak_bytes

Pairs = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Data:
    """Embeddings and labels, the rows of the folds, and the values of C to try."""

    x_fit: np.ndarray
    y_fit: np.ndarray
    x_judge: np.ndarray
    y_judge: np.ndarray
    folds: Pairs
    grid: np.ndarray


def read(folder: Path) -> Data:
    """Read the folder."""
    arrays = [np.load(folder / f"{name}.npy") for name in ("x_fit", "y_fit", "x_judge", "y_judge")]
    sides = np.load(folder / "folds.npy")
    folds = [(np.flatnonzero(side == 0), np.flatnonzero(side == 1)) for side in sides]
    return Data(*arrays, folds, np.load(folder / "grid.npy"))


def report(data: Data, probabilities: np.ndarray, **more: Any) -> None:
    """Print how good the probabilities (M, K) of the judging rows are, and what else is known."""
    rows = np.arange(data.y_judge.size)
    given = np.maximum(probabilities[rows, data.y_judge], np.finfo(np.float64).tiny)
    figures = {
        "log_loss": float(-np.log(given).mean()),
        "accuracy": float((probabilities.argmax(1) == data.y_judge).mean()),
        "peak_bytes": peak_bytes(),
    }
    print(json.dumps({**figures, **more}))
