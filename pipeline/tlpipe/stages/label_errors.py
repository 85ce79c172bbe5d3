"""Label errors: which labels are probably wrong, by what a head says of rows that did not train it.

Takes held-out probabilities and labels, gives rows in order of suspicion. Imports NumPy.

Confident learning: C. Northcutt, L. Jiang and I. Chuang, "Confident Learning: Estimating
Uncertainty in Dataset Labels", Journal of Artificial Intelligence Research 70 (2021).

* The threshold of a class is the mean probability that its own rows give it. A row counts for the
  class with the greatest probability among those at or above their thresholds; the confident joint
  counts rows by label and by that class.
* Each of its rows, scaled to the number of labels it stands for, estimates how many of them are
  wrong: what stands off the diagonal.
* Rows are ranked by self-confidence, the probability of the given label, as a part of its class's
  threshold. Of the paper's rules, pruning by rank within the estimated number, over all classes.

One cut is added, for classes that resemble each other: there the estimate counts many rows that lie
between two classes and are labelled right. A label is suspected only where its probability is less
than ``FOREIGN`` times what its class gets, on average, from rows of *other* classes: where the row
resembles the class hardly more than strangers do. The measure comes from the data, so that it suits
two classes as well as ten, and labels that are wrong more or less often.

Rules were compared on the held-out probabilities of ten draws of 5 % flipped labels (found;
precision), clothing and then cats and dogs:

=========================================  ============  ============
confident joint, off the diagonal          0.74; 0.56    0.83; 1.00
another class is likelier than the label   0.99; 0.28    0.99; 0.82
by rank, self-confidence                   0.96; 0.51    0.93; 0.95
by rank, margin                            0.93; 0.49    0.93; 0.95
off the diagonal, and by rank (margin)     0.74; 0.60    0.83; 1.00
label's probability below 0.05             0.89; 0.77    0.52; 1.00
other class 7.4 times as likely            0.92; 0.66    0.83; 1.00
by rank, with the cut at 1                 0.83; 0.80    0.83; 1.00
by rank, with the cut at 1.5               0.87; 0.71    0.90; 0.99
by rank, with the cut at 2                 0.89; 0.64    0.92; 0.97
=========================================  ============  ============

A cut of 1.5 stays clear of what is wanted, four of five found and three of five right, on both
sides. Training again without the suspects, and judging all rows anew, found 0.86; 0.75 and
0.91; 1.00: hardly more, for more time. ``tests/benchmarks/label_errors.py`` measures other draws
and another set; ``docs/reference/audit.md`` has the figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

FOREIGN = 1.5

_ROUNDING = 1e-6  # a probability that misses its threshold by this reaches it


@dataclass(frozen=True)
class LabelErrors:
    """What held-out probabilities say of labels.

    Attributes
    ----------
    rows : int64 array (E,)
        Rows whose label is probably wrong, the most suspect first.
    suggested : int64 array (M,)
        For every row the likeliest class other than its label.
    self_confidence, margin : float64 array (M,)
        Probability of the label; and that less the probability of `suggested`.
    estimated : int
        Wrong labels, estimated from the confident joint.
    joint : int64 array (K, K)
        The confident joint: rows by label (first axis) and by confident class.
    """

    rows: Ints
    suggested: Ints
    self_confidence: Floats
    margin: Floats
    estimated: int
    joint: Ints


def find_label_errors(probabilities: Floats, labels: Ints) -> LabelErrors:
    """Find the rows whose labels are probably wrong.

    Parameters
    ----------
    probabilities : float64 array (M, K)
        Of heads that the rows did not train.
    labels : int64 array (M,)
        0 to K - 1; a class may have no row.

    Returns
    -------
    LabelErrors
    """
    count, classes = probabilities.shape
    every = np.arange(count)
    own = probabilities[every, labels]
    thresholds = class_thresholds(probabilities, labels)
    joint = confident_joint(probabilities, labels, thresholds)
    sizes = np.bincount(labels, minlength=classes)
    estimated = round(float(_calibrated(joint, sizes).sum() - _calibrated(joint, sizes).trace()))
    suggested = _likeliest_other(probabilities, labels)
    margin = own - probabilities[every, suggested]
    sums = np.bincount(labels, weights=own, minlength=classes)
    foreign = (probabilities.sum(axis=0) - sums) / np.maximum(count - sizes, 1)
    order = np.argsort(own / thresholds[labels], kind="stable")
    suspect = (margin < 0) & (own < FOREIGN * foreign[labels])
    first = order[:estimated]
    return LabelErrors(first[suspect[first]], suggested, own, margin, estimated, joint)


def class_thresholds(probabilities: Floats, labels: Ints) -> Floats:
    """Mean self-confidence of each class, float64 (K,); infinity for a class without rows."""
    classes = probabilities.shape[1]
    own = probabilities[np.arange(labels.size), labels]
    sizes = np.bincount(labels, minlength=classes)
    sums = np.bincount(labels, weights=own, minlength=classes)
    return np.where(sizes > 0, sums / np.maximum(sizes, 1), np.inf)


def confident_joint(probabilities: Floats, labels: Ints, thresholds: Floats) -> Ints:
    """Count rows by label and confident class, int64 (K, K); rows without one are left out.

    Parameters
    ----------
    probabilities : float64 array (M, K)
    labels : int64 array (M,)
    thresholds : float64 array (K,)
    """
    classes = thresholds.size
    reached = np.where(probabilities >= thresholds - _ROUNDING, probabilities, -1.0)
    confident = reached.argmax(axis=1)
    sure = reached[np.arange(labels.size), confident] >= 0
    cells = labels[sure] * classes + confident[sure]
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def _calibrated(joint: Ints, sizes: Ints) -> Floats:
    """The confident joint, each row scaled so that it sums to the labels of its class."""
    scaled: Floats = joint * (sizes / np.maximum(joint.sum(axis=1), 1))[:, np.newaxis]
    return scaled


def _likeliest_other(probabilities: Floats, labels: Ints) -> Ints:
    """Likeliest class of each row, its label left out."""
    best: Ints = probabilities.argmax(axis=1)
    others = np.flatnonzero(best == labels)
    rest = probabilities[others]
    rest[np.arange(others.size), labels[others]] = -1.0
    best[others] = rest.argmax(axis=1)
    return best
