"""Joins a head to a feature extractor: one Gemm and a Softmax behind ``embeddings``.

Takes and gives ``onnx.ModelProto`` and arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tlpipe.graph import CLASS_SCORES, EMBEDDINGS, HEAD_PREFIX, PROBABILITIES

if TYPE_CHECKING:
    from tlpipe.types import Activation, Float32Array


def join_head(
    features: onnx.ModelProto,
    weights: Float32Array,
    bias: Float32Array,
    metadata: Mapping[str, str],
) -> onnx.ModelProto:
    """Classifier: outputs ``probabilities`` (N, K) and ``embeddings`` (N, D).

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
    return with_metadata(model, metadata)


def own_head(model: onnx.ModelProto, activation: Activation, classes: int) -> onnx.ModelProto:
    """Pretrained network with its own last layer, with a classifier's outputs.

    Parameters
    ----------
    model : onnx.ModelProto
        Network that takes uint8 images, with the outputs ``embeddings`` and ``CLASS_SCORES``. Not
        changed.
    activation : {"softmax", "sigmoid", "none"}
        What makes probabilities of the scores.
    classes : int
        C.
    """
    joined = onnx.ModelProto()
    joined.CopyFrom(model)
    operator = {"softmax": "Softmax", "sigmoid": "Sigmoid", "none": "Identity"}[activation]
    attributes: dict[str, Any] = {"axis": 1} if activation == "softmax" else {}
    name = f"{HEAD_PREFIX}{activation}"
    joined.graph.node.append(
        helper.make_node(operator, [CLASS_SCORES], [PROBABILITIES], name=name, **attributes)
    )
    kept = [value for value in joined.graph.output if value.name != CLASS_SCORES]
    del joined.graph.output[:]
    joined.graph.output.append(
        helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, ["N", classes])
    )
    joined.graph.output.extend(kept)
    return joined


def with_metadata(model: onnx.ModelProto, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """The same network with these metadata properties, in place of any that stood there."""
    marked = onnx.ModelProto()
    marked.CopyFrom(model)
    del marked.metadata_props[:]
    helper.set_model_props(marked, dict(metadata))
    return marked


def has_own_head(model: onnx.ModelProto) -> bool:
    """Whether a classifier is what ``own_head`` gives: a network with its pretrained last layer."""
    return any(CLASS_SCORES in node.input for node in model.graph.node)
