"""Opens an ONNX Runtime session the one way in which tlpipe runs networks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import onnxruntime

from tlpipe.errors import BackboneError
from tlpipe.files import is_utf8

CPU = "CPUExecutionProvider"

EXPORT_AGAIN = "Export it again for this ONNX Runtime ('tlpipe doctor' names its version)."
"""Hint where ONNX Runtime cannot do with a network."""

# Merges a Pad with zeros into a MaxPool, which pads with the lowest number: wrong where values may
# be negative (ResNet v2 of Keras, exported with channels first: a third off, ONNX Runtime 1.31).
# The second makes 8-bit integers, with one scale for all channels, of float weights that stand
# between quantised activations (cosine of EfficientNet-Lite0's embeddings 0.86 in place of 0.998).
WRONG_OPTIMIZERS = ["Pad_Fusion", "WeightBiasQuantization"]


def open_session(model: Path | bytes, providers: list[Any]) -> onnxruntime.InferenceSession:
    """Open a network on some execution providers.

    Raises
    ------
    BackboneError
        ONNX Runtime cannot open it.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; what matters of the warnings is checked by us
    # One thread inside, several around: on two cores 162 images/s against 119 with a session that
    # splits each operator over the cores, since no thread ever waits for another.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        session = onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else _path(model),
            options,
            providers=providers,
            disabled_optimizers=WRONG_OPTIMIZERS,
            # Else a provider that fails, now or in the middle of a run, is exchanged for another.
            enable_fallback=0,
        )
        session.disable_fallback()
        return session
    except Exception as exc:  # ONNX Runtime's exceptions have no common base
        name = "The network" if isinstance(model, bytes) else f"{str(model)!r}"
        raise BackboneError(
            f"{name} cannot be opened by ONNX Runtime: {exc}",
            hint=EXPORT_AGAIN,
        ) from exc


def placement(session: Any) -> Counter[str]:
    """How many of a network's operators each provider runs.

    Empty where ONNX Runtime does not say, as before version 1.24. Source: onnxruntime pull request
    #26781.
    """
    try:
        parts = session.get_provider_graph_assignment_info()
    except Exception:  # it has no such method, or refuses
        return Counter()
    counts: Counter[str] = Counter()
    for part in parts:
        counts[part.ep_name] += len(part.get_nodes())
    return counts


def _path(path: Path) -> str | bytes:
    """`path` as ONNX Runtime takes it: it cannot read a name that is no UTF-8, but a content."""
    return str(path) if is_utf8(str(path)) else path.read_bytes()
