"""What earlier runs left for an embedding: the feature file, and the parts of one cut short.

Whether they may be used (the same fingerprint), and what an update would keep, add and drop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tlpipe.errors import SourceError
from tlpipe.files import is_file
from tlpipe.stages.source import Source
from tlpipe.stages.store import (
    SPLITS_FROM_SOURCE,
    FeatureFile,
    FeatureHeader,
    Known,
    Parts,
    Run,
)
from tlpipe.types import Block
from tlpipe.workflows.staleness import check_fresh

MOST_PLANNED = 1 << 17
"""Items of a source that are kept in memory between comparing and updating: about 30 MB."""

MOST_GONE = 0.5
"""Part of a feature file's rows that an update may drop without being told to."""


@dataclass
class Earlier:
    """What earlier runs left.

    Attributes
    ----------
    known : Known
        All their rows; those of the feature file come first.
    file : FeatureFile or None
        The feature file to update.
    taken_up : int
        Rows in finished parts.
    header : FeatureHeader
        Of the file that this run writes.
    """

    known: Known
    file: FeatureFile | None
    taken_up: int
    header: FeatureHeader


@dataclass
class Comparison:
    """How a source compares with what earlier runs left.

    Attributes
    ----------
    kept, fresh : int
        Items that have a row, and items that must be read.
    gone : int
        Rows of the feature file whose item is not in the source any more.
    same : bool
        Whether the feature file is what an update would write.
    plan : list of (Block, list of Run) or None
        All blocks of the source and which rows hold their items, where they are few enough to be
        kept; else the source is listed again.
    """

    kept: int = 0
    fresh: int = 0
    gone: int = 0
    same: bool = False
    plan: list[tuple[Block, list[Run]]] | None = None
    _from_file: int = field(default=0, repr=False)


@contextmanager
def earlier_runs(
    output: Path,
    parts: Parts,
    header_for: Callable[[FeatureHeader | None], FeatureHeader],
    *,
    overwrite: bool,
    rehash: bool,
) -> Iterator[Earlier]:
    """Open what earlier runs left for an output.

    Parameters
    ----------
    output : pathlib.Path
    parts : Parts
    header_for : callable
        Takes the header of what earlier runs left, or None; gives that of this run.
    overwrite, rehash : bool
        As for ``embed``.

    Raises
    ------
    StaleFeaturesError
        It was made in another way.
    FeatureFileError, DamagedFileError
        `output` exists and is no feature file, or a damaged one.
    OutputError
        What a run left that was cut short cannot be read.
    """
    file = None if overwrite or parts.anew or not is_file(output) else FeatureFile(output)
    pieces: list[FeatureFile] = []
    try:
        header = header_for(None if file is None else file.header)
        if file is not None:
            check_fresh(file, header, repr(str(output)))
        pieces = [] if overwrite else parts.open()
        if file is None and pieces:
            header = header_for(pieces[0].header)
        for piece in pieces:
            where = f"The unfinished work in {str(parts.folder)!r}"
            check_fresh(piece, header, where)
        files = pieces if file is None else [file, *pieces]
        known = Known(files, rehash=rehash)
    except BaseException:
        for opened in (file, *pieces):
            if opened is not None:
                opened.close()
        raise
    try:
        yield Earlier(known, file, sum(piece.count for piece in pieces), header)
    finally:
        known.close()


def compare(source: Source, earlier: Earlier, met_fresh: Callable[[], object]) -> Comparison:
    """Go once over a source, and tell what an update would do.

    `met_fresh` is called when the first item is met that must be read.

    Raises
    ------
    SourceError
        The source cannot be listed, or holds no image.
    DamagedFileError
    """
    result = Comparison()
    file, known = earlier.file, earlier.known
    in_step = file is not None and not file.reject_count
    plan: list[tuple[Block, list[Run]]] = []
    for block in source.scan(stats=True):
        runs = list(known.match(block))
        if result.kept + result.fresh <= MOST_PLANNED:
            plan.append((block, runs))
        for run in runs:
            if run.place is None:
                if not result.fresh:
                    met_fresh()
                result.fresh += run.count
                in_step = False
                continue
            result.kept += run.count
            if file is None or run.place >= file.count:
                in_step = False
            else:
                in_step = in_step and run.place == result._from_file
                result._from_file += run.count
                in_step = in_step and _labelled_so(file, run.place, block, run.start, run.count)
    if result.kept + result.fresh <= MOST_PLANNED:
        result.plan = plan
    if known.rehash:  # the same names may hold other contents: all are read
        if result.plan is not None:
            result.plan = [(block, [Run(0, len(block), None)]) for block, _ in plan]
        result.fresh, result.kept, in_step = result.fresh + result.kept, 0, False
    if file is not None:
        result.gone = file.count - result._from_file - known.changed
        result.same = (
            in_step and not result.gone and not known.changed and source.text == file.header.source
        )
    return result


def _labelled_so(file: FeatureFile, place: int, block: Block, start: int, count: int) -> bool:
    """Whether rows have the labels and splits that the source gives their items."""
    at = slice(start, start + count)
    if file.labels(place, place + count) != block.labels[at]:
        return False
    if file.header.splits_from != SPLITS_FROM_SOURCE:
        return True  # `tlpipe split` gave them
    found: list[int] = file.read("splits", place, place + count).tolist()
    return found == block.splits[at]


def check_gone(source: Source, file: FeatureFile, found: Comparison, most: float | None) -> None:
    """Refuse to drop more rows than `most`, a number or a fraction of all; None for the default.

    By default an update may drop up to half of the rows, and more where the source is still as
    large as it was: images that were moved are no loss, and a disk that is not mounted is one.
    """
    allowed = (MOST_GONE if most is None else most) * (
        file.count if most is None or isinstance(most, float) else 1
    )
    elsewhere = source.text != file.header.source
    shrunk = found.kept + found.fresh < file.count - allowed
    if found.gone <= allowed or (most is None and not shrunk and not elsewhere):
        return
    where = f", which was made of {file.header.source!r}," if elsewhere else ""
    raise SourceError(
        f"{found.gone:,} of the {file.count:,} images in {str(file.path)!r}{where} are not in"
        f" {source.name!r} any more: their embeddings would be dropped.",
        hint="If a disk or folder is missing, bring it back. If it is meant so, allow it with"
        " --max-gone 100% of 'tlpipe embed', or choose another feature file.",
    )


def check_still_there(
    source: Source, earlier: Earlier, found: Comparison, most: float | None, vanished: int
) -> None:
    """Refuse to drop rows of images that went away since the source was compared.

    Some may be missing in a second list of it, and `vanished` were missing when they were read.
    """
    gone = found.kept + found.fresh - source.survey.count + vanished
    if earlier.file is not None and gone > 0:
        found = replace(found, gone=found.gone + gone, kept=found.kept - gone)
        check_gone(source, earlier.file, found, most)


def continued(header: FeatureHeader, provider: str, earlier: Earlier) -> FeatureHeader:
    """Header of a file that takes rows over: all providers, and who assigned the splits."""
    before = [file.header.provider for file in earlier.known.files]
    providers = {name for names in (*before, provider) for name in names.split(", ") if name}
    old = earlier.file
    splits_from = SPLITS_FROM_SOURCE if old is None else old.header.splits_from
    return replace(header, provider=", ".join(sorted(providers)), splits_from=splits_from)
