"""Joins a head to a feature extractor, behind ``embeddings``; or makes a network of it alone.

Takes and gives ``onnx.ModelProto`` and the records of ``last_layer``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import onnx
from onnx import TensorProto, helper, numpy_helper

from tlpipe.errors import BackboneError
from tlpipe.graph import (
    CLASS_SCORES,
    EMBEDDINGS,
    HEAD_PREFIX,
    LABELS,
    PREDICTION_SET,
    PROBABILITIES,
    UNKNOWN,
    UNKNOWN_SCORE,
)
from tlpipe.graph.cut import pruned
from tlpipe.graph.head_nodes import HeadShape, head_constants, head_nodes, head_outputs
from tlpipe.graph.nearest_nodes import count_attribute
from tlpipe.last_layer import LastLayer, NearestImages, Novelty

if TYPE_CHECKING:
    from tlpipe.types import Activation

_OPSET, _IR = 17, 8  # of a head alone: what ONNX Runtime has read since version 1.12


def join_head(
    features: onnx.ModelProto,
    layer: LastLayer | NearestImages,
    novelty: Novelty | None,
    set_threshold: float | None,
    metadata: Mapping[str, str],
) -> onnx.ModelProto:
    """Classifier: outputs ``probabilities`` (N, K) and ``embeddings`` (N, D), and those below.

    Parameters
    ----------
    features : onnx.ModelProto
        Network whose only output is ``embeddings``, float32 (N, D). Not changed.
    layer : LastLayer or NearestImages
        With thresholds it adds ``labels`` bool (N, K).
    novelty : Novelty or None
        Adds ``unknown_score`` float32 (N,) and ``unknown`` bool (N,).
    set_threshold : float or None
        Adds ``prediction_set`` bool (N, K): the classes that are at least as probable, and the most
        probable one.
    metadata : mapping of str to str
        Written into the file's metadata properties, in place of any that stood there.

    Raises
    ------
    ValueError
        Arrays do not fit each other.
    """
    model = onnx.ModelProto()
    model.CopyFrom(features)
    _add_head(model, layer, novelty, set_threshold)
    return with_metadata(model, metadata)


def head_alone(
    layer: LastLayer | NearestImages,
    novelty: Novelty | None,
    set_threshold: float | None,
    metadata: Mapping[str, str],
) -> onnx.ModelProto:
    """Network of the head alone: ``embeddings`` float32 (N, D) in, else as from ``join_head``."""
    taken = helper.make_tensor_value_info(EMBEDDINGS, TensorProto.FLOAT, ["N", layer.dim])
    model = helper.make_model(
        helper.make_graph([], "head", [taken], []),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR,
        producer_name="tlpipe",
    )
    _add_head(model, layer, novelty, set_threshold)
    return with_metadata(model, metadata)


def _add_head(
    model: onnx.ModelProto,
    layer: LastLayer | NearestImages,
    novelty: Novelty | None,
    set_threshold: float | None,
) -> None:
    graph = model.graph
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    shape = HeadShape(
        layer.normalise,
        layer.activation,
        novelty is not None,
        set_threshold is not None,
        layer.thresholds is not None,
        count_attribute(layer.k, opset) if isinstance(layer, NearestImages) else None,
    )
    constants = head_constants(layer, novelty, set_threshold, opset)
    graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in constants.items()
    )
    graph.node.extend(head_nodes(shape))
    classes = layer.classes
    kinds: dict[str, tuple[int, list[str | int]]] = {
        PROBABILITIES: (TensorProto.FLOAT, ["N", classes]),
        LABELS: (TensorProto.BOOL, ["N", classes]),
        UNKNOWN_SCORE: (TensorProto.FLOAT, ["N"]),
        UNKNOWN: (TensorProto.BOOL, ["N"]),
        PREDICTION_SET: (TensorProto.BOOL, ["N", classes]),
    }
    first, *others = (
        helper.make_tensor_value_info(name, *kinds[name]) for name in head_outputs(shape)
    )
    graph.output.insert(0, first)
    graph.output.extend(others)


def head_part(model: onnx.ModelProto, outputs: Sequence[str]) -> onnx.ModelProto:
    """The part of a classifier behind ``embeddings``, which become its only input.

    Parameters
    ----------
    model : onnx.ModelProto
        A classifier. Not changed.
    outputs : sequence of str
        Outputs of it, which the part has.

    Raises
    ------
    BackboneError
        An output does not follow from the embeddings alone, or there is no such output.
    """
    open_ended = onnx.ModelProto()
    open_ended.CopyFrom(model)
    kept = [node for node in model.graph.node if EMBEDDINGS not in node.output]
    del open_ended.graph.node[:]
    open_ended.graph.node.extend(kept)
    (vectors,) = (value for value in model.graph.output if value.name == EMBEDDINGS)
    open_ended.graph.input.append(vectors)
    part = pruned(open_ended, outputs)
    others = [value.name for value in part.graph.input if value.name != EMBEDDINGS]
    if others:
        raise BackboneError(
            f"What the classifier says does not follow from its embeddings alone: it needs"
            f" {others} as well."
        )
    return part


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
