"""Real architectures: the graphs that the onnx package brings for its own tests.

Their weights are generated when they run (all alike, so that some give the same for every image);
so each is also tried with random weights of sound sizes, where that is quick.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from networks import FloatArray, as_vector, embed, evaluated, softmax
from tlpipe.graph.analyse import Analysis, Choices, analyse
from tlpipe.graph.digest import tensor_digests
from tlpipe.graph.image_input import as_fed, sample_images
from tlpipe.graph.io import load_model
from tlpipe.graph.tidy import tidied
from tlpipe.stages.session import open_graph

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


@dataclass(frozen=True)
class Known:
    """What a reader of the file finds."""

    name: str
    tensor: str
    pooling: str
    dim: int
    scores: str
    way: str
    softmax: bool = True


KNOWN = [
    Known("bvlc_alexnet", "r21", "none", 4096, "r24", "rewritten"),
    Known("zfnet512", "r19", "none", 1024, "r20", "rewritten"),
    Known("vgg19", "r43", "none", 4096, "r46", "rewritten"),
    Known("inception_v1", "r138", "flatten", 1024, "r143", "as-is"),
    Known("inception_v2", "r505", "flatten", 1024, "r507", "as-is"),
    Known("resnet50", "r172", "flatten", 2048, "r174", "as-is"),
    Known("densenet121", "r908", "flatten", 1024, "fc6_1", "as-is", softmax=False),
    Known("squeezenet", "r60", "mean-channels-first", 512, "r65", "as-is"),
    Known("shufflenet", "r199", "flatten", 544, "r201", "rewritten"),
]
LIVE = [
    known for known in KNOWN if known.name.startswith(("inception", "dense", "squeeze", "shuffle"))
]


def ids(known: Known) -> str:
    return known.name


def test_every_file_is_known() -> None:
    files = sorted(path.name for path in FOLDER.glob("*.onnx"))
    assert files == sorted(f"light_{known.name}.onnx" for known in KNOWN)


@pytest.mark.parametrize("known", KNOWN, ids=ids)
def test_the_graph_as_it_stands(known: Known) -> None:
    hold(known, load_model(FOLDER / f"light_{known.name}.onnx"))


@pytest.mark.parametrize("known", LIVE, ids=ids)
def test_the_graph_with_random_weights(known: Known) -> None:
    model = enlivened(load_model(FOLDER / f"light_{known.name}.onnx"))
    expected = hold(known, model)
    spread = np.ptp(expected, axis=0).max()
    assert spread > 0.01 * np.abs(expected).max()  # it does look at the images


def hold(known: Known, model: onnx.ModelProto) -> FloatArray:
    """Hold what is found of a network against the uncut network, and give its features."""
    found = analyse(model, open_graph, Choices())
    assert found.decision is not None
    assert found.freed is not None
    output = found.output()
    assert (output.tensors, output.pooling) == ((known.tensor,), known.pooling)
    assert (found.dim, output.classes, output.logits) == (known.dim, 1000, known.scores)
    assert output.activation == "softmax"
    assert found.freed.way == known.way, found.freed.reasons
    before, after = tensor_digests(model), tensor_digests(found.freed.model)
    assert after.items() <= before.items()

    image = found.image
    count = 1 if known.name == "vgg19" else 4  # 20 billion multiplications each
    images = as_fed(sample_images(count, image.height, image.width), image)
    end = model.graph.output[0].name
    inside, last = evaluated(model, [known.tensor, end], images)
    expected = as_vector(inside, known.pooling)
    ours = embed(found, images, optimised=False)
    assert ours.shape == (count, known.dim)
    largest = np.abs(expected).max()
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4 * largest)
    if known.pooling != "mean-channels-first":  # there, a Relu stands behind the last layer
        again = glued(known, model, found, ours)
        np.testing.assert_allclose(again, last.reshape(count, -1), rtol=2e-4, atol=2e-4)
    return expected


def glued(
    known: Known, model: onnx.ModelProto, found: Analysis, features: FloatArray
) -> FloatArray:
    """The network's own output, from the features by its last layer's weights."""
    assert found.decision is not None
    assert found.decision.walk is not None
    (layer,) = found.decision.walk.layers
    node = next(node for node in model.graph.node if layer.output in node.output)
    values = {name: constant(model, name) for name in node.input[1:]}
    weights = values[node.input[1]].reshape(1000, -1).astype(np.float64)
    logits = features.astype(np.float64) @ weights.T + values[node.input[2]]
    return softmax(logits) if known.softmax else logits


def constant(model: onnx.ModelProto, name: str) -> FloatArray:
    """Value of a tensor that depends on no image."""
    part = tidied(model)
    del part.graph.input[:]
    keep, wanted = [], {name}
    for node in reversed(part.graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            keep.append(node)
    del part.graph.node[:]
    part.graph.node.extend(keep[::-1])
    part.graph.ClearField("output")
    part.graph.output.append(onnx.ValueInfoProto(name=name))
    if not keep:
        tensor = next(t for t in part.graph.initializer if t.name == name)
        return np.asarray(numpy_helper.to_array(tensor))
    return np.asarray(open_graph(part.SerializeToString(), "")({}, [name])[0])


def enlivened(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with random weights that neither grow nor shrink what passes."""
    rng = np.random.default_rng(5)
    shapes = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    live = onnx.ModelProto()
    live.CopyFrom(model)
    made: dict[str, FloatArray] = {}
    variances = {n.input[4] for n in model.graph.node if n.op_type == "BatchNormalization"}
    for node in model.graph.node:
        if node.op_type == "ConstantOfShape":
            made[node.output[0]] = shapes[node.input[0]]
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            made[tensor.name] = np.array(tensor.dims)
    gains = {n.input[1] for n in model.graph.node if n.op_type == "BatchNormalization"}
    kept = [n for n in live.graph.node if n.op_type != "ConstantOfShape"]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del live.graph.node[:]
    live.graph.node.extend(copies)
    integers = [t for t in model.graph.initializer if t.name not in made]
    del live.graph.initializer[:]
    live.graph.initializer.extend(integers)
    for name, sizes in made.items():
        shape = tuple(int(n) for n in sizes)
        if name in variances or name in gains or ("_w_" in name and len(shape) == 1):
            array = rng.uniform(0.5, 1.0, shape)
        elif len(shape) == 1:
            array = rng.normal(0, 0.1, shape)
        else:
            array = rng.standard_normal(shape, np.float32) * np.sqrt(2 / np.prod(shape[1:]))
        live.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    return live
