"""check: runs a backbone with its own last layer, so that a wrong preprocessing is seen.

A wrong preprocessing raises no error and looks plausible; it only makes the network worse. So the
network is run with its own classes, the way its card prepares images and, beside that, every other
way that is common: on images whose classes it knows the right one stands out, and on any others its
five likeliest classes can be read. Takes a backbone and a source, gives a ``CheckResult``.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tlpipe.card import Card
from tlpipe.catalogue import find_card
from tlpipe.class_names import ClassNames, class_names
from tlpipe.errors import CardError, OptionError, SourceError
from tlpipe.graph.analyse import prepared_input
from tlpipe.graph.io import write_model
from tlpipe.presets import PRESETS, find_preprocess, preset
from tlpipe.quantities import by_count
from tlpipe.stages.session import open_graph, open_network
from tlpipe.stages.source import Source
from tlpipe.stages.weights import class_networks, full_network, resolved
from tlpipe.types import Item, Preprocess, ProgressCallback
from tlpipe.workflows.backbones import import_network, is_network
from tlpipe.workflows.common import as_source, spread
from tlpipe.workflows.network import BackboneOptions
from tlpipe.workflows.pixels import decoder_of, loader
from tlpipe.workflows.run_options import RunOptions
from tlpipe.workflows.running import run_over

if TYPE_CHECKING:
    from tlpipe.types import Float32Array

TOP = 5
MOST_SHOWN = 8
MOST_IMAGES = 200


@dataclass(frozen=True)
class Trial:
    """What a network does with one preprocessing.

    Attributes
    ----------
    name : str
        Of the preprocessing.
    stated : bool
        Whether it is the one that the card, the file or the user states.
    count : int
        Images that could be read.
    top1, top5 : float or None
        Share of the images whose class is the likeliest, or among the five likeliest; None where
        their classes are not known.
    confidence : float
        Mean probability of the likeliest class.
    guesses : dict of str to list of (str, float)
        The likeliest classes of some images, by key.
    """

    name: str
    stated: bool
    count: int
    top1: float | None
    top5: float | None
    confidence: float
    guesses: dict[str, list[tuple[str, float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class CheckResult:
    """What ``check_backbone`` found.

    Attributes
    ----------
    backbone : str
    classes : int
        C of the network's own last layer.
    labels : dict of str to str
        Labels of the images and the network's classes they were taken for.
    unknown : list of str
        Labels that are no class of the network.
    trials : list of Trial
        The stated preprocessing first, where there is one.
    verdict : str
        What the figures say, in words.
    rejects : dict of str to int
        Number of images that could not be read, by reason.
    too_many_rejects : bool
        Whether they are more than the options allow.
    """

    backbone: str
    classes: int
    labels: dict[str, str]
    unknown: list[str]
    trials: list[Trial]
    verdict: str
    rejects: dict[str, int] = field(default_factory=dict)
    too_many_rejects: bool = False


def check_backbone(
    backbone: str | Path | Card,
    source: Source | str | Path,
    *,
    backbone_options: BackboneOptions | None = None,
    options: RunOptions | None = None,
    most: int = MOST_IMAGES,
    progress: ProgressCallback | None = None,
) -> CheckResult:
    """Run a backbone with its own classes on images, with its preprocessing and with others.

    Parameters
    ----------
    backbone : str, pathlib.Path or Card
        As for ``find_backbone``; its preprocessing need not be known.
    source : Source, str or pathlib.Path
        Images. Where their labels are classes of the network (their number, WordNet identifier or
        name), it is judged on them.
    backbone_options : BackboneOptions, optional
        As for ``find_backbone``; the preprocessing that is named takes the place of the stated one.
    options : RunOptions, optional
    most : int
        Number of images to run at most, spread evenly over the source.
    progress : callable, optional

    Raises
    ------
    BackboneError
        The network has no classes of its own, or cannot be used.
    OptionError
        The precision is int8.
    SourceError
        The source cannot be listed, or no image of it can be read.
    """
    options = options or RunOptions()
    if options.precision == "int8":
        raise OptionError(
            "A backbone's own classes are not offered at int8: quantising needs images of yours.",
            hint="Leave --precision out: what is checked here is the preprocessing.",
        )
    card, stated = _card_and_preprocess(backbone, backbone_options or BackboneOptions())
    source = as_source(source, None)
    items = list(spread(source, most))
    full = full_network(card)
    card = replace(card, output=resolved(card, full, open_graph))
    image, _ = prepared_input(full, card.input.tensor, card.image_size, open_graph)
    ways = _ways(card, stated, grey=image.channels == 1)
    networks = class_networks(card, full, open_graph, [way for _, way in ways])
    count = networks[0].graph.output[0].type.tensor_type.shape.dim[1].dim_value
    names = class_names(count)
    truth = {label: names.find(label) for label in sorted({i.label for i in items if i.label})}
    known = {label: number for label, number in truth.items() if number is not None}
    trials = []
    judged = [i for i in items if i.label in known] if known else items
    with tempfile.TemporaryDirectory(prefix="tlpipe-") as folder:
        path = Path(folder) / "network.onnx"
        for (name, way), model in zip(ways, networks, strict=True):
            write_model(model, path)
            network = open_network(path, options.execution)
            load = loader(source.reader, card.image_size, way, decoder_of(options.decode))
            rows, rejects = [], Counter[str]()
            for outcome in run_over(judged, len(judged), network, load, options, progress, "check"):
                if outcome.reject is None:
                    rows.append((outcome.item, outcome.values["probabilities"]))
                else:
                    rejects[outcome.reject.reason.value] += 1
            if not rows:
                raise SourceError(
                    f"No image of {source.name!r} could be read: {by_count(rejects)}.",
                    hint="Name a source of images that can be read.",
                )
            trials.append(_trial(name, stated is not None and way == stated, rows, known, names))
    return CheckResult(
        backbone=card.name,
        classes=count,
        labels={label: names.names[number] for label, number in known.items()},
        unknown=sorted(truth.keys() - known.keys()),
        trials=trials,
        verdict=_verdict(trials),
        rejects=dict(rejects),
        too_many_rejects=options.too_many(rejects.total(), len(judged)),
    )


def _card_and_preprocess(
    backbone: str | Path | Card, options: BackboneOptions
) -> tuple[Card, Preprocess | None]:
    """A backbone's card, and the preprocessing to be judged, where one is stated."""
    if is_network(backbone):
        card = import_network(Path(backbone), options)
        return card, card.preprocess
    card = backbone if isinstance(backbone, Card) else find_card(backbone)
    if replace(options, preprocess=None) != BackboneOptions():
        raise CardError(
            f"The card of {card.name!r} states already what its layers and its input are.",
            hint="Name a network (.onnx) instead, or leave out all but --preprocess.",
        )
    if options.preprocess is None:
        return card, card.preprocess
    return card, find_preprocess(options.preprocess, card.image_size)


def _ways(card: Card, stated: Preprocess | None, *, grey: bool) -> list[tuple[str, Preprocess]]:
    """The stated preprocessing first, then the presets that differ from it and fit the network."""
    ways = [] if stated is None else [("as stated", stated)]
    for name in PRESETS:
        way = preset(name, card.image_size)
        if grey:
            way = replace(way, colour="grey")
            if len({*way.mean}) > 1:
                continue
        if card.input.dtype == "uint8" and not way.is_plain:
            continue
        if way != stated:
            ways.append((name, way))
        else:
            ways[0] = (f"as stated: {name}", way)
    return ways


def _trial(
    name: str,
    stated: bool,
    rows: Sequence[tuple[Item, Float32Array]],
    known: dict[str, int],
    names: ClassNames,
) -> Trial:
    order = [np.argsort(-values)[:TOP] for _, values in rows]
    best = [float(values.max()) for _, values in rows]
    top1 = top5 = None
    if known:
        truth = [known[str(item.label)] for item, _ in rows]
        pairs = list(zip(order, truth, strict=True))
        top1 = sum(guess[0] == k for guess, k in pairs) / len(pairs)
        top5 = sum(k in guess for guess, k in pairs) / len(pairs)
    shown = {
        rows[at][0].key: [(names.names[k], float(rows[at][1][k])) for k in order[at]]
        for at in _some(len(rows))
    }
    return Trial(name, stated, len(rows), top1, top5, sum(best) / len(best), shown)


def _some(count: int) -> Iterator[int]:
    """Positions of a few images, evenly spread."""
    shown = min(count, MOST_SHOWN)
    return (int(position * count / shown) for position in range(shown))


def _verdict(trials: Sequence[Trial]) -> str:
    """What the figures say of the stated preprocessing."""
    judged = all(trial.top1 is not None for trial in trials)
    if not judged:
        return (
            "The images' labels are no classes of the network: read the likeliest classes. A right"
            " preprocessing names what is seen; mean probabilities alone prove nothing."
        )
    best = max(trials, key=lambda trial: trial.top1 or 0.0)
    first = trials[0]
    if not first.stated:
        close = [trial.name for trial in trials if trial is not best and _is_chance(trial, best)]
        if close:
            return (
                f"{best.name!r} is the best of these, but not by more than chance: {close} may be"
                " right as well. More images tell."
            )
        return f"{best.name!r} is the best of these: state it with --preprocess."
    share, other = first.top1 or 0.0, best.top1 or 0.0
    if _is_chance(first, best):
        return "No other preprocessing is better by more than chance: the stated one seems right."
    return (
        f"{best.name!r} is better than the stated preprocessing by"
        f" {100 * (other - share):.1f} points: the stated one is probably wrong."
    )


def _is_chance(less: Trial, more: Trial) -> bool:
    """Whether a trial may be better than another by chance: by two standard errors at most.

    The errors are those of Agresti and Coull's estimate of a share, (k + 1) / (n + 2), which are
    not 0 where none or all of a few images are right.
    """
    variance = 0.0
    for trial in (less, more):
        share = ((trial.top1 or 0.0) * trial.count + 1) / (trial.count + 2)
        variance += share * (1 - share) / trial.count
    return bool((more.top1 or 0.0) - (less.top1 or 0.0) <= 2 * variance**0.5)
