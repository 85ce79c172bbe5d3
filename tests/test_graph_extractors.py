"""Networks without a last layer stay whole; where it cannot be told, tlpipe asks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from networks import SIZE, WIDTH, Net, checked, feed
from tlpipe.errors import BackboneError, UndecidedError
from tlpipe.graph.analyse import Analysis, Choices, analyse
from tlpipe.graph.head import join_head
from tlpipe.graph.index import rename
from tlpipe.graph.prefix import fold_preprocess
from tlpipe.last_layer import LastLayer
from tlpipe.presets import find_preprocess
from tlpipe.stages.session import open_graph


def refused(model: onnx.ModelProto, choices: Choices | None = None) -> UndecidedError:
    """What is said where the network cannot be understood."""
    found = analyse(model, open_graph, choices or Choices())
    assert found.undecided is not None, found.decision
    assert (found.decision, found.freed, found.dim) == (None, None, 0)
    with pytest.raises(UndecidedError):
        found.output()
    message, hint = found.undecided.message, found.undecided.hint
    assert message.endswith(".")
    assert hint.endswith(".")
    return found.undecided


def residual(net: Net) -> str:
    x = net.trunk()
    y = net.add("Conv", x, net.w("w", WIDTH, WIDTH, 3, 3), pads=[1, 1, 1, 1])
    y = net.add("Relu", net.add("Add", x, y))
    return net.add("Flatten", net.add("GlobalAveragePool", y))


def layer_norm(net: Net) -> str:
    x = net.pooled()
    scale = net.const(net.rng.uniform(0.5, 2, WIDTH), "scale")
    return net.add("LayerNormalization", x, scale, net.w("shift", WIDTH), axis=-1)


def layer_norm_by_hand(net: Net) -> str:
    x = net.pooled()
    low = net.add("Sub", x, net.reduce("ReduceMean", x, [-1]))
    square = net.add("Pow", low, net.const(2, "two"))
    variance = net.reduce("ReduceMean", square, [-1])
    deviation = net.add("Sqrt", net.add("Add", variance, net.const(1e-5, "eps")))
    x = net.add("Mul", net.add("Div", low, deviation), net.w("scale", WIDTH))
    return net.add("Add", x, net.w("shift", WIDTH))


def unit_length(net: Net) -> str:
    x = net.pooled()
    return net.add("Div", x, net.reduce("ReduceL2", x, [1]))


def unit_length_clipped(net: Net) -> str:
    """As PyTorch writes ``normalize`` behind a projection: a Clip and an Expand on the length."""
    x = net.add("MatMul", net.pooled(), net.w("W", WIDTH, 32))
    length = net.add("Clip", net.reduce("ReduceL2", x, [1]), net.const(1e-12, "least"))
    return net.add("Div", x, net.add("Expand", length, net.add("Shape", x)))


def unit_length_in_one(net: Net) -> str:
    return net.add("LpNormalization", net.pooled(), axis=1, p=2)


def projection(net: Net) -> str:
    return net.add("MatMul", net.pooled(), net.w("W", WIDTH, 512))


def projection_by_name(net: Net) -> str:
    """A bias, and a width that may be either; its name says which."""
    return net.fc(net.pooled(), 512, name="embedding")


def mobilenet_without_head(net: Net) -> str:
    y = net.add("Conv", net.trunk(), net.w("W", 1280, WIDTH, 1, 1), net.w("b", 1280))
    y = net.add("Clip", y, net.const(0, "low"), net.const(6, "high"))
    return net.add("Flatten", net.add("GlobalAveragePool", y))


def batch_norm(net: Net) -> str:
    x = net.pooled()
    return net.add(
        "BatchNormalization", x, *(net.const(net.rng.uniform(1, 2, WIDTH), n) for n in "abcd")
    )


EXTRACTORS: dict[str, Callable[[Net], str]] = {
    "residual connection": residual,
    "LayerNormalization": layer_norm,
    "layer normalisation by hand": layer_norm_by_hand,
    "ReduceL2 and Div": unit_length,
    "ReduceL2, Clip, Expand and Div": unit_length_clipped,
    "LpNormalization": unit_length_in_one,
    "projection without a bias": projection,
    "projection by name": projection_by_name,
    "MobileNetV2 without its classifier": mobilenet_without_head,
    "batch normalisation": batch_norm,
    "pooling": lambda net: net.pooled(),
}


@pytest.mark.parametrize("kind", EXTRACTORS)
def test_an_embedding_is_taken_as_it_is(kind: str) -> None:
    net = Net()
    out = EXTRACTORS[kind](net)
    found = checked(net.model(out), out, classes=None)
    assert found.decision is not None
    assert found.decision.reason
    assert (found.output().logits, found.output().activation) == ("", "none")


def test_the_same_structure_with_a_number_of_classes_is_squeezenet() -> None:
    net = Net()
    y = net.add("Conv", net.trunk(), net.w("W", 1000, WIDTH, 1, 1), net.w("b", 1000))
    y = net.add("Clip", y, net.const(0, "low"), net.const(6, "high"))
    model = net.model(net.add("Flatten", net.add("GlobalAveragePool", y)))
    checked(model, "map", pooling="mean-channels-first", classes=1000)


@pytest.mark.parametrize(
    ("pooling", "kind", "dim"),
    [
        ("mean", "mean-channels-last", WIDTH),
        ("cls", "cls", WIDTH),
        ("flatten", "flatten", 16 * WIDTH),
    ],
)
@pytest.mark.parametrize("layer", [None, "tokens", "node_tokens"])
def test_tokens_need_a_choice(pooling: str, kind: str, dim: int, layer: str | None) -> None:
    net = Net(opset=18 if layer else 17)
    model = net.model(net.tokens())
    asked = refused(model, Choices(layer=layer))
    assert f"'tokens' has the shape [1, 16, {WIDTH}]" in asked.message
    for choice in ("mean", "cls", "flatten"):
        assert f"--pooling {choice}" in asked.hint
    choices = Choices(layer=layer, pooling=pooling)
    found = checked(model, "tokens", pooling=kind, classes=None, choices=choices)
    assert found.dim == dim


def test_a_map_needs_no_choice() -> None:
    net = Net()
    model = net.model(net.trunk())
    checked(model, "map", pooling="mean-channels-first", classes=None)
    choices = Choices(pooling="flatten")
    found = checked(model, "map", pooling="flatten", classes=None, choices=choices)
    assert found.dim == 16 * WIDTH
    asked = refused(model, Choices(pooling="cls"))
    assert "--pooling cls does not fit 'map'" in asked.message


def test_a_map_with_channels_last_needs_no_choice() -> None:
    net = Net()
    model = net.model(net.add("Transpose", net.trunk(), perm=[0, 2, 3, 1], out="last"))
    checked(model, "last", pooling="mean-channels-last", classes=None)
    checked(
        model, "last", pooling="mean-channels-last", classes=None, choices=Choices(pooling="mean")
    )


def test_a_map_that_is_as_wide_as_its_channels_needs_one() -> None:
    net = Net()
    model = net.model(net.trunk(width=4))
    asked = refused(model)
    assert "'map' has the shape [1, 4, 4, 4]" in asked.message
    assert "--pooling flatten" in asked.hint
    checked(model, "map", pooling="flatten", classes=None, choices=Choices(pooling="flatten"))


def unclear() -> onnx.ModelProto:
    """A layer with a bias and 512 outputs, named in a way that says nothing."""
    net = Net()
    return net.model(net.fc(net.pooled(), 512, name="dense", out="y"))


def test_an_unclear_output_is_asked_about_with_the_candidates() -> None:
    asked = refused(unclear())
    assert "'y' could be class scores or an embedding" in asked.message
    assert "512" in asked.message
    assert f"'gap' [1, {WIDTH}, 1, 1], which feeds 'node_y' (Gemm with 512 outputs)" in asked.hint
    assert "'y' [1, 512], an output" in asked.hint
    assert "--layer NAME" in asked.hint


@pytest.mark.parametrize(
    ("layer", "tensor", "pooling"),
    [
        ("y", "y", "none"),
        ("node_y", "y", "none"),
        ("gap", "gap", "flatten"),
        ("node_gap", "gap", "flatten"),
        ("vector", "vector", "none"),
        ("map", "map", "mean-channels-first"),
    ],
)
def test_a_named_layer_decides(layer: str, tensor: str, pooling: str) -> None:
    found = checked(unclear(), tensor, pooling=pooling, classes=None, choices=Choices(layer=layer))
    assert found.decision is not None
    assert "--layer" in found.decision.reason


@pytest.mark.parametrize("layer", ["nothing", "x", "dense.w", ""])
def test_a_layer_that_is_none_is_refused_with_the_candidates(layer: str) -> None:
    asked = refused(unclear(), Choices(layer=layer))
    assert f"no layer {layer!r}" in asked.message
    assert "'gap'" in asked.hint


def test_a_name_overrules_what_is_clear() -> None:
    net = Net()
    logits = net.fc(net.pooled(), 10, out="logits")
    model = net.model(net.add("Softmax", logits, axis=1))
    checked(model, "gap", pooling="flatten", classes=10)
    checked(model, "logits", classes=None, choices=Choices(layer="logits"))


def test_scores_without_a_layer_that_can_be_found_are_refused() -> None:
    """A layer that works on the product of two parts of the image is none of those known."""
    net = Net()
    x = net.pooled()
    scores = net.add("Mul", net.fc(x, 10, name="a"), net.fc(x, 10, name="b"), out="scores")
    asked = refused(net.model(scores))
    assert "'scores' looks like the scores of 10 classes" in asked.message
    assert "a Mul of 2 tensors stands before it" in asked.message
    assert "'gap'" in asked.hint


def test_an_output_without_an_image_axis_is_refused() -> None:
    net = Net(batch=4)
    out = net.add("ReduceMean", net.pooled(), axes=[0], keepdims=0, out="mean")
    asked = refused(net.model(out))
    assert "['mean']" in asked.message
    assert "does not start with the batch" in asked.message


def test_without_a_proof_nothing_is_freed() -> None:
    net = Net()
    model = net.model(net.add("Softmax", net.fc(net.pooled(), 10), axis=1))
    found = analyse(model, open_graph, Choices(), prove=False)
    assert isinstance(found, Analysis)
    assert (found.dim, found.freed, found.output().tensors) == (WIDTH, None, ("gap",))


def test_the_candidates_are_listed_last_first() -> None:
    net = Net()
    x = net.fc(net.pooled(), 40, name="one", out="hidden")
    y = net.fc(net.add("Relu", x, out="active"), 10, width=40, name="two", out="scores")
    found = analyse(net.model(y), open_graph, Choices())
    listed = [(c.layer, c.operator, c.outputs, c.tensor) for c in found.candidates]
    assert listed == [
        ("node_scores", "Gemm", 10, "active"),
        ("node_hidden", "Gemm", 40, "gap"),
    ]


def test_the_network_given_is_not_changed() -> None:
    model = unclear()
    before = model.SerializeToString()
    analyse(model, open_graph, Choices(layer="gap"))
    assert model.SerializeToString() == before
    assert feed(model).shape == (4, 3, SIZE, SIZE)
    assert not np.array_equal(*feed(model, 2))


@pytest.mark.parametrize(("width", "kind"), [(18, "classifier"), (512, "features")])
def test_a_normalisation_behind_the_last_layer(width: int, kind: str) -> None:
    """Behind class scores now and then; behind the embedding of face recognition always."""
    net = Net()
    parts = [net.const(np.full(width, value), f"bn{value}") for value in (1.5, 0.2, 0.1, 2.0)]
    y = net.add("BatchNormalization", net.fc(net.pooled(), width), *parts, out="y")
    found = analyse(net.model(y), open_graph, Choices())
    assert found.decision is not None
    assert (found.decision.walk is not None) == (kind == "classifier")


def test_an_output_that_joins_the_others_is_the_main_one() -> None:
    """DeiT with its teacher: the mean of two heads, and each by itself."""
    net = Net()
    x = net.pooled()
    z = net.add("Tanh", x)
    one, two = net.fc(x, 10, name="one", out="cls"), net.fc(z, 10, name="two", out="distilled")
    y = net.add("Mul", net.add("Add", one, two), net.const(0.5, "half"), out="logits")
    found = analyse(net.model(y, one, two), open_graph, Choices())
    assert found.decision is not None
    assert found.decision.walk is not None
    assert found.decision.walk.output == "logits"
    assert len(found.decision.feature.tensors) == 2


# --- names


@pytest.mark.parametrize("batch", [1, "N"])
@pytest.mark.parametrize("name", ["embeddings", "image", "probabilities"])
@pytest.mark.parametrize("at", ["x", "map", "gap", "vector", "logits"])
def test_a_network_may_use_the_names_that_tlpipe_gives(
    at: str, name: str, batch: int | str
) -> None:
    net = Net(batch)
    model = net.model(net.fc(net.pooled(), 10, out="logits"))
    for node in model.graph.node:
        rename(node, {at: name})
    for value in (*model.graph.input, *model.graph.output):
        value.name = name if value.name == at else value.name
    tensor = name if at == "gap" else "gap"
    found = checked(model, tensor, pooling="flatten", classes=10)
    assert found.freed is not None
    preprocess = find_preprocess("unit", (SIZE, SIZE))
    whole = fold_preprocess(found.freed.model, found.image, preprocess)
    joined = join_head(
        whole, LastLayer(np.ones((WIDTH, 2), np.float32), np.zeros(2, np.float32)), None, None, {}
    )
    onnx.checker.check_model(joined, full_check=True)
    images = np.zeros((3, SIZE, SIZE, 3), np.uint8)
    outputs = [value.name for value in joined.graph.output]
    run = open_graph(joined.SerializeToString(), "")
    assert [array.shape for array in run({"image": images}, outputs)] == [(3, 2), (3, WIDTH)]


@pytest.mark.parametrize("name", ["embeddings", "image", "probabilities"])
def test_weights_of_such_a_name_are_refused(name: str) -> None:
    net = Net()
    model = net.model(net.fc(net.pooled(), 10))
    model.graph.node[0].input[1] = name
    next(tensor for tensor in model.graph.initializer if tensor.name == "conv.w").name = name
    with pytest.raises(BackboneError, match="have a name that tlpipe gives to what it adds"):
        analyse(model, open_graph, Choices())
