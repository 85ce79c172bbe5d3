"""Shows what a network is, and what a check of its preprocessing found.

Takes the records of the workflows ``network`` and ``check``, writes text.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from tlpipe.cli.show import say, show_rejects, show_table, shown
from tlpipe.quantities import counted

if TYPE_CHECKING:
    from tlpipe.workflows.check import CheckResult
    from tlpipe.workflows.network import Network

_WAYS = {
    "as-is": "any number of images at once, the graph as it is",
    "rewritten": "any number of images at once, after constants that fixed it were replaced",
    "one-by-one": "one image at a time: slower on a GPU",
}

_POOLINGS = {
    "none": "as it is",
    "flatten": "laid out flat",
    "mean-channels-first": "the mean over all positions",
    "mean-channels-last": "the mean over all positions",
    "cls": "its first token",
}


def network_report(network: Network) -> dict[str, Any]:
    """What was found, as plain values."""
    analysis = network.analysis
    image, decision, freed = analysis.image, analysis.decision, analysis.freed
    report: dict[str, Any] = {
        "file": str(network.path),
        **network.facts,
        "image_input": {
            "tensor": image.tensor,
            "layout": image.layout,
            "height": image.height,
            "width": image.width,
            "channels": image.channels,
            "dtype": image.dtype,
            "batch": image.batch or "free",
        },
        "kind": "undecided",
        "candidates": [
            {
                "layer": c.layer,
                "operator": c.operator,
                "outputs": c.outputs,
                "fed_by": c.tensor,
                "shape": list(c.shape),
            }
            for c in analysis.candidates
        ],
        "preprocess": network.preprocess.to_dict() if network.preprocess else None,
        "preprocess_from": network.preprocess_from,
    }
    if decision is None:
        return report | {"reason": str(analysis.undecided)}
    feature, walk = decision.feature, decision.walk
    report |= {
        "kind": "classifier" if walk else "feature extractor",
        "reason": decision.reason,
        "notes": list(decision.notes),
        "last_layers": [layer.name for layer in walk.layers] if walk else [],
        "classes": walk.classes if walk else 0,
        "tensors": list(feature.tensors),
        "shapes": [list(shape) for shape in feature.shapes],
        "pooling": feature.pooling,
        "dim": feature.dim,
    }
    if freed is not None:
        report |= {"batch_way": freed.way, "batch_difference": freed.difference}
        report |= {"batch_reasons": list(freed.reasons)}
    return report


def show_network(network: Network) -> None:
    """What a network is, where it would be cut, and why."""
    facts, analysis = network.facts, network.analysis
    image, decision = analysis.image, analysis.decision
    opsets = ", ".join(f"{domain} {version}" for domain, version in facts["opsets"].items())
    _line(f"{network.path}: ONNX network, {counted(facts['nodes'], 'node')}")
    _line(f"  producer    {facts['producer']}; IR version {facts['ir_version']}; opsets {opsets}")
    for name in ("inputs", "outputs"):
        for value in facts[name]:
            _line(f"  {name[:-1]:11} {value}")
    _line(
        f"  images      {image.height} x {image.width}, {counted(image.channels, 'channel')},"
        f" {image.layout}, {image.dtype}, into {image.tensor!r}"
    )
    if decision is None:
        _line("  UNDECIDED")
        _line(f"  reason      {analysis.undecided.message if analysis.undecided else ''}")
    else:
        _show_decision(network)
    _line("")
    rows = [
        [
            c.layer,
            c.operator,
            f"{c.outputs:,}",
            c.tensor,
            " x ".join(map(str, c.shape[1:])),
            "cut here" if decision and c.tensor in decision.feature.tensors else "",
        ]
        for c in analysis.candidates
    ]
    header = ["last layers with weights", "operator", "outputs", "fed by (--layer)", "size", ""]
    show_table(header, rows)
    if decision is None and analysis.undecided is not None:
        say(f"Hint: {analysis.undecided.hint}")
    elif network.preprocess is None:
        from tlpipe.card_rules import PREPROCESS_HINT

        say(f"The file does not say how its images are to be prepared. {PREPROCESS_HINT}")


def _show_decision(network: Network) -> None:
    analysis = network.analysis
    decision, freed = analysis.decision, analysis.freed
    assert decision is not None
    feature, walk = decision.feature, decision.walk
    if walk is not None:
        names = " and ".join(repr(layer.name) for layer in walk.layers)
        _line(f"  kind        classifier of {counted(walk.classes, 'class')}")
        _line(f"  last layer  {names} ({walk.layers[0].operator}), cut off")
    else:
        _line("  kind        feature extractor: nothing is cut off")
    _line(f"  because     {decision.reason}")
    for note in decision.notes:
        _line(f"  note        {note}")
    parts = " + ".join(
        f"{name!r} [N, {', '.join(map(str, shape[1:]))}]"
        for name, shape in zip(feature.tensors, feature.shapes, strict=True)
    )
    _line(f"  embedding   {parts}, {_POOLINGS[str(feature.pooling)]}: {feature.dim:,} numbers")
    if freed is not None:
        _line(f"  batch       {_WAYS[freed.way]}")
        exact = f"to {freed.difference:.0e} of the largest value" if freed.difference else "exactly"
        _line(f"              proved: 4 images at once give what they give one by one, {exact}")
        for reason in freed.reasons:
            _line(f"              not simpler, because {reason}")
    if network.preprocess is not None:
        spec = network.preprocess
        _line(
            f"  preprocess  {spec.colour}, {spec.resize}/{spec.crop}, (x * {spec.scale:.6g} -"
            f" {list(spec.mean)}) / {list(spec.std)}; from {network.preprocess_from}"
        )


def show_check(result: CheckResult) -> None:
    """What a backbone made of images, with each preprocessing."""
    _line(f"{result.backbone}: {counted(result.classes, 'class')}")
    if result.labels:
        some = list(result.labels.items())[:10]
        pairs = ", ".join(f"{label} = {name}" for label, name in some)
        more = f" and {len(result.labels) - 10} more" if len(result.labels) > 10 else ""
        _line(f"Labels: {pairs}{more}")
    if result.unknown and result.labels:
        _line(f"No classes of the network, left out: {', '.join(result.unknown[:10])}")
    first = result.trials[0]
    if first.top1 is None:
        for key, guesses in first.guesses.items():
            text = ", ".join(f"{name} {share:.2f}" for name, share in guesses)
            _line(f"  {key}: {text}")
    rows = [
        [
            trial.name,
            f"{trial.count:,}",
            "" if trial.top1 is None else f"{trial.top1:.3f}",
            "" if trial.top5 is None else f"{trial.top5:.3f}",
            f"{trial.confidence:.3f}",
        ]
        for trial in result.trials
    ]
    show_table(["preprocessing", "images", "top-1", "top-5", "mean probability"], rows)
    show_rejects(Counter(result.rejects), "They took no part.")
    say(result.verdict)


def _line(text: str) -> None:
    click.echo(shown(text))
