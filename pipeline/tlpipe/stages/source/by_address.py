"""Sources that an address names: an image, a file that lists or holds images, a folder."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tlpipe.addresses import below, folder_of, is_web, name_of, path_of, shown
from tlpipe.errors import SourceError
from tlpipe.stages.source.addressed import Address
from tlpipe.stages.source.copies import copied
from tlpipe.stages.source.places import as_folder
from tlpipe.stages.source.store_folder import open_store_folder
from tlpipe.stages.source.stores import Store, StoreFailure, source_error
from tlpipe.stages.source.survey import Asked, Source, Survey, called
from tlpipe.types import Block, Reason, Split

OpenFile = Callable[[Path, Sequence[str]], Source]


def open_address(
    url: str, allowed: Sequence[str], opener: Callable[[str], OpenFile | None]
) -> Source:
    """Understand an address as a source.

    Parameters
    ----------
    url : str
        Of the web, or of an object store.
    allowed : sequence of str
        Real paths of folders, and addresses, that a manifest may name as well.
    opener : callable
        Takes a file's name; gives what opens a local file of that name that lists or holds images.

    Raises
    ------
    SourceError
        There is no such thing, or it cannot be had.
    """
    if is_web(url):
        if path_of(url).endswith("/") or not path_of(url):
            raise SourceError(
                f"The address {shown(url)!r} names a folder, and HTTP has no folders to be listed.",
                hint="Give a manifest with the addresses of the images, or an archive of them.",
            )
    else:
        folder = _is_folder(url)
        if folder:
            return open_store_folder(url, lambda: Store(url))
    open_file = opener(name_of(url))
    return _single(url) if open_file is None else _copy(url, allowed, open_file)


def _is_folder(url: str) -> bool:
    try:
        return Store(url).info(url).get("type") == "directory"
    except StoreFailure as failure:
        if failure.reason is Reason.MISSING:
            raise SourceError(
                f"The source {shown(url)!r} does not exist.",
                hint="Give a folder of images, an image, a manifest or an archive.",
            ) from failure
        raise source_error(url, failure) from failure


def _copy(url: str, allowed: Sequence[str], open_file: OpenFile) -> Source:
    """Take a file that lists or holds images by a copy of it; a manifest's paths start at it."""
    copy = copied(url)
    name, folder = shown(url), folder_of(url)
    above = as_folder(str(copy.path.parent))

    def place(local: Any) -> Any:
        if not isinstance(local, str) or not local.startswith(above) or local == str(copy.path):
            return local
        rest = posixpath.normpath(local.removeprefix(above).replace(os.sep, "/"))
        return Address(below(folder, rest), inside=True)

    with called(name, copy.path):
        return open_file(copy.path, [folder, *allowed]).copied_from(name, copy.path, place)


def _single(url: str) -> Source:
    def blocks(survey: Survey, asked: Asked) -> Iterator[Block]:
        survey.layout = "one file"
        survey.labels[Split.NONE, None] = 1
        stats = [(-1, -1)] if asked.stats else []
        yield Block([name_of(url)], [Address(url, inside=True)], [None], [Split.NONE], stats)

    return Source(shown(url), blocks)
