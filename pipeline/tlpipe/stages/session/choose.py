"""Chooses what runs a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tlpipe.execution import Execution
from tlpipe.stages.session.ort import OrtNetwork

if TYPE_CHECKING:
    from tlpipe.seams import OpenedNetwork


def open_network(model: Path | bytes, execution: Execution) -> OpenedNetwork:
    """Open a network.

    Parameters
    ----------
    model : pathlib.Path or bytes
        An ONNX file, or its content.
    execution : Execution

    Raises
    ------
    DeviceError
        The device that was asked for, or a GPU that was found, cannot be used.
    BackboneError
        The file cannot be opened.
    """
    return OrtNetwork(model, execution)
