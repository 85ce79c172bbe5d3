"""Reads checkpoints in PyTorch's legacy format (before 1.6, not a zip file) without PyTorch.

The file is a row of pickles (a magic number, a protocol version, a system record, the state dict,
the storage keys), followed by each storage: its length as int64 and its little-endian elements.
A pickle can name any callable and have it run, so general unpickling of a stranger's file runs a
stranger's program. The reader below resolves exactly the names in ``_ALLOWED``, each to a function
of this module or to ``OrderedDict``: whatever the file says, it can build tensors, ordered dicts
and plain values, and nothing else.

Takes a path, gives NumPy arrays. Imports ``errors`` only.

Source: the format as written by ``torch.serialization._legacy_save`` of PyTorch 1.0 to 2.x.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlpipe.errors import WeightsError

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001

_DTYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("<i1"),
    "ByteStorage": np.dtype("<u1"),
    "BoolStorage": np.dtype("?"),
}


@dataclass(frozen=True)
class _Storage:
    """A storage the state dict refers to; its elements come later in the file."""

    key: str
    dtype: np.dtype[Any]
    length: int


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage, still without elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object
) -> _Tensor:
    """Stand in for ``torch._utils._rebuild_tensor_v2``; gradients and hooks are ignored."""
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, _Storage) or not all(isinstance(n, int) and n >= 0 for n in numbers):
        raise pickle.UnpicklingError("a tensor with a storage or shape that makes no sense")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    **{("torch", name): dtype for name, dtype in _DTYPES.items()},
}


class _TensorUnpickler(pickle.Unpickler):
    """An unpickler that knows the names of ``_ALLOWED`` and refuses all others."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which is no part of a tensor"
            ) from None

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", np.dtype() as dtype, str() as key, str(), int() as length, None):
                return _Storage(key, dtype, length)
        raise pickle.UnpicklingError(f"it refers to {pid!r}, which is no storage")


def read_state_dict(path: Path) -> dict[str, NDArray[Any]]:
    """Tensors of a legacy PyTorch checkpoint, by name, in the file's order.

    Parameters
    ----------
    path : pathlib.Path
        A file made by ``torch.save(module.state_dict(), path)`` in the legacy format.

    Returns
    -------
    dict of str to array
        Contiguous copies, in the dtype that is stored.

    Raises
    ------
    WeightsError
        The file is not of that format, is damaged, or holds anything but tensors.
    """
    data = path.read_bytes()
    try:
        return _parse(data)
    except (
        pickle.UnpicklingError,
        struct.error,
        ArithmeticError,
        AttributeError,
        EOFError,
        ImportError,
        LookupError,
        TypeError,
        ValueError,
    ) as exc:  # what the unpickler's documentation lists for malformed input
        raise WeightsError(
            f"{str(path)!r} is no legacy PyTorch checkpoint: {exc}.",
            hint="Fetch it again from where the card says.",
        ) from exc


def _parse(data: bytes) -> dict[str, NDArray[Any]]:
    stream = io.BytesIO(data)
    header = [_TensorUnpickler(stream).load() for _ in range(3)]
    if header[0] != MAGIC or header[1] != PROTOCOL:
        raise ValueError("its magic number or protocol version is another one")
    if not (isinstance(header[2], dict) and header[2].get("little_endian") is True):
        raise ValueError("it was not written on a little-endian machine")
    state = _TensorUnpickler(stream).load()
    keys = _TensorUnpickler(stream).load()
    if not isinstance(state, dict) or not all(isinstance(v, _Tensor) for v in state.values()):
        raise ValueError("it holds something other than a dict of tensors")
    storages = {tensor.storage.key: tensor.storage for tensor in state.values()}
    elements: dict[str, NDArray[Any]] = {}
    for key in keys:
        (length,) = struct.unpack("<q", stream.read(8))
        storage = storages[key]
        if length != storage.length:
            raise ValueError(f"storage {key!r} has {length} elements instead of {storage.length}")
        elements[key] = np.frombuffer(data, dtype=storage.dtype, count=length, offset=stream.tell())
        stream.seek(length * storage.dtype.itemsize, io.SEEK_CUR)
    return {str(name): _view(tensor, elements) for name, tensor in state.items()}


def _view(tensor: _Tensor, elements: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """Contiguous copy of the part of a storage that a tensor shows."""
    flat = elements[tensor.storage.key][tensor.offset :]
    if len(tensor.shape) != len(tensor.strides):
        raise ValueError("a tensor has another number of strides than axes")
    last = sum(stride * (n - 1) for n, stride in zip(tensor.shape, tensor.strides, strict=True))
    if math.prod(tensor.shape) == 0 or last >= flat.size or math.prod(tensor.shape) > flat.size:
        raise ValueError("a tensor reaches beyond its storage")
    strides = [stride * flat.itemsize for stride in tensor.strides]
    return np.array(np.lib.stride_tricks.as_strided(flat, tensor.shape, strides), order="C")
