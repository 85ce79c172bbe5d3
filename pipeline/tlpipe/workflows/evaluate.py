"""evaluate: judges a classifier on labelled images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tlpipe.errors import OptionError, SourceError
from tlpipe.stages.metrics import Metrics, measure
from tlpipe.stages.source import Source, Survey
from tlpipe.types import Item, ProgressCallback, Split
from tlpipe.workflows.classify import Classifier, as_classifier
from tlpipe.workflows.common import RunOptions, as_source

Which = Literal["auto", "all", "train", "validation", "test"]
WHICH: tuple[Which, ...] = ("auto", "all", "train", "validation", "test")


@dataclass(frozen=True)
class EvaluateResult:
    """What ``evaluate`` found.

    Attributes
    ----------
    metrics : Metrics
    classes : list of str
    judged_on : str
        Which images, in words.
    rejects : Counter of str
        Labelled images that could not be read, by reason; they are not in `metrics`.
    too_many_rejects : bool
        Whether they are more than was allowed.
    survey : Survey
    """

    metrics: Metrics
    classes: list[str]
    judged_on: str
    rejects: Counter[str]
    too_many_rejects: bool
    survey: Survey

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "format": "tlpipe-metrics",
            "format_version": 1,
            "classes": self.classes,
            "judged_on": self.judged_on,
            "rejects": dict(self.rejects),
            "metrics": self.metrics.to_dict(),
        }


def evaluate(
    classifier: Classifier | str | Path,
    source: Source | str | Path,
    *,
    split: Which = "auto",
    options: RunOptions | None = None,
    progress: ProgressCallback | None = None,
) -> EvaluateResult:
    """Judge a classifier on labelled images.

    Parameters
    ----------
    classifier : Classifier, str or pathlib.Path
    source : Source, str or pathlib.Path
        Its labels must be classes of the classifier; images without a label are left out.
    split : {"auto", "all", "train", "validation", "test"}
        Which images of the source. "auto": the test split where there is one, else the validation
        split, else all.
    options : RunOptions, optional
    progress : callable, optional

    Raises
    ------
    SourceError
        The source holds no labelled image of that split, none can be read, or a label is no class
        of the classifier.
    ClassifierError, BackboneError, DeviceError
        The classifier cannot be used.
    """
    options = options or RunOptions()
    opened = as_classifier(classifier, options.device)
    source = as_source(source)
    classes = list(opened.info.classes)
    chosen = _choose(source, split)
    unknown = sorted(
        {name for s, name in source.survey.labels if name is not None and s in chosen}
        - set(classes)
    )
    if unknown:
        raise SourceError(
            f"The source {str(source.path)!r} has the labels {unknown[:10]}, which are no classes"
            f" of the classifier; those are {classes[:10]}{' ...' if len(classes) > 10 else ''}.",
            hint="Judge it on images of its own classes, in folders or labels of the same names.",
        )
    total = sum(
        n for (s, name), n in source.survey.labels.items() if name is not None and s in chosen
    )
    if not total:
        raise SourceError(
            f"The source {str(source.path)!r} holds no labelled image of the split {split!r}.",
            hint="One folder per class, or a CSV with a label column, is needed to judge.",
        )

    def items() -> Iterator[Item]:
        return (i for i in source.items() if i.label is not None and i.split in chosen)

    number = {name: k for k, name in enumerate(classes)}
    probabilities, labels = [], []
    rejects: Counter[str] = Counter()
    for outcome in opened.outcomes(items(), total, options, progress, "evaluate"):
        if outcome.reject is not None:
            rejects[outcome.reject.reason] += 1
        elif outcome.item.label is not None:
            probabilities.append(outcome.values["probabilities"])
            labels.append(number[outcome.item.label])
    if not labels:
        raise SourceError(f"None of the {total} labelled images could be read.")
    return EvaluateResult(
        metrics=measure(np.stack(probabilities), np.array(labels, np.int32), classes),
        classes=classes,
        judged_on=_words(chosen, source),
        rejects=rejects,
        too_many_rejects=options.too_many(rejects.total(), total),
        survey=source.survey,
    )


def _choose(source: Source, split: Which) -> set[Split]:
    if split not in WHICH:
        raise OptionError(f"The split {split!r} is unknown.", hint=f"Use one of {list(WHICH)}.")
    if split == "all":
        return set(Split)
    if split != "auto":
        return {Split[split.upper()]}
    labelled = {at for at, label in source.survey.labels if label is not None}
    for preferred in (Split.TEST, Split.VALIDATION):
        if preferred in labelled:
            return {preferred}
    return set(Split)


def _words(chosen: set[Split], source: Source) -> str:
    if len(chosen) > 1:
        return f"all labelled images of {str(source.path)!r}"
    return f"the {next(iter(chosen)).name.lower()} split of {str(source.path)!r}"
