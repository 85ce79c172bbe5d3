"""Runs a graph that is being worked on, as it stands: see ``seams.OpenGraph``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import onnxruntime

from tlpipe.errors import BackboneError
from tlpipe.stages.session.opening import CPU, EXPORT_AGAIN, WRONG_OPTIMIZERS

if TYPE_CHECKING:
    from tlpipe.seams import RunGraph


class _OpenedGraph:
    """A graph that is being worked on, run as it stands; see ``seams.RunGraph``."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session

    def __call__(self, feeds: Mapping[str, Any], outputs: Sequence[str]) -> list[Any]:
        try:
            values: list[Any] = self._session.run(list(outputs), dict(feeds))
        except Exception as exc:  # ONNX Runtime's exceptions have no common base
            raise BackboneError(
                f"The network cannot be run: {exc}",
                hint=EXPORT_AGAIN,
            ) from exc
        return values


def open_graph(content: bytes, folder: str, *, optimised: bool = False) -> RunGraph:
    """Open a graph for surgery, on the CPU: see ``seams.OpenGraph``.

    Parameters
    ----------
    content : bytes
        A serialized network.
    folder : str
        Where its external data are; they are mapped, not copied.
    optimised : bool
        Whether to fuse operators, as ``OrtNetwork`` does.

    Raises
    ------
    BackboneError
        ONNX Runtime cannot open it.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # Looking at a shape comes first, so that a tensor is let go as soon as it can be.
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    # All of its fusions, where optimised; but not the layouts of weights that it adds at its last
    # level, which would hold them in memory twice more.
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = (
        level.ORT_ENABLE_EXTENDED if optimised else level.ORT_DISABLE_ALL
    )
    options.add_session_config_entry("session.disable_prepacking", "1")  # a copy of the weights
    if folder:
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", folder
        )
    options.enable_cpu_mem_arena = False
    try:
        session = onnxruntime.InferenceSession(
            content, options, providers=[CPU], disabled_optimizers=WRONG_OPTIMIZERS
        )
    except Exception as exc:  # ONNX Runtime's exceptions have no common base
        raise BackboneError(
            f"The network cannot be opened by ONNX Runtime: {exc}",
            hint=EXPORT_AGAIN,
        ) from exc
    return _OpenedGraph(session)
