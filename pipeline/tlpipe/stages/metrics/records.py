"""Records of what was measured; plain numbers, lists and text.

Every interval is a 95 % interval of what one would find on endlessly many images like those that
were judged.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

Interval = tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """A number, and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassMetrics:
    """One class's row; a ratio whose denominator is 0 is 0.

    ``recall_low`` and ``recall_high`` are the interval of the recall: 0 and 1 where no image of
    the class was judged.
    """

    name: str
    precision: float
    recall: float
    f1: float
    support: int
    recall_low: float
    recall_high: float


@dataclass(frozen=True)
class Majority:
    """What always answering one class, the most frequent of the training images, would reach.

    Attributes
    ----------
    name : str
        The class.
    accuracy, low, high : float
        Its share of the images judged.
    gain, gain_low, gain_high : float
        Accuracy of the classifier less that share, on the same images.
    """

    name: str
    accuracy: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float


@dataclass(frozen=True)
class Temperature:
    """What dividing the logits by a temperature did, on the same images.

    Attributes
    ----------
    temperature : float
        Above 1 where the classifier was too sure of itself.
    before, after : Estimate
        Expected calibration error, corrected for chance.
    before_plain, after_plain : float
        The same as other tools give it.
    log_loss_before, log_loss_after : float
    """

    temperature: float
    before: Estimate
    after: Estimate
    before_plain: float
    after_plain: float
    log_loss_before: float
    log_loss_after: float


@dataclass(frozen=True)
class ReliabilityBin:
    """Images of like confidence: their mean confidence, and how often the answer was right.

    ``low`` and ``high`` are of the accuracy.
    """

    count: int
    confidence: float
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class LearningPoint:
    """What a head trained on `count` images reaches; ``low`` and ``high`` are of the accuracy."""

    count: int
    accuracy: float
    low: float
    high: float
    log_loss: float


@dataclass(frozen=True)
class Metrics:
    """What held-out data say of a classifier with one label per image.

    Attributes
    ----------
    count : int
        Number of labelled rows judged, N.
    accuracy, balanced_accuracy, macro_f1 : float
        The latter two are means over the classes that occur among the labels.
    top_5_accuracy : float or None
        None for fewer than 10 classes.
    log_loss : float
        Mean of -ln(probability of the true class), in nats.
    brier : float
        Mean over images of the sum over classes of (probability - truth) squared: 0 to 2.
    calibration_error : float
        Expected calibration error, corrected for chance (see ``calibration``).
    calibration_error_plain : float
        The same as other tools give it: too great where images are few.
    calibration_bins : int
        Number of bins of the two.
    intervals : dict of str to (low, high)
        95 % intervals of those above, by name; not of ``calibration_error_plain``, and of one
        image alone not of ``log_loss`` and ``brier``.
    per_class : list of ClassMetrics
    confusion : list of lists of int, or None
        Rows: true class, columns: predicted class. None for more than ``MOST_DENSE`` classes.
    confused : list of (true, predicted, images), or None
        The most frequent mistakes, where `confusion` is None.
    majority : Majority or None
        None where it is not known which class trained most.
    temperature : Temperature or None
    learning_curve : list of LearningPoint
        By rising count; empty where none was made.
    """

    count: int
    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    top_5_accuracy: float | None
    log_loss: float
    brier: float
    calibration_error: float
    calibration_error_plain: float
    calibration_bins: int
    intervals: dict[str, Interval]
    per_class: list[ClassMetrics]
    confusion: list[list[int]] | None
    confused: list[tuple[int, int, int]] | None
    majority: Majority | None = None
    temperature: Temperature | None = None
    learning_curve: list[LearningPoint] = field(default_factory=list)

    def mistakes(self, most: int) -> list[tuple[int, int, int]]:
        """True class, predicted class and number of images of the `most` frequent mistakes."""
        if self.confused is not None:
            return self.confused[:most]
        cells = [
            (true, guess, count)
            for true, row in enumerate(self.confusion or [])
            for guess, count in enumerate(row)
            if count and true != guess
        ]
        return sorted(cells, key=lambda cell: (-cell[2], *cell))[:most]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class LabelMetrics:
    """One class's row, where an image may have several labels.

    Attributes
    ----------
    average_precision : float or None
        None where no image judged has the label.
    precision, recall, f1 : float
        At the threshold; a ratio whose denominator is 0 is 0.
    support : int
        Images that have the label.
    threshold : float
        The label is given from this probability on.
    """

    name: str
    average_precision: float | None
    precision: float
    recall: float
    f1: float
    support: int
    threshold: float


@dataclass(frozen=True)
class MultilabelMetrics:
    """What held-out data say of a classifier with several labels per image.

    Attributes
    ----------
    count : int
        Number of images judged, N.
    micro_f1 : float
        Over all answers together; 0 where there is nothing to find and nothing was found.
    macro_f1, mean_average_precision : float or None
        Means over the classes that some image has; None where there is none.
    hamming_loss : float
        Share of the N x K answers that are wrong.
    subset_accuracy : float
        Share of the images of which all K answers are right.
    intervals : dict of str to (low, high)
    per_class : list of LabelMetrics
    """

    count: int
    micro_f1: float
    macro_f1: float | None
    mean_average_precision: float | None
    hamming_loss: float
    subset_accuracy: float
    intervals: dict[str, Interval]
    per_class: list[LabelMetrics]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)
