"""Makes a backbone's network on 8-bit integers from its pretrained weights and a calibration.

Takes a card, an ``OpenGraph`` and a ``Calibration``, gives an ``onnx.ModelProto``, or the path of a
file in the cache of prepared networks.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tlpipe.card import Card
from tlpipe.errors import BackboneError
from tlpipe.files import whole_file
from tlpipe.precision import Calibration
from tlpipe.stages.weights.network import cached, prepared_file

if TYPE_CHECKING:
    import onnx

    from tlpipe.seams import OpenGraph


def range_file(card: Card, open_graph: OpenGraph, path: Path) -> list[str]:
    """Write the network that tells the ranges of a batch, and give the tensors that it measures.

    Parameters
    ----------
    card : Card
    open_graph : OpenGraph
    path : pathlib.Path
        Written: see ``graph.quantise.range_network``.

    Raises
    ------
    WeightsError, BackboneError, CardError, OutputError
        As from ``prepared_file``; or the network cannot be quantised.
    """
    from tlpipe.graph.io import load_model, write_model
    from tlpipe.graph.quantise import range_network

    model, tensors = range_network(load_model(prepared_file(card, open_graph)))
    with whole_file(path) as temporary:
        write_model(model, temporary)
    return tensors


def calibrated(
    card: Card, open_graph: OpenGraph, ranges: dict[str, tuple[float, float]], images: int
) -> Calibration:
    """The calibration that some ranges make.

    Raises
    ------
    WeightsError, BackboneError, CardError, OutputError
        As from ``prepared_file``.
    """
    from tlpipe.graph.digest import network_digest
    from tlpipe.graph.io import load_model
    from tlpipe.graph.quantise import quantised

    model = quantised(load_model(prepared_file(card, open_graph)), ranges)
    return Calibration("min-max", images, network_digest(model), ranges)


def quantised_network(features: onnx.ModelProto, calibration: Calibration) -> onnx.ModelProto:
    """The network of `features` (see ``feature_network``) on 8-bit integers.

    Raises
    ------
    BackboneError
        It cannot be quantised, or becomes another one than the calibration states.
    """
    from tlpipe.graph.digest import network_digest
    from tlpipe.graph.quantise import quantised

    model = quantised(features, calibration.ranges)
    digest = network_digest(model)
    if digest != calibration.network:
        raise BackboneError(
            f"Quantised with the ranges that are stored, the network has the digest"
            f" {digest[:12]}..., not {calibration.network[:12]}... as stated beside them.",
            hint="The ranges were altered, or this tlpipe quantises in another way: use the version"
            " that made the file, or embed anew with --overwrite.",
        )
    return model


def quantised_file(card: Card, calibration: Calibration, open_graph: OpenGraph) -> Path:
    """Path of the cached quantised network, built at the first use.

    Raises
    ------
    WeightsError, BackboneError, CardError, OutputError
        As from ``prepared_file`` and ``quantised_network``.
    """
    from tlpipe.graph.io import load_model

    def build() -> onnx.ModelProto:
        return quantised_network(load_model(prepared_file(card, open_graph)), calibration)

    facts = ["int8", calibration.network, sorted(calibration.ranges.items())]
    return cached(card, facts, build)
