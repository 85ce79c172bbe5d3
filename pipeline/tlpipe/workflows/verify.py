"""verify: proves that the backbone inside a classifier is the pretrained one, bit by bit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tlpipe.catalogue import shipped_cards
from tlpipe.errors import ClassifierError
from tlpipe.files import is_file
from tlpipe.graph.batch import way_of
from tlpipe.graph.digest import combined, network_digest, same_graph, tensor_digests
from tlpipe.graph.head import has_own_head
from tlpipe.graph.io import load_model, metadata
from tlpipe.graph.quantise import quantised
from tlpipe.near import no_file, sentences
from tlpipe.stages.classifier import read_metadata
from tlpipe.stages.session import open_graph
from tlpipe.stages.weights import class_network, feature_network, full_network


@dataclass(frozen=True)
class VerifyResult:
    """What the comparison of a classifier with its pretrained file found.

    Attributes
    ----------
    backbone : str
        Name of the card.
    digest : str
        SHA-256 over the backbone's tensors in the classifier.
    identical, changed, foreign : list of str
        Tensors of the classifier that are bit-identical in the pretrained file, that differ from
        it, and that it does not have.
    dropped : list of str
        Tensors of the pretrained file that the classifier does not need: its own last layer. None
        where it was quantised.
    precision : str
        That of the embeddings which the head was trained on, such as "fp32" or "int8/onnxruntime".
    quantised : bool
        Whether the classifier's network is int8: then the pretrained weights were quantised again,
        with the ranges that it states, and it is with these that it was compared.
    same_graph : bool
        Whether the operators and the preprocessing between image and embedding are the same, and
        nothing but a head stands behind them.
    same_digest : bool
        Whether the digest is the one in the classifier's metadata.
    catalogued : bool
        Whether the card comes with tlpipe; else the classifier itself names the pretrained file.
    file : str
        The pretrained file, as the card names it.
    """

    backbone: str
    digest: str
    identical: list[str]
    changed: list[str]
    foreign: list[str]
    dropped: list[str]
    same_graph: bool
    same_digest: bool
    catalogued: bool
    file: str
    precision: str
    quantised: bool

    @property
    def frozen(self) -> bool:
        """Whether the backbone is the pretrained one, untouched."""
        return (
            not self.changed
            and not self.foreign
            and bool(self.identical)
            and self.same_graph
            and self.same_digest
        )


def verify(classifier: str | Path) -> VerifyResult:
    """Compare the backbone in a classifier with the pretrained file its card names.

    The pretrained weights of an int8 classifier are quantised again, with the ranges in its
    metadata: its integers must be those.

    The pretrained file is checked against the SHA-256 of the card that comes with tlpipe, or of
    the card inside the classifier where the catalogue has none of that name.

    Raises
    ------
    ClassifierError
        The file is missing or is no classifier of tlpipe.
    BackboneError
        The file cannot be read as ONNX.
    WeightsError
        The pretrained file cannot be had.
    """
    path = Path(classifier)
    if not is_file(path):
        message, hint = no_file(path, "The file")
        made = "A classifier is what 'tlpipe train' or 'tlpipe train-head' writes."
        raise ClassifierError(message, hint=sentences(hint, made))
    model = load_model(path)
    info = read_metadata(metadata(model), repr(str(path)))
    stated = info.card()
    card = shipped_cards().get(stated.name, stated)
    if card.preprocess is None:  # not published: the one that was chosen
        card = replace(card, preprocess=stated.preprocess)
    full = full_network(card)
    # A network exported with its own last layer, or a backbone with a new head behind it.
    rebuilt = class_network if has_own_head(model) else feature_network
    reference = rebuilt(card, full, open_graph, way_of(model))
    as_stated = info.fits(card)
    if info.quantised is not None:  # its integers follow from the weights and the ranges
        full = reference = quantised(reference, info.quantised.ranges)
        as_stated = as_stated and network_digest(reference) == info.quantised.network
    ours, theirs = tensor_digests(model), tensor_digests(full)
    digest = combined(ours)
    return VerifyResult(
        backbone=card.name,
        digest=digest,
        identical=sorted(name for name, value in ours.items() if theirs.get(name) == value),
        changed=sorted(n for n, value in ours.items() if theirs.get(n, value) != value),
        foreign=sorted(ours.keys() - theirs.keys()),
        dropped=sorted(theirs.keys() - ours.keys()),
        same_graph=as_stated and same_graph(model, reference, full),
        same_digest=digest == info.backbone_digest,
        catalogued=card.name in shipped_cards(),
        file=card.weights.file,
        precision=info.precision,
        quantised=info.quantised is not None,
    )
