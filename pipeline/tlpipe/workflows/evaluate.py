"""evaluate: judges a classifier on labelled images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tlpipe.errors import OptionError, SourceError
from tlpipe.files import check_output
from tlpipe.quantities import by_count
from tlpipe.stages.metrics import Metrics, MultilabelMetrics
from tlpipe.stages.report import write_report
from tlpipe.stages.source import Source, Survey
from tlpipe.types import SPLIT_CHOICES, Item, ProgressCallback, Split, SplitChoice
from tlpipe.workflows.classifier import open_classifier
from tlpipe.workflows.common import Surveyed, as_source, opened
from tlpipe.workflows.run_options import RunOptions
from tlpipe.workflows.truth import judged, truth_of


@dataclass(frozen=True)
class EvaluateResult:
    """What ``evaluate`` found.

    Attributes
    ----------
    metrics : Metrics or MultilabelMetrics
    classes : list of str
    judged_on : str
        Which images, in words.
    rejects : Counter of str
        Labelled images that could not be read, by reason; they are not in `metrics`.
    too_many_rejects : bool
        Whether they are more than was allowed.
    survey : Survey
    provider : str
        The ONNX Runtime execution provider that ran the classifier.
    notices : list of str
        What a user would want to know.
    path : pathlib.Path or None
        The file that the numbers were written to.
    """

    metrics: Metrics | MultilabelMetrics
    classes: list[str]
    judged_on: str
    rejects: Counter[str]
    too_many_rejects: bool
    survey: Survey
    provider: str
    notices: list[str]
    path: Path | None = None


def evaluate(
    classifier: str | Path,
    source: Source | str | Path,
    *,
    split: SplitChoice = "auto",
    options: RunOptions | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
    surveyed: Surveyed | None = None,
) -> EvaluateResult:
    """Judge a classifier on labelled images.

    Parameters
    ----------
    classifier : str or pathlib.Path
    source : Source, str or pathlib.Path
        Its labels must be classes of the classifier; images without a label are left out. Where
        an image may have several, they are joined as they were in training.
    split : {"auto", "all", "train", "validation", "test"}
        Which images of the source. "auto": the test split where there is one, else the validation
        split, else all.
    options : RunOptions, optional
        Device, batch size and how many rejects are allowed.
    output : str or pathlib.Path, optional
        A JSON file to write the numbers to.
    overwrite : bool
        Whether an existing `output` may be replaced.
    progress, surveyed : callable, optional
        As for ``embed``.

    Raises
    ------
    SourceError
        The source holds no labelled image of that split, none can be read, or a label is no class
        of the classifier.
    ClassifierError, BackboneError, DeviceError
        The classifier cannot be used.
    OptionError
        `split` is none of the above.
    OutputError
        The output cannot be written.
    """
    options = options or RunOptions()
    if split not in SPLIT_CHOICES:
        raise OptionError(
            f"The split {split!r} is unknown.", hint=f"Use one of {list(SPLIT_CHOICES)}."
        )
    source = opened(source)
    if output is not None:
        inputs = [Path(classifier), *source.paths]
        check_output(Path(output), overwrite=overwrite, suffixes=(".json",), inputs=inputs)
    judge = open_classifier(classifier, options)
    source = as_source(source, surveyed)
    classes = list(judge.info.classes)
    chosen = chosen_splits(source, split)
    cells = {name for s, name in source.survey.labels if name is not None and s in chosen}
    truth, notices = truth_of(judge.info, cells, f"The source {source.name!r}")
    total = sum(
        n for (s, name), n in source.survey.labels.items() if name is not None and s in chosen
    )
    if not total:
        raise SourceError(
            f"The source {source.name!r} holds no labelled image"
            + ("." if split in ("auto", "all") else f" of the split {split!r}."),
            hint="One folder per class, or a CSV with a label column, is needed to judge.",
        )

    def items() -> Iterator[Item]:
        return (i for i in source.items() if i.label is not None and i.split in chosen)

    probabilities, labels = [], []
    rejects: Counter[str] = Counter()
    for outcome in judge.outcomes(source.reader, items(), total, options, progress, "evaluate"):
        if outcome.reject is not None:
            rejects[outcome.reject.reason] += 1
        elif outcome.item.label is not None:
            probabilities.append(outcome.values["probabilities"])
            labels.append(truth[outcome.item.label])
    if not labels:
        raise SourceError(
            f"None of the {total} labelled images could be read: {by_count(rejects)}.",
            hint="Name a source of images that can be read.",
        )
    result = EvaluateResult(
        metrics=judged(judge.info, np.stack(probabilities), np.array(labels)),
        classes=classes,
        judged_on=_words(chosen, source),
        rejects=rejects,
        too_many_rejects=options.too_many(rejects.total(), total),
        survey=source.survey,
        provider=judge.network.provider,
        notices=notices,
        path=None if output is None else Path(output),
    )
    if output is not None:
        content = {
            "classes": classes,
            "judged_on": result.judged_on,
            "rejects": dict(rejects),
            "metrics": result.metrics.to_dict(),
        }
        write_report(Path(output), content)
    return result


def chosen_splits(source: Source, split: SplitChoice) -> set[Split]:
    """Which images of a source judge, by their split."""
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
        return f"all labelled images of {source.name!r}"
    return f"the {next(iter(chosen)).name.lower()} split of {source.name!r}"
