"""Cutting, folding preprocessing in, joining a head, digesting: on the tiny network."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from conftest import TINY_DIM, TINY_SIZE, tiny_network
from tlpipe.card import Card
from tlpipe.errors import BackboneError
from tlpipe.execution import ON_CPU
from tlpipe.graph.cut import Cut, Kind, cut_at
from tlpipe.graph.digest import same_graph, tensor_digests, weights_digest
from tlpipe.graph.head import join_head
from tlpipe.graph.image_input import possible_inputs
from tlpipe.graph.io import load_model, metadata, signature
from tlpipe.graph.prefix import fold_preprocess
from tlpipe.graph.tidy import tidied
from tlpipe.last_layer import LastLayer
from tlpipe.stages.session import open_graph, open_network
from tlpipe.stages.weights import feature_network
from tlpipe.types import Preprocess

SIZE = (TINY_SIZE, TINY_SIZE)


def run(model: onnx.ModelProto, **feeds: np.ndarray) -> dict[str, np.ndarray]:
    """Outputs of a model by the reference evaluator of ONNX."""
    from onnx.reference import ReferenceEvaluator

    names = [value.name for value in model.graph.output]
    return dict(zip(names, ReferenceEvaluator(model).run(None, feeds), strict=True))


def noise(count: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *SIZE, 3), np.uint8)


def cut(model: onnx.ModelProto, tensor: str, dim: int) -> onnx.ModelProto:
    kinds = {tensor: Kind(TensorProto.FLOAT, 2)}
    return cut_at(model, [Cut("embeddings", [tensor], "none", dim)], kinds)


def folded(model: onnx.ModelProto, spec: Preprocess) -> onnx.ModelProto:
    return fold_preprocess(model, possible_inputs(model)[0], spec)


def test_the_cut_gives_what_the_whole_network_computes_there() -> None:
    whole = tiny_network()
    inner = onnx.ModelProto()
    inner.CopyFrom(whole)
    inner.graph.output.append(
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", TINY_DIM])
    )
    x = np.random.default_rng(0).normal(size=(3, 3, *SIZE)).astype(np.float32)
    part = cut(whole, "features", TINY_DIM)
    np.testing.assert_array_equal(run(part, x=x)["embeddings"], run(inner, x=x)["features"])


def test_the_cut_drops_the_last_layer_alone() -> None:
    part = cut(tiny_network(), "features", TINY_DIM)
    assert {t.name for t in part.graph.initializer} == {"conv.weight", "conv.bias"}
    assert [node.op_type for node in part.graph.node] == [
        "Conv",
        "Relu",
        "GlobalAveragePool",
        "Flatten",
        "Identity",
    ]
    onnx.checker.check_model(part, full_check=True)


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
    part = cut(model, "y", 2)
    assert {t.name for t in part.graph.initializer} == {"yes", "outer"}
    assert [node.op_type for node in part.graph.node] == ["Relu", "If", "Identity"]


def test_a_tensor_that_is_not_there_is_refused() -> None:
    with pytest.raises(BackboneError, match=r"computes no tensor 'nothing'; its outputs are \['"):
        cut(tiny_network(), "nothing", TINY_DIM)


@pytest.mark.parametrize("colour", ["rgb", "bgr"])
@pytest.mark.parametrize("scale", [1.0, 1 / 255])
def test_the_folded_arithmetic_is_that_of_numpy(tiny_card: Card, colour: str, scale: float) -> None:
    spec = dataclasses.replace(tiny_card.arithmetic, colour=colour, scale=scale)
    part = cut(tiny_network(), "features", TINY_DIM)
    images = noise()
    found = run(folded(part, spec), image=images)["embeddings"]
    x = images[..., ::-1] if colour == "bgr" else images
    x = x.astype(np.float32) * np.float32(scale)
    x = (x - np.array(spec.mean, np.float32)) / np.array(spec.std, np.float32)
    expected = run(part, x=np.ascontiguousarray(x.transpose(0, 3, 1, 2)))["embeddings"]
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
    spec = dataclasses.replace(tiny_card.arithmetic, colour="bgr")
    whole = folded(model, spec)
    assert "Transpose" not in [node.op_type for node in whole.graph.node]
    expected = noise()[..., ::-1].astype(np.float32) - np.array(spec.mean, np.float32)
    expected /= np.array(spec.std, np.float32)
    np.testing.assert_array_equal(run(whole, image=noise())["y"], expected)


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
    plain = folded(cut(tiny_network(), "features", TINY_DIM), tiny_card.arithmetic)
    output = "features" if old == "x" else new
    part = cut(renamed(old, new), output, TINY_DIM)
    other = folded(part, tiny_card.arithmetic)
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
    part = cut(model, "features", TINY_DIM)
    whole = folded(tidied(part), tiny_card.arithmetic)
    assert [value.name for value in whole.graph.input] == ["image"]
    onnx.checker.check_model(whole, full_check=True)


@given(
    classes=st.integers(2, 7),
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 5),
)
def test_a_joined_head_is_softmax_of_gemm(classes: int, seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(TINY_DIM, classes)).astype(np.float32)
    bias = rng.normal(size=classes).astype(np.float32)
    features = cut(tiny_network(), "features", TINY_DIM)
    model = join_head(features, LastLayer(weights, bias), None, None, {"k": "v"})
    x = rng.normal(size=(count, 3, *SIZE)).astype(np.float32)
    found = run(model, x=x)
    logits = found["embeddings"].astype(np.float64) @ weights + bias
    expected = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found["probabilities"], expected, rtol=0, atol=1e-5)
    assert list(found) == ["probabilities", "embeddings"]
    assert metadata(model) == {"k": "v"}


def test_the_digest_ignores_what_tlpipe_adds(tiny_card: Card) -> None:
    features = cut(tiny_network(), "features", TINY_DIM)
    whole = folded(features, tiny_card.arithmetic)
    weights, bias = np.ones((TINY_DIM, 2), np.float32), np.zeros(2, np.float32)
    joined = join_head(whole, LastLayer(weights, bias), None, None, {})
    assert weights_digest(joined) == weights_digest(features)
    assert same_graph(joined, whole, tiny_network())
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
    features = feature_network(tiny_card, tiny_network(), open_graph)
    network = open_network(features.SerializeToString(), ON_CPU)
    four = network.run(noise(4))["embeddings"]
    singles = [network.run(image[np.newaxis])["embeddings"][0] for image in noise(4)]
    np.testing.assert_allclose(four, np.stack(singles), rtol=1e-5, atol=1e-6)


def test_the_signature_in_words() -> None:
    assert signature(tiny_network()) == {
        "inputs": ["x: float (N, 3, 16, 16)"],
        "outputs": ["logits: float (N, 5)"],
    }


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x08"])
def test_files_that_are_no_models_are_refused(tmp_path, content: bytes) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    with pytest.raises(BackboneError, match=r"(cannot be read as an|is no) ONNX model"):
        load_model(path)
