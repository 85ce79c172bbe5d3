"""Metrics: how good predictions are, against known labels, and how sure that is.

Takes probabilities, logits and labels; gives plain records that can be written as JSON.
``docs/reference/results.md`` specifies them. Imports NumPy.

records      -> what the others give
intervals    -> 95 % intervals of proportions and means
confusion    -> what follows from who was taken for whom
single_label -> one label per image
calibration  -> how far confidence is from accuracy
multi_label  -> several labels per image
baseline     -> the comparison with always giving the same answer
learning     -> what a learning curve says of more images
paired       -> the comparison of several classifiers on the same images
"""

from tlpipe.stages.metrics.baseline import verdict
from tlpipe.stages.metrics.calibration import measure_calibration, reliability
from tlpipe.stages.metrics.learning import learning_point, reading
from tlpipe.stages.metrics.multi_label import measure_multilabel
from tlpipe.stages.metrics.paired import Difference, PerImage, joint_level, judge_each, paired
from tlpipe.stages.metrics.records import (
    ClassMetrics,
    Estimate,
    LabelMetrics,
    LearningPoint,
    Majority,
    Metrics,
    MultilabelMetrics,
    ReliabilityBin,
    Temperature,
)
from tlpipe.stages.metrics.single_label import measure

__all__ = [
    "ClassMetrics",
    "Difference",
    "Estimate",
    "LabelMetrics",
    "LearningPoint",
    "Majority",
    "Metrics",
    "MultilabelMetrics",
    "PerImage",
    "ReliabilityBin",
    "Temperature",
    "joint_level",
    "judge_each",
    "learning_point",
    "measure",
    "measure_calibration",
    "measure_multilabel",
    "paired",
    "reading",
    "reliability",
    "verdict",
]
