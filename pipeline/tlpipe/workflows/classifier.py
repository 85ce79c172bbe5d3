"""Opens a classifier file, and runs it over images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tlpipe.errors import BackboneError, ClassifierError
from tlpipe.execution import Execution, Precision
from tlpipe.files import is_file
from tlpipe.near import no_file
from tlpipe.seams import OpenedNetwork, Reader
from tlpipe.stages.classifier import ClassifierInfo, read_metadata
from tlpipe.stages.predictions import Columns
from tlpipe.stages.preprocess import check_decoder
from tlpipe.stages.session import open_network, properties_of
from tlpipe.types import DECODERS, Item, Outcome, ProgressCallback
from tlpipe.workflows.pixels import loader
from tlpipe.workflows.run_options import RunOptions
from tlpipe.workflows.running import run_over

_ANEW = "Copy it from where it is whole, or train the head anew."


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
                    f"{str(self.path)!r} is damaged: its graph lacks the output {name!r}.",
                    hint=_ANEW,
                ) from exc
            if found != ((*self.info.image_size, 3), shape):
                raise ClassifierError(
                    f"{str(self.path)!r} is damaged: its graph takes and gives {found}, its"
                    f" metadata speak of images of {self.info.image_size} and"
                    f" {len(self.info.classes)} classes.",
                    hint=_ANEW,
                )
        return self.whole.only(list(shapes))

    def saying(self, columns: Columns) -> Classifier:
        """The classifier, computing what `columns` need.

        Raises
        ------
        ClassifierError
            It cannot tell that.
        """
        if columns.unknown and self.info.unknown is None:
            raise _lacks(self.path, "--unknown", "model of what is none of its classes")
        if columns.sets and self.info.sets is None:
            raise _lacks(self.path, "--sets", "threshold for sets of classes")
        return replace(self, network=self.computing(self._shapes(columns)))

    def outputs_of(self, columns: Columns) -> list[str]:
        """Names of the outputs that `columns` need."""
        return list(self._shapes(columns))

    def _shapes(self, columns: Columns) -> dict[str, tuple[int, ...]]:
        classes = (len(self.info.classes),)
        shapes: dict[str, tuple[int, ...]] = {"probabilities": classes}
        if self.info.multilabel:
            shapes["labels"] = classes
        if columns.unknown:
            shapes |= {"unknown": (), "unknown_score": ()}
        if columns.sets:
            shapes["prediction_set"] = classes
        return shapes


def _lacks(path: Path, flag: str, what: str) -> ClassifierError:
    return ClassifierError(
        f"{str(path)!r} has no {what}, which {flag} needs.",
        hint="Train the head anew with 'tlpipe train-head': it says why, where it leaves that out.",
    )


def execution_of(info: ClassifierInfo, options: RunOptions) -> Execution:
    """How a classifier is run: at its own precision, unless another one is asked for."""
    own: Precision = "fp32" if info.quantised is None else "int8"
    return replace(options.execution, precision=options.precision or own)


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
        message, hint = no_file(path, "The classifier")
        raise ClassifierError(message, hint=hint)
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
    network = open_network(path, execution_of(info, options))
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
