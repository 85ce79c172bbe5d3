"""Makes a loop over images of a network for one image: the way that is always right.

Takes and gives ``onnx.ModelProto``.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from tlpipe.graph import OWN_PREFIX
from tlpipe.graph.axis import Stuck
from tlpipe.graph.index import opset_of, rename
from tlpipe.graph.proof import fixed_batch
from tlpipe.graph.references import inlined
from tlpipe.graph.tidy import converted

BATCH_PREFIX = f"{OWN_PREFIX}batch/"
"""Start of the name of everything that is added to free the batch."""

SCAN = f"{BATCH_PREFIX}scan"
"""Name of the node that is the loop."""

_SCAN_OPSET = 9  # a Scan without a batch axis of its own, over any number of steps


def scanned(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network as the body of a loop over the images.

    Parameters
    ----------
    model : onnx.ModelProto
        Takes batches of one; its outputs are vectors that state their width, (N, D). Not changed.

    Raises
    ------
    Stuck
        It takes batches of another size.
    """
    if fixed_batch(model) > 1:
        raise Stuck(f"it takes batches of {fixed_batch(model)}")
    outputs = list(model.graph.output)
    if opset_of(model) < _SCAN_OPSET:
        model = converted(model, _SCAN_OPSET)
    looped = onnx.ModelProto()
    looped.CopyFrom(model)
    (image,) = model.graph.input
    kind = image.type.tensor_type.elem_type
    sides = [d.dim_value or d.dim_param or None for d in image.type.tensor_type.shape.dim[1:]]
    row = f"{BATCH_PREFIX}image"
    body = onnx.GraphProto(name=f"{BATCH_PREFIX}body")
    body.input.append(helper.make_tensor_value_info(row, kind, sides))
    opset = opset_of(model)
    first = f"{BATCH_PREFIX}first"

    def rank(op: str, source: str, target: str) -> onnx.NodeProto:
        """Add or drop the first axis."""
        if opset < 13:
            return helper.make_node(op, [source], [target], name=f"{target}/{op}", axes=[0])
        return helper.make_node(op, [source, first], [target], name=f"{target}/{op}")

    body.node.append(rank("Unsqueeze", row, image.name))
    body.node.extend(model.graph.node)
    # Weights outside of the body would not be prepared for fast kernels by ONNX Runtime.
    body.initializer.extend(inlined(tensor) for tensor in model.graph.initializer)
    if opset >= 13:
        body.initializer.append(helper.make_tensor(first, TensorProto.INT64, [1], [0]))
    # A name may be used once, inside and outside together: the input's and outputs' are outside.
    inner = {value.name: f"{BATCH_PREFIX}inner/{value.name}" for value in outputs}
    for node in body.node:
        rename(node, {**inner, image.name: f"{BATCH_PREFIX}one"})
    for field in ("node", "initializer", "input", "output", "value_info"):
        looped.graph.ClearField(field)
    for value in outputs:
        width = value.type.tensor_type.shape.dim[1].dim_value
        single = f"{BATCH_PREFIX}single/{value.name}"
        body.node.append(rank("Squeeze", inner[value.name], single))
        body.output.append(helper.make_tensor_value_info(single, TensorProto.FLOAT, [width]))
        looped.graph.output.append(value)
    outer = f"{BATCH_PREFIX}images"
    looped.graph.input.append(helper.make_tensor_value_info(outer, kind, ["N", *sides]))
    looped.graph.node.append(
        helper.make_node("Scan", [outer], list(inner), name=SCAN, body=body, num_scan_inputs=1)
    )
    return looped
