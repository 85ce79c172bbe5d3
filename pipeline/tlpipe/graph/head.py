"""Joins a head to a feature extractor: one Gemm and a Softmax behind ``embeddings``.

Takes and gives ``onnx.ModelProto`` and arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tlpipe.errors import BackboneError
from tlpipe.graph import EMBEDDINGS, HEAD_PREFIX, PROBABILITIES
from tlpipe.graph.cut import named_embeddings
from tlpipe.graph.io import to_bytes

if TYPE_CHECKING:
    from tlpipe.types import Float32Array


def join_head(
    features: onnx.ModelProto,
    weights: Float32Array,
    bias: Float32Array,
    metadata: Mapping[str, str],
) -> bytes:
    """Classifier file's content: outputs ``probabilities`` (N, K) and ``embeddings`` (N, D).

    Parameters
    ----------
    features : onnx.ModelProto
        Network whose only output is ``embeddings``, float32 (N, D). Not changed.
    weights : float32 array (D, K)
    bias : float32 array (K,)
        ``softmax(embeddings @ weights + bias)`` are the probabilities.
    metadata : mapping of str to str
        Written into the file's metadata properties, in place of any that stood there.
    """
    model = onnx.ModelProto()
    model.CopyFrom(features)
    graph = model.graph
    names = {part: f"{HEAD_PREFIX}{part}" for part in ("weights", "bias", "logits", "softmax")}
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.ascontiguousarray(weights, np.float32), names["weights"]),
            numpy_helper.from_array(np.ascontiguousarray(bias, np.float32), names["bias"]),
        ]
    )
    graph.node.extend(
        [
            helper.make_node(
                "Gemm",
                [EMBEDDINGS, names["weights"], names["bias"]],
                [names["logits"]],
                name=names["logits"],
            ),
            helper.make_node(
                "Softmax", [names["logits"]], [PROBABILITIES], name=names["softmax"], axis=1
            ),
        ]
    )
    probabilities = helper.make_tensor_value_info(
        PROBABILITIES, TensorProto.FLOAT, ["N", weights.shape[1]]
    )
    graph.output.insert(0, probabilities)
    return _finished(model, metadata)


def _finished(model: onnx.ModelProto, metadata: Mapping[str, str]) -> bytes:
    del model.metadata_props[:]
    helper.set_model_props(model, dict(metadata))
    return to_bytes(model)


def own_head(
    model: onnx.ModelProto, features: str, dim: int, logits: str, metadata: Mapping[str, str]
) -> bytes:
    """Pretrained network with its own last layer, with a classifier's outputs.

    Parameters
    ----------
    model : onnx.ModelProto
        Full network that takes uint8 images. Not changed.
    features, dim, logits : str, int, str
        Tensors of the graph, (N, D) and (N, C); D.
    metadata : mapping of str to str

    Returns
    -------
    bytes
        The classifier file's content.
    """
    joined = onnx.ModelProto()
    joined.CopyFrom(model)
    graph = joined.graph
    softmax = f"{HEAD_PREFIX}softmax"
    graph.node.append(helper.make_node("Softmax", [logits], [PROBABILITIES], name=softmax, axis=1))
    graph.node.extend(named_embeddings(features))
    del graph.output[:]
    for name, width in ((PROBABILITIES, class_count(model, logits)), (EMBEDDINGS, dim)):
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width])
        graph.output.append(value)
    return _finished(joined, metadata)


def class_count(model: onnx.ModelProto, logits: str) -> int:
    """Number of classes C of a network's own output (N, C).

    Raises
    ------
    BackboneError
        The network has no such output, does not state its size, or gives probabilities there.
    """
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    if makers.get(logits) in ("Softmax", "LogSoftmax"):
        raise BackboneError(
            f"The output {logits!r} is made by a {makers[logits]}: it holds probabilities already.",
            hint="Name the tensor before it as 'logits' under [output] in the backbone's card.",
        )
    for value in model.graph.output:
        sizes = value.type.tensor_type.shape.dim
        if value.name == logits and len(sizes) == 2 and sizes[1].dim_value:
            return int(sizes[1].dim_value)
    raise BackboneError(
        f"The network has no output {logits!r} of a stated size (N, C), but"
        f" {[value.name for value in model.graph.output]}.",
        hint="Correct 'logits' under [output] in the backbone's card.",
    )
