"""What ``embed`` says of what it did."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tlpipe.precision import Agreement
from tlpipe.stages.source import Survey


@dataclass(frozen=True)
class EmbedResult:
    """What ``embed`` did.

    Attributes
    ----------
    path : pathlib.Path
        The feature file.
    count, dim : int
        N and D of its embeddings.
    rejects : Counter of str
        Items left out, by reason.
    too_many_rejects : bool
        Whether they are more than was allowed.
    lost_classes : list of str
        Classes of the source of which not one image could be embedded.
    survey : Survey
        What the source holds.
    provider : str
        The ONNX Runtime execution provider that ran the backbone.
    elapsed_s : float
        Wall time of embedding, start-up left out.
    embedded : int
        Images that the backbone ran over in this run.
    kept : int
        Rows taken over from the file as it was, and from an earlier run that was cut short.
    copied : int
        Images that needed no run of the backbone, since one of the very same content has a vector.
    gone : int
        Rows of the file as it was whose image is not in the source any more.
    unchanged : bool
        Whether the file was right already and was not touched.
    shared : int
        Contents that stand in more than one split.
    precision : str
        The arithmetic inside the backbone, such as "fp32" or "int8/onnxruntime".
    agreement : Agreement or None
        How embeddings at a reduced precision agree with FP32, as measured when the file was begun.
    """

    path: Path
    count: int
    dim: int
    rejects: Counter[str]
    too_many_rejects: bool
    lost_classes: list[str]
    survey: Survey
    provider: str
    elapsed_s: float
    embedded: int
    kept: int
    copied: int
    gone: int
    unchanged: bool
    shared: int
    precision: str
    agreement: Agreement | None
