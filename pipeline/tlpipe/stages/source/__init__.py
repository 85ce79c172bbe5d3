"""Source: lists labelled images, in an order of its own that never changes by itself.

Owns the layouts below. Takes a path, gives a ``Source``: a survey of what is there, and items as a
stream of blocks (a source is never held in memory). Imports ``errors``, ``types`` and
``files``.

* a folder per class: ``cat/1.jpg``, ``dog/sub/2.jpg`` (the first folder is the class);
* the same under split folders: ``train/cat/1.jpg``, ``validation/`` or ``val/``, ``test/``;
* a flat folder: images without labels;
* one image file;
* a manifest with ``path`` and optionally ``label`` and ``split``: CSV, TSV, JSON Lines, Parquet;
* Parquet tables with image bytes in a column: one file, or a folder of them;
* a tar or zip archive, a folder of them, or a pattern with ``*`` or ``{000..099}``: labels and
  splits by the folders in its names, or by the .cls, .json or .txt file beside an image, as
  WebDataset names them;
* IDX files, as MNIST comes in, or a folder of them: ``train-images-idx3-ubyte`` and so on;
* NumPy files of images, (N, H, W) or (N, H, W, C): ``.npy``, ``.npz``;
* any of these at an address, of the web or of an object store;
* a list of paths and addresses on standard input; images that a program gives one by one.

``docs/reference/sources.md`` specifies them.

Folders are walked in the order of their path components, so that two listings can be merged as
streams; what else lists images stays in its own order. Hidden names and files whose extension is of
no image format are skipped and counted.

A source may come from a stranger: links and a manifest's paths that lead outside it are left out or
refused, but where the user allows the place; no folder is walked twice, and nothing is read whole
that may have no end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tlpipe.addresses import scheme_of
from tlpipe.errors import OptionError, SourceError
from tlpipe.files import is_dir, is_file
from tlpipe.near import sentences, similar_file
from tlpipe.stages.source.addressed import Address, named
from tlpipe.stages.source.archives import (
    open_archive,
    open_pattern,
    open_shards,
    refuse_compressed,
)
from tlpipe.stages.source.by_address import OpenFile, open_address
from tlpipe.stages.source.folder import open_folder
from tlpipe.stages.source.given import open_given
from tlpipe.stages.source.idx import idx_of_folder, is_idx_name, open_idx, open_idx_folder
from tlpipe.stages.source.listed import STANDARD_INPUT as STANDARD_INPUT
from tlpipe.stages.source.listed import open_listed
from tlpipe.stages.source.manifest import open_json_manifest, open_text_manifest
from tlpipe.stages.source.numpy_files import open_npy, open_npz
from tlpipe.stages.source.places import real_folders
from tlpipe.stages.source.reading import FileReader as FileReader
from tlpipe.stages.source.shards import is_pattern, shards_of_folder
from tlpipe.stages.source.survey import Asked, file_stat
from tlpipe.stages.source.survey import Source as Source
from tlpipe.stages.source.survey import Survey as Survey
from tlpipe.stages.source.survey import printable as printable
from tlpipe.stages.source.table_files import find_tables
from tlpipe.stages.source.walk import IMAGE_EXTENSIONS as IMAGE_EXTENSIONS
from tlpipe.types import FEATURE_SUFFIXES, Block, Split


def open_source(
    path: str | Path | Iterable[Any], *, allow_outside: Sequence[str | Path] = ()
) -> Source:
    """Understand a path as a source of images; nothing is walked before the first scan.

    Parameters
    ----------
    path : str, pathlib.Path or iterable
        A folder, an image file, a manifest, a Parquet table, an archive, a file of arrays, or a
        pattern that stands for archives. It may be a link, or an address (``https://``,
        ``s3://`` ...). "-" for a list of paths on standard input. Or the images themselves, which
        may come one by one: paths or addresses; encoded bytes, images of Pillow's, uint8 arrays
        (H, W), (H, W, 3) or (H, W, 4); pairs (key, image); dicts of "image" and optionally "key",
        "label" and "split".
    allow_outside : sequence of str or pathlib.Path
        Folders outside the source into which its links and a manifest's paths may lead, "/" for
        anywhere on disk; and addresses below which a manifest's may lie in a private network or an
        object store.

    Raises
    ------
    SourceError
        There is nothing at `path`, it cannot be read, or it is a manifest or file of arrays with a
        wrong header, or no archive.
        What else may be wrong with a source is found by its first scan.
    OptionError
        There is no folder at a path of `allow_outside`, `path` is nothing of these, or standard
        input is a terminal.
    """
    if not isinstance(path, str | Path):
        return _given(path)
    if str(path) == STANDARD_INPUT:
        return open_listed()
    allowed = real_folders(allow_outside)
    if scheme_of(str(path)):
        place = named(str(path))
        if isinstance(place, Address):
            return open_address(place.url, allowed, _opener)
        path = place  # file://
    path = Path(path)
    if is_dir(path):
        return _folder(path, allowed)
    if is_file(path):
        _refuse_features(path)
        open_file = _opener(path.name)
        if open_file is None:
            refuse_compressed(path)
            return _single(path)
        return open_file(path, allowed)
    if is_pattern(str(path)):
        return open_pattern(str(path), allowed)
    there = os.path.exists(path)  # noqa: PTH110  (Path.exists may raise)
    wrong = "is neither a folder nor a regular file" if there else "does not exist"
    raise SourceError(
        f"The source {str(path)!r} {wrong}.",
        hint=sentences(
            "" if there else similar_file(path),
            "Give a folder of images, an image, a manifest (.csv, .jsonl, .parquet), an archive"
            " (.tar, .zip), an IDX file or a NumPy file.",
        ),
    )


def is_remote(place: Any) -> bool:
    """Whether the place of an item lies on a network."""
    return isinstance(place, Address)


def _given(images: Any) -> Source:
    if isinstance(images, bytes | bytearray | Mapping) or not isinstance(images, Iterable):
        raise OptionError(
            f"The source is a {type(images).__name__}.",
            hint="Give a path, an address, or a list or an iterator of images.",
        )
    return open_given(images)


def _folder(path: Path, allowed: Sequence[str]) -> Source:
    """Take a folder for what it holds: archives, arrays, tables, or images."""
    try:
        if shards := shards_of_folder(str(path), allowed):
            return open_shards(str(path), shards)
        if files := idx_of_folder(str(path)):
            return open_idx_folder(path, files, allowed)
    except OSError:
        pass  # it cannot be listed: the walk over it says so
    return _tables(path, allowed) or open_folder(path, allowed)


def _opener(name: str) -> OpenFile | None:
    """What opens a file that lists or holds images, by its name; None for any other."""
    return _FILES.get(Path(name).suffix.lower()) or (open_idx if is_idx_name(name) else None)


def _refuse_features(path: Path) -> None:
    """Tell a file of embeddings from an image of a name that says nothing."""
    if path.suffix.lower() in FEATURE_SUFFIXES:
        raise SourceError(
            f"The source {str(path)!r} is a feature file: it holds embeddings, and no images.",
            hint="Give the images that it was made of. 'tlpipe train-head' trains on a feature"
            " file, and 'tlpipe classify' runs a classifier's head over it.",
        )


def _single(path: Path) -> Source:
    def blocks(survey: Survey, asked: Asked) -> Iterator[Block]:
        survey.layout = "one file"
        survey.labels[Split.NONE, None] = 1
        found = [file_stat(str(path))] if asked.stats else []
        yield Block([printable(path.name)], [str(path)], [None], [Split.NONE], found)

    return Source(str(path), blocks, paths=[path], walked=True)


def _tables(path: Path, allowed: Sequence[str]) -> Source | None:
    """Take a folder's Parquet files as tables of images; None where none of them holds images."""
    tables = find_tables(path, allowed)
    if not tables:
        return None
    from tlpipe.stages.source.parquet import open_tables

    return open_tables(path, tables, allowed)


def _parquet(path: Path, allowed: Sequence[str]) -> Source:
    from tlpipe.stages.source.parquet import open_parquet_file

    return open_parquet_file(path, allowed)


_FILES: dict[str, Callable[[Path, Sequence[str]], Source]] = {
    ".csv": open_text_manifest,
    ".tsv": open_text_manifest,
    ".jsonl": open_json_manifest,
    ".ndjson": open_json_manifest,
    ".parquet": _parquet,
    ".tar": open_archive,
    ".zip": open_archive,
    ".npy": open_npy,
    ".npz": open_npz,
}
"""Kinds of files that list or hold images, by extension."""
