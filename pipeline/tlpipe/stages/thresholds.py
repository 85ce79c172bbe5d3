"""Thresholds: from which probability on an image is given a label.

Takes what a head says of rows that did not train it, gives a threshold for each label. Imports
NumPy.

The rule: of all thresholds, those with the greatest F1 on the held-out rows, and of these the one
nearest to 1/2; then drawn towards 1/2, the more the fewer rows tell. Why: the threshold with the
greatest F1 depends on the order of the few rows around it, and where few rows have the label it is
mostly chance. It then errs far on either side: a label that the head cannot tell at all is best
given to every image (Lipton, Elkan & Narayanaswamy, "Optimal Thresholding of Classifiers to
Maximize F1 Measure", ECML PKDD 2014), and one lucky row sets it near 1 (Fan & Lin, "A Study on
Threshold Selection for Multi-label Classification", 2007, who give such labels a fixed threshold
instead). ``docs/how-to/multi-label.md`` has what this rule and others gave.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import Float32Array

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

PRIOR_ROWS = 3
"""Held-out rows that weigh as much as 1/2 does. A label that so many rows have, or lack, has a
threshold half of the way, in logits, between 1/2 and the one with the greatest F1."""

_FURTHEST = 12.0  # logit of a threshold: probabilities of 6e-6, and of as much less than 1
_SAME = 1e-12  # F1 of equal hits differs by rounding


def tune(logits: Floats, truth: Bools) -> Float32Array:
    """Thresholds (K,), more than 0 and less than 1: a label is given from its threshold on.

    Parameters
    ----------
    logits : float array (M, K)
        Of rows that did not train the head; a sigmoid of each gives its probability.
    truth : bool array (M, K)
        Which labels the rows have.
    """
    count, classes = truth.shape
    found = np.zeros(classes)
    for k in range(classes):
        having = int(truth[:, k].sum())
        told = min(having, count - having)
        if told:
            best = best_logit(logits[:, k], truth[:, k])
            found[k] = best * told / (told + PRIOR_ROWS)
    thresholds: Float32Array = (1 / (1 + np.exp(-found))).astype(np.float32)
    return thresholds


def best_logit(logits: Floats, truth: Bools) -> float:
    """Logit with the greatest F1 as a threshold, the nearest to 0 of several.

    Between two rows it is half of the way, but where that steps over 0, it is 0.

    Parameters
    ----------
    logits : float array (M,)
    truth : bool array (M,)
        At least one row has the label.
    """
    order = np.argsort(-logits, kind="stable")
    ranked = logits[order]
    # One may cut behind a row, but not between rows of the same logit.
    ends = np.append(np.flatnonzero(np.diff(ranked)), ranked.size - 1)
    hits = np.cumsum(truth[order])[ends]
    f1 = 2 * hits / (ends + 1 + hits[-1])
    best = ends[f1 >= f1.max() - _SAME]
    upper = ranked[best]
    lower = np.append(ranked, -np.inf)[best + 1]
    middle = np.where(np.isfinite(lower), (upper + lower) / 2, upper)
    cuts = np.where((lower < 0) & (upper >= 0), 0.0, middle)
    return float(np.clip(cuts[np.abs(cuts).argmin()], -_FURTHEST, _FURTHEST))
