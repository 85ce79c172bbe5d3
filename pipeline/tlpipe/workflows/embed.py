"""embed: from a source of images to a feature file."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tlpipe.card import Card
from tlpipe.errors import BackboneError
from tlpipe.files import check_output
from tlpipe.stages.backbone import OrtNetwork, open_graph
from tlpipe.stages.decode import DECODER
from tlpipe.stages.source import Source, Survey, printable
from tlpipe.stages.store import FeatureHeader, write_features
from tlpipe.stages.weights import prepared_file
from tlpipe.types import (
    DEFAULT_BACKBONE,
    Item,
    Outcome,
    ProgressCallback,
    Reason,
    Reject,
    Stage,
)
from tlpipe.version import __version__
from tlpipe.workflows.backbones import find_backbone
from tlpipe.workflows.common import (
    PRECISION,
    RunOptions,
    Surveyed,
    as_source,
    loader,
    now,
    run_over,
    source_path,
)

FEATURE_SUFFIXES = (".h5", ".hdf5")


@dataclass(frozen=True)
class EmbedResult:
    """What ``embed`` did.

    Attributes
    ----------
    path : pathlib.Path
        The feature file.
    count, dim : int
        N and D of its embeddings.
    rejects : Counter of str
        Items left out, by reason.
    too_many_rejects : bool
        Whether they are more than was allowed.
    lost_classes : list of str
        Classes of the source of which not one image could be embedded.
    survey : Survey
        What the source holds.
    provider : str
        The ONNX Runtime execution provider that ran the backbone.
    elapsed_s : float
        Wall time of embedding, start-up left out.
    """

    path: Path
    count: int
    dim: int
    rejects: Counter[str]
    too_many_rejects: bool
    lost_classes: list[str]
    survey: Survey
    provider: str
    elapsed_s: float


def embed(
    source: Source | str | Path,
    output: str | Path,
    *,
    backbone: str | Card = DEFAULT_BACKBONE,
    options: RunOptions | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
    surveyed: Surveyed | None = None,
) -> EmbedResult:
    """Embed every image of a source once, and store the embeddings.

    Parameters
    ----------
    source : Source, str or pathlib.Path
        A folder of images, one image or a CSV manifest (see ``tlpipe.stages.source``).
    output : str or pathlib.Path
        The feature file to write; it appears whole or not at all.
    backbone : str or Card
        As for ``find_backbone``: a name of the catalogue, the path of a network (.onnx) that says
        how its images are prepared, the path of a card (.toml), or a card.
    options : RunOptions, optional
        Device, batch size and how many rejects are allowed.
    overwrite : bool
        Whether an existing `output` may be replaced.
    progress : callable, optional
        Called with a ``Progress`` after each item, in this thread.
    surveyed : callable, optional
        Called once with the source's ``Survey``, before the work begins.

    Returns
    -------
    EmbedResult

    Raises
    ------
    SourceError
        The source cannot be listed or holds no image.
    UnknownBackboneError, CardError, WeightsError, BackboneError
        The backbone cannot be had.
    DeviceError
        The device asked for cannot be used.
    FeatureFileError
        Not one image could be embedded.
    OutputError
        The output cannot be written.
    """
    options = options or RunOptions()
    output = Path(output)
    inputs = [source_path(source)]
    check_output(output, overwrite=overwrite, suffixes=FEATURE_SUFFIXES, inputs=inputs)
    card = find_backbone(backbone)
    preprocess = card.arithmetic
    source = as_source(source, surveyed)
    network = OrtNetwork(prepared_file(card, open_graph), options.device)
    header = FeatureHeader(
        tlpipe_version=__version__,
        fingerprint=card.fingerprint(precision=PRECISION, decoder=DECODER),
        backbone=card.to_json(),
        provider=network.provider,
        precision=PRECISION,
        decoder=DECODER,
        source=printable(str(source.path.resolve())),
        created_at=now(),
    )
    outcomes = run_over(
        source.items(),
        source.survey.count,
        network,
        loader(card.image_size, preprocess),
        options,
        progress,
        "embed",
    )
    start = time.perf_counter()
    checked = _unique(_of_dim(outcomes, card))
    summary = write_features(output, header, card.output.dim, checked)
    rejected = summary.rejects.total()
    return EmbedResult(
        path=output,
        count=summary.count,
        dim=card.output.dim,
        rejects=summary.rejects,
        too_many_rejects=options.too_many(rejected, summary.count + rejected),
        lost_classes=sorted(set(source.survey.classes) - set(summary.classes)),
        survey=source.survey,
        provider=network.provider,
        elapsed_s=time.perf_counter() - start,
    )


def _of_dim(outcomes: Iterable[Outcome], card: Card) -> Iterator[Outcome]:
    """Outcomes, after their embeddings were found to have the card's shape."""
    for outcome in outcomes:
        if outcome.reject is None:
            shape = outcome.values["embeddings"].shape
            if shape != (card.output.dim,):
                raise BackboneError(
                    f"The backbone {card.name!r} gave an embedding of shape {shape}, not"
                    f" ({card.output.dim},).",
                    hint="Correct 'tensor', 'pooling' or 'dim' under [output] in its card.",
                )
        yield outcome


def _unique(outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
    """Outcomes, with those whose key came before turned into rejects."""
    seen: set[str] = set()
    for outcome in outcomes:
        item: Item = outcome.item
        if item.key in seen:
            detail = "An earlier item of the source has the same key; that one is kept."
            reject = Reject(Stage.SOURCE, Reason.DUPLICATE_KEY, detail)
            yield Outcome(item, reject=reject)
            continue
        seen.add(item.key)
        yield outcome
