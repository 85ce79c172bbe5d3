"""A network of the user's own: what an ONNX file is, and what can be made of it.

Takes the path of the file and what a user says of it (``BackboneOptions``), gives a ``Network``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlpipe.errors import BackboneError, OptionError
from tlpipe.files import is_file
from tlpipe.near import no_file, sentences
from tlpipe.presets import find_preprocess, from_metadata
from tlpipe.stages.session import open_graph
from tlpipe.types import POOLING_CHOICES, PoolingChoice, Preprocess

if TYPE_CHECKING:
    from tlpipe.graph.analyse import Analysis


@dataclass(frozen=True)
class BackboneOptions:
    """What a user says of a network that has no card.

    Attributes
    ----------
    preprocess : str or None
        How images were prepared when it was trained: a preset, or the path of a card to take it
        from; None where the card or the file says it.
    layer : str or None
        The tensor, or the node whose output, is the embedding; None for what feeds the last layer.
    pooling : {"mean", "cls", "flatten"} or None
        How that becomes one vector, where it is more than one.
    input : str or None
        The input that takes images, where there are several.
    image_size : int, tuple of int or None
        Height and width in pixels, where the file leaves them open.
    """

    preprocess: str | None = None
    layer: str | None = None
    pooling: PoolingChoice | None = None
    input: str | None = None
    image_size: int | tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.pooling not in (None, *POOLING_CHOICES):
            raise OptionError(
                f"The pooling {self.pooling!r} is unknown.",
                hint=f"Use one of {list(POOLING_CHOICES)}.",
            )

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width."""
        size = self.image_size
        return (size, size) if isinstance(size, int) else size


@dataclass(frozen=True)
class Network:
    """An ONNX file that was looked into.

    Attributes
    ----------
    path : pathlib.Path
    analysis : Analysis
    facts : dict
        "ir_version" and "nodes" (int), "opsets" (dict of str to int), "producer" (str), "inputs"
        and "outputs" (lists of str).
    preprocess : Preprocess or None
        As the file or the user says.
    preprocess_from : str
        Who says so; "" where nobody does.
    """

    path: Path
    analysis: Analysis
    facts: dict[str, Any]
    preprocess: Preprocess | None
    preprocess_from: str


def check_there(path: Path) -> None:
    """Refuse the path of a network that is not there.

    Raises
    ------
    BackboneError
    """
    if not is_file(path):
        message, hint = no_file(path, "The network")
        listed = "'tlpipe models list' shows backbones that need no file."
        raise BackboneError(message, hint=sentences(hint, listed))


def look_into(path: Path, options: BackboneOptions, *, prove: bool = True) -> Network:
    """Find out what an ONNX file is and what can be made of it.

    Parameters
    ----------
    path : pathlib.Path
    options : BackboneOptions
    prove : bool
        Whether to prove that its batch can be freed.

    Raises
    ------
    BackboneError
        The file is missing, cannot be run, or its input is not understood.
    CardError
        The preprocessing that was named or that the file states makes no sense.
    """
    from tlpipe.graph.analyse import Choices, analyse
    from tlpipe.graph.io import load_model, metadata, signature

    check_there(path)
    model = load_model(path)
    flat = metadata(model)
    if flat.get("format") == "tlpipe-classifier":
        raise BackboneError(
            f"{str(path)!r} is a classifier that tlpipe made, not a backbone.",
            hint="Use the backbone it was made from: 'tlpipe inspect' names it.",
        )
    choices = Choices(options.layer, options.pooling, options.input, options.size)
    analysis = analyse(model, open_graph, choices, prove=prove)
    size, channels = (analysis.image.height, analysis.image.width), analysis.image.channels
    preprocess, said_by = from_metadata(flat, size), "the file's metadata"
    if options.preprocess is not None:
        preprocess = find_preprocess(options.preprocess, size, channels)
        said_by = f"--preprocess {options.preprocess}"
    facts = {
        "ir_version": model.ir_version,
        "opsets": {entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        "producer": f"{model.producer_name} {model.producer_version}".strip() or "not stated",
        "nodes": len(model.graph.node),
        **signature(model),
    }
    return Network(path, analysis, facts, preprocess, said_by if preprocess else "")
