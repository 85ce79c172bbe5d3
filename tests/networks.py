"""Small networks written operator by operator, and what the tests ask of an analysis of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tlpipe.graph import EMBEDDINGS
from tlpipe.graph.analyse import Analysis, Choices, analyse
from tlpipe.graph.tidy import tidied
from tlpipe.stages.session import open_graph

FloatArray = NDArray[Any]

SIZE = 16
WIDTH = 24  # channels of the trunk: no usual number of classes


class Net:
    """A graph that is being written; each method gives the name of the tensor it makes.

    Parameters
    ----------
    batch : int or str
        What the input states.
    opset : int
    dtype : type
        Of the image and all weights.
    """

    def __init__(self, batch: int | str = "N", opset: int = 17, dtype: Any = np.float32) -> None:
        self.rng = np.random.default_rng(3)
        self.opset, self.dtype = opset, dtype
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.image = ""
        self.batch = batch

    def const(self, values: Any, name: str, dtype: Any = None) -> str:
        """An initializer."""
        array = np.array(values, dtype or self.dtype)
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def w(self, name: str, *shape: int) -> str:
        """Random weights that keep the size of what they are multiplied with."""
        scale = np.sqrt(2 / max(1, int(np.prod(shape[1:]))))
        return self.const(self.rng.normal(0, scale, shape), name)

    def add(
        self, op: str, *inputs: str, out: str = "", more: Sequence[str] = (), **attributes: Any
    ) -> str:
        """An operator."""
        out = out or f"t{len(self.nodes)}"
        name = attributes.pop("name", f"node_{out}")
        self.nodes.append(helper.make_node(op, inputs, [out, *more], name=name, **attributes))
        return out

    def take(self, *sizes: int | str | None, name: str = "x", dtype: Any = None) -> str:
        """An input of these sizes, the batch in front."""
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype or self.dtype))
        self.inputs.append(helper.make_tensor_value_info(name, kind, [self.batch, *sizes]))
        self.image = self.image or name
        return name

    def trunk(self, width: int = WIDTH, size: int = SIZE, stride: int = 4) -> str:
        """From images to a map of ``width`` channels, not negative, (N, width, 4, 4)."""
        x = self.image or self.take(3, size, size)
        x = self.add("Conv", x, self.w("conv.w", width, 3, 3, 3), self.w("conv.b", width),
                     strides=[stride, stride], pads=[1, 1, 1, 1])  # fmt: skip
        return self.add("Relu", x, out="map")

    def pooled(self, width: int = WIDTH) -> str:
        """From images to a vector (N, width)."""
        x = self.add("GlobalAveragePool", self.trunk(width), out="gap")
        return self.add("Flatten", x, out="vector")

    def tokens(self, width: int = WIDTH) -> str:
        """From images to (N, 16, width)."""
        x = self.add("Reshape", self.trunk(width), self.shape([0, width, 16], "flat"))
        return self.add("Transpose", x, perm=[0, 2, 1], out="tokens")

    def shape(self, sizes: Sequence[int], name: str) -> str:
        """Integers, such as the target of a reshape."""
        return self.const(sizes, name, np.int64)

    def fc(self, x: str, classes: int, width: int = WIDTH, name: str = "fc", out: str = "") -> str:
        """A plain last layer."""
        weights, bias = self.w(f"{name}.w", classes, width), self.w(f"{name}.b", classes)
        return self.add("Gemm", x, weights, bias, transB=1, out=out)

    def reduce(self, op: str, x: str, axes: Sequence[int], keep: int = 1, out: str = "") -> str:
        """A reduction; where its axes stand depends on the version."""
        since = 13 if op == "ReduceSum" else 18
        if self.opset < since:
            return self.add(op, x, axes=list(axes), keepdims=keep, out=out)
        given = self.shape(axes, f"axes{len(self.nodes)}")
        return self.add(op, x, given, keepdims=keep, out=out)

    def rank(self, op: str, x: str, axes: Sequence[int], out: str = "") -> str:
        """Squeeze or Unsqueeze."""
        if self.opset < 13:
            return self.add(op, x, axes=list(axes), out=out)
        return self.add(op, x, self.shape(axes, f"axes{len(self.nodes)}"), out=out)

    def model(self, *outputs: str, domains: Sequence[str] = (), ir: int = 8) -> onnx.ModelProto:
        """The graph, finished."""
        graph = helper.make_graph(
            self.nodes,
            "small",
            self.inputs,
            [onnx.ValueInfoProto(name=name) for name in outputs],
            self.weights,
        )
        opsets = [helper.make_opsetid("", self.opset)]
        opsets += [helper.make_opsetid(domain, 1) for domain in domains]
        return helper.make_model(graph, opset_imports=opsets, ir_version=ir)


def feed(model: onnx.ModelProto, count: int = 4, side: int = SIZE, name: str = "") -> FloatArray:
    """Images that differ, as a network's input takes them."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    values = [v for v in model.graph.input if v.name not in initializers]
    value = next(v for v in values if not name or v.name == name)
    stated = [dim.dim_value for dim in value.type.tensor_type.shape.dim][1:]
    sizes = [size if size > 0 else side for size in stated]
    dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    rng = np.random.default_rng(11)
    images = rng.normal(rng.normal(0, 1, (count, 1, 1, 1)), 1, (count, *sizes))
    if dtype == np.uint8:
        images = np.clip(images * 50 + 120, 0, 255)
    return images.astype(dtype)


def evaluated(
    model: onnx.ModelProto, tensors: Sequence[str], images: FloatArray, name: str = ""
) -> list[Any]:
    """Tensors of the whole network for each image, computed one at a time."""
    whole = tidied(model)
    value = next(v for v in whole.graph.input if not name or v.name == name)
    others = {
        other.name: np.zeros([max(1, d.dim_value) for d in other.type.tensor_type.shape.dim], "f4")
        for other in whole.graph.input
        if other is not value
    }
    name, dims = value.name, value.type.tensor_type.shape.dim
    stated = dims[0].dim_value or 1
    for dim, size in zip(list(dims)[1:], images.shape[1:], strict=True):
        dim.dim_value = size
    del whole.graph.output[:]
    whole.graph.output.extend(onnx.ValueInfoProto(name=tensor) for tensor in tensors)
    run = open_graph(whole.SerializeToString(), "")
    rows = [
        [
            array[:1]
            for array in run({name: np.concatenate([image[None]] * stated), **others}, tensors)
        ]
        for image in images
    ]
    return [np.concatenate(arrays) for arrays in zip(*rows, strict=True)]


def as_vector(array: FloatArray, pooling: str) -> FloatArray:
    """What a pooling makes of a tensor, by NumPy."""
    array = array.astype(np.float64)
    if pooling == "mean-channels-first":
        return np.asarray(array.mean(axis=tuple(range(2, array.ndim))))
    if pooling == "mean-channels-last":
        return np.asarray(array.mean(axis=tuple(range(1, array.ndim - 1))))
    if pooling == "cls":
        return np.asarray(array[:, 0])
    return array.reshape(len(array), -1)


def embed(analysis: Analysis, images: FloatArray, *, optimised: bool = True) -> FloatArray:
    """Features of the freed network for a batch."""
    assert analysis.freed is not None
    run = open_graph(analysis.freed.model.SerializeToString(), "", optimised=optimised)
    name = analysis.freed.model.graph.input[0].name
    return np.asarray(run({name: images}, [EMBEDDINGS])[0])


def checked(
    model: onnx.ModelProto,
    tensors: str | tuple[str, ...],
    *,
    pooling: str = "none",
    classes: int | None,
    way: str = "as-is",
    choices: Choices | None = None,
    tolerance: float = 1e-5,
    truth: Sequence[str] = (),
) -> Analysis:
    """Analyse a network, and hold all that is said of it against the uncut network.

    Parameters
    ----------
    tensors : str or tuple of str
        What the cut must be.
    classes : int or None
        What the walk must have found; None for a feature extractor.
    truth : sequence of str
        Where to read the features in the uncut network, if not at `tensors`: those may be
        integers.
    """
    tensors = (tensors,) if isinstance(tensors, str) else tensors
    found = analyse(model, open_graph, choices or Choices())
    assert found.undecided is None, str(found.undecided)
    assert found.decision is not None
    assert found.freed is not None
    walk, feature = found.decision.walk, found.decision.feature
    assert (walk.classes if walk else None) == classes, found.decision.reason
    assert (feature.tensors, feature.pooling) == (tensors, pooling)
    assert found.freed.way == way, found.freed.reasons
    image = found.image.tensor
    images = feed(model, side=found.image.height, name=image)
    parts = evaluated(model, list(truth) or list(tensors), images, image)
    expected = np.concatenate([as_vector(part, pooling) for part in parts], axis=1)
    ours = embed(found, images)
    assert ours.dtype == np.float32
    assert ours.shape == expected.shape == (len(images), found.dim)
    assert np.ptp(expected, axis=0).max() > 1e-3 * np.abs(expected).max()  # the images differ
    largest = float(np.abs(expected).max())
    np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance * largest)
    for number in range(len(images)):
        alone = embed(found, images[number : number + 1])
        np.testing.assert_allclose(ours[number], alone[0], rtol=0, atol=tolerance * largest)
    given = found.output()
    assert (given.tensors, given.dim, given.classes) == (tensors, found.dim, classes or 0)
    return found


def softmax(logits: FloatArray) -> FloatArray:
    """By NumPy."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


FLOAT = TensorProto.FLOAT
