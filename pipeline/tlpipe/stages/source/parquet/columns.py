"""What the columns of a Parquet file are: the image, its path, label and split, and all others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tlpipe.errors import SourceError
from tlpipe.stages.source.rows import brief, find_columns

IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp", "bytes", "image_bytes", "image_data")
"""Names that a column of plain image bytes may have. A struct of bytes and path may have any."""


@dataclass(frozen=True, slots=True)
class TableColumns:
    """Columns of a file by what they hold, None where there is none.

    Attributes
    ----------
    image : str or None
        Path in the schema of the image bytes: "image.bytes", or the name of a column.
    path : str or None
        Path in the schema of the texts that say where each image came from, or lies.
    label, split : str or None
    more : tuple of str
        The further columns, which hold one value of a simple type for each row.
    classes : tuple of str
        Names that the numbers of the label stand for; empty where they stand for themselves.
    """

    image: str | None
    path: str | None
    label: str | None
    split: str | None
    more: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


def understand(schema: Any, where: str) -> TableColumns:
    """Understand an Arrow schema.

    Raises
    ------
    SourceError
        Names stand there twice, several columns may be the image, a column has a type that it
        cannot have, or the note of Hugging Face's ``datasets`` is damaged.
    """
    names: list[str] = list(schema.names)
    found = find_columns(names, where)
    path, label, split = (
        None if at is None else names[at] for at in (found.path, found.label, found.split)
    )
    features = _features(schema.metadata or {}, where)
    if label is None:
        label = _only_class_label(features, names)
    image = _image_column(schema, where)
    leaf = image
    if image is not None and pa.types.is_struct(schema.field(image).type):
        leaf = f"{image}.bytes"
        parts = schema.field(image).type
        if parts.get_field_index("path") >= 0 and is_text(parts.field("path").type):
            path = f"{image}.path"
        elif path is not None and not is_text(schema.field(path).type):
            path = None
    else:
        _check(schema, path, is_text, "text", where)
    _check(schema, label, _is_label, "text, numbers or lists of these", where)
    _check(schema, split, lambda kind: is_text(kind) or pa.types.is_null(kind), "text", where)
    known = {image, path, label, split}
    more = [name for name in names if name.strip() and name not in known]
    return TableColumns(
        image=leaf,
        path=path,
        label=label,
        split=split,
        more=tuple(name for name in more if _is_simple(schema.field(name).type)),
        classes=_class_names(features.get(label or "")),
    )


def is_text(kind: Any) -> bool:
    """Whether a type is text."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def is_list(kind: Any) -> bool:
    """Whether a type is a list."""
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _is_bytes(kind: Any) -> bool:
    return bool(
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    )


def _is_image_struct(kind: Any) -> bool:
    """Whether a type is a struct of bytes and maybe a path, as ``datasets`` writes images."""
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        return False
    content = kind.field("bytes").type
    return _is_bytes(content) or (pa.types.is_null(content) and kind.get_field_index("path") >= 0)


def _is_number(kind: Any) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    )


def _is_label(kind: Any) -> bool:
    if is_list(kind):
        kind = kind.value_type
    return is_text(kind) or _is_number(kind) or bool(pa.types.is_null(kind))


def _is_simple(kind: Any) -> bool:
    return (
        is_text(kind)
        or _is_number(kind)
        or bool(pa.types.is_null(kind) or pa.types.is_temporal(kind) or pa.types.is_decimal(kind))
    )


def _check(schema: Any, name: str | None, fits: Any, must: str, where: str) -> None:
    if name is not None and not fits(schema.field(name).type):
        raise SourceError(
            f"{where} has {name!r} as {brief.repr(str(schema.field(name).type))}; it must be"
            f" {must}.",
            hint="Give the column another name, or convert it.",
        )


def _image_column(schema: Any, where: str) -> str | None:
    """Name of the column of images."""
    found: list[str] = [
        field.name
        for field in schema
        if _is_image_struct(field.type)
        or (field.name.strip().lower() in IMAGE_NAMES and _is_bytes(field.type))
    ]
    if len(found) <= 1:
        return found[0] if found else None
    lower = [name.strip().lower() for name in found]
    for name in IMAGE_NAMES:
        if name in lower:
            return found[lower.index(name)]
    raise SourceError(
        f"{where} has several columns of images: {brief.repr(found)}.",
        hint="Call the one that is meant 'image'.",
    )


def _features(metadata: dict[bytes, bytes], where: str) -> dict[str, Any]:
    """Types of columns as Hugging Face's ``datasets`` notes them in the schema's metadata.

    See its ``Features.arrow_schema``: JSON, with the types by name under "info", "features".
    """
    note = metadata.get(b"huggingface")
    if note is None:
        return {}
    try:
        found = json.loads(note)["info"]["features"]
    except KeyError:
        return {}  # it says nothing of types
    except (ValueError, TypeError, RecursionError) as exc:
        raise SourceError(
            f"{where} has metadata 'huggingface' that make no sense: {type(exc).__name__}.",
            hint="They are JSON, which names the classes of its labels; write the file anew.",
        ) from exc
    return found if isinstance(found, dict) else {}


def _class_names(feature: Any) -> tuple[str, ...]:
    """Names of a ``ClassLabel``, or of those that a list consists of."""
    if isinstance(feature, list):  # an older way to write a list
        feature = feature[0] if len(feature) == 1 else None
    if isinstance(feature, dict) and feature.get("_type") in ("Sequence", "List", "LargeList"):
        feature = feature.get("feature")
    if not isinstance(feature, dict) or feature.get("_type") != "ClassLabel":
        return ()
    names = feature.get("names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return ()
    return tuple(names)


def _only_class_label(features: dict[str, Any], names: Sequence[str]) -> str | None:
    """The column noted as a ``ClassLabel``, where there is one alone."""
    found = [name for name in names if _class_names(features.get(name))]
    return found[0] if len(found) == 1 else None
