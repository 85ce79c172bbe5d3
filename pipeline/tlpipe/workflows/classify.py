"""classify: from a classifier and a source of images to a file of predictions.

Of images it needs neither scikit-learn, onnx nor h5py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tlpipe.errors import OptionError
from tlpipe.files import check_output
from tlpipe.stages.predictions import FORMATS, Columns
from tlpipe.stages.source import Source
from tlpipe.types import FEATURE_SUFFIXES, ProgressCallback
from tlpipe.workflows.classifier import open_classifier
from tlpipe.workflows.classify_run import ClassifyResult, Job, form_of
from tlpipe.workflows.common import Surveyed, as_source, opened
from tlpipe.workflows.run_options import RunOptions


@dataclass(frozen=True)
class Cached:
    """A source whose embeddings are kept in a feature file.

    Attributes
    ----------
    source : Source, str or pathlib.Path
    features : pathlib.Path
        Where it exists it is updated, as by ``embed``: images that have a vector there are not run
        through the backbone.
    """

    source: Source | str | Path
    features: Path

    def __post_init__(self) -> None:
        if is_feature_file(self.source):
            raise OptionError(
                f"The source {str(self.source)!r} is a feature file: it keeps embeddings itself.",
                hint="Leave --embeddings out.",
            )


def classify(
    classifier: str | Path,
    source: Source | Cached | str | Path,
    output: str | Path,
    *,
    columns: Columns | None = None,
    options: RunOptions | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
    surveyed: Surveyed | None = None,
) -> ClassifyResult:
    """Classify every image of a source: one row per input, in order.

    A run that is cut short keeps what it has classified; the same call goes on from there.

    Parameters
    ----------
    classifier : str or pathlib.Path
        A file that ``train_head`` wrote.
    source : Source, Cached, str or pathlib.Path
        As for ``embed``; labels are not needed. A ``Cached`` one keeps the embeddings. Or a feature
        file (.h5) whose embeddings were made as the classifier makes them: then its head alone is
        run, and rejects come last.
    output : str or pathlib.Path
        ``.csv``, ``.jsonl`` or ``.parquet``; it appears whole or not at all.
    columns : Columns, optional
        What a row says: how many classes, whether the image is of none of them, the set of those
        that it may be of, and columns of the source that it takes over. By default the most
        probable class alone.
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
        `columns` make no sense.
    ClassifierError, BackboneError, DeviceError
        The classifier cannot be used, or cannot tell what is asked.
    SourceError
        The source cannot be listed or holds no image.
    FeatureFileError, DamagedFileError, StaleFeaturesError
        The feature file cannot be used, or its embeddings are not those of the classifier.
    ClusterError
        The Ray cluster cannot be used, or its workers die.
    LockedError
        Another process writes `output` or the feature file.
    OutputError
        An output cannot be written.
    """
    options, columns = options or RunOptions(), columns or Columns()
    output, images = Path(output), source.source if isinstance(source, Cached) else source
    if is_feature_file(images):
        paths: tuple[Path, ...] = (Path(str(images)),)
    else:
        images = opened(images)
        images.check_columns(columns.of_source)
        paths = images.paths
    inputs = [Path(classifier), *paths]
    check_output(output, overwrite=overwrite, suffixes=FORMATS, inputs=inputs)
    known = open_classifier(classifier, _to_open(options))
    form = form_of(known, columns)
    job = Job(known.saying(columns), form, options, output, progress)
    if not isinstance(images, Source):
        if options.engine != "local":
            raise OptionError(
                f"The source {str(images)!r} is a feature file: its head alone is run, which is no"
                f" work for the engine {options.engine!r}.",
                hint="Leave --engine and --address out.",
            )
        return job.of_features(Path(images))
    if isinstance(source, Cached):
        return job.with_embeddings(images, source.features, surveyed)
    return job.of_images(as_source(images, surveyed))


def _to_open(options: RunOptions) -> RunOptions:
    """How the classifier is opened here: where others run it, on any device that can."""
    if options.engine == "local" or options.precision not in (None, "fp32", "int8"):
        return options
    return replace(options, device="cpu")


def is_feature_file(source: object) -> bool:
    """Whether a source is named like a feature file."""
    return isinstance(source, str | Path) and Path(source).suffix.lower() in FEATURE_SUFFIXES
