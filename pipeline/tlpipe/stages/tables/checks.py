"""What may stand in a table: names of columns, limits, and the error for what may not."""

from __future__ import annotations

import contextlib
import reprlib
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlpipe.errors import CUT_OR_DAMAGED, TableError, TlpipeError
from tlpipe.types import Split

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlpipe.types import Float32Array

MOST_DIM = 100_000
"""Numbers of a vector. The largest embeddings in use have some ten thousand."""

BLOCK_BYTES = 16 << 20
"""Of the rows that are in memory at once, as far as single rows allow."""

BLOCK_ROWS = 8192

ALIASES = {
    "vectors": ("vectors", "vector", "embeddings", "embedding"),
    "keys": ("keys", "key", "path"),
    "labels": ("labels", "label"),
    "splits": ("splits", "split"),
    "groups": ("groups", "group"),
    "content_sha256": ("content_sha256",),
    "stat": ("stat",),
    "size_bytes": ("size_bytes",),
    "mtime_ns": ("mtime_ns",),
}
"""Names that a column may have in a table made elsewhere, by what it holds."""

SPLIT_NAMES: dict[str, Split] = {
    "": Split.NONE,
    "train": Split.TRAIN,
    "validation": Split.VALIDATION,
    "val": Split.VALIDATION,
    "test": Split.TEST,
}
brief = reprlib.Repr()
brief.maxlist, brief.maxstring, brief.maxother = 10, 120, 120


def most_unpacked(path: Path) -> int:
    """Bytes that a compressed file may claim to hold: 50 times its own, and 64 MiB.

    Float32 vectors pack by a factor of 5 at the very most where most of their numbers are zero.
    """
    return (64 << 20) + 50 * path.stat().st_size


def block_rows(row_bytes: int) -> int:
    """How many rows of so many bytes are read at once."""
    return max(1, min(BLOCK_ROWS, BLOCK_BYTES // max(1, row_bytes)))


@contextlib.contextmanager
def foreign_errors(where: str) -> Iterator[None]:
    """Turn whatever a library makes of damaged or hostile bytes into one error."""
    try:
        yield
    except TlpipeError:
        raise
    except (
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        OSError,
        RuntimeError,
        SyntaxError,
        SystemError,
        TypeError,
        ValueError,
        struct.error,
        tokenize.TokenError,
        zipfile.BadZipFile,
        zlib.error,
    ) as exc:
        text = " ".join(str(exc).split())
        said = text if len(text) <= 300 else f"{text[:300]}..."
        raise TableError(
            f"{where} cannot be read: {type(exc).__name__}: {said}",
            hint=CUT_OR_DAMAGED,
        ) from exc


def find_columns(names: Iterable[str], where: str) -> dict[str, str]:
    """Name of each known column, by what it holds.

    Raises
    ------
    TableError
        Two columns hold the same.
    """
    have = list(names)
    found: dict[str, str] = {}
    for holds, aliases in ALIASES.items():
        named = [name for name in have if name.strip().lower() in aliases]
        if len(named) > 1:
            raise TableError(
                f"{where} has more than one column of {holds}: {brief.repr(named)}.",
                hint="Keep the one that is meant.",
            )
        if named:
            found[holds] = named[0]
    return found


def need_columns(found: dict[str, Any], needed: Iterable[str], have: Any, where: str) -> None:
    """Refuse a table that lacks a column.

    Raises
    ------
    TableError
    """
    for holds in needed:
        if holds not in found:
            raise TableError(
                f"{where} has no column of {holds}; its columns are {brief.repr(list(have))}.",
                hint=f"Call it {' or '.join(map(repr, ALIASES[holds]))}.",
            )


def checked_dim(dim: int, where: str) -> int:
    """D, if vectors may have that many numbers.

    Raises
    ------
    TableError
    """
    if not 1 <= dim <= MOST_DIM:
        raise TableError(
            f"{where} has vectors of {dim:,} numbers; there must be 1 to {MOST_DIM:,}."
        )
    return dim


def split_numbers(texts: Iterable[str | None], where: str) -> NDArray[np.int8]:
    """Splits by their names.

    Raises
    ------
    TableError
        One has another name.
    """
    found = []
    for text in texts:
        split = SPLIT_NAMES.get((text or "").strip().lower())
        if split is None:
            raise TableError(
                f"{where} has the split {brief.repr(text)}.",
                hint="Use train, validation, test or nothing.",
            )
        found.append(split)
    return np.array(found, np.int8)


def digests_of(texts: Iterable[str | None], where: str) -> NDArray[np.uint8]:
    """SHA-256 digests, uint8 (n, 32), of their hexadecimal digits.

    Raises
    ------
    TableError
        One is none.
    """
    found = []
    for text in texts:
        try:
            digest = bytes.fromhex(text or "")
        except ValueError:
            digest = b""
        if len(digest) != 32:
            raise TableError(
                f"{where} has the content_sha256 {brief.repr(text)}; 64 hexadecimal digits are"
                " right.",
                hint="Write it like sha256sum, or leave the column out.",
            )
        found.append(digest)
    return np.frombuffer(b"".join(found), np.uint8).reshape(-1, 32)


def float32(vectors: NDArray[Any], first: int, where: str) -> Float32Array:
    """Vectors as float32, C-contiguous.

    Raises
    ------
    TableError
        One holds NaN or infinity, or what is infinity as float32.
    """
    with np.errstate(over="ignore"):
        found: Float32Array = np.ascontiguousarray(vectors, np.float32)
    bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
    if bad.size:
        raise TableError(
            f"{where}: the vector of row {first + int(bad[0]):,} holds NaN, infinity or a number"
            " beyond float32.",
            hint="Leave out what has no usable vector.",
        )
    return found


def unknown_stat(count: int) -> NDArray[np.int64]:
    """Stats of rows that have none."""
    return np.full((count, 2), -1, np.int64)
