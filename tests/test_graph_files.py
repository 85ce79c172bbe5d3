"""Networks on disk: weights that stay in their file, written networks, damaged files."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from networks import WIDTH, Net, embed, evaluated, feed
from tlpipe.errors import BackboneError
from tlpipe.graph import io, wire
from tlpipe.graph.analyse import Analysis, Choices, analyse
from tlpipe.graph.batch import way_of
from tlpipe.graph.digest import tensor_digests, weights_digest
from tlpipe.graph.io import load_model, runnable, write_model
from tlpipe.graph.references import array_of, data_files, references
from tlpipe.graph.tidy import tidied
from tlpipe.stages.session import open_graph

CLASSES = 50  # the last layer is large enough to stay in the file: 50 x 24 x 4 bytes

KINDS: dict[str, Any] = {
    "float32": np.float32,
    "float16": np.float16,
    "float64": np.float64,
    "int8": np.int8,
    "uint8": np.uint8,
    "int32": np.int32,
    "int64": np.int64,
    "uint64": np.uint64,
    "bool": np.bool_,
}


def classifier(batch: int | str = "N") -> onnx.ModelProto:
    """A network of which some weights are large, and some are small."""
    net = Net(batch=batch)
    y = net.add("Softmax", net.fc(net.pooled(), CLASSES), axis=1, out="y")
    model = net.model(y)
    model.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, CLASSES])
    )
    helper.set_model_props(model, {"a": "b"})
    return model


def with_every_storage() -> onnx.ModelProto:
    """Tensors of every type and size, as raw bytes and in fields of their own."""
    model = classifier()
    rng = np.random.default_rng(1)
    for name, dtype in KINDS.items():
        for count in (0, 5, 900):
            array = (rng.normal(0, 60, (count, 3)) > 0) if name == "bool" else rng.normal(
                0, 60, (count, 3)
            )  # fmt: skip
            array = np.abs(array).astype(dtype) if name.startswith("u") else array.astype(dtype)
            model.graph.initializer.append(numpy_helper.from_array(array, f"{name}.{count}.raw"))
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            values = array.ravel().tolist()
            model.graph.initializer.append(
                helper.make_tensor(f"{name}.{count}.field", kind, array.shape, values)
            )
    model.graph.initializer.append(numpy_helper.from_array(np.float32(3), "scalar"))
    words = [b"a" * 2000, b"b"]
    model.graph.initializer.append(helper.make_tensor("words", TensorProto.STRING, [2], words))
    for number, kind in enumerate((TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN)):
        tensor = TensorProto(name=f"odd{number}", data_type=kind, dims=[1500])
        tensor.raw_data = bytes(1500 * (2 - number))
        model.graph.initializer.append(tensor)
    return model


def saved(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def test_what_is_read_leanly_is_what_is_in_the_file(tmp_path: Path) -> None:
    path = saved(with_every_storage(), tmp_path / "x.onnx")
    lean, whole = load_model(path), onnx.load(path)
    assert len(lean.SerializeToString()) < path.stat().st_size / 2
    assert weights_digest(lean) == weights_digest(whole)
    left = dict(references(lean))
    assert {"fc.w", "float32.900.raw", "float32.900.field", "bool.900.raw"} <= set(left)
    assert not {"fc.b", "scalar", "words", "int32.900.field", "odd0", "float32.0.raw"} & set(left)
    for mine, theirs in zip(lean.graph.initializer, whole.graph.initializer, strict=True):
        assert (mine.name, mine.data_type, mine.dims) == (
            theirs.name, theirs.data_type, theirs.dims,
        )  # fmt: skip
        array, expected = array_of(mine), numpy_helper.to_array(theirs)
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)
    for message in (lean, whole):
        message.graph.ClearField("initializer")
    assert lean == whole  # all else is untouched
    assert data_files(load_model(path), path) == []


def test_what_is_written_is_what_was_read(tmp_path: Path) -> None:
    path = saved(with_every_storage(), tmp_path / "x.onnx")
    write_model(load_model(path), tmp_path / "y.onnx")
    again, whole = onnx.load(tmp_path / "y.onnx"), onnx.load(path)
    assert tensor_digests(again) == tensor_digests(whole)
    arrays = {t.name: numpy_helper.to_array(t) for t in again.graph.initializer}
    for tensor in whole.graph.initializer:
        np.testing.assert_array_equal(arrays.pop(tensor.name), numpy_helper.to_array(tensor))
    assert not arrays
    for message in (again, whole):
        message.graph.ClearField("initializer")
    assert again == whole
    write_model(load_model(tmp_path / "y.onnx"), tmp_path / "z.onnx")
    assert (tmp_path / "y.onnx").read_bytes() == (tmp_path / "z.onnx").read_bytes()


def test_what_is_written_runs(tmp_path: Path) -> None:
    model = classifier()
    lean = load_model(saved(model, tmp_path / "x.onnx"))
    write_model(lean, tmp_path / "y.onnx")
    images = feed(model)
    (expected,) = evaluated(model, ["y"], images)
    written = open_graph((tmp_path / "y.onnx").read_bytes(), "")({"x": images}, ["y"])[0]
    ready = runnable(lean)
    mapped = open_graph(ready.content, ready.folder)({"x": images}, ["y"])[0]
    np.testing.assert_array_equal(written, mapped)
    np.testing.assert_allclose(written, expected, rtol=1e-5)


@pytest.mark.parametrize("way", ["as-is", "rewritten", "one-by-one"])
def test_a_freed_network_survives_its_file(tmp_path: Path, way: str) -> None:
    net = Net(batch="N" if way == "as-is" else 1)
    x = net.trunk()
    if way != "as-is":
        x = net.add("Reshape", x, net.shape([1, WIDTH, 4, 4], "four"))
    x = net.add("Relu", net.add("Conv", x, net.w("large", WIDTH, WIDTH, 1, 1)))
    if way == "one-by-one":
        net.add("DynamicQuantizeLinear", x, out="q", more=["s", "z"])
        x = net.add("DequantizeLinear", "q", "s", "z")
    x = net.add("Flatten", net.add("GlobalAveragePool", x))
    model = net.model(net.add("Softmax", net.fc(x, CLASSES), axis=1))
    path = saved(model, tmp_path / "x.onnx")
    found = analyse(load_model(path), open_graph, Choices())
    assert found.freed is not None
    assert found.freed.way == way, found.freed.reasons
    write_model(found.freed.model, tmp_path / "y.onnx")
    lean, whole = load_model(tmp_path / "y.onnx"), onnx.load(tmp_path / "y.onnx")
    assert way_of(lean) == way_of(whole) == way
    kept = tensor_digests(whole)
    assert kept == tensor_digests(lean) == tensor_digests(found.freed.model)
    assert "large" in kept
    assert kept.items() <= tensor_digests(model).items()
    images = feed(model)
    run = open_graph((tmp_path / "y.onnx").read_bytes(), "", optimised=True)
    ours = run({whole.graph.input[0].name: images}, ["embeddings"])[0]
    direct: Analysis = analyse(model, open_graph, Choices())
    np.testing.assert_allclose(ours, embed(direct, images), rtol=1e-5, atol=1e-6)


def test_a_network_of_more_than_two_gigabytes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(classifier(), tmp_path / "x.onnx")
    lean = load_model(path)
    monkeypatch.setattr(io, "_LIMIT", path.stat().st_size - 100)
    with pytest.raises(BackboneError, match=r"has 0\.0 GB; one ONNX file can hold 2\.1 GB") as told:
        write_model(lean, tmp_path / "y.onnx")
    assert "float16" in told.value.hint
    assert not (tmp_path / "y.onnx").exists()
    monkeypatch.setattr(io, "_LIMIT", path.stat().st_size + 100)
    write_model(lean, tmp_path / "y.onnx")


def test_an_invalid_network_is_not_written(tmp_path: Path) -> None:
    model = classifier()
    model.graph.node[0].op_type = "Softmax"  # of three inputs
    with pytest.raises(BackboneError, match="is no valid ONNX: "):
        write_model(model, tmp_path / "y.onnx")
    assert not (tmp_path / "y.onnx").exists()


def test_weights_that_vanish_after_reading(tmp_path: Path) -> None:
    path = saved(classifier(), tmp_path / "x.onnx")
    lean = load_model(path)
    tensor = dict(references(lean))["fc.w"]
    os.truncate(path, 1000)
    with pytest.raises(BackboneError, match=r"'fc\.w' can no longer be read .*become shorter"):
        array_of(tensor)
    with pytest.raises(BackboneError, match="has become shorter"):
        write_model(lean, tmp_path / "y.onnx")
    path.unlink()
    with pytest.raises(BackboneError, match=r"'fc\.w' can no longer be read .*No such file"):
        array_of(tensor)


@pytest.mark.parametrize("name", ["with space.onnx", "üñí.onnx", "%s.onnx", b"\xff\xfe.onnx"])
def test_any_file_name_will_do(tmp_path: Path, name: str | bytes) -> None:
    if isinstance(name, bytes) and sys.platform != "linux":
        pytest.skip("this system knows no such names")
    path = tmp_path / os.fsdecode(name)
    saved(classifier(), path)
    lean = load_model(path)
    assert weights_digest(lean) == weights_digest(classifier())
    write_model(lean, tmp_path / "y.onnx")
    assert weights_digest(onnx.load(tmp_path / "y.onnx")) == weights_digest(classifier())
    found = analyse(lean, open_graph, Choices())
    assert (found.dim, found.output().classes) == (WIDTH, CLASSES)


def test_a_folder_is_no_network(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="cannot be read as an ONNX model"):
        load_model(tmp_path)
    with pytest.raises(BackboneError, match="cannot be read as an ONNX model"):
        load_model(tmp_path / "missing.onnx")


def digested(path: Path) -> None:
    """Read all of a file; nothing but a BackboneError may come of it."""
    try:
        model = load_model(path)
        weights_digest(model)
        tidied(model)
        write_model(model, path.with_suffix(".written"))
    except BackboneError as exc:
        assert str(exc)  # noqa: PT017


FUZZ = settings(
    deadline=None, max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@FUZZ
@given(st.binary(max_size=300))
@example(b"\x3a\x02\x0a\x00")
def test_arbitrary_bytes(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    digested(path)
    with memoryview(content) as buffer:
        try:
            small = wire.skeleton(buffer, "x")
        except ValueError:
            return
    assert small == content  # nothing of it is large


WHOLE = with_every_storage().SerializeToString()


@FUZZ
@given(st.data())
def test_damaged_networks(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(WHOLE)
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    # The structure is in few places: at the start, and around each tensor's payload.
    spots = st.integers(0, 700) | st.integers(0, max(0, len(content) - 1))
    for spot in data.draw(st.lists(spots, max_size=4)):
        if spot < len(content):
            content[spot] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    digested(path)
