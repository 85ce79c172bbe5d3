"""Freeing the batch: everything that exporters write with a fixed number of images in it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from networks import SIZE, WIDTH, FloatArray, Net, checked, embed, evaluated, feed
from tlpipe.errors import BackboneError
from tlpipe.graph.analyse import Choices, analyse
from tlpipe.graph.batch import way_of
from tlpipe.stages.session import open_graph

CLASSES = 7
TOKENS = 16
HEADS = 4


def to(net: Net, x: str, *sizes: int, out: str = "") -> str:
    return net.add("Reshape", x, net.shape(sizes, f"sizes{len(net.nodes)}"), out=out)


def finished(net: Net, x: str, width: int = WIDTH) -> onnx.ModelProto:
    """With a last layer on the vector ``x``."""
    return net.model(net.add("Softmax", net.fc(x, CLASSES, width), axis=1))


def from_tokens(net: Net, tokens: str) -> onnx.ModelProto:
    """With a last layer on the mean of tokens (1, T, WIDTH), as ``mean``."""
    return finished(net, net.reduce("ReduceMean", tokens, [1], keep=0, out="mean"))


def fixed_tokens(net: Net) -> str:
    """Tokens by reshapes that state one image."""
    x = to(net, net.trunk(), 1, WIDTH, TOKENS)
    return net.add("Transpose", x, perm=[0, 2, 1])


def literal_in_a_reshape(net: Net) -> onnx.ModelProto:
    return from_tokens(net, fixed_tokens(net))


def two_free_axes(net: Net) -> onnx.ModelProto:
    """A reshape that states one image, and leaves another axis to be found."""
    x = to(net, net.trunk(), 1, -1, TOKENS)
    return from_tokens(net, net.add("Transpose", x, perm=[0, 2, 1]))


def class_token(net: Net) -> onnx.ModelProto:
    token = net.w("cls", 1, 1, WIDTH)
    x = net.add("Concat", token, fixed_tokens(net), axis=1)
    x = net.add("Add", x, net.w("positions", 1, TOKENS + 1, WIDTH))
    return from_tokens(net, net.add("Tanh", x))


def class_token_computed(net: Net) -> onnx.ModelProto:
    """The token is expanded to one image by constants."""
    token = net.add("Expand", net.w("cls", 1, 1, WIDTH), net.shape([1, 1, 1], "one"))
    x = net.add("Concat", token, fixed_tokens(net), axis=1)
    return from_tokens(net, x)


def sequence_first(net: Net) -> onnx.ModelProto:
    """Attention as torch.nn.MultiheadAttention is exported: (T, 1, D), heads beside the batch."""
    x = net.add("Transpose", fixed_tokens(net), perm=[1, 0, 2])
    parts = []
    for name in "qkv":
        y = net.add("MatMul", x, net.w(name, WIDTH, WIDTH))
        y = to(net, y, TOKENS, HEADS, WIDTH // HEADS)
        parts.append(net.add("Transpose", y, perm=[1, 0, 2]))
    q, k, v = parts
    score = net.add("MatMul", q, net.add("Transpose", k, perm=[0, 2, 1]))
    mixed = net.add("MatMul", net.add("Softmax", score, axis=-1), v)
    y = to(net, net.add("Transpose", mixed, perm=[1, 0, 2]), TOKENS, WIDTH)
    y = net.add("Gemm", y, net.w("o", WIDTH, WIDTH))
    x = net.add("Add", x, to(net, y, TOKENS, 1, WIDTH))
    return from_tokens(net, net.add("Transpose", x, perm=[1, 0, 2]))


def batch_first(net: Net) -> onnx.ModelProto:
    """Attention as in ViT: (1, heads, T, D / heads)."""
    x = fixed_tokens(net)
    parts = []
    for name in "qkv":
        y = to(net, net.add("MatMul", x, net.w(name, WIDTH, WIDTH)), 1, TOKENS, HEADS, 6)
        parts.append(net.add("Transpose", y, perm=[0, 2, 1, 3]))
    q, k, v = parts
    score = net.add("MatMul", q, net.add("Transpose", k, perm=[0, 1, 3, 2]))
    mixed = net.add("MatMul", net.add("Softmax", score, axis=-1), v)
    y = to(net, net.add("Transpose", mixed, perm=[0, 2, 1, 3]), 1, TOKENS, WIDTH)
    return from_tokens(net, net.add("Add", x, y))


def windows(net: Net) -> onnx.ModelProto:
    """Windows of 2 x 2 as in Swin: parted, normalised within, and put together again."""
    x = net.add("Transpose", net.trunk(), perm=[0, 2, 3, 1])
    y = to(net, x, 1, 2, 2, 2, 2, WIDTH)
    y = to(net, net.add("Transpose", y, perm=[0, 1, 3, 2, 4, 5]), -1, 2, 2, WIDTH)
    y = to(net, y, 4, 4, WIDTH)
    score = net.add("MatMul", y, net.add("Transpose", y, perm=[0, 2, 1]))
    y = net.add("MatMul", net.add("Softmax", score, axis=-1), y)
    y = to(net, y, 1, 2, 2, 2, 2, WIDTH)
    y = net.add("Transpose", y, perm=[0, 1, 3, 2, 4, 5])
    y = to(net, y, 1, 4, 4, WIDTH)
    x = net.add("Add", x, y)
    return finished(net, net.reduce("ReduceMean", x, [1, 2], keep=0, out="mean"))


def expanded(net: Net) -> onnx.ModelProto:
    x = net.rank("Unsqueeze", net.pooled(), [1])
    x = net.add("Expand", x, net.shape([1, TOKENS, WIDTH], "wide"))
    x = net.add("Mul", x, net.w("positions", 1, TOKENS, WIDTH))
    return from_tokens(net, x)


def sliced(net: Net) -> onnx.ModelProto:
    """Slices over all axes, the images' included, as x[:, 1:] is exported."""
    whole = 2**63 - 1
    facts = ([0, 1, 0], [whole, whole, whole], [0, 1, 2], [1, 1, 1])
    names = [net.shape(fact, f"slice{at}") for at, fact in enumerate(facts)]
    return from_tokens(net, net.add("Slice", fixed_tokens(net), *names))


def resized(net: Net) -> onnx.ModelProto:
    x = to(net, to(net, net.trunk(), 1, WIDTH * TOKENS), 1, WIDTH, 4, 4)
    x = net.add("Resize", x, "", "", net.shape([1, WIDTH, 8, 8], "large"), mode="nearest")
    x = net.add("Relu", net.add("Conv", x, net.w("after", WIDTH, WIDTH, 3, 3)))
    return finished(net, net.reduce("ReduceMean", x, [2, 3], keep=0, out="mean"))


def shuffled(net: Net) -> onnx.ModelProto:
    """Channels shuffled as in ShuffleNet."""
    x = to(net, net.trunk(), 1, 2, WIDTH // 2, 4, 4)
    x = to(net, net.add("Transpose", x, perm=[0, 2, 1, 3, 4]), 1, WIDTH, 4, 4)
    x = net.add("Conv", x, net.w("after", WIDTH, 3, 3, 3), group=8)
    return finished(net, net.reduce("ReduceMean", x, [2, 3], keep=0, out="mean"))


def split(net: Net) -> onnx.ModelProto:
    x = to(net, net.trunk(), 1, 2, WIDTH // 2, TOKENS)
    net.add("Split", x, out="a", more=["b"], axis=1)
    x = to(net, net.add("Mul", "a", "b"), 1, WIDTH // 2, TOKENS)
    x = net.reduce("ReduceMean", x, [2], keep=0, out="mean")
    return finished(net, x, WIDTH // 2)


FORMS: dict[str, Callable[[Net], onnx.ModelProto]] = {
    "reshape": literal_in_a_reshape,
    "reshape with another free axis": two_free_axes,
    "class token": class_token,
    "class token, computed": class_token_computed,
    "attention, sequence first": sequence_first,
    "attention, batch first": batch_first,
    "windows": windows,
    "Expand": expanded,
    "Slice": sliced,
    "Resize": resized,
    "shuffle": shuffled,
    "Split": split,
}
FREE_ALREADY = ("Expand",)


@pytest.mark.parametrize("count", [4, 8])
def test_constants_stored_for_each_image_of_a_fixed_batch(count: int) -> None:
    """Exporters expand class tokens, and position embeddings, to the batch."""
    net = Net(batch=count)
    token = net.const(np.tile(net.rng.normal(size=(1, 1, WIDTH)), (count, 1, 1)), "cls")
    x = net.add("Transpose", to(net, net.trunk(), count, WIDTH, TOKENS), perm=[0, 2, 1])
    x = net.add("Concat", token, x, axis=1)
    positions = np.tile(net.rng.normal(size=(1, TOKENS + 1, WIDTH)), (count, 1, 1))
    x = net.add("Tanh", net.add("Add", x, net.const(positions, "positions")))
    checked(from_tokens(net, x), "mean", classes=CLASSES, way="rewritten")


def test_constants_that_differ_from_image_to_image_are_refused() -> None:
    net = Net(batch=4)
    x = net.add("Add", net.pooled(), net.w("each", 4, WIDTH), out="odd")
    with pytest.raises(BackboneError, match="a constant differs from image to image"):
        analyse(finished(net, x), open_graph, Choices())


@pytest.mark.parametrize("batch", [1, "N"])  # where it says N, it lies
@pytest.mark.parametrize("form", FORMS)
def test_what_fixes_the_batch_is_rewritten(form: str, batch: int | str) -> None:
    model = FORMS[form](Net(batch=batch, opset=17))
    way = "as-is" if form in FREE_ALREADY else "rewritten"
    found = checked(model, "mean", classes=CLASSES, way=way)
    assert found.freed is not None
    assert way_of(found.freed.model) == way
    onnx.checker.check_model(found.freed.model)
    assert found.freed.model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


@pytest.mark.parametrize("opset", [9, 11, 13, 18, 21])
@pytest.mark.parametrize("form", ["class token", "attention, batch first", "windows"])
def test_whatever_the_version_of_the_operators(form: str, opset: int) -> None:
    model = FORMS[form](Net(batch=1, opset=opset))
    checked(model, "mean", classes=CLASSES, way="rewritten")


@pytest.mark.parametrize("count", [2, 8])
@pytest.mark.parametrize("form", ["plain", "reshape", "attention"])
def test_a_fixed_batch_of_several(form: str, count: int) -> None:
    net = Net(batch=count)
    if form == "plain":
        x, tensor, pooling = net.pooled(), "gap", "flatten"
    elif form == "reshape":
        x = net.add("GlobalAveragePool", net.trunk(), out="gap")
        x = net.add("Relu", to(net, x, count, WIDTH), out="mean")
        tensor, pooling = "mean", "none"
    else:
        x = net.add("Transpose", to(net, net.trunk(), count, WIDTH, TOKENS), perm=[2, 0, 1])
        y = to(net, x, TOKENS, count * HEADS, 6)
        y = net.add("Softmax", net.add("Transpose", y, perm=[1, 0, 2]), axis=-1)
        y = to(net, net.add("Transpose", y, perm=[1, 0, 2]), TOKENS, count, WIDTH)
        x = net.add("Transpose", net.add("Add", x, y), perm=[1, 0, 2])
        x = net.reduce("ReduceMean", x, [1], keep=0, out="mean")
        tensor, pooling = "mean", "none"
    way = "as-is" if form == "plain" else "rewritten"
    checked(finished(net, x), tensor, pooling=pooling, classes=CLASSES, way=way)


def mixing(kind: str) -> onnx.ModelProto:
    """A network declared to take any batch, whose images look at their neighbours."""
    net = Net()
    x = net.pooled()
    if kind == "mean of the batch":
        x = net.add("Add", x, net.add("Relu", net.reduce("ReduceMean", x, [0])), out="v")
    elif kind == "a little of it":
        share = net.add("Mul", net.reduce("ReduceMean", x, [0]), net.const(0.01, "little"))
        x = net.add("Add", x, share, out="v")
    elif kind == "largest of the batch":
        x = net.add("Div", x, net.reduce("ReduceMax", x, [0, 1]), out="v")
    elif kind == "softmax over the batch":
        x = net.add("Mul", x, net.add("Softmax", x, axis=0), out="v")
    elif kind == "first of the batch":
        first = net.add("Gather", x, net.shape([0], "zero"), axis=0)
        x = net.add("Add", x, net.add("Tanh", first), out="v")
    elif kind == "behind a large constant":
        share = net.add("Relu", net.reduce("ReduceMean", x, [0]))
        x = net.add("Add", net.add("Add", x, share), net.const(300, "large"), out="v")
    else:
        facts = [net.const(np.full(WIDTH, v), n) for n, v in zip("abcd", (1, 0, 0, 1), strict=True)]
        x = net.add(
            "BatchNormalization", x, *facts, out="bn", more=["m", "s"], training_mode=1
        )  # fmt: skip
        x = net.add("Add", x, "vector", out="v")
    return finished(net, x)


@pytest.mark.parametrize(
    "kind",
    [
        "mean of the batch",
        "a little of it",
        "largest of the batch",
        "softmax over the batch",
        "first of the batch",
        "behind a large constant",
        "batch normalisation in training mode",
    ],
)
def test_images_that_look_at_their_neighbours_go_one_by_one(kind: str) -> None:
    model = mixing(kind)
    found = checked(model, "v", classes=CLASSES, way="one-by-one")
    assert found.freed is not None
    assert found.freed.reasons[0].startswith("as-is: ")
    assert way_of(found.freed.model) == "one-by-one"
    images = feed(model)
    np.testing.assert_array_equal(embed(found, images)[::-1], embed(found, images[::-1]))


@pytest.mark.parametrize("opset", [7, 8, 9, 12, 13, 21])
def test_one_by_one_whatever_the_version_of_the_operators(opset: int) -> None:
    net = Net(opset=opset)
    x = net.pooled()
    x = net.add("Add", x, net.reduce("ReduceMean", x, [0]), out="v")
    found = checked(finished(net, x), "v", classes=CLASSES, way="one-by-one")
    assert found.freed is not None
    assert found.freed.model.opset_import[0].version == max(opset, 9)


def test_a_batch_of_several_whose_images_mix_is_refused() -> None:
    net = Net(batch=2)
    x = net.pooled()
    x = net.add("Add", x, net.reduce("ReduceMean", x, [0]), out="v")
    model = finished(net, x)
    with pytest.raises(BackboneError, match="cannot be made to take any number of images") as told:
        analyse(model, open_graph, Choices())
    assert "one-by-one: it takes batches of 2" in told.value.message
    assert "dynamic batch axis" in told.value.hint


def test_random_numbers_are_refused() -> None:
    net = Net()
    x = net.pooled()
    x = net.add("Add", x, net.add("RandomNormalLike", x), out="v")
    with pytest.raises(BackboneError, match=r"draws random numbers \(RandomNormalLike\)"):
        analyse(finished(net, x), open_graph, Choices())


def test_what_is_no_number_is_refused() -> None:
    net = Net()
    x = net.add("Sqrt", net.add("Sub", net.pooled(), net.const(1e6, "large")), out="v")
    with pytest.raises(BackboneError, match="gives NaN or infinity for ordinary images"):
        analyse(finished(net, x), open_graph, Choices())


def branch(op: str, source: str, out: str) -> onnx.GraphProto:
    value = helper.make_tensor_value_info(out, TensorProto.FLOAT, None)
    return helper.make_graph([helper.make_node(op, [source], [out])], out, [], [value])


def chosen(net: Net, condition: str, x: str, out: str) -> str:
    then, other = branch("Relu", x, "then"), branch("Neg", x, "other")
    return net.add("If", condition, then_branch=then, else_branch=other, out=out)


@pytest.mark.parametrize("size", [1, 99])
def test_branches_on_sizes_are_written_out(size: int) -> None:
    """As torch.jit writes ``squeeze``: is the axis 1?"""
    net = Net(batch=1)
    x = net.pooled()
    of_axis = net.add("Gather", net.add("Shape", "gap"), net.shape([2], "two"), axis=0)
    asked = net.add("Equal", of_axis, net.shape([size], "asked"))
    x = chosen(net, asked, x, "picked")
    x = net.add("Tanh", x, out="v")
    found = checked(finished(net, x), "v", classes=CLASSES)
    assert found.freed is not None
    operators = [node.op_type for node in found.freed.model.graph.node]
    assert "If" not in operators
    assert ("Neg" in operators) == (size == 99)


@pytest.mark.parametrize("last", ["picked", "v"])
def test_branches_on_the_image_go_one_by_one(last: str) -> None:
    """Else one image would decide for all of its batch."""
    net = Net()
    x = net.pooled()
    trunk = net.model(x)
    (vectors,) = evaluated(trunk, [x], feed(trunk))
    middle = net.const(np.median(vectors.mean(axis=1)), "middle")
    mean = net.reduce("ReduceMean", x, [0, 1], keep=0)
    x = chosen(net, net.add("Less", mean, middle), x, "picked")
    x = net.add("Tanh", x, out="v") if last == "v" else x
    model = finished(net, x)
    found = checked(model, last, classes=CLASSES, way="one-by-one")
    signs = np.sign(embed(found, feed(model)).sum(axis=1))
    assert set(signs) == {-1, 1}  # both branches are taken


def test_the_result_of_a_loop() -> None:
    """Its body runs three times, whatever the image."""
    net = Net()
    x = net.pooled()
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["still"]),
            helper.make_node("Mul", ["state", "state"], ["square"]),
            helper.make_node("Sqrt", ["square"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    count, go = net.const(3, "count", np.int64), net.const(True, "yes", np.bool_)
    x = net.add("Loop", count, go, x, body=body, out="looped")
    checked(finished(net, x), "looped", classes=CLASSES)


def test_many_images_at_once() -> None:
    model = sequence_first(Net(batch=1))
    found = analyse(model, open_graph, Choices())
    images: FloatArray = feed(model, 33)
    (expected,) = evaluated(model, ["mean"], images)
    ours = embed(found, images)
    assert images.shape == (33, 3, SIZE, SIZE)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_slice_of_as_many_images_as_the_proof_has_is_found() -> None:
    net = Net(batch="N")
    x = net.pooled()
    starts, ends, axes = (net.shape([n], f"slice{at}") for at, n in enumerate((0, 4, 0)))
    x = net.add("Slice", x, starts, ends, axes, out="part")
    found = analyse(finished(net, x), open_graph, Choices())
    assert found.freed is not None
    assert found.freed.way == "one-by-one"
