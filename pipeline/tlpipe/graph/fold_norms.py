"""Folds batch normalisations into the convolutions before them, for networks that are quantised.

Takes and gives ``onnx.ModelProto``. The arithmetic is in float64 and made of operations that
IEEE 754 rounds alone, so that the same weights come out everywhere.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from tlpipe.graph.index import Index, attribute, opset_of, reads
from tlpipe.graph.references import array_of
from tlpipe.graph.tidy import converted

_OLDEST_OPSET = 10
"""The first with integer convolutions."""

_EPSILON = 1e-5  # the default of ONNX's BatchNormalization


def fold_norms(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network without those batch normalisations that follow a convolution.

    Parameters
    ----------
    model : onnx.ModelProto
        Not changed. Weights that only a folded pair reads are left out of what is given.
    """
    if opset_of(model) < _OLDEST_OPSET:
        folded = converted(model, _OLDEST_OPSET)
    else:
        folded = onnx.ModelProto()
        folded.CopyFrom(model)
    index = Index(folded.graph)
    readers = Counter(name for node in index.nodes for name in reads(node))
    readers.update(value.name for value in folded.graph.output)
    gone = []
    for norm in index.nodes:
        conv = index.producers.get(norm.input[0]) if _is_norm(norm, index) else None
        if conv is None or readers[norm.input[0]] != 1 or not _is_plain(conv, index):
            continue
        _fold(conv, norm, index)
        gone.append(id(norm))
    kept = [node for node in index.nodes if id(node) not in gone]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del folded.graph.node[:]
    folded.graph.node.extend(copies)
    drop_unread(folded)
    return folded


def drop_unread(model: onnx.ModelProto) -> None:
    """Remove initializers that nothing reads, in place."""
    read = {name for node in model.graph.node for name in reads(node)}
    read |= {value.name for value in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    if len(kept) < len(model.graph.initializer):
        copies = [TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
        del model.graph.initializer[:]
        model.graph.initializer.extend(copies)


def _is_norm(node: onnx.NodeProto, index: Index) -> bool:
    return (
        node.op_type == "BatchNormalization"
        and len([name for name in node.output if name]) == 1
        and len(node.input) == 5
        and all(_is_float(name, index) for name in node.input[1:])
    )


def _is_plain(node: onnx.NodeProto, index: Index) -> bool:
    return node.op_type == "Conv" and all(_is_float(n, index) for n in node.input[1:] if n)


def _is_float(name: str, index: Index) -> bool:
    tensor = index.initializers.get(name)
    return tensor is not None and tensor.data_type == TensorProto.FLOAT


def _fold(conv: onnx.NodeProto, norm: onnx.NodeProto, index: Index) -> None:
    """Make a convolution do what its normalisation does as well, in place."""
    weights, *rest = (array_of(index.initializers[n]).astype("f8") for n in conv.input[1:] if n)
    scale, shift, mean, variance = (
        array_of(index.initializers[name]).astype("f8") for name in norm.input[1:]
    )
    bias = rest[0] if rest else np.zeros(len(weights))
    factor = scale / np.sqrt(variance + float(attribute(norm, "epsilon", _EPSILON)))
    arrays = {
        f"{conv.input[1]}/{norm.output[0]}": weights
        * factor.reshape(-1, *[1] * (weights.ndim - 1)),
        f"{norm.input[2]}/{norm.output[0]}": (bias - mean) * factor + shift,
    }
    for name, values in arrays.items():
        index.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    conv.input[1:] = list(arrays)
    conv.output[0] = norm.output[0]
