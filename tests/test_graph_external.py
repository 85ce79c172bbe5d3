"""Weights in files beside the network: read from its own folder, and from nowhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from networks import WIDTH, Net, checked, embed, evaluated, feed
from tlpipe.errors import BackboneError
from tlpipe.graph.analyse import Choices, analyse
from tlpipe.graph.digest import tensor_digests, weights_digest
from tlpipe.graph.io import load_model, write_model
from tlpipe.graph.references import array_of, data_files, references
from tlpipe.stages.session import open_graph

CLASSES = 50
DATA = "weights.bin"


def classifier() -> onnx.ModelProto:
    net = Net()
    return net.model(net.add("Softmax", net.fc(net.pooled(), CLASSES), axis=1, out="y"))


def move_out(tensor: TensorProto, data: bytearray, location: str) -> None:
    """Append a tensor's bytes to ``data``, and let the tensor refer to them."""
    raw = numpy_helper.to_array(tensor).tobytes()
    facts = {"location": location, "offset": str(len(data)), "length": str(len(raw))}
    data += raw + bytes(-len(raw) % 64)
    for field in ("raw_data", "float_data", "int64_data"):
        tensor.ClearField(field)  # type: ignore[arg-type]
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in facts.items():
        tensor.external_data.add(key=key, value=value)


def apart(
    model: onnx.ModelProto, folder: Path, location: str = DATA, file: Path | None = None
) -> Path:
    """Write a network with all its initializers in ``file``, which it calls ``location``."""
    moved = onnx.ModelProto()
    moved.CopyFrom(model)
    data = bytearray()
    for tensor in moved.graph.initializer:
        move_out(tensor, data, location)
    target = file or folder / location
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    path = folder / "x.onnx"
    path.write_bytes(moved.SerializeToString())
    return path


@pytest.mark.parametrize("location", [DATA, "sub/weights.bin", "./a b/../weights.bin", "ä.bin"])
def test_data_in_the_own_folder_and_below(tmp_path: Path, location: str) -> None:
    model = classifier()
    (tmp_path / "a b").mkdir()
    path = apart(model, tmp_path, location)
    lean = load_model(path)
    assert weights_digest(lean) == weights_digest(model) == weights_digest(onnx.load(path))
    assert data_files(lean, path) == [(tmp_path / location).resolve()]
    found = analyse(lean, open_graph, Choices())
    assert found.freed is not None
    assert found.output().tensors == ("gap",)
    write_model(found.freed.model, tmp_path / "y.onnx")
    whole = onnx.load(tmp_path / "y.onnx")
    assert not list(references(whole))
    assert tensor_digests(whole).items() <= tensor_digests(model).items()
    images = feed(model)
    (gap,) = evaluated(model, ["gap"], images)
    ours = open_graph(whole.SerializeToString(), "")({"x": images}, ["embeddings"])[0]
    np.testing.assert_allclose(ours, gap.reshape(ours.shape), rtol=1e-5, atol=1e-6)


def test_what_onnx_saves_apart_is_read(tmp_path: Path) -> None:
    model, path = classifier(), tmp_path / "x.onnx"
    onnx.save_model(
        model, path, save_as_external_data=True, location="x.onnx.data", size_threshold=0
    )
    lean = load_model(path)
    assert weights_digest(lean) == weights_digest(classifier())
    assert data_files(lean, path) == [tmp_path / "x.onnx.data"]


def test_a_length_and_an_offset_may_be_left_out(tmp_path: Path) -> None:
    model = classifier()
    path = tmp_path / "x.onnx"
    tensor = next(t for t in model.graph.initializer if t.name == "fc.w")
    (tmp_path / DATA).write_bytes(tensor.raw_data + b"more")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=DATA)
    path.write_bytes(model.SerializeToString())
    assert weights_digest(load_model(path)) == weights_digest(classifier())


def test_the_network_may_be_reached_by_a_link(tmp_path: Path) -> None:
    path = apart(classifier(), tmp_path / "real")
    link = linked(tmp_path / "link.onnx", path)
    assert weights_digest(load_model(link)) == weights_digest(classifier())


def linked(link: Path, target: Path) -> Path:
    try:
        link.symlink_to(target)
    except OSError:
        pytest.skip("this system makes no links")
    return link


def error_of(path: Path) -> BackboneError:
    with pytest.raises(BackboneError) as told:
        load_model(path)
    assert repr(str(path)) in told.value.message
    assert told.value.message.endswith(".")
    assert not told.value.hint or told.value.hint.endswith(".")
    return told.value


def above(folder: Path) -> Path:
    return apart(classifier(), folder, "../weights.bin")


def far_above(folder: Path) -> Path:
    return apart(classifier(), folder, "sub/../../weights.bin", folder.parent / "weights.bin")


def absolute(folder: Path) -> Path:
    return apart(classifier(), folder, str(folder.parent / "weights.bin"))


def absolute_inside(folder: Path) -> Path:
    return apart(classifier(), folder, str(folder / "weights.bin"))


def through_a_link(folder: Path) -> Path:
    path = apart(classifier(), folder, DATA, folder.parent / "secret.bin")
    linked(folder / DATA, folder.parent / "secret.bin")
    return path


def through_a_linked_folder(folder: Path) -> Path:
    path = apart(classifier(), folder, "sub/weights.bin", folder.parent / "other" / "weights.bin")
    linked(folder / "sub", folder.parent / "other")
    return path


@pytest.mark.parametrize(
    "make",
    [above, far_above, absolute, absolute_inside, through_a_link, through_a_linked_folder],
)
def test_nothing_is_read_from_outside(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    (tmp_path / "own").mkdir()
    told = error_of(make(tmp_path / "own"))
    assert "which is outside of its own folder" in told.message
    assert "'conv.w'" in told.message
    assert "own folder only" in told.hint


def test_a_missing_file(tmp_path: Path) -> None:
    path = apart(classifier(), tmp_path)
    (tmp_path / DATA).unlink()
    told = error_of(path)
    assert f"keeps the tensor 'conv.w' in {DATA!r}, and there is no such file" in told.message
    assert "same folder" in told.hint


@pytest.mark.parametrize("name", ["", ".", "sub", "a" * 300, "nul\0byte", "a/" * 3000])
def test_what_is_no_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "sub").mkdir()
    path = apart(classifier(), tmp_path, name, tmp_path / DATA)
    error_of(path)


def test_a_file_that_is_too_short(tmp_path: Path) -> None:
    path = apart(classifier(), tmp_path)
    size = (tmp_path / DATA).stat().st_size
    (tmp_path / DATA).write_bytes((tmp_path / DATA).read_bytes()[: size - 300])
    told = error_of(path)
    assert f"the file has {size - 300}" in told.message
    assert "do not belong together" in told.hint


FACTS = {
    "a length that is too small": {"length": "4"},
    "a length that is too large": {"length": "5000"},
    "a negative offset": {"offset": "-64"},
    "an offset behind the end": {"offset": "1000000"},
    "an offset that is no number": {"offset": "first"},
    "a length that is no number": {"length": ""},
    "an endless number": {"length": "9" * 5000},
}


@pytest.mark.parametrize("facts", FACTS)
def test_facts_that_do_not_fit(tmp_path: Path, facts: str) -> None:
    path = apart(classifier(), tmp_path)
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        entry.value = FACTS[facts].get(entry.key, entry.value)
    path.write_bytes(model.SerializeToString())
    assert "'conv.w'" in error_of(path).message


@pytest.mark.parametrize(
    ("dims", "kind"),
    [
        ([-4, 3], TensorProto.FLOAT),
        ([-2, -2], TensorProto.FLOAT),
        ([2**40, 2**40], TensorProto.FLOAT),
        ([4], TensorProto.STRING),
        ([4], 99),
        ([4], 0),
    ],
)
@pytest.mark.parametrize("with_length", [True, False])
def test_shapes_and_types_that_make_no_sense(
    tmp_path: Path, dims: list[int], kind: int, with_length: bool
) -> None:
    path = apart(classifier(), tmp_path)
    model = onnx.load(path, load_external_data=False)
    tensor = model.graph.initializer[0]
    tensor.dims[:] = dims
    tensor.data_type = kind
    if not with_length:
        kept = [(e.key, e.value) for e in tensor.external_data if e.key != "length"]
        del tensor.external_data[:]
        for key, value in kept:
            tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    assert "'conv.w'" in error_of(path).message


@pytest.mark.parametrize("count", [3, 2000])
def test_data_of_subgraphs_and_constants(tmp_path: Path, count: int) -> None:
    """They are read at once: what runs the network knows references in its main graph alone."""
    rng = np.random.default_rng(0)
    inner = numpy_helper.from_array(rng.normal(size=count).astype(np.float32), "inner")
    value = numpy_helper.from_array(rng.normal(size=count).astype(np.float32), "value")
    net = Net()
    x = net.pooled()
    y = net.fc(x, count)
    out = [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)]
    nodes = [helper.make_node("Add", [y, "inner"], ["r"])]
    branch = helper.make_graph(nodes, "branch", [], out, [inner])
    y = net.add("If", net.const(True, "yes", np.bool_), then_branch=branch, else_branch=branch)
    y = net.add("Add", y, net.add("Constant", value=value))
    model = net.model(net.add("Softmax", y, axis=1, out="y"))
    (expected,) = evaluated(model, ["y"], feed(model))
    digests = tensor_digests(model)

    data = bytearray()
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant":
                move_out(attribute.t, data, DATA)
            if node.op_type == "If":
                move_out(attribute.g.initializer[0], data, DATA)
    (tmp_path / DATA).write_bytes(data)
    path = tmp_path / "x.onnx"
    path.write_bytes(model.SerializeToString())
    lean = load_model(path)
    assert tensor_digests(lean) == digests
    (tmp_path / DATA).unlink()
    images = feed(model)
    whole = onnx.ModelProto()
    whole.CopyFrom(lean)
    for tensor in whole.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(array_of(tensor), tensor.name))
    (ours,) = evaluated(whole, ["y"], images)
    np.testing.assert_array_equal(ours, expected)
    found = checked(whole, "gap", pooling="flatten", classes=count)
    assert embed(found, images).shape == (4, WIDTH)


@pytest.mark.parametrize("location", [TensorProto.DEFAULT, TensorProto.EXTERNAL])
def test_data_inside_and_a_reference_at_once(tmp_path: Path, location: int) -> None:
    """A tensor is one or the other; it is not made another reference of."""
    model = classifier()
    tensor = next(t for t in model.graph.initializer if t.name == "conv.w")
    tensor.external_data.add(key="location", value=DATA)
    tensor.data_location = location  # type: ignore[assignment]
    path = tmp_path / "x.onnx"
    path.write_bytes(model.SerializeToString())
    if location == TensorProto.DEFAULT:
        assert analyse(load_model(path), open_graph, Choices()).dim == WIDTH
    else:
        with pytest.raises(BackboneError, match="there is no such file beside it"):
            load_model(path)


def test_a_reference_to_the_file_itself_is_checked_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    model = classifier()
    tensor = next(t for t in model.graph.initializer if t.name == "conv.w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    facts = {"location": str(path.resolve()), "offset": "0", "length": str(10**15)}
    for key, value in facts.items():
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BackboneError, match="outside of its own folder"):
        load_model(path)


def test_data_of_a_subgraph_outside_is_refused(tmp_path: Path) -> None:
    model = classifier()
    tensor = numpy_helper.from_array(np.ones(4, np.float32), "k")
    data = bytearray()
    move_out(tensor, data, "../secret.bin")
    (tmp_path / "own").mkdir()
    (tmp_path / "secret.bin").write_bytes(data)
    model.graph.node.insert(0, helper.make_node("Constant", [], ["k"], value=tensor))
    path = tmp_path / "own" / "x.onnx"
    path.write_bytes(model.SerializeToString())
    assert "outside of its own folder" in error_of(path).message


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such names")
def test_a_folder_whose_name_is_no_utf8(tmp_path: Path) -> None:
    folder = tmp_path / b"\xff".decode("utf-8", "surrogateescape")
    folder.mkdir()
    path = apart(classifier(), folder)
    told = error_of(path)
    assert "the name of its folder is no UTF-8" in told.message
    assert "Rename" in told.hint


@settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(max_size=12) | st.binary(max_size=4).map(lambda b: b.decode("latin-1")), st.text())
@example("..", "0")
@example("/dev/zero", "0")
@example("weights.bin", "1e3")
def test_arbitrary_references(tmp_path: Path, location: str, offset: str) -> None:
    path = apart(classifier(), tmp_path)
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        changed = {"location": location, "offset": offset}.get(entry.key, entry.value)
        entry.value = changed.encode("utf-8", "ignore").decode()
    path.write_bytes(model.SerializeToString())
    try:
        weights_digest(load_model(path))
    except BackboneError as exc:
        assert str(exc)  # noqa: PT017
