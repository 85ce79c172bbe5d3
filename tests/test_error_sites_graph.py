"""Errors of networks that no other test brings about: each by a network as it may be exported."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import helper

from conftest import Trained
from networks import WIDTH, Net
from refusals import refused
from tlpipe import classify
from tlpipe.errors import BackboneError, ClassifierError, UndecidedError
from tlpipe.graph.analyse import Choices, analyse
from tlpipe.graph.digest import weights_digest
from tlpipe.graph.io import load_model
from tlpipe.stages.session import open_graph


def undecided(model: onnx.ModelProto, *words: str, **choices: str) -> None:
    found = analyse(model, open_graph, Choices(**choices))
    with refused(UndecidedError, *words):
        found.output()


def test_a_layer_that_holds_nothing_for_each_image() -> None:
    net = Net()
    x = net.pooled()
    net.reduce("ReduceMean", x, [0, 1], keep=0, out="mean")
    model = net.model(net.fc(x, 7), "mean")
    undecided(model, "'mean' has the shape []", "must start with the batch", layer="mean")


def test_a_last_layer_on_a_vector_without_a_batch() -> None:
    net = Net(batch=1)
    net.reduce("ReduceMean", net.trunk(), [0, 2, 3], keep=0, out="bare")
    scores = net.add("MatMul", "bare", net.w("W", WIDTH, 7))
    undecided(net.model(scores), "['bare'] of the shapes [[24]]", "another tensor with --layer")


def test_a_last_layer_on_positions_of_which_one_is_picked() -> None:
    net = Net()
    x = net.add("Transpose", net.trunk(), perm=[0, 2, 3, 1], out="map_last")
    y = net.add("MatMul", x, net.w("W", WIDTH, 7))
    y = net.add(
        "Slice", y, *(net.shape(s, n) for s, n in (([0, 0], "s"), ([1, 1], "e"), ([1, 2], "a")))
    )
    undecided(net.model(net.add("Flatten", y)), "16 positions of 'map_last'", "--pooling mean")


def test_an_old_operator_that_cannot_be_converted() -> None:
    net = Net(opset=6)
    x = net.add("Upsample", net.trunk(), mode="nearest", height_scale=2.0, width_scale=2.0)
    x = net.add("Flatten", net.add("GlobalAveragePool", x))
    with refused(BackboneError, "uses version 6 of ONNX's operators", "newer exporter"):
        analyse(net.model(net.fc(x, 7)), open_graph, Choices())


def test_a_shape_that_nobody_knows() -> None:
    net = Net()
    x = net.pooled()
    total = net.reduce("ReduceSum", x, [0, 1], keep=0)
    branches = {
        name: helper.make_graph(
            [helper.make_node(op, [x], [name])], name, [], [onnx.ValueInfoProto(name=name)]
        )
        for name, op in (("then", "Relu"), ("else", "Identity"))
    }
    positive = net.add("Greater", total, net.const(0, "zero"))
    y = net.add(
        "If", positive, then_branch=branches["then"], else_branch=branches["else"], out="either"
    )
    with refused(BackboneError, "shape of the tensor 'either' is not known", "--layer NAME"):
        analyse(net.model(net.fc(y, 7)), open_graph, Choices())


def test_weights_of_another_length(tmp_path: Path) -> None:
    net = Net()
    model = net.model(net.fc(net.pooled(width=600), 7, width=600))
    tensor = next(t for t in model.graph.initializer if t.name == "fc.w")
    tensor.raw_data = tensor.raw_data[:-400]
    onnx.save(model, tmp_path / "net.onnx")
    with refused(BackboneError, "'fc.w' of the shape [7, 600] is damaged", "size 4100", "export"):
        weights_digest(load_model(tmp_path / "net.onnx"))


def test_a_classifier_whose_answers_need_more_than_its_embeddings(
    trained: Trained, tmp_path: Path
) -> None:
    """Another program has put something between: its head alone cannot be run."""
    model = onnx.load(trained.classifier)
    (image,) = model.graph.input
    last = next(node for node in model.graph.node if "probabilities" in node.output)
    last.output[0] = "before"
    model.graph.node.extend(
        [
            helper.make_node("Cast", [image.name], ["floats"], to=onnx.TensorProto.FLOAT),
            helper.make_node("ReduceMin", ["floats"], ["darkest"], keepdims=0),
            helper.make_node("Add", ["before", "darkest"], ["probabilities"]),
        ]
    )
    onnx.save(model, tmp_path / "c.onnx")
    with refused(ClassifierError, f"it needs {[image.name]} as well", "Classify the images"):
        classify(tmp_path / "c.onnx", trained.features, tmp_path / "p.csv")
