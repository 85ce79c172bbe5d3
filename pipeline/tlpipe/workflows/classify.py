"""classify: from a classifier and a source of images to a file of predictions.

Needs neither scikit-learn, onnx nor h5py.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tlpipe.errors import BackboneError, ClassifierError, OptionError
from tlpipe.execution import Precision
from tlpipe.files import check_output, is_file
from tlpipe.seams import OpenedNetwork, Reader
from tlpipe.stages.classifier import ClassifierInfo, read_metadata
from tlpipe.stages.predictions import FORMATS, Columns, write_predictions
from tlpipe.stages.preprocess import check_decoder
from tlpipe.stages.session import open_network, properties_of
from tlpipe.stages.source import Source, Survey
from tlpipe.types import DECODERS, Item, Outcome, ProgressCallback
from tlpipe.workflows.common import Surveyed, as_source, opened
from tlpipe.workflows.pixels import loader
from tlpipe.workflows.run_options import RunOptions
from tlpipe.workflows.running import run_over


@dataclass(frozen=True)
class ClassifyResult:
    """What ``classify`` did.

    Attributes
    ----------
    path : pathlib.Path
        The file of predictions.
    count : int
        Number of rows, N.
    classes : Counter of str
        Images by most probable class; or by label, where an image may have several.
    without : int or None
        Images that have none of the labels; None where an image is of one class.
    rejects : Counter of str
        Rows of what could not be read, by reason.
    unknown : int or None
        Rows of images that are of none of the classes; None where that was not asked for.
    too_many_rejects : bool
        Whether they are more than was allowed, or all of the rows.
    survey : Survey
        What the source holds.
    provider : str
        The ONNX Runtime execution provider that ran the classifier.
    elapsed_s : float
        Wall time, start-up left out.
    """

    path: Path
    count: int
    classes: Counter[str]
    without: int | None
    rejects: Counter[str]
    unknown: int | None
    too_many_rejects: bool
    survey: Survey
    provider: str
    elapsed_s: float


@dataclass(frozen=True)
class Classifier:
    """An opened classifier file.

    Attributes
    ----------
    path : pathlib.Path
    info : ClassifierInfo
    whole : OpenedNetwork
        With all outputs that it has.
    network : OpenedNetwork
        The same with the outputs that are wanted; "probabilities" (K,) alone, at first.
    """

    path: Path
    info: ClassifierInfo
    whole: OpenedNetwork
    network: OpenedNetwork

    def outcomes(
        self,
        reader: Reader,
        items: Iterable[Item],
        total: int,
        options: RunOptions,
        progress: ProgressCallback | None,
        stage: str,
    ) -> Iterator[Outcome]:
        """Outcomes of all items that `reader` reads, in order: outputs, or rejects."""
        load = loader(reader, self.info.image_size, self.info.preprocess, self.info.decoder)
        return run_over(items, total, self.network, load, options, progress, stage)

    def computing(self, shapes: Mapping[str, tuple[int, ...]]) -> OpenedNetwork:
        """The network, computing these outputs alone.

        Raises
        ------
        ClassifierError
            Its input or an output is not of the shape that the metadata state.
        """
        for name, shape in shapes.items():
            try:
                found = self.whole.only([name]).shapes()
            except BackboneError as exc:
                raise ClassifierError(
                    f"{str(self.path)!r} is damaged: its graph lacks the output {name!r}."
                ) from exc
            if found != ((*self.info.image_size, 3), shape):
                raise ClassifierError(
                    f"{str(self.path)!r} is damaged: its graph takes and gives {found}, its"
                    f" metadata speak of images of {self.info.image_size} and"
                    f" {len(self.info.classes)} classes."
                )
        return self.whole.only(list(shapes))

    def saying(self, columns: Columns) -> Classifier:
        """The classifier, computing what `columns` need.

        Raises
        ------
        ClassifierError
            It cannot tell that.
        """
        classes = (len(self.info.classes),)
        shapes: dict[str, tuple[int, ...]] = {"probabilities": classes}
        if self.info.multilabel:
            shapes["labels"] = classes
        if columns.unknown:
            if self.info.unknown is None:
                raise _lacks(self.path, "--unknown", "model of what is none of its classes")
            shapes |= {"unknown": (), "unknown_score": ()}
        if columns.sets:
            if self.info.sets is None:
                raise _lacks(self.path, "--sets", "threshold for sets of classes")
            shapes["prediction_set"] = classes
        return replace(self, network=self.computing(shapes))


def _lacks(path: Path, flag: str, what: str) -> ClassifierError:
    return ClassifierError(
        f"{str(path)!r} has no {what}, which {flag} needs.",
        hint="Train the head anew with 'tlpipe train-head': it says why, where it leaves that out.",
    )


def open_classifier(path: str | Path, options: RunOptions | None = None) -> Classifier:
    """Open a classifier file for use.

    Parameters
    ----------
    path : str or pathlib.Path
    options : RunOptions, optional
        Its precision may be left out: the file is FP32 or int8.

    Raises
    ------
    ClassifierError
        The file is missing, is no classifier of tlpipe, or was made with an unknown decoder.
    OptionError
        This system cannot prepare images as the classifier wants them.
    BackboneError
        ONNX Runtime cannot open it.
    DeviceError
        The device asked for cannot be used.
    """
    path = Path(path)
    if not is_file(path):
        raise ClassifierError(f"The classifier {str(path)!r} does not exist.")
    options = options or RunOptions()
    info = read_metadata(properties_of(path), repr(str(path)))
    own: Precision = "fp32" if info.quantised is None else "int8"
    if own == "int8" and options.precision not in (None, own):
        raise ClassifierError(
            f"{str(path)!r} is an int8 classifier: it cannot be run at {options.precision!r}.",
            hint="Leave --precision out; or train a classifier on features of that precision.",
        )
    if own == "fp32" and options.precision == "int8":
        raise ClassifierError(
            f"{str(path)!r} is an fp32 classifier: it has no 8-bit integers.",
            hint="Embed with --precision int8 and train the head anew: its classifier is int8.",
        )
    execution = replace(options.execution, precision=options.precision or own)
    network = open_network(path, execution)
    if info.decoder not in DECODERS:
        raise ClassifierError(
            f"{str(path)!r} was trained on images decoded as {info.decoder!r}; this tlpipe knows"
            f" {list(DECODERS)}.",
            hint=f"Train it anew, or use the tlpipe version that made it ({info.tlpipe_version}).",
        )
    check_decoder(info.decoder)
    found = Classifier(path, info, network, network)
    shapes = {"probabilities": (len(info.classes),)}
    return replace(found, network=found.computing(shapes))


def classify(
    classifier: str | Path,
    source: Source | str | Path,
    output: str | Path,
    *,
    columns: Columns | None = None,
    options: RunOptions | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
    surveyed: Surveyed | None = None,
) -> ClassifyResult:
    """Classify every image of a source: one row per input, in order.

    Parameters
    ----------
    classifier : str or pathlib.Path
        A file that ``train_head`` wrote.
    source : Source, str or pathlib.Path
        A folder of images, one image or a CSV manifest; labels are ignored.
    output : str or pathlib.Path
        ``.csv`` or ``.jsonl``; it appears whole or not at all.
    columns : Columns, optional
        What a row says: how many classes, whether the image is of none of them, and the set of
        those that it may be of. By default the most probable class alone.
    options : RunOptions, optional
        Device, batch size and how many rejects are allowed.
    overwrite : bool
        Whether an existing `output` may be replaced.
    progress, surveyed : callable, optional
        As for ``embed``.

    Returns
    -------
    ClassifyResult

    Raises
    ------
    OptionError
        `columns.top_k` makes no sense.
    ClassifierError, BackboneError, DeviceError
        The classifier cannot be used, or cannot tell what is asked.
    SourceError
        The source cannot be listed or holds no image.
    OutputError
        The output cannot be written.
    """
    options, columns = options or RunOptions(), columns or Columns()
    output = Path(output)
    source = opened(source)
    inputs = [Path(classifier), *source.paths]
    check_output(output, overwrite=overwrite, suffixes=FORMATS, inputs=inputs)
    said = open_classifier(classifier, options)
    classes = said.info.classes
    if columns.top_k is not None and not 1 <= columns.top_k <= len(classes):
        raise OptionError(
            f"--top-k is {columns.top_k}; it must be from 1 to {len(classes)}, the number of"
            " classes."
        )
    said = said.saying(columns)
    source = as_source(source, surveyed)
    outcomes = said.outcomes(
        source.reader, source.items(), source.survey.count, options, progress, "classify"
    )
    start = time.perf_counter()
    multilabel = said.info.multilabel
    summary = write_predictions(output, classes, columns, outcomes, multilabel=multilabel)
    rejected = summary.rejects.total()
    count = summary.images + rejected
    return ClassifyResult(
        path=output,
        count=count,
        classes=summary.classes,
        without=summary.without if multilabel else None,
        rejects=summary.rejects,
        unknown=summary.unknown if columns.unknown else None,
        too_many_rejects=options.too_many(rejected, count) or rejected == count,
        survey=source.survey,
        provider=said.network.provider,
        elapsed_s=time.perf_counter() - start,
    )
