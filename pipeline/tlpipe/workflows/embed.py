"""embed: from a source of images to a feature file, new or updated."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tlpipe.card import Card
from tlpipe.files import check_output
from tlpipe.lock import writer_lock
from tlpipe.precision import read_agreement
from tlpipe.stages.session import open_network
from tlpipe.stages.source import Source, Survey
from tlpipe.stages.store import (
    FeatureFile,
    FeatureHeader,
    Parts,
    parted_as,
    rows_per_file,
)
from tlpipe.types import DEFAULT_BACKBONE, FEATURE_SUFFIXES, ProgressCallback, Split
from tlpipe.version import __version__
from tlpipe.workflows.ahead import Ahead
from tlpipe.workflows.backbones import find_backbone
from tlpipe.workflows.common import Surveyed, now, opened
from tlpipe.workflows.earlier import (
    Comparison,
    Earlier,
    check_gone,
    check_still_there,
    compare,
    continued,
    earlier_runs,
)
from tlpipe.workflows.embed_result import EmbedResult
from tlpipe.workflows.engines import engine
from tlpipe.workflows.leaks import shared_between_splits
from tlpipe.workflows.precision import Arithmetic
from tlpipe.workflows.run_options import RunOptions, UpdateOptions
from tlpipe.workflows.update import Job, write_update
from tlpipe.workflows.work_kept import work_kept

_log = logging.getLogger(__name__)


def embed(
    source: Source | str | Path,
    output: str | Path,
    *,
    backbone: str | Card = DEFAULT_BACKBONE,
    options: RunOptions | None = None,
    overwrite: bool = False,
    update: UpdateOptions | None = None,
    progress: ProgressCallback | None = None,
    surveyed: Surveyed | None = None,
) -> EmbedResult:
    """Embed every image of a source once, and store the embeddings.

    Where `output` exists, or a run that was to write it was cut short, only images that are new or
    changed are embedded, and only contents that have no vector yet; rows of images that are gone
    are dropped, labels and splits follow the source.

    Parameters
    ----------
    source : Source, str or pathlib.Path
        A folder of images, one image or a CSV manifest (see ``tlpipe.stages.source``).
    output : str or pathlib.Path
        The feature file to write; it appears, or is replaced, whole or not at all.
    backbone : str or Card
        As for ``find_backbone``: a name of the catalogue, the path of a network (.onnx) that says
        how its images are prepared, the path of a card (.toml), or a card.
    options : RunOptions, optional
        Device, precision, batch size and how many rejects are allowed.
    overwrite : bool
        Start anew: use nothing of an existing `output`, nor of a run that was cut short.
    update : UpdateOptions, optional
        How an existing `output` is updated, and above how many rows it becomes a set of files.
    progress : callable, optional
        Called with a ``Progress`` after each item that is embedded, in this thread.
    surveyed : callable, optional
        Called once with the source's ``Survey``, before the work begins.

    Returns
    -------
    EmbedResult

    Raises
    ------
    SourceError
        The source cannot be listed, holds no image, went away, or lacks so many of the images that
        were in it that a disk may be missing.
    UnknownBackboneError, CardError, WeightsError, BackboneError
        The backbone cannot be had; or not at that precision, or not so that it agrees with FP32.
    DeviceError
        The device asked for cannot be used.
    ClusterError
        The Ray cluster cannot be used, or its workers die.
    StaleFeaturesError
        `output` holds embeddings that were made in another way.
    FeatureFileError
        `output` is no feature file, or a damaged one, or not one image could be embedded.
    LockedError
        Another process is writing `output`.
    OutputError
        The output cannot be written. What was embedded is kept for the next run.
    """
    source, output = opened(source), Path(output)
    check_output(output, overwrite=True, suffixes=FEATURE_SUFFIXES, inputs=source.paths)
    arithmetic = Arithmetic(find_backbone(backbone), options or RunOptions())
    return embed_with(
        arithmetic,
        source,
        output,
        overwrite=overwrite,
        update=update,
        progress=progress,
        surveyed=surveyed,
    )


def embed_with(
    arithmetic: Arithmetic,
    source: Source,
    output: Path,
    *,
    overwrite: bool = False,
    update: UpdateOptions | None = None,
    progress: ProgressCallback | None = None,
    surveyed: Surveyed | None = None,
) -> EmbedResult:
    """``embed``, where it is settled what makes the numbers; `output` was checked."""
    card, options, update = arithmetic.card, arithmetic.options, update or UpdateOptions()
    header = FeatureHeader(
        tlpipe_version=__version__,
        fingerprint="",
        backbone=card.to_json(),
        provider="",
        precision="",
        decoder="",
        source=source.text,
        created_at=now(),
    )
    header_for = partial(arithmetic.header, header)
    network_ahead = Ahead(lambda: arithmetic.opened(open_network))
    open_ahead = network_ahead.start if options.engine == "local" else lambda: None
    with writer_lock(output), network_ahead:
        parts = Parts(output)
        anew = overwrite or parts.anew
        with earlier_runs(
            output, parts, header_for, overwrite=overwrite, rehash=update.rehash
        ) as earlier:
            if not earlier.known.count and not arithmetic.unsettled:
                open_ahead()
            found = _compared(source, earlier, open_ahead)
            if surveyed is not None:
                surveyed(source.survey)
            _log.info(
                "Of the images %s are to be read, %s have a row already and %s rows are gone.",
                *(f"{count:,}" for count in (found.fresh, found.kept, found.gone)),
            )
            header = arithmetic.settle(source, earlier.header, progress)
            _log.info(
                "Fingerprint %s: precision %s, decoder %s.",
                *(header.fingerprint[:12], header.precision, header.decoder),
            )
            if earlier.file is not None:
                check_gone(source, earlier.file, found, update.max_gone)
            as_asked = earlier.file is not None and parted_as(earlier.file, update.set_above)
            if earlier.file is not None and found.same and as_asked:
                earlier.known.close()  # some systems remove no file that is open
                parts.remove()  # a run may have been cut short just before
                return _as_it_was(output, source.survey, earlier.file, options)
            still_there = partial(check_still_there, source, earlier, found, update.max_gone)
            most = rows_per_file(update.set_above, earlier.file)
            job = Job(source, earlier, card, options, found, most, still_there)
            network = network_ahead.result
            with engine(output, parts, header, job, arithmetic, network) as doing:
                start = time.perf_counter()
                header = continued(header, doing.provider, earlier)
                if overwrite:
                    parts.remove()
                parts.begin(header, card.output.dim, anew=anew)
                with work_kept(parts, "embeddings", "the same command, without --overwrite,"):
                    writes = doing.update(header, parts, job, progress)
                    summary, tally = write_update(output, header, parts, job, writes)
            parts.remove()
    _log.info("Embedded and stored in %.2f s.", time.perf_counter() - start)
    rejected = summary.rejects.total()
    return EmbedResult(
        path=output,
        count=summary.count,
        dim=card.output.dim,
        rejects=summary.rejects,
        too_many_rejects=options.too_many(rejected, summary.count + rejected),
        lost_classes=sorted(set(source.survey.classes) - set(summary.classes)),
        survey=source.survey,
        provider=doing.provider,
        elapsed_s=time.perf_counter() - start,
        embedded=tally.embedded,
        kept=tally.kept,
        copied=tally.copied,
        gone=found.gone,
        unchanged=False,
        shared=_shared(output, source.survey),
        precision=header.precision,
        agreement=read_agreement(header.agreement, repr(str(output))),
    )


def _compared(source: Source, earlier: Earlier, met_fresh: Callable[[], object]) -> Comparison:
    """What an update would do; of a source of which nothing is known, all is fresh."""
    if earlier.known.count:
        return compare(source, earlier, met_fresh)
    return Comparison(fresh=source.survey.count)


def _as_it_was(output: Path, survey: Survey, file: FeatureFile, options: RunOptions) -> EmbedResult:
    """Result of a run that found the file to be right."""
    return EmbedResult(
        path=output,
        count=file.count,
        dim=file.dim,
        rejects=Counter(),
        too_many_rejects=options.too_many(0, file.count),
        lost_classes=sorted(set(survey.classes) - set(file.classes)),
        survey=survey,
        provider=file.header.provider,
        elapsed_s=0.0,
        embedded=0,
        kept=file.count,
        copied=0,
        gone=0,
        unchanged=True,
        shared=_shared(output, survey),
        precision=file.header.precision,
        agreement=read_agreement(file.header.agreement, repr(str(output))),
    )


def _shared(output: Path, survey: Survey) -> int:
    """Number of contents that stand in more than one split, where the source has splits."""
    if set(survey.by_split()) == {Split.NONE}:
        return 0
    with FeatureFile(output) as file:
        return shared_between_splits(file).count
