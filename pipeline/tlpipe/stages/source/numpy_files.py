"""NumPy files (.npy, .npz) whose arrays are images; nothing in them is ever unpickled."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from tlpipe.errors import SourceError
from tlpipe.files import is_file
from tlpipe.stages.source.array_reader import (
    PackedError,
    Piece,
    Pieces,
    Rasters,
    check_rasters,
    check_unpacked,
)
from tlpipe.stages.source.array_source import (
    ArraySet,
    Labels,
    array_source,
    check_labels,
    unreadable_source,
)
from tlpipe.stages.source.npy_header import Stored, npz_members, stored
from tlpipe.stages.source.open_files import ChangedError
from tlpipe.stages.source.rasters import PixelKind
from tlpipe.stages.source.survey import SPLIT_NAMES, Source
from tlpipe.types import Split

_ROLES = {
    **dict.fromkeys(("images", "image", "x", "data", "arr"), "images"),
    **dict.fromkeys(("labels", "label", "y", "targets"), "labels"),
    **dict.fromkeys(("classes", "names"), "classes"),
}
"""What words in the names of arrays stand for."""

_Role = tuple[str, Split]

_MOST_CLASSES = 1_000_000

_KINDS: dict[str, PixelKind] = {
    "|u1": "uint8",
    "|b1": "bool",
    "<u2": "uint16-little",
    ">u2": "uint16-big",
}


def open_npy(path: Path, allowed: Sequence[str]) -> Source:
    """Take an array of images, and ``<stem>.labels.npy`` beside it, as a source."""
    del allowed  # no other file is read but the labels' of that name
    beside = path.with_name(f"{path.stem}.labels.npy")
    paths = [path, beside] if is_file(beside) else [path]
    pieces = Pieces([str(p) for p in paths])

    def opened() -> list[ArraySet]:
        arrays = [
            stored(pieces, Piece(n, 0, pieces.files.stamp(n)[0]), f"The array {str(p)!r}")
            for n, p in enumerate(paths)
        ]
        return [_set(arrays[0], arrays[1] if len(arrays) > 1 else None, None, Split.NONE)]

    return _source(path, pieces, opened)


def open_npz(path: Path, allowed: Sequence[str]) -> Source:
    """Take an archive of arrays as a source: images, and maybe labels and the names of classes.

    There may be several of each, for splits: ``x_train``, ``y_train``, ``x_test``, ``y_test``.
    """
    del allowed  # it is one file
    pieces = Pieces([str(path)])
    return _source(path, pieces, lambda: _npz_sets(path, pieces))


def _source(path: Path, pieces: Pieces, opened: Callable[[], list[ArraySet]]) -> Source:
    try:
        kind = f"a NumPy file of images ({path.suffix.lower()})"
        return array_source(str(path), pieces, opened(), kind, os.path.abspath(path))  # noqa: PTH100
    except (ChangedError, PackedError) as exc:
        raise SourceError(
            f"The source {str(path)!r} {exc or 'changed while it was opened'}.",
            hint="Make or copy it again, and run the same command when nothing writes to it.",
        ) from exc
    except OSError as exc:
        raise unreadable_source(str(path), exc) from exc


def _npz_sets(path: Path, pieces: Pieces) -> list[ArraySet]:
    where = f"The archive {str(path)!r}"
    members = npz_members(pieces, where)
    roles = _roles(list(members), where)
    splits = sorted(split for what, split in roles if what == "images")
    if not splits or (Split.NONE in splits and len(splits) > 1):
        raise SourceError(
            f"{where} should hold one array 'images', or 'x_train', 'x_test' and so on; it holds"
            f" {sorted(members)[:20]}.",
            hint="Save it with numpy.savez(path, images=..., labels=...).",
        )
    packed = [p.size for name in roles.values() if (p := members[name]).packing != "none"]
    check_unpacked(packed, str(path), "Save it with numpy.savez, which does not pack.")
    arrays = {
        role: stored(pieces, members[name], f"{where}, array {name!r},")
        for role, name in roles.items()
    }
    classes = arrays.get(("classes", Split.NONE))
    names = None if classes is None else _class_names(pieces, classes)
    return [
        _set(arrays["images", split], arrays.get(("labels", split)), names, split)
        for split in splits
    ]


def _roles(names: list[str], where: str) -> dict[_Role, str]:
    """Which arrays are images, labels and names of classes, and of which split."""
    roles: dict[_Role, str] = {}
    for name in names:
        words = [word for word in re.split(r"[^a-z]+", name.lower()) if word]
        split = [SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES]
        what = [_ROLES.get(word) for word in words if word not in SPLIT_NAMES and word != "class"]
        if len(split) > 1 or len(what) != 1 or what[0] is None:
            continue  # an array of something else
        role = (what[0], split[0] if split else Split.NONE)
        if role in roles:
            raise SourceError(
                f"{where} holds {roles[role]!r} and {name!r}: both may be its {role[0]}.",
                hint="Leave one of them out of it.",
            )
        roles[role] = name
    return roles


def _set(found: Stored, told: Stored | None, names: list[str] | None, split: Split) -> ArraySet:
    images = _images(found)
    labels = None if told is None else _labels(told, names)
    if labels is not None:
        check_labels(labels, images, found.where.rstrip(","))
    return ArraySet(images, labels, "" if split is Split.NONE else f"{split.name.lower()}/", split)


def _images(found: Stored) -> Rasters:
    """Take an array for images, or say what to do with it."""
    shape, kind = found.shape, _KINDS.get(found.dtype.str)
    if kind is None:
        raise SourceError(
            f"{found.where} holds numbers of the type {found.dtype}; images are uint8 (or bool; or"
            " uint16, where they are grey).",
            hint="Of floats from 0 to 1, save (array * 255).round().astype('uint8').",
        )
    if len(shape) not in (3, 4):
        raise SourceError(
            f"{found.where} has the shape {shape}; images are of the shape (N, H, W) or"
            " (N, H, W, C).",
            hint="Save array.reshape(-1, height, width).",
        )
    count, height, width, *rest = shape
    channels = rest[0] if rest else 1
    if channels not in (1, 2, 3, 4):
        first = height in (1, 3, 4)
        raise SourceError(
            f"{found.where} has the shape {shape}: {channels} channels"
            + (", or its channels stand first." if first else "."),
            hint="Save array.transpose(0, 2, 3, 1)."
            if first
            else "Images have 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 channels (RGBA).",
        )
    if channels > 1 and kind != "uint8":
        raise SourceError(
            f"{found.where} holds {channels} channels of {found.dtype}; only grey images may be.",
            hint="Save (array // 257).astype('uint8') of uint16, array.astype('uint8') * 255 of"
            " bool.",
        )
    rasters = Rasters(found.piece, found.skip, count, height, width, channels, kind)
    check_rasters(rasters, found.where.rstrip(","))
    return rasters


def _labels(found: Stored, names: list[str] | None) -> Labels:
    """Take an array for labels: integers or texts, (N,) or (N, 1)."""
    where, dtype = found.where.rstrip(","), found.dtype
    if dtype.kind not in "iubUS" or not found.shape or found.shape[1:] not in ((), (1,)):
        raise SourceError(
            f"{where} has the type {str(dtype)[:100]} and the shape {found.shape}; labels are"
            " integers or texts of the shape (N,).",
            hint="Of one column for each class, save array.argmax(axis=1).",
        )

    def decode(content: bytes) -> list[int | str]:
        return _values(content, found)

    return Labels(found.piece, found.skip, found.shape[0], dtype.itemsize, decode, where, names)


def _values(content: bytes, found: Stored) -> list[int | str]:
    """Integers, or texts, of some bytes of an array."""
    import numpy as np

    values = np.frombuffer(content, found.dtype)
    if found.dtype.kind in "iub":
        return [int(value) for value in values]
    try:
        return [v.decode() if isinstance(v, bytes) else v for v in values.tolist()]
    except (ValueError, SystemError) as exc:  # SystemError: beyond the last code point
        raise SourceError(
            f"{found.where.rstrip(',')} holds text that is none: {exc}.",
            hint="Save text in UTF-8 (bytes), or as array.astype(str).",
        ) from exc


def _class_names(pieces: Pieces, found: Stored) -> list[str]:
    """Names of classes in the order of their numbers."""
    if found.dtype.kind not in "US" or len(found.shape) != 1 or found.shape[0] > _MOST_CLASSES:
        raise SourceError(
            f"{found.where} has the type {str(found.dtype)[:100]} and the shape {found.shape};"
            " names of classes are texts of the shape (K,).",
            hint="Save numpy.array(names).",
        )
    size = found.shape[0] * found.dtype.itemsize
    stamp = pieces.files.stamp(found.piece.file)
    names = [str(v) for v in _values(pieces.read(found.piece, found.skip, size, stamp), found)]
    if len(set(names)) < len(names) or any(not name.strip() for name in names):
        raise SourceError(
            f"{found.where} names a class twice, or with an empty name.",
            hint="Give each class a name of its own, in the order of the numbers.",
        )
    return names
