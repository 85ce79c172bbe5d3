"""models: what can be done with a backbone itself."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tlpipe.card import Card
from tlpipe.errors import BackboneError, OptionError
from tlpipe.execution import ON_CPU
from tlpipe.files import check_output, whole_file
from tlpipe.graph.digest import weights_digest
from tlpipe.graph.head import with_metadata
from tlpipe.graph.io import write_model
from tlpipe.stages.classifier import ClassifierInfo
from tlpipe.stages.session import open_graph, open_network
from tlpipe.stages.weights import class_network, full_network, resolved, weight_files
from tlpipe.types import DEFAULT_BACKBONE
from tlpipe.version import __version__
from tlpipe.workflows.backbones import find_backbone
from tlpipe.workflows.common import PRECISION, now
from tlpipe.workflows.pixels import decoder_of


def export_backbone(
    output: str | Path,
    *,
    backbone: str | Card = DEFAULT_BACKBONE,
    classes: Sequence[str] | None = None,
    overwrite: bool = False,
) -> list[str]:
    """Write a backbone with its own last layer, as a classifier of tlpipe's form.

    So anyone can check a backbone and its preprocessing against the classes it was trained on,
    with ``classify`` and ``evaluate``: through the very code that embeds and serves.

    Parameters
    ----------
    output : str or pathlib.Path
        The ONNX file to write.
    backbone : str or Card
        As for ``embed``.
    classes : sequence of str, optional
        Names of the network's own classes, in the order of its outputs; by default their numbers,
        from "0".
    overwrite : bool
        Whether an existing `output` may be replaced.

    Returns
    -------
    list of str
        The names of the classes.

    Raises
    ------
    OptionError
        `classes` has another number of names than the network has classes, or a name twice.
    UnknownBackboneError, CardError, WeightsError, BackboneError
        The backbone cannot be had, or has no classes of its own.
    OutputError
        The output cannot be written.
    """
    output = Path(output)
    check_output(output, overwrite=overwrite, suffixes=(".onnx",))
    card = find_backbone(backbone)
    check_output(output, overwrite=overwrite, inputs=weight_files(card))
    full = full_network(card)
    card = dataclasses.replace(card, output=resolved(card, full, open_graph))
    model = class_network(card, full, open_graph)
    count = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    names = [str(number) for number in range(count)] if classes is None else list(classes)
    if len(names) != count or len(set(names)) != count:
        raise OptionError(
            f"{len(names)} class names were given, {len(set(names))} of them distinct;"
            f" {card.name!r} has {count} classes.",
            hint="Give one name per line, in the order of the network's outputs.",
        )
    decoder = decoder_of("auto")
    info = ClassifierInfo(
        classes=tuple(names),
        image_size=card.image_size,
        preprocess=card.arithmetic,
        backbone=json.loads(card.to_json()),
        training={"method": "the network's own last layer, as published"},
        metrics={},
        tlpipe_version=__version__,
        created_at=now(),
        fingerprint=card.fingerprint(precision=PRECISION, decoder=decoder),
        precision=PRECISION,
        decoder=decoder,
        backbone_digest=weights_digest(model),
    )
    with whole_file(output) as temporary:
        write_model(with_metadata(model, info.to_metadata()), temporary)
        _try(temporary, card)
    return names


def _try(path: Path, card: Card) -> None:
    """Run the file once: a card that does not fit its network is found here, not by its user."""
    blank = np.zeros((1, *card.image_size, 3), np.uint8)
    shape = open_network(path, ON_CPU).run(blank)["embeddings"].shape
    if shape != (1, card.output.dim):
        raise BackboneError(
            f"The tensors {list(card.output.tensors)} give embeddings of the shape {shape}, not"
            f" (1, {card.output.dim}).",
            hint="Correct 'tensors' or 'dim' under [output] in the backbone's card.",
        )
