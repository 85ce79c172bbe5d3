"""IDX files, as MNIST, Fashion-MNIST and EMNIST come in; packed by gzip or not.

Source of the format: http://yann.lecun.com/exdb/mnist, "File formats for the MNIST database": two
zero bytes, the type, the number of axes, their lengths as big-endian 32-bit integers, the values.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tlpipe.errors import CUT_OR_DAMAGED, SourceError
from tlpipe.files import is_file
from tlpipe.stages.source.array_reader import (
    Piece,
    Pieces,
    Rasters,
    check_rasters,
    check_unpacked,
    ungzipped,
)
from tlpipe.stages.source.array_source import (
    ArraySet,
    Labels,
    array_source,
    check_labels,
    class_names,
    unreadable_source,
)
from tlpipe.stages.source.places import Places, as_folder
from tlpipe.stages.source.survey import SPLIT_NAMES, Source, printable
from tlpipe.stages.source.walk import IMAGE_EXTENSIONS
from tlpipe.types import Split

_IDX_NAME = re.compile(r"(idx[1-4][-._]?ubyte|\.idx[1-4]?)(\.gz)?$", re.IGNORECASE)
_ENDING = re.compile(
    r"([-._]?images?)?([-._]?idx[34])?([-._]?ubyte)?(\.idx)?(\.gz)?$", re.IGNORECASE
)
_SPLITS = SPLIT_NAMES | {"t10k": Split.TEST}
_NAMES_FILES = ("classes.txt", "labels.txt")

_BYTES, _SIGNED_BYTES, _SHORTS, _INTEGERS = 0x08, 0x09, 0x0B, 0x0C
_CODES = {_BYTES: "B", _SIGNED_BYTES: "b", _SHORTS: "h", _INTEGERS: "i"}

_HINT = "Unpack it first, for example with 'gunzip --keep FILE': then it is read in place."


@dataclass(frozen=True)
class _Header:
    """Type and axes of an IDX file, the bytes that they take, and whether it is packed."""

    kind: int
    shape: tuple[int, ...]
    size: int
    packed: bool


def is_idx_name(name: str) -> bool:
    """Whether a name is that of an IDX file."""
    return _IDX_NAME.search(name) is not None


def open_idx(path: Path, allowed: Sequence[str]) -> Source:
    """Take one file of images, and the labels beside it, as a source; its header is read."""
    return _source(str(path), [path], allowed, alone=True)


def idx_of_folder(folder: str) -> list[Path]:
    """Files of images in a folder that holds IDX files and no other images; else none."""
    found: dict[str, Path] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                continue
            if name[name.rfind(".") :].lower() in IMAGE_EXTENSIONS:
                return []
            if is_idx_name(name) and (
                "image" in name.lower() or re.search("idx[34]", name.lower())
            ):
                plain = name.lower().removesuffix(".gz")
                if plain not in found or not name.lower().endswith(".gz"):
                    found[plain] = Path(entry.path)
    return sorted(found.values())


def open_idx_folder(folder: Path, files: list[Path], allowed: Sequence[str]) -> Source:
    """Take a folder's files of images as one source: train, t10k and so on are its splits."""
    return _source(str(folder), files, allowed, alone=False)


def _source(name: str, files: list[Path], allowed: Sequence[str], *, alone: bool) -> Source:
    folder = files[0].parent
    inside = Places(as_folder(str(folder)), allowed)
    names = next((class_names(p) for n in _NAMES_FILES if is_file(p := folder / n)), None)
    paths: list[str] = []
    sets: list[ArraySet] = []
    for path in files:
        beside = _labels_beside(path)
        for file in (path, beside):
            _check_inside(file, inside, keep=alone and file is path)
        images = _images(path, len(paths))
        paths.append(str(path))
        labels = None
        if beside is not None:
            labels = _labels(beside, len(paths), names)
            paths.append(str(beside))
            check_labels(labels, images, f"the file {str(path)!r}")
        prefix, split = ("", Split.NONE) if alone else _told(path)
        sets.append(ArraySet(images, labels, prefix, split))
    if not alone:
        _check_sets(name, files, sets)
    packed = [
        piece.size
        for found in sets
        for piece in (found.images.piece, *([found.labels.piece] if found.labels else []))
        if piece.packing == "gzip"
    ]
    check_unpacked(packed, name, _HINT)
    layout = "IDX files of images" + (" and labels" if all(s.labels for s in sets) else "")
    try:
        return array_source(name, Pieces(paths), sets, layout, os.path.abspath(name))  # noqa: PTH100
    except OSError as exc:
        raise unreadable_source(name, exc) from exc


def _check_inside(path: Path | None, inside: Places, *, keep: bool) -> None:
    """Refuse a link that leads outside, but for the file that the user named."""
    if path is None or keep:
        return
    real = inside.real(str(path))
    if real is None or not inside.hold(real):
        raise SourceError(
            f"The file {str(path)!r} is a link that leads outside the source.",
            hint="Name the folder it leads into with --allow-outside FOLDER.",
        )


def _images(path: Path, number: int) -> Rasters:
    where = f"The IDX file {str(path)!r}"
    header = _header(path, where)
    if header.kind != _BYTES or len(header.shape) not in (3, 4):
        labels = len(header.shape) == 1
        raise SourceError(
            f"{where} holds {'labels' if labels else 'no images'}: type {header.kind:#04x}, shape"
            f" {header.shape}.",
            hint="Images are bytes (type 0x08) of the shape (N, H, W) or (N, H, W, C)."
            + (" Name the file of the images: the labels beside it are found." if labels else ""),
        )
    count, height, width, *rest = header.shape
    channels = rest[0] if rest else 1
    if channels not in (1, 3, 4):
        raise SourceError(f"{where} holds images of {channels} channels; 1, 3 or 4 are read.")
    piece = _piece(header, number)
    skip = 4 + 4 * len(header.shape)
    rasters = Rasters(piece, skip, count, height, width, channels, "uint8")
    check_rasters(rasters, where)
    return rasters


def _labels(path: Path, number: int, names: list[str] | None) -> Labels:
    where = f"The IDX file {str(path)!r}"
    header = _header(path, where)
    code = _CODES.get(header.kind)
    if code is None or len(header.shape) != 1:
        raise SourceError(
            f"{where} should hold labels: integers of the shape (N,). It has the type"
            f" {header.kind:#04x} and the shape {header.shape}.",
            hint="Move it away, and the images have no labels; or make it again.",
        )
    width = array(code).itemsize
    if header.size != 8 + width * header.shape[0]:
        raise SourceError(
            f"{where} states {header.shape[0]:,} labels and has {header.size - 8:,} bytes of them.",
            hint=CUT_OR_DAMAGED,
        )

    def decode(content: bytes) -> list[int]:
        return list(struct.unpack(f">{len(content) // width}{code}", content))

    return Labels(_piece(header, number), 8, header.shape[0], width, decode, where, names)


def _piece(header: _Header, number: int) -> Piece:
    return Piece(number, 0, header.size, "gzip" if header.packed else "none")


def _header(path: Path, where: str) -> _Header:
    """What a file says of itself; of a packed one, the size that this makes is taken on trust."""
    packed = path.suffix.lower() == ".gz"
    try:
        if packed:
            start = ungzipped(str(path), 20)
        else:
            with path.open("rb") as stream:
                start = stream.read(20)
        size = path.stat().st_size
    except (OSError, EOFError, zlib.error) as exc:
        raise SourceError(
            f"{where} cannot be read: {exc}.",
            hint=CUT_OR_DAMAGED,
        ) from exc
    axes = start[3] if len(start) > 3 else 0
    if start[:2] != b"\0\0" or not 1 <= axes <= 4 or len(start) < 4 + 4 * axes:
        raise SourceError(
            f"{where} is none: it begins with {start[:8]!r}.",
            hint="IDX files begin with two zero bytes, a type, and the number of axes (1 to 4).",
        )
    shape = struct.unpack_from(f">{axes}I", start, 4)
    if packed:
        size = 4 + 4 * axes
        values = 1 if start[2] in (_BYTES, _SIGNED_BYTES) else 2 if start[2] == _SHORTS else 4
        for length in shape:
            values *= length
        size += values
    return _Header(start[2], shape, size, packed)


def _labels_beside(path: Path) -> Path | None:
    """The file of labels that belongs to one of images, by its name."""
    name = path.name
    other = re.sub("image", "label", name, flags=re.IGNORECASE)
    other = re.sub("idx[34]", "idx1", other, flags=re.IGNORECASE)
    if other == name:
        return None
    plain = re.sub(r"\.gz$", "", other, flags=re.IGNORECASE)
    return next((p for n in (other, plain, f"{plain}.gz") if is_file(p := path.with_name(n))), None)


def _told(path: Path) -> tuple[str, Split]:
    """What the keys of a file's images begin with, and the split that its name tells."""
    stem = _ENDING.sub("", path.name) or "images"
    words = {_SPLITS[w] for w in re.split(r"[^a-z0-9]+", stem.lower()) if w in _SPLITS}
    return printable(f"{stem}/"), words.pop() if len(words) == 1 else Split.NONE


def _check_sets(name: str, files: list[Path], sets: list[ArraySet]) -> None:
    """Refuse a folder that holds more than one data set."""
    rests = set()
    for found in sets:
        words = re.split(r"[^a-z0-9]+", found.prefix[:-1].lower())
        rests.add(tuple(word for word in words if word not in _SPLITS))
    splits = {found.split for found in sets}
    if len(rests) > 1 or (Split.NONE in splits and len(sets) > 1):
        raise SourceError(
            f"The folder {name!r} holds several sets of images:"
            f" {sorted(path.name for path in files)[:20]}.",
            hint="Name the file of one of them, or put one set into a folder of its own.",
        )
