"""Files are made here by hand, opcode by opcode, since nothing but PyTorch writes the format."""

from __future__ import annotations

import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tlpipe.catalogue import find_card
from tlpipe.errors import WeightsError
from tlpipe.graph.legacy_torch import MAGIC, PROTOCOL, read_state_dict
from tlpipe.stages.weights import pretrained_file
from tlpipe.types import DEFAULT_BACKBONE

SYSTEM = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {}}


class Global:
    """Pickles as the bare name of a callable, without being it."""

    def __init__(self, module: str, name: str) -> None:
        self.line = f"c{module}\n{name}\n".encode()


def opcodes(value: Any) -> bytes:
    """Protocol-2 opcodes of a value, with ``Global`` and ("reduce", callable, arguments)."""
    if isinstance(value, Global):
        return value.line
    if isinstance(value, tuple) and value[:1] == ("reduce",):
        return opcodes(value[1]) + opcodes(value[2]) + b"R"
    if isinstance(value, tuple) and value[:1] == ("storage-id",):
        return opcodes(("storage", *value[1:])) + b"Q"
    if isinstance(value, tuple):
        return b"(" + b"".join(opcodes(item) for item in value) + b"t"
    if isinstance(value, dict):
        pairs = b"".join(opcodes(k) + opcodes(v) for k, v in value.items())
        return b"}(" + pairs + b"u"
    return pickle.dumps(value, protocol=2)[2:-1]


def checkpoint(state: Any, storages: dict[str, bytes], lengths: dict[str, int]) -> bytes:
    parts = [pickle.dumps(value, protocol=2) for value in (MAGIC, PROTOCOL, SYSTEM)]
    parts.append(b"\x80\x02" + opcodes(state) + b".")
    parts.append(pickle.dumps(list(storages), protocol=2))
    parts += [struct.pack("<q", lengths[key]) + data for key, data in storages.items()]
    return b"".join(parts)


def tensor(
    length: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    offset: int = 0,
    storage: str = "FloatStorage",
) -> Any:
    storage_id = ("storage-id", Global("torch", storage), "0", "cpu", length, None)
    ordered = ("reduce", Global("collections", "OrderedDict"), ())
    arguments = (storage_id, offset, shape, strides, False, ordered)
    return ("reduce", Global("torch._utils", "_rebuild_tensor_v2"), arguments)


def write(folder: Path, data: bytes) -> Path:
    path = folder / "weights.pth"
    path.write_bytes(data)
    return path


VALUES = np.arange(12, dtype="<f4")


def one(state: Any, length: int = 12) -> bytes:
    return checkpoint({"w": state}, {"0": VALUES.tobytes()}, {"0": length})


def test_tensors_are_read_with_shape_strides_and_offset(tmp_path: Path) -> None:
    state = read_state_dict(write(tmp_path, one(tensor(12, (2, 3), (1, 2), offset=4))))
    expected = VALUES[4:10].reshape(3, 2).T
    np.testing.assert_array_equal(state["w"], expected)
    assert state["w"].flags.c_contiguous


def test_a_number_has_no_axes(tmp_path: Path) -> None:
    data = checkpoint(
        {"n": tensor(1, (), (), storage="LongStorage")},
        {"0": np.array([42], "<i8").tobytes()},
        {"0": 1},
    )
    state = read_state_dict(write(tmp_path, data))
    np.testing.assert_array_equal(state["n"], np.array(42, np.int64), strict=True)


def test_the_default_weights_are_read_whole() -> None:
    state = read_state_dict(pretrained_file(find_card(DEFAULT_BACKBONE)))
    assert len(state) == 296
    assert sum(array.size for array in state.values() if array.dtype == np.float32) == 4_694_024
    assert state["_fc.weight"].shape == (1000, 1280)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("/dev/null",))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (("reduce", Global("os", "system"), ("true",)), "it asks for os.system"),
        (("reduce", Global("builtins", "eval"), ("1",)), "it asks for builtins.eval"),
        (("reduce", Global("torch", "load"), ("x",)), "it asks for torch.load"),
        (("reduce", Global("builtins", "getattr"), ()), "it asks for builtins.getattr"),
        ("text", "something other than a dict of tensors"),
        (tensor(12, (5, 3), (3, 1)), "reaches beyond its storage"),
        (tensor(12, (2, 3), (3, 1), offset=8), "reaches beyond its storage"),
        (tensor(12, (1 << 40,), (0,)), "reaches beyond its storage"),
        (tensor(12, (-1, 3), (3, 1)), "makes no sense"),
        (tensor(12, (2, 3), (1,)), "another number of strides"),
        (tensor(13, (2, 3), (3, 1)), "has 12 elements instead of 13"),
    ],
)
def test_hostile_states_are_refused(tmp_path: Path, state: Any, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        read_state_dict(write(tmp_path, one(state)))


def test_nothing_is_run_by_a_pickle_in_place_of_the_header(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="it asks for"):
        read_state_dict(write(tmp_path, pickle.dumps(Evil())))


@pytest.mark.parametrize("size", [0, 1, 20, 60, 150, 250, 300])
def test_a_truncated_file_is_refused(tmp_path: Path, size: int) -> None:
    data = one(tensor(12, (2, 3), (3, 1)))
    assert size < len(data)
    with pytest.raises(WeightsError, match="is no legacy PyTorch checkpoint"):
        read_state_dict(write(tmp_path, data[:size]))


def test_a_plain_pickle_is_refused(tmp_path: Path) -> None:
    data = b"".join(pickle.dumps(value) for value in (1, 2, {}, OrderedDict(), []))
    with pytest.raises(WeightsError, match="magic number"):
        read_state_dict(write(tmp_path, data))
