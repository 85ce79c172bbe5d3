"""Classifies by embeddings that are stored: a classifier's head alone, run over a feature file.

And keeps the embeddings of a source in one, made by the classifier's own backbone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from tlpipe.errors import BackboneError, ClassifierError, OptionError, StaleFeaturesError
from tlpipe.execution import Execution, parsed_arithmetic
from tlpipe.graph import EMBEDDINGS
from tlpipe.graph.head import head_part
from tlpipe.graph.io import load_model, opened
from tlpipe.seams import Network, OpenedNetwork, RunGraph
from tlpipe.stages.classifier import ClassifierInfo
from tlpipe.stages.predictions import Columns, Form, Row
from tlpipe.stages.session import CPU, open_graph
from tlpipe.stages.source import Source
from tlpipe.stages.store import FeatureFile, FeatureHeader
from tlpipe.types import FileStat, Item, ProgressCallback
from tlpipe.workflows.classifier import Classifier
from tlpipe.workflows.common import Surveyed
from tlpipe.workflows.embed import embed_with
from tlpipe.workflows.embed_result import EmbedResult
from tlpipe.workflows.precision import Arithmetic
from tlpipe.workflows.run_options import RunOptions
from tlpipe.workflows.staleness import differences

_ROWS = 1024
"""Embeddings that the head takes at once."""


@dataclass(frozen=True)
class Stored:
    """A feature file, and the head that is run over it.

    Attributes
    ----------
    file : FeatureFile
    form : Form
    outputs : list of str
        Of the head.
    head : RunGraph
    """

    file: FeatureFile
    form: Form
    outputs: list[str]
    head: RunGraph
    provider: str = CPU

    @property
    def count(self) -> int:
        """Rows and rejects of the file."""
        return int(self.file.count + self.file.reject_count)

    def rows(self) -> Iterator[Row]:
        """Rows of all embeddings, in order.

        Raises
        ------
        DamagedFileError, BackboneError
        """
        for start in range(0, self.file.count, _ROWS):
            stop = min(start + _ROWS, self.file.count)
            keys = self.file.read("keys", start, stop)
            stats = self.file.read("stat", start, stop).tolist()
            values = self.head({EMBEDDINGS: self.file.vectors(start, stop)}, self.outputs)
            for n, (key, stat) in enumerate(zip(keys, stats, strict=True)):
                said = {name: value[n] for name, value in zip(self.outputs, values, strict=True)}
                yield self.form.said(key.decode(), FileStat(*stat), said)

    def rejects(self) -> Iterator[Row]:
        """Rows of what was left out, in order.

        Raises
        ------
        DamagedFileError
        """
        for start in range(0, self.file.reject_count, _ROWS):
            for key, reject in self.file.rejects(start, start + _ROWS):
                yield Row(key, reject.stat, reject=(str(reject.reason), reject.detail))


@contextmanager
def stored_for(classifier: Classifier, path: Path, form: Form) -> Iterator[Stored]:
    """Open a feature file whose embeddings were made as a classifier makes them.

    Raises
    ------
    FeatureFileError, DamagedFileError
        It cannot be read.
    StaleFeaturesError
        Its embeddings were made in another way.
    ClassifierError
        The classifier has no head that could be run by itself.
    """
    outputs = classifier.outputs_of(form.columns)
    with FeatureFile(path) as file:
        check_made_alike(file.header, path, classifier.info, classifier.path)
        yield Stored(file, form, outputs, opened_head(classifier.path, outputs))


def opened_head(classifier: Path, outputs: Sequence[str]) -> RunGraph:
    """The head of a classifier file alone, which takes ``EMBEDDINGS`` (B, D).

    Raises
    ------
    ClassifierError
        The classifier has no head that could be run by itself.
    """
    try:
        return opened(head_part(load_model(classifier), outputs), open_graph)
    except BackboneError as exc:
        raise ClassifierError(
            f"The head of {str(classifier)!r} cannot be run by itself: {exc.message}",
            hint="Classify the images instead of their embeddings.",
        ) from exc


def rows_of_features(stored: Stored) -> Iterator[Row]:
    """Rows of a whole feature file; what was left out comes last."""
    yield from stored.rows()
    yield from stored.rejects()


def rows_of_source(stored: Stored, source: Source, columns: Columns) -> Iterator[tuple[Row, Item]]:
    """Rows of the items of a source, of which the feature file was just made, in its order."""
    rows, rejects = stored.rows(), stored.rejects()
    row, reject = next(rows, None), next(rejects, None)
    for item in source.items(columns.of_source):
        if row is not None and row.key == item.key:
            yield row, item
            row = next(rows, None)
        elif reject is not None and reject.key == item.key:
            yield reject, item
            reject = next(rejects, None)
        else:
            raise StaleFeaturesError(
                f"The source {source.name!r} has changed while it was classified: at {item.key!r}"
                f" it is not what {str(stored.file.path)!r} was made of a moment ago.",
                hint="Run the same command again.",
            )


def embedded_by(
    classifier: Classifier,
    source: Source,
    path: Path,
    options: RunOptions,
    progress: ProgressCallback | None,
    surveyed: Surveyed | None,
) -> EmbedResult:
    """Make or update a feature file with the embeddings of a classifier; raises as ``embed``."""
    arithmetic = _AsClassifier(classifier, options)
    return embed_with(arithmetic, source, path, progress=progress, surveyed=surveyed)


def check_made_alike(
    header: FeatureHeader, features: Path, info: ClassifierInfo, classifier: Path
) -> None:
    """Refuse embeddings that were not made as a classifier makes them.

    Raises
    ------
    StaleFeaturesError
    """
    if header.fingerprint == info.fingerprint:
        return
    of_classifier = replace(
        header,
        backbone=info.card().to_json(),
        precision=info.precision,
        decoder=info.decoder,
        calibration=info.calibration,
    )
    differing = "; ".join(differences(header, of_classifier)) or "how tlpipe prepares networks"
    raise StaleFeaturesError(
        f"{str(features)!r} holds other embeddings (fingerprint {header.fingerprint[:12]}...) than"
        f" the classifier {str(classifier)!r} makes ({info.fingerprint[:12]}...). They differ"
        f" in: {differing}.",
        hint="Classify the images themselves, or embed them as the classifier's were.",
    )


class _AsClassifier(Arithmetic):
    """The arithmetic of a classifier: nothing of it is open, and its own graph is run."""

    def __init__(self, classifier: Classifier, options: RunOptions) -> None:
        info = classifier.info
        found = parsed_arithmetic(info.precision)
        if found is None:
            raise ClassifierError(
                f"{str(classifier.path)!r} was trained on embeddings at {info.precision!r}, which"
                " is unknown.",
                hint="Update tlpipe, or train the head anew.",
            )
        precision, runtime = found
        asked = options.runtime if options.runtime != "auto" else runtime
        super().__init__(info.card(), replace(options, precision=precision, runtime=asked))
        self._classifier = classifier
        if self.execution.arithmetic != info.precision or options.precision not in (
            None,
            precision,
        ):
            raise OptionError(
                f"{str(classifier.path)!r} was trained on embeddings at {info.precision!r}; others"
                " cannot be kept beside them.",
                hint="Leave --precision and --runtime out, or classify without --embeddings.",
            )

    def header(self, header: FeatureHeader, begun: FeatureHeader | None) -> FeatureHeader:
        """Header of a file: all that determines vectors is the classifier's."""
        info = self._classifier.info
        return replace(
            header,
            fingerprint=info.fingerprint,
            precision=info.precision,
            decoder=info.decoder,
            calibration=info.calibration,
            agreement="" if begun is None else begun.agreement,
        )

    def settle(
        self, source: Source, header: FeatureHeader, progress: ProgressCallback | None
    ) -> FeatureHeader:
        """Settled since the head was trained."""
        return header

    def opened(self, opener: Callable[[Path, Execution], Network]) -> Network:
        """The classifier's own graph, as far as the embeddings."""
        network = cast("OpenedNetwork", opener(self._classifier.path, self.execution))
        return network.only([EMBEDDINGS])
