"""Reads the metadata properties of an ONNX file, and nothing else of it.

For libraries that run ONNX files and do not tell their metadata. Weights are skipped, not read.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO

from tlpipe.errors import BackboneError

# Source: onnx.proto, ModelProto.metadata_props = 14, StringStringEntryProto.key = 1, .value = 2;
# protobuf's encoding: a key is (number << 3) | wire type.
_PROPERTIES, _KEY, _VALUE = 14, 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_MOST = 1 << 26  # bytes of one property


def properties_of(model: Path | bytes) -> dict[str, str]:
    """Metadata properties by name.

    Parameters
    ----------
    model : pathlib.Path or bytes
        An ONNX file, or its content.

    Raises
    ------
    BackboneError
        It cannot be read, or is no ONNX file.
    """
    name = "The network" if isinstance(model, bytes) else repr(str(model))
    try:
        with io.BytesIO(model) if isinstance(model, bytes) else model.open("rb") as stream:
            end = stream.seek(0, io.SEEK_END)
            stream.seek(0)
            return _properties(stream, end)
    except OSError as exc:
        raise BackboneError(
            f"{name} cannot be read: {exc.strerror}.",
            hint="Correct its permissions, or copy it from where it is whole.",
        ) from exc
    except ValueError as exc:
        raise BackboneError(
            f"{name} is no ONNX file, or is damaged: {exc}.",
            hint="Name an ONNX file (.onnx), or make this one again.",
        ) from exc


def _properties(stream: BinaryIO, end: int) -> dict[str, str]:
    found = {}
    for entry in _fields(stream, end, _PROPERTIES):
        texts = {}
        for number in (_KEY, _VALUE):
            for text in _fields(io.BytesIO(entry), len(entry), number):
                texts[number] = text.decode()
        found[texts.get(_KEY, "")] = texts.get(_VALUE, "")
    return found


def _fields(stream: BinaryIO, end: int, wanted: int) -> list[bytes]:
    """Contents of the fields of one number in a message that ends at `end`."""
    found = []
    while stream.tell() < end:
        key = _varint(stream)
        kind = key & 7
        if kind == _VARINT:
            _varint(stream)
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(kind)
        if size is None:
            if kind != _BYTES:
                raise ValueError(f"a field of the wire type {kind}")
            size = _varint(stream)
        if size > end - stream.tell():
            raise ValueError("a field that ends behind the file")
        if key >> 3 == wanted and kind == _BYTES and size <= _MOST:
            found.append(stream.read(size))
        else:
            stream.seek(size, io.SEEK_CUR)
    return found


def _varint(stream: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        if not byte:
            break
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    raise ValueError("a number that does not end")
