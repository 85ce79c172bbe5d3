"""Finds the large tensors in an ONNX file without reading them.

A network's bytes are nearly all weights, and surgery needs none of them. So a file is walked in
protobuf's wire format: everything is kept but the payload of each large initializer, in whose
place stands where it lies in the file (ONNX's own form of a reference, "external data"). What
remains of 100 MB is some 30 KB; reading, copying and cutting that costs nothing, and the weights
are read when they are wanted, one at a time.

Takes a buffer, gives bytes. Imports nothing of tlpipe's.

Source: the encoding of protocol buffers (https://protobuf.dev/programming-guides/encoding) and the
field numbers of ``onnx.proto``, which never change.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_MODEL_GRAPH = 7
_GRAPH_INITIALIZER = 5
_DATA_TYPE, _FLOAT_DATA, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 2, 4, 9, 13, 14
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_FLOAT = 1  # TensorProto.DataType.FLOAT
_EXTERNAL = 1  # TensorProto.DataLocation.EXTERNAL

# Bits of an element of each TensorProto.DataType (text and complex numbers left out): the numbers
# of onnx.proto, by the type's own number.
_BITS = {
    **dict.fromkeys((6, 12, 1), 32),  # int32, uint32, float
    **dict.fromkeys((7, 13, 11), 64),  # int64, uint64, double
    **dict.fromkeys((4, 5, 10), 16),  # uint16, int16, float16
    **dict.fromkeys((2, 3, 9), 8),  # uint8, int8, bool
}
PLAIN_TYPES = frozenset(_BITS)
"""Types that NumPy has: large tensors of these may stay in their file."""

_BITS |= {16: 16, **dict.fromkeys((17, 18, 19, 20, 24), 8), **dict.fromkeys((21, 22, 23), 4)}
_BITS |= {25: 2, 26: 2}

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

LARGE = 1024
"""Bytes from which on a tensor stays in its file."""


@dataclass(frozen=True, slots=True)
class _Field:
    """One field of a message: where it and its content lie in the buffer."""

    number: int
    kind: int
    start: int
    content: int
    end: int


def skeleton(buffer: memoryview, location: str) -> bytes:
    """Serialized ``ModelProto`` of `buffer` with references in place of its large initializers.

    Parameters
    ----------
    buffer : memoryview
        Content of an ONNX file.
    location : str
        What the references call that file.

    Raises
    ------
    ValueError
        The content is no protocol buffer, or `location` is no UTF-8.
    """
    out = bytearray()
    for field in _fields(buffer, 0, len(buffer)):
        if field.number == _MODEL_GRAPH and field.kind == _BYTES:
            graph = bytearray()
            for part in _fields(buffer, field.content, field.end):
                if part.number == _GRAPH_INITIALIZER and part.end - part.content > LARGE:
                    graph += _delimited(_GRAPH_INITIALIZER, _reference(buffer, part, location))
                else:
                    graph += buffer[part.start : part.end]
            out += _delimited(_MODEL_GRAPH, graph)
        else:
            out += buffer[field.start : field.end]
    return bytes(out)


def bits(data_type: int) -> int:
    """Bits of an element of that ``TensorProto.DataType``; KeyError where it has no fixed size."""
    return _BITS[data_type]


def payload_header(tensor: bytes, length: int) -> bytes:
    """What precedes raw data of that length in a ``TensorProto``: `tensor`, serialized without."""
    return tensor + _tag(_RAW_DATA) + _varint(length)


def initializer_header(tensor_length: int) -> bytes:
    """What precedes a serialized tensor of that length inside a ``GraphProto``."""
    return _tag(_GRAPH_INITIALIZER) + _varint(tensor_length)


def graph_header(graph_length: int) -> bytes:
    """What precedes a serialized graph of that length inside a ``ModelProto``."""
    return _tag(_MODEL_GRAPH) + _varint(graph_length)


def _reference(buffer: memoryview, field: _Field, location: str) -> bytes:
    """The tensor in `field`, its payload replaced by where it lies, where it has a large one."""
    fields = list(_fields(buffer, field.content, field.end))
    kinds = [_read_varint(buffer, f.content, f.end)[0] for f in fields if f.number == _DATA_TYPE]
    large = [
        f
        for f in fields
        if f.kind == _BYTES
        and f.end - f.content > LARGE
        # Packed floats are laid out as raw data are: little-endian, one after the other.
        and (f.number == _RAW_DATA or (f.number == _FLOAT_DATA and kinds == [_FLOAT]))
    ]
    refers = any(f.number == _EXTERNAL_DATA for f in fields)
    if refers or len(large) != 1 or len(kinds) != 1 or kinds[0] not in PLAIN_TYPES:
        return bytes(buffer[field.content : field.end])
    payload = large[0]
    out = bytearray()
    for part in fields:
        if part is not payload:
            out += buffer[part.start : part.end]
    facts = {
        "location": location,
        "offset": str(payload.content),
        "length": str(payload.end - payload.content),
    }
    for key, value in facts.items():
        entry = _delimited(_ENTRY_KEY, key.encode())
        entry += _delimited(_ENTRY_VALUE, value.encode())
        out += _delimited(_EXTERNAL_DATA, entry)
    out += _varint(_DATA_LOCATION << 3 | _VARINT) + _varint(_EXTERNAL)
    return bytes(out)


def _fields(buffer: memoryview, start: int, end: int) -> Iterator[_Field]:
    at = start
    while at < end:
        tag, content = _read_varint(buffer, at, end)
        number, kind = tag >> 3, tag & 7
        if kind == _BYTES:
            length, content = _read_varint(buffer, content, end)
            stop = content + length
        elif kind == _VARINT:
            stop = _read_varint(buffer, content, end)[1]
        elif kind in (_FIXED32, _FIXED64):
            stop = content + (4 if kind == _FIXED32 else 8)
        else:
            raise ValueError(f"a field of the unknown wire type {kind} at byte {at}")
        if stop > end or number == 0:
            raise ValueError(f"a field that makes no sense at byte {at}")
        yield _Field(number, kind, at, content, stop)
        at = stop


def _read_varint(buffer: memoryview, at: int, end: int) -> tuple[int, int]:
    """Value of a variable-length integer, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(f"a number without an end at byte {at}")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _tag(number: int) -> bytes:
    return _varint(number << 3 | _BYTES)


def _delimited(number: int, content: bytes | bytearray) -> bytes:
    return _tag(number) + _varint(len(content)) + bytes(content)
