"""import: from a table of vectors made elsewhere to a feature file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tlpipe.card import Card
from tlpipe.errors import OptionError, TableError
from tlpipe.files import check_output
from tlpipe.lock import writer_lock
from tlpipe.stages.source import printable
from tlpipe.stages.store import (
    DigestIndex,
    FeatureHeader,
    Parts,
    Rows,
    declared_backbone,
    feature_writer,
    rows_per_file,
)
from tlpipe.stages.store.rows import stats_of
from tlpipe.stages.tables import Table, TableBlock, open_table
from tlpipe.types import FEATURE_SUFFIXES
from tlpipe.version import __version__
from tlpipe.workflows.backbones import find_backbone
from tlpipe.workflows.common import PRECISION, now
from tlpipe.workflows.note import Note, read_note
from tlpipe.workflows.pixels import decoder_of
from tlpipe.workflows.run_options import check_set_above

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNKNOWN = "unknown"
"""Precision, decoder and provider of vectors that were made elsewhere."""

CONTENT_SALT = b"tlpipe-import:"
"""Before the bytes of a vector, whose SHA-256 stands for that of an image that is not known."""


@dataclass(frozen=True)
class ImportResult:
    """What ``import_features`` did.

    Attributes
    ----------
    path : pathlib.Path
        The feature file.
    count, dim : int
        N and D.
    classes : list of str
    backbone : str
        Its name, or what was declared.
    fingerprint : str
    rejects : int
    contents_known : bool
        Whether the table has the SHA-256 of each image; else equal vectors count as equal images.
    """

    path: Path
    count: int
    dim: int
    classes: list[str]
    backbone: str
    fingerprint: str
    rejects: int
    contents_known: bool


def import_features(
    table: str | Path,
    output: str | Path,
    *,
    backbone: str | Card | None = None,
    declare: str | None = None,
    overwrite: bool = False,
    set_above: int | None = None,
) -> ImportResult:
    """Make a feature file of a table of vectors, keys and maybe labels, splits and groups.

    A table that ``export_features`` wrote (but for CSV) says itself what made its vectors.

    Parameters
    ----------
    table : str or pathlib.Path
        ``.parquet``, ``.npz`` or ``.csv``; see ``docs/reference/interchange.md``.
    output : str or pathlib.Path
        The feature file to write; it appears whole or not at all.
    backbone : str or Card, optional
        As for ``find_backbone``: the vectors are those that tlpipe gets with this backbone.
    declare : str, optional
        The vectors were made elsewhere, by what this text names. The same text means comparable
        vectors.
    overwrite : bool
        Whether an existing `output` may be replaced.
    set_above : int, optional
        Most rows of one HDF5 file, as in ``UpdateOptions``; 2,000,000 by default.

    Returns
    -------
    ImportResult

    Raises
    ------
    TableError
        The table cannot be read, lacks a column, has a key twice or vectors that are not finite, or
        does not fit `backbone` or `declare`.
    OptionError
        It is not stated what made the vectors, or stated twice; or `set_above` makes no sense.
    UnknownBackboneError, CardError, BackboneError
        There is no such backbone.
    LockedError, OutputError
        The output cannot be written.
    """
    check_set_above(set_above)
    table, output = Path(table), Path(output)
    check_output(output, overwrite=overwrite, suffixes=FEATURE_SUFFIXES, inputs=[table])
    if backbone is not None and declare is not None:
        raise OptionError(
            "The vectors were made by a backbone of tlpipe's (--backbone) or elsewhere (--declare),"
            " not both.",
            hint="Leave one of them out.",
        )
    with closing(open_table(table)) as opened:
        note = None if opened.note is None else read_note(opened.note, opened.where)
        header, name = _header(opened, note, backbone, declare, table)
        rejects = [] if note is None else note.rejects
        known = True
        with writer_lock(output), closing(DigestIndex()) as met:
            most = rows_per_file(set_above)
            with feature_writer(output, header, opened.dim, set_above=most) as writer:
                for block in opened.blocks():
                    known = known and block.content_sha256 is not None
                    _check_keys(block.keys, met, opened.where)
                    writer.add(_rows(block, opened.where))
                if not writer.summary.count:
                    raise TableError(
                        f"{opened.where} has no rows.", hint="Export the vectors again."
                    )
                for key, reject in rejects:
                    writer.reject(key, reject)
            Parts(output).remove()
    summary = writer.summary
    return ImportResult(
        path=output,
        count=summary.count,
        dim=opened.dim,
        classes=summary.classes,
        backbone=name,
        fingerprint=header.fingerprint,
        rejects=len(rejects),
        contents_known=known,
    )


def _header(
    table: Table, note: Note | None, backbone: str | Card | None, declare: str | None, path: Path
) -> tuple[FeatureHeader, str]:
    """Header of the feature file, and what to call the backbone."""
    if note is None and backbone is None and declare is None:
        raise OptionError(
            f"{table.where} does not say what made its vectors.",
            hint="State it: --backbone NAME|FILE where tlpipe would get the same vectors with that"
            " backbone, or --declare TEXT where they were made elsewhere.",
        )
    stated = None
    if backbone is not None:
        stated = _of_backbone(find_backbone(backbone), path)
    elif declare is not None:
        stated = _declared(declare, path)
    header = stated if note is None else note.header
    assert header is not None, "a table without a note has a statement"
    if note is not None:
        _check_note(note.header, table.where)
        if stated is not None and stated.fingerprint != header.fingerprint:
            raise TableError(
                f"{table.where} says that its vectors have the fingerprint"
                f" {header.fingerprint[:12]}..., not {stated.fingerprint[:12]}... as you stated.",
                hint="Leave out --backbone and --declare: the table says itself what made it.",
            )
    if header.declared is not None:
        return header, header.declared
    card = header.card(table.where)
    if card.output.dim != table.dim:
        raise TableError(
            f"{table.where} has vectors of {table.dim:,} numbers; the backbone {card.name!r} gives"
            f" {card.output.dim:,}.",
            hint="Name the backbone that made them, or declare what did: --declare TEXT.",
        )
    return header, card.name


def _of_backbone(card: Card, path: Path) -> FeatureHeader:
    decoder = decoder_of("auto")
    fingerprint = card.fingerprint(precision=PRECISION, decoder=decoder)
    return replace(
        _declared(card.name, path),
        fingerprint=fingerprint,
        backbone=card.to_json(),
        precision=PRECISION,
        decoder=decoder,
    )


def _declared(text: str, path: Path) -> FeatureHeader:
    if not text.strip() or "\0" in text:
        raise OptionError(
            f"What made the vectors is declared as {text!r}; it must be a text that names it.",
            hint="For example --declare 'CLIP ViT-B/32'.",
        )
    text = printable(text)
    backbone, fingerprint = declared_backbone(text)
    return FeatureHeader(
        tlpipe_version=__version__,
        fingerprint=fingerprint,
        backbone=backbone,
        provider=UNKNOWN,
        precision=UNKNOWN,
        decoder=UNKNOWN,
        source=printable(str(path.resolve())),
        created_at=now(),
    )


def _check_note(header: FeatureHeader, where: str) -> None:
    """See that a fingerprint is that of the backbone beside it."""
    if header.declared is not None:
        expected = declared_backbone(header.declared)[1]
    else:
        expected = header.expected_fingerprint(where)
    if expected != header.fingerprint:
        raise TableError(
            f"{where} states the fingerprint {header.fingerprint[:12]!r}..., which is not that of"
            f" the backbone it names ({expected[:12]}...).",
            hint="The header was altered, or written by a tlpipe that prepares networks in another"
            " way: export with this version, or embed the images again.",
        )


def _check_keys(keys: list[str], met: DigestIndex, where: str) -> None:
    for key in keys:
        content = _stored(key)
        if not content:
            raise TableError(
                f"{where} has the key {key!r}.",
                hint="Each row needs a key of its own: text without NUL characters.",
            )
        if met.met(hashlib.blake2b(content, digest_size=16).digest()):
            raise TableError(
                f"{where} has the key {key!r} more than once.",
                hint="Each row needs a key of its own.",
            )


def _stored(text: str) -> bytes:
    """A text as it is stored; no bytes where HDF5 could not give it back."""
    try:
        content = text.encode()
    except UnicodeEncodeError:
        return b""
    return b"" if b"\0" in content else content


def _rows(block: TableBlock, where: str) -> Rows:
    """Rows of the feature file."""
    assert block.vectors is not None
    for label in set(block.labels):
        if label is not None and not _stored(label):
            raise TableError(
                f"{where} has the label {label!r}.", hint="A label is text without NUL characters."
            )
    if block.groups.size and block.groups.min() < -1:
        raise TableError(
            f"{where} has the group {int(block.groups.min())}; groups are numbers from 0 on, and"
            " -1 for none."
        )
    digests = block.content_sha256
    return Rows(
        keys=block.keys,
        content_sha256=_contents(block.vectors) if digests is None else digests,
        stat=stats_of([(size, mtime) for size, mtime in block.stat.tolist()]),
        labels=block.labels,
        splits=block.splits,
        groups=block.groups,
        vectors=block.vectors,
    )


def _contents(vectors: NDArray[np.float32]) -> NDArray[np.uint8]:
    digests: Iterator[bytes] = (
        hashlib.sha256(CONTENT_SALT + row.astype("<f4").tobytes()).digest() for row in vectors
    )
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
