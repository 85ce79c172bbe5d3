"""Cutting, folding preprocessing in, joining a head, digesting: on the tiny network."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from conftest import TINY_CLASSES, TINY_DIM, TINY_SIZE, tiny_network
from tlpipe.card import Card
from tlpipe.errors import BackboneError
from tlpipe.graph.cut import cut_at
from tlpipe.graph.digest import same_graph, tensor_digests, weights_digest
from tlpipe.graph.head import class_count, join_head
from tlpipe.graph.io import load_model, metadata, signature
from tlpipe.graph.prefix import fold_preprocess
from tlpipe.stages.backbone import OrtNetwork
from tlpipe.stages.weights import feature_network

SIZE = (TINY_SIZE, TINY_SIZE)


def run(model: onnx.ModelProto, **feeds: np.ndarray) -> dict[str, np.ndarray]:
    """Outputs of a model by the reference evaluator of ONNX."""
    from onnx.reference import ReferenceEvaluator

    names = [value.name for value in model.graph.output]
    return dict(zip(names, ReferenceEvaluator(model).run(None, feeds), strict=True))


def noise(count: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *SIZE, 3), np.uint8)


def test_the_cut_gives_what_the_whole_network_computes_there() -> None:
    whole = tiny_network()
    inner = onnx.ModelProto()
    inner.CopyFrom(whole)
    inner.graph.output.append(
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", TINY_DIM])
    )
    x = np.random.default_rng(0).normal(size=(3, 3, *SIZE)).astype(np.float32)
    cut = cut_at(whole, "features", TINY_DIM)
    np.testing.assert_array_equal(run(cut, x=x)["embeddings"], run(inner, x=x)["features"])


def test_the_cut_drops_the_last_layer_alone() -> None:
    cut = cut_at(tiny_network(), "features", TINY_DIM)
    assert {t.name for t in cut.graph.initializer} == {"conv.weight", "conv.bias"}
    assert [node.op_type for node in cut.graph.node] == [
        "Conv",
        "Relu",
        "GlobalAveragePool",
        "Flatten",
        "Identity",
    ]
    onnx.checker.check_model(cut, full_check=True)


def test_what_a_subgraph_reads_from_outside_stays() -> None:
    """The tensor of an If's branches comes from the graph around it."""
    branch = helper.make_graph(
        [helper.make_node("Add", ["a", "outer"], ["r"])],
        "branch",
        [],
        [helper.make_tensor_value_info("r", TensorProto.FLOAT, ["N", 2])],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Relu", ["x"], ["a"]),
            helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch),
            helper.make_node("Neg", ["y"], ["z"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 2])],
        [
            numpy_helper.from_array(np.array(True), "yes"),
            numpy_helper.from_array(np.ones(2, np.float32), "outer"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    cut = cut_at(model, "y", 2)
    assert {t.name for t in cut.graph.initializer} == {"yes", "outer"}
    assert [node.op_type for node in cut.graph.node] == ["Relu", "If", "Identity"]


def test_a_tensor_that_is_not_there_is_refused() -> None:
    with pytest.raises(BackboneError, match=r"computes no tensor 'nothing'; its outputs are \['"):
        cut_at(tiny_network(), "nothing", TINY_DIM)


@pytest.mark.parametrize("colour", ["rgb", "bgr"])
@pytest.mark.parametrize("scale", [1.0, 1 / 255])
def test_the_folded_arithmetic_is_that_of_numpy(tiny_card: Card, colour: str, scale: float) -> None:
    spec = dataclasses.replace(tiny_card.preprocess, colour=colour, scale=scale)
    cut = cut_at(tiny_network(), "features", TINY_DIM)
    images = noise()
    found = run(fold_preprocess(cut, "x", "NCHW", SIZE, spec), image=images)["embeddings"]
    x = images[..., ::-1] if colour == "bgr" else images
    x = x.astype(np.float32) * np.float32(scale)
    x = (x - np.array(spec.mean, np.float32)) / np.array(spec.std, np.float32)
    expected = run(cut, x=np.ascontiguousarray(x.transpose(0, 3, 1, 2)))["embeddings"]
    np.testing.assert_array_equal(found, expected)


def test_a_channels_last_input_needs_no_transpose(tiny_card: Card) -> None:
    shape = ["N", *SIZE, 3]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    spec = dataclasses.replace(tiny_card.preprocess, colour="bgr")
    folded = fold_preprocess(model, "x", "NHWC", SIZE, spec)
    assert "Transpose" not in [node.op_type for node in folded.graph.node]
    expected = noise()[..., ::-1].astype(np.float32) - np.array(spec.mean, np.float32)
    expected /= np.array(spec.std, np.float32)
    np.testing.assert_array_equal(run(folded, image=noise())["y"], expected)


def renamed(old: str, new: str) -> onnx.ModelProto:
    """The tiny network with one tensor called otherwise."""
    model = tiny_network()
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for value in model.graph.input:
        value.name = new if value.name == old else value.name
    return model


@pytest.mark.parametrize(("old", "new"), [("x", "image"), ("features", "embeddings")])
def test_a_network_may_use_the_names_of_ours(tiny_card: Card, old: str, new: str) -> None:
    plain = fold_preprocess(
        cut_at(tiny_network(), "features", TINY_DIM), "x", "NCHW", SIZE, tiny_card.preprocess
    )
    tensor, output = (new, "features") if old == "x" else ("x", new)
    cut = cut_at(renamed(old, new), output, TINY_DIM)
    other = fold_preprocess(cut, tensor, "NCHW", SIZE, tiny_card.preprocess)
    onnx.checker.check_model(other, full_check=True)
    found, expected = (run(model, image=noise())["embeddings"] for model in (other, plain))
    np.testing.assert_array_equal(found, expected)


def test_weights_may_be_listed_as_inputs(tiny_card: Card) -> None:
    """As they had to be before IR version 4."""
    model = tiny_network()
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(
            helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, list(tensor.dims))
        )
    cut = cut_at(model, "features", TINY_DIM)
    folded = fold_preprocess(cut, "x", "NCHW", SIZE, tiny_card.preprocess)
    assert [value.name for value in folded.graph.input] == ["image"]
    onnx.checker.check_model(folded, full_check=True)


@pytest.mark.parametrize(("layout", "size"), [("NCHW", (17, 16)), ("NHWC", SIZE)])
def test_an_input_of_another_shape_is_refused(
    tiny_card: Card, layout: Any, size: tuple[int, int]
) -> None:
    with pytest.raises(BackboneError, match=r"'x' is float of the shape \[0, 3, 16, 16\]"):
        fold_preprocess(tiny_network(), "x", layout, size, tiny_card.preprocess)


def test_probabilities_are_no_logits() -> None:
    model = tiny_network()
    model.graph.node.append(helper.make_node("Softmax", ["logits"], ["p"]))
    model.graph.output[0].name = "p"
    with pytest.raises(BackboneError, match="'p' is made by a Softmax: it holds probabilities"):
        class_count(model, "p")


def test_another_input_is_refused(tiny_card: Card) -> None:
    with pytest.raises(BackboneError, match=r"inputs are \['x'\], not just 'input'"):
        fold_preprocess(tiny_network(), "input", "NCHW", SIZE, tiny_card.preprocess)


@given(
    classes=st.integers(2, 7),
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 5),
)
def test_a_joined_head_is_softmax_of_gemm(classes: int, seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(TINY_DIM, classes)).astype(np.float32)
    bias = rng.normal(size=classes).astype(np.float32)
    features = cut_at(tiny_network(), "features", TINY_DIM)
    model = onnx.load_from_string(join_head(features, weights, bias, {"k": "v"}))
    x = rng.normal(size=(count, 3, *SIZE)).astype(np.float32)
    found = run(model, x=x)
    logits = found["embeddings"].astype(np.float64) @ weights + bias
    expected = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found["probabilities"], expected, rtol=0, atol=1e-5)
    assert list(found) == ["probabilities", "embeddings"]
    assert metadata(model) == {"k": "v"}


def test_the_digest_ignores_what_tlpipe_adds(tiny_card: Card) -> None:
    features = cut_at(tiny_network(), "features", TINY_DIM)
    folded = fold_preprocess(features, "x", "NCHW", SIZE, tiny_card.preprocess)
    weights, bias = np.ones((TINY_DIM, 2), np.float32), np.zeros(2, np.float32)
    joined = onnx.load_from_string(join_head(folded, weights, bias, {}))
    assert weights_digest(joined) == weights_digest(features)
    assert same_graph(joined, folded, tiny_network())
    assert not same_graph(joined, features, tiny_network())  # it has no preprocessing


@pytest.mark.parametrize("position", [0, -1])
def test_the_digest_sees_one_flipped_bit(position: int) -> None:
    model = tiny_network()
    before = tensor_digests(model)
    raw = bytearray(model.graph.initializer[1].raw_data)
    raw[position] ^= 1
    model.graph.initializer[1].raw_data = bytes(raw)
    after = tensor_digests(model)
    changed = [name for name in before if before[name] != after[name]]
    assert changed == [model.graph.initializer[1].name]


def test_the_digest_covers_names_shapes_and_types() -> None:
    def digest(array: np.ndarray, name: str = "w") -> str:
        model = tiny_network()
        model.graph.initializer.append(numpy_helper.from_array(array, name))
        return weights_digest(model)

    zeros = np.zeros((2, 3), np.float32)
    variants = [zeros, zeros.T.copy(), zeros.view(np.int32), np.zeros(6, np.float32)]
    digests = {*(digest(array) for array in variants), digest(zeros, "v")}
    assert len(digests) == 5


def test_constant_nodes_count_as_weights() -> None:
    model = tiny_network()
    value = numpy_helper.from_array(np.ones(2, np.float32))
    model.graph.node.append(helper.make_node("Constant", [], ["k"], value=value))
    assert "k:value" in tensor_digests(model)


def test_the_prepared_network_takes_any_batch(tiny_card: Card) -> None:
    network = OrtNetwork(feature_network(tiny_card, tiny_network()).SerializeToString(), "cpu")
    four = network.run(noise(4))["embeddings"]
    singles = [network.run(image[np.newaxis])["embeddings"][0] for image in noise(4)]
    np.testing.assert_allclose(four, np.stack(singles), rtol=1e-5, atol=1e-6)


def test_class_count_and_signature() -> None:
    model = tiny_network()
    assert class_count(model, "logits") == TINY_CLASSES
    with pytest.raises(BackboneError, match="no output 'other' of a stated size"):
        class_count(model, "other")
    assert signature(model) == {
        "inputs": ["x: float (N, 3, 16, 16)"],
        "outputs": ["logits: float (N, 5)"],
    }


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x08"])
def test_files_that_are_no_models_are_refused(tmp_path, content: bytes) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    with pytest.raises(BackboneError, match=r"(cannot be read as an|is no) ONNX model"):
        load_model(path)


def test_weights_in_other_files_are_refused(tmp_path) -> None:
    path = tmp_path / "x.onnx"
    onnx.save(tiny_network(), path, save_as_external_data=True, size_threshold=0)
    with pytest.raises(BackboneError, match="keeps 4 of its tensors in other files"):
        load_model(path)
