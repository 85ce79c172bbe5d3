"""Decides what a network is: a classifier to be cut, or a feature extractor to be taken as it is.

Structure alone cannot always tell: ``Conv 1x1 -> Clip -> GlobalAveragePool`` ends SqueezeNet, a
classifier, as well as a MobileNetV2 without its classifier. What speaks for class scores is a
softmax, a width that is a usual number of classes, names; what speaks for features is a width that
networks use inside, a normalisation, a residual connection right before the output. Where the
evidence says nothing, neither does this module: it refuses, and lists the layers to choose from.

Takes a ``Trace``, gives a ``Decision``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tlpipe.errors import UndecidedError
from tlpipe.graph.features import Feature, feature_of, features_behind
from tlpipe.graph.layers import any_layer
from tlpipe.graph.trace import Trace
from tlpipe.graph.walk import Stop, Walk, walk_back

# ImageNet-1k with and without "background", CIFAR, Caltech, CUB, Food, Places, SUN, ImageNet-21k in
# its editions (full, of timm, of winter 2021, processed, of BiT), ImageNet-12k.
_USUAL_COUNTS = frozenset(
    map(
        int,
        "10 100 101 102 200 257 365 397 1000 1001 10450 11221 11821 18291 19167 21841 21842"
        " 21843".split(),
    )
)

_CLASS_WORDS = re.compile(r"class|logit|prob|predict|softmax|score|(^|[./_])head[./_]", re.I)
_FEATURE_WORDS = re.compile(r"embed|feat|proj|repr|vector|hidden|pool", re.I)


@dataclass(frozen=True)
class Decision:
    """What is to be done with a network.

    Attributes
    ----------
    feature : Feature
        What becomes the embedding.
    walk : Walk or None
        How the last layer was found; None for a feature extractor.
    reason : str
        Why, in words.
    notes : tuple of str
        What else a user should know.
    """

    feature: Feature
    walk: Walk | None
    reason: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """A place where a network could be cut."""

    layer: str
    operator: str
    outputs: int
    tensor: str
    shape: tuple[int, ...]


def candidates(trace: Trace, most: int = 8) -> list[Candidate]:
    """Layers with weights, the last first, and what feeds each."""
    found = []
    for node in reversed(trace.nodes):
        layer = any_layer(trace, node)
        if layer is None:
            continue
        tensor = feature_of(trace, layer.data)
        if tensor not in trace.producers:  # the image itself
            continue
        out = trace.shapes[layer.output]
        found.append(
            Candidate(
                layer.name,
                layer.operator,
                out[1] if layer.is_convolution and len(out) > 1 else out[-1],
                tensor,
                trace.shapes[tensor],
            )
        )
        if len(found) == most:
            break
    return found


def decide(trace: Trace, batch: int) -> Decision:
    """Decide from the graph alone.

    Parameters
    ----------
    trace : Trace
    batch : int
        Batch size of the trace.

    Raises
    ------
    UndecidedError
        The graph does not tell; the message says what is missing, the hint what to choose from.
    """
    outputs = [value.name for value in trace.graph.output if trace.is_data(value.name)]
    walks: list[Walk] = []
    stops: dict[str, str] = {}
    for output in outputs:
        try:
            walk = walk_back(trace, output, batch)
        except Stop as stop:
            stops[output] = str(stop)
            continue
        verdict, reason = _judge(walk)
        if verdict == "unsure" and walk.layers[0].data in outputs:
            verdict = "classifier"  # (embedding, scores): what feeds the layer is an output, too
        if verdict == "classifier":
            walks.append(walk)
        elif verdict == "features":
            stops[output] = reason
        else:
            raise UndecidedError(
                f"The output {output!r} could be class scores or an embedding: {reason}.",
                hint=_choices(trace),
            )
    if walks:
        walk, notes = _main(trace, walks)
        feature = features_behind(trace, walk, batch)
        scores = f"the output {walk.output!r} holds the scores of {walk.classes:,} classes"
        return Decision(feature, walk, f"{scores}: {_judge(walk)[1]}", notes)
    _refuse_odd_scores(trace, stops)
    usable = [name for name in outputs if trace.shapes.get(name, ())[:1] == (batch,)]
    if len(usable) != 1:
        what = "; ".join(f"{name!r}: {reason}" for name, reason in stops.items())
        raise UndecidedError(
            f"None of the outputs {outputs} is known to hold class scores ({what}).",
            hint=_choices(trace),
        )
    feature = Feature.whole(trace, usable[0], batch)
    return Decision(
        feature, None, f"the output {usable[0]!r} is taken as it is: {stops[usable[0]]}"
    )


def _refuse_odd_scores(trace: Trace, stops: dict[str, str]) -> None:
    """Refuse outputs that look like class scores although no last layer was found behind them."""
    for output, reason in stops.items():
        shape = trace.shapes.get(output, ())
        count = shape[-1] if len(shape) == 2 else 0
        odd = count % 8 != 0  # no width of a layer inside a network
        if count and (odd or count in _USUAL_COUNTS or _CLASS_WORDS.search(output)):
            raise UndecidedError(
                f"The output {output!r} looks like the scores of {count:,} classes, but no last"
                f" layer was found behind it: {reason}.",
                hint=_choices(trace),
            )


def _judge(walk: Walk) -> tuple[str, str]:
    """Whether a walk's output holds class scores: "classifier", "features" or "unsure", and why."""
    count, layer = walk.classes, walk.layers[0]
    for kind in ("softmax", "sigmoid", "argmax"):
        if kind in walk.passed:
            return "classifier", f"it passes a {kind}"
    if count == 1:
        return "classifier", "one number for each image is a score, not an embedding"
    if count in _USUAL_COUNTS and set(layer.kernel) <= {1}:
        return "classifier", f"{count:,} is a usual number of classes"
    inner = count % 16 == 0 and count >= 32  # a width that layers inside of networks have
    if walk.passed & {"activation", "pool"}:
        if count % 8 == 0:
            return "features", f"{count:,} values come from an activation or pooling"
        return "classifier", f"{count:,} is no usual width of a layer inside a network"
    if "batchnorm" in walk.passed and inner:
        return "features", f"{count:,} values are normalised one by one"
    if (said := _by_names(walk)) is not None:
        return said
    if not inner:
        return "classifier", f"{count:,} is no usual width of a layer inside a network"
    if not walk.passed & {"bias"}:
        return "features", f"it is a projection to {count:,} numbers without a bias"
    return "unsure", (
        f"it comes from a layer with a bias straight away, without a softmax, and {count:,} may be"
        " a number of classes as well as a width"
    )


def _by_names(walk: Walk) -> tuple[str, str] | None:
    """What names say of a walk's output; that of the output itself more than those of its layer."""
    layer = walk.layers[0]
    for names in (walk.output, " ".join((layer.name, layer.weight, layer.output))):
        says_class, says_feature = _CLASS_WORDS.search(names), _FEATURE_WORDS.search(names)
        if says_class and not says_feature:
            return "classifier", f"its names say {says_class.group()!r}"
        if says_feature and not says_class:
            return "features", f"its names say {says_feature.group()!r}"
    return None


def _main(trace: Trace, walks: list[Walk]) -> tuple[Walk, tuple[str, ...]]:
    """The walk of the main output, where there are several."""
    if len(walks) == 1:
        return walks[0], ()
    sizes = {walk.output: len(trace.ancestors([walk.layers[0].data])) for walk in walks}
    walks = sorted(walks, key=lambda walk: (sizes[walk.output], walk.is_scored), reverse=True)
    walks.sort(key=lambda walk: len(walk.layers), reverse=True)  # stable
    main, *others = walks
    data = {tuple(layer.data for layer in walk.layers) for walk in walks}
    names = [walk.output for walk in others]
    if len(data) == 1:
        return main, (f"The outputs {names} come from the same embedding.",)
    if all(set(walk.layers) <= set(main.layers) for walk in others):
        return main, (f"The outputs {names} come from parts of the same embedding.",)
    # Auxiliary classifiers branch off half-way through the network.
    if all(sizes[name] < 0.85 * sizes[main.output] for name in names):
        return main, (f"The outputs {names} branch off earlier: auxiliary classifiers.",)
    raise UndecidedError(
        f"The outputs {[walk.output for walk in walks]} hold class scores of different layers.",
        hint=_choices(trace),
    )


def _choices(trace: Trace) -> str:
    """A hint with the tensors that could be the embedding."""
    lines = [
        f"{candidate.tensor!r} {list(candidate.shape)}, which feeds {candidate.layer!r}"
        f" ({candidate.operator} with {candidate.outputs:,} outputs)"
        for candidate in candidates(trace, 4)
    ]
    lines += [
        f"{value.name!r} {list(trace.shapes.get(value.name, ()))}, an output"
        for value in trace.graph.output
    ]
    return "Say which tensor is the embedding with --layer NAME: " + "; ".join(lines) + "."


def named(trace: Trace, layer: str, batch: int) -> Feature:
    """The feature a user named: a tensor, or a node for its first output.

    Raises
    ------
    UndecidedError
        There is no such layer, or it does not hold a vector per image.
    """
    tensor = trace.tensor_of(layer)
    if not trace.is_data(tensor):
        raise UndecidedError(
            f"The network has no layer {layer!r} that depends on the image.",
            hint=_choices(trace),
        )
    return Feature.whole(trace, tensor, batch)
