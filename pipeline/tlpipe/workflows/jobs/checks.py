"""What a job names: files that must be there and be what they should, outputs that can be written.

Takes what a job says, gives the opened source and the backbone's card. Reads beginnings of files
and metadata; nothing is walked, embedded or written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tlpipe.card import Card
from tlpipe.errors import ClassifierError, OptionError, OutputError, TlpipeError
from tlpipe.execution import Execution, Precision
from tlpipe.files import check_output, is_file
from tlpipe.near import no_file
from tlpipe.stages.classifier import ClassifierInfo, read_metadata
from tlpipe.stages.predictions import FORMATS
from tlpipe.stages.session import properties_of, settled
from tlpipe.stages.source import Source, open_source
from tlpipe.types import FEATURE_SUFFIXES
from tlpipe.workflows.jobs.job import record_path
from tlpipe.workflows.jobs.mistakes import Mistakes
from tlpipe.workflows.jobs.record import is_record
from tlpipe.workflows.jobs.schema import BACKBONE, EMBEDDINGS, SOURCE, Shape
from tlpipe.workflows.run_options import RunOptions


@dataclass(frozen=True)
class Named:
    """What a job says, each of it right by itself.

    Attributes
    ----------
    shape : Shape
    path : pathlib.Path
        The job file.
    places : dict of str to object
        Paths, or texts where something else may be named; those that are wrong are missing.
    given : dict of str to object
        Settings that the file has.
    records : dict of str to object
        Option records by parameter.
    complete : bool
        Whether they hold all settings.
    """

    shape: Shape
    path: Path
    places: Mapping[str, Any]
    given: Mapping[str, Any]
    records: Mapping[str, Any]
    complete: bool

    @property
    def flags(self) -> list[str]:
        """Settings that are true or false."""
        return [name for name, s in self.shape.settings.items() if s.hint is bool]

    def value(self, name: str) -> Any:
        """A setting, or its default."""
        return self.given.get(name, self.shape.settings[name].default)


@dataclass(frozen=True)
class OpenedPlaces:
    """What was opened: None where the command has none, or it could not be."""

    source: Source | None = None
    card: Card | None = None


def opened_places(job: Named, mistakes: Mistakes) -> OpenedPlaces:
    """Look at all that a job names, and add what is wrong with it."""
    source, card = _source(job, mistakes), _card(job, mistakes)
    if source is not None and "columns" in job.records:
        with mistakes.catching("[options] columns", job.flags):
            source.check_columns(job.records["columns"].of_source)
    if "features" in job.places:
        with mistakes.catching("features", job.flags):
            _check_features(job.places["features"])
    if "classifier" in job.places:
        with mistakes.catching("classifier", job.flags):
            _check_classifier(job, mistakes)
    elif isinstance(job.records.get("options"), RunOptions) and job.complete:
        with mistakes.catching("[options]", job.flags):
            _ = settled(job.records["options"].execution)
    _check_outputs(job, source, card, mistakes)
    return OpenedPlaces(source, card)


def _source(job: Named, mistakes: Mistakes) -> Source | None:
    if SOURCE not in job.places:
        return None
    if reads_features(job.shape, job.places):
        with mistakes.catching(SOURCE, job.flags):
            _check_features(job.places[SOURCE])
        return None
    how = {
        setting.field: job.given[name]
        for name, setting in job.shape.settings.items()
        if SOURCE in setting.owners and name in job.given
    }
    try:
        return open_source(job.places[SOURCE], **how)
    except OptionError as exc:
        mistakes.add_error(f"[options] {', '.join(how)}", exc, job.flags)
    except TlpipeError as exc:
        mistakes.add_error(SOURCE, exc, job.flags)
    return None


def reads_features(shape: Shape, places: Mapping[str, Any]) -> bool:
    """Whether the images of a job are those of a feature file: the backbone is not run."""
    if shape.command != "classify":
        return False
    from tlpipe.workflows.classify import is_feature_file

    return is_feature_file(places.get(SOURCE))


def _card(job: Named, mistakes: Mistakes) -> Card | None:
    if BACKBONE not in job.places or BACKBONE not in job.records:
        return None
    from tlpipe.workflows.backbones import find_backbone

    try:
        return find_backbone(job.places[BACKBONE], job.records[BACKBONE])
    except TlpipeError as exc:
        mistakes.add_error(BACKBONE, exc, job.flags)
        return None


def _check_features(path: Path) -> None:
    from tlpipe.stages.store import FeatureFile

    FeatureFile(path).close()


def _check_classifier(job: Named, mistakes: Mistakes) -> None:
    """Look at what a classifier says of itself, and whether it can do what is asked."""
    path = job.places["classifier"]
    if not is_file(path):
        message, hint = no_file(path, "The classifier")
        raise ClassifierError(message, hint=hint)
    info = read_metadata(properties_of(path), repr(str(path)))
    _check_columns(job, info, mistakes)
    with mistakes.catching("[options] precision", job.flags):
        _ = settled(_execution(job, info))


def _check_columns(job: Named, info: ClassifierInfo, mistakes: Mistakes) -> None:
    top_k, most = job.given.get("top_k"), len(info.classes)
    if top_k is not None and not 1 <= top_k <= most:
        mistakes.add(
            "[options] top_k", f"is {top_k}; it must be from 1 to {most}, the number of classes."
        )
    for name, facts in (("unknown", info.unknown), ("sets", info.sets)):
        if job.given.get(name) and facts is None:
            mistakes.add(
                f"[options] {name}",
                "is true; the classifier lacks what it needs. Train the head anew with 'tlpipe"
                " train-head': it says why, where it leaves that out.",
            )


def _execution(job: Named, info: ClassifierInfo) -> Execution:
    """How a classifier would be run.

    Raises
    ------
    OptionError
        It is of another precision.
    """
    options = job.records["options"]
    own: Precision = "fp32" if info.quantised is None else "int8"
    if (own == "int8" and options.precision not in (None, own)) or (
        own == "fp32" and options.precision == "int8"
    ):
        raise OptionError(
            f"The classifier is {own}; it cannot be run at {options.precision!r}.",
            hint="Leave --precision out.",
        )
    given: Execution = options.execution
    return replace(given, precision=options.precision or own)


@dataclass(frozen=True)
class _Output:
    path: Path
    overwrite: bool
    suffixes: Sequence[str] = ()


def _check_outputs(
    job: Named, source: Source | None, card: Card | None, mistakes: Mistakes
) -> None:
    inputs = [job.path, *(source.paths if source is not None else ())]
    inputs += [job.places[name] for name in ("features", "classifier") if name in job.places]
    if reads_features(job.shape, job.places):
        inputs.append(job.places[SOURCE])
    if card is not None:
        from tlpipe.stages.weights import weight_files

        inputs += weight_files(card)
    if "output" in job.places:
        output = job.places["output"]
        for found in _OUTPUTS[job.shape.command](output, bool(job.value("overwrite"))):
            if found.path == output or output.parent.is_dir():  # else it is said already
                _check_output("output", found, inputs, job, mistakes)
        _check_record(job, output, inputs, mistakes)
    embeddings = job.given.get(EMBEDDINGS)
    if embeddings is not None:
        kept = _Output(embeddings, True, FEATURE_SUFFIXES)
        _check_output(f"[options] {EMBEDDINGS}", kept, inputs, job, mistakes)
        if reads_features(job.shape, job.places):
            mistakes.add(f"[options] {EMBEDDINGS}", "is of no use: the source keeps them itself.")
    profile = job.given.get("profile")
    if profile is not None:
        _check_output("[options] profile", _Output(profile, True), inputs, job, mistakes)


def _check_output(
    where: str, output: _Output, inputs: Sequence[Path], job: Named, mistakes: Mistakes
) -> None:
    """Add all that is wrong with an output, not only what is found first."""
    asked = (output.suffixes, output.overwrite), ((), output.overwrite), ((), True)
    for suffixes, overwrite in asked:
        try:
            check_output(output.path, overwrite=overwrite, suffixes=suffixes, inputs=inputs)
        except OutputError as exc:
            mistakes.add_error(where, exc, job.flags)


def _check_record(job: Named, output: Path, inputs: Sequence[Path], mistakes: Mistakes) -> None:
    record = record_path(output)
    try:
        check_output(record, overwrite=True, inputs=inputs)
    except OutputError as exc:
        if record.parent.is_dir():  # else the output says it
            mistakes.add_error("output", exc, job.flags)
        return
    if is_file(record) and not is_record(record):
        mistakes.add(
            "output",
            f"would have its run record in {str(record)!r}, which exists and is none. Move that"
            " file, or choose another output.",
        )


def _embed_outputs(output: Path, overwrite: bool) -> Iterator[_Output]:
    yield _Output(output, True, FEATURE_SUFFIXES)  # one that exists is updated


def _train_head_outputs(output: Path, overwrite: bool) -> Iterator[_Output]:
    from tlpipe.workflows.train_head import head_path, metrics_path

    yield _Output(output, overwrite, (".onnx",))
    yield _Output(metrics_path(output), overwrite)
    yield _Output(head_path(output), overwrite)


def _train_outputs(output: Path, overwrite: bool) -> Iterator[_Output]:
    from tlpipe.workflows.train import features_path

    yield from _train_head_outputs(output, overwrite)
    yield _Output(features_path(output), True)


_OUTPUTS: dict[str, Callable[[Path, bool], Iterator[_Output]]] = {
    "embed": _embed_outputs,
    "train": _train_outputs,
    "train-head": _train_head_outputs,
    "classify": lambda output, overwrite: iter([_Output(output, overwrite, FORMATS)]),
    "evaluate": lambda output, overwrite: iter([_Output(output, overwrite, (".json",))]),
}
