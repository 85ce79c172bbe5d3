"""Opens Parquet files that may come from a stranger, and holds their footers against the file.

Part of the vocabulary, since two stages read Parquet files: vectors in tables, and sources. Loads
pyarrow: imported only where such a file is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow.parquet as pq

from tlpipe.errors import TableError
from tlpipe.parquet_pages import Page, walk_pages

MOST_FOOTER = 64 << 20
"""Bytes of a footer, which is in memory whole, as objects that take a multiple of it."""

_MOST_TEXT_OF_FOOTER = 64 << 20
_MOST_PARTS_OF_FOOTER = 4_000_000


def open_parquet(
    path: Path, texts: Sequence[str] = (), *, buffer_size: int = 0, metadata: Any = None
) -> Any:
    """Open a Parquet file; nothing but its footer is read.

    Parameters
    ----------
    path : pathlib.Path
    texts : sequence of str
        Columns of texts, by the path in the schema, to be read as dictionaries: one long text of
        many rows stays one.
    buffer_size : int
        Bytes that are read at once; 0 for a column of a row group whole.
    metadata : pyarrow.parquet.FileMetaData, optional
        The footer, where it was read before.

    Returns
    -------
    pyarrow.parquet.ParquetFile

    Raises
    ------
    TableError
        Its footer is larger than any should be.
    Exception
        Whatever pyarrow makes of a damaged file.
    """
    with path.open("rb", buffering=0) as stream:
        size = stream.seek(0, os.SEEK_END)
        if size >= 12:
            stream.seek(-8, os.SEEK_END)
            length = int.from_bytes(stream.read(4), "little")  # before the closing b"PAR1"
            if MOST_FOOTER < length < size:
                raise TableError(
                    f"The Parquet file {str(path)!r} states a footer of {length:,} bytes; at most"
                    f" {MOST_FOOTER:,} are read.",
                    hint="Write it with fewer, larger row groups.",
                )
    return pq.ParquetFile(
        path,
        metadata=metadata,
        pre_buffer=False,
        read_dictionary=[*texts],
        buffer_size=buffer_size,
        thrift_string_size_limit=_MOST_TEXT_OF_FOOTER,
        thrift_container_size_limit=_MOST_PARTS_OF_FOOTER,
    )


def chunks_of(metadata: Any, group: int, roots: Iterable[str]) -> Iterator[Any]:
    """What the footer says of the stretches of a row group that columns consist of.

    Parameters
    ----------
    metadata : pyarrow.parquet.FileMetaData
    group : int
    roots : iterable of str
        Columns, or parts of columns, by their paths in the schema.
    """
    whole, parts = set(roots), tuple(f"{root}." for root in roots)
    found = metadata.row_group(group)
    for column in range(found.num_columns):
        chunk = found.column(column)
        name = chunk.path_in_schema
        if name in whole or name.startswith(parts):
            yield chunk


def pages_of(stream: BinaryIO, chunk: Any, where: str) -> Iterator[Page]:
    """Pages of a stretch of a column; raises as ``walk_pages``."""
    return walk_pages(stream, first_page(chunk), chunk.num_values, where)


def first_page(chunk: Any) -> int:
    """Where the first page of a stretch of a column begins."""
    offsets = [chunk.data_page_offset]
    if chunk.has_dictionary_page and chunk.dictionary_page_offset:
        offsets.append(chunk.dictionary_page_offset)
    return int(min(offsets))
