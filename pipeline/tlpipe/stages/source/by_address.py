"""Sources that an address names: an image, a file that lists or holds images, a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tlpipe.addresses import is_web, name_of, path_of, shown
from tlpipe.errors import SourceError
from tlpipe.stages.source.places import Address
from tlpipe.stages.source.survey import Asked, Source, Survey
from tlpipe.types import Block, Split

OpenFile = Callable[[Path, Sequence[str]], Source]


def open_address(url: str, allowed: Sequence[str], kinds: Mapping[str, OpenFile]) -> Source:
    """Understand an address as a source.

    Parameters
    ----------
    url : str
        Of the web, or of an object store.
    allowed : sequence of str
        Real paths of folders, and addresses, that a manifest may name as well.
    kinds : mapping of str to OpenFile
        What opens a local file that lists or holds images, by its extension.

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
        return _single(url)
    raise NotImplementedError


def _single(url: str) -> Source:
    def blocks(survey: Survey, asked: Asked) -> Iterator[Block]:
        survey.layout = "one file"
        survey.labels[Split.NONE, None] = 1
        stats = [(-1, -1)] if asked.stats else []
        yield Block([name_of(url)], [Address(url, inside=True)], [None], [Split.NONE], stats)

    return Source(shown(url), blocks)
