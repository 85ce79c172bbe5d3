"""The claim, shown: a head from cached embeddings, against what PyTorch does with the same network.

Run: ``make bench-claim SOURCE="folder folder" [BUDGET=600] [IMAGES=200]``. On each source, with the
same weights of EfficientNet-Lite0, the same images for training and for judging (those of
``tlpipe train-head``), one after the other, each in a process of its own:

* ``tlpipe embed``, once, and ``tlpipe train-head`` from what it stored;
* the same last layer trained in PyTorch while the frozen backbone runs anew in each epoch;
* all weights trained in PyTorch, from a last layer that starts at random: at a usual learning rate,
  and at ten times that, which shows what large early errors do to weights that were good.

The clock of tlpipe runs from the start of its commands to their ends and takes in the embedding of
the held-out images. That of PyTorch stands still while held-out images are judged, which is after
each epoch; its best epoch is chosen on these, and so was the learning rate of its last layer. All
of this favours PyTorch, which also gets one process per core to decode, channels last, and glibc
told to keep memory (``contenders.KEEP_MEMORY``).

Writes all figures as JSON and draws them; ``--redraw FILE.json`` prints and draws an earlier run.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from chart import draw
from children import RunError, run
from conditions import Others, conditions
from contenders import KEEP_MEMORY, SCRIPTS, Environments
from image_set import embed_command, link
from insides import items, planned

HEAD_RATE = 3e-3
"""Of Adam on the last layer alone, in batches of 64. Tried on the stored embeddings of cats-vs-dogs
and clothing, three seeds each: 0.0003 to 0.03 in batches of 32 and 64. This pair comes within half
a point of tlpipe soonest among those that do so with every seed: after 2 epochs, and after 7 to 8
on clothing, where 0.001 takes 8 to 19 and 0.01 takes from 3 to more than 30."""

MARGIN = 0.005
"""Of accuracy: what a peer may miss of tlpipe's and count as having reached it."""

WIDTH = 56


def contenders(rate: float) -> list[tuple[str, list[str]]]:
    """Names, and options of ``peers/torch_train.py``; `rate` is that of training everything."""
    everything = ["everything", "--batch", "32", "--rate"]
    return [
        (
            "PyTorch: the last layer, backbone run anew each epoch",
            ["head", "--batch", "64", "--rate", f"{HEAD_RATE:g}"],
        ),
        ("PyTorch: everything, from a random head", [*everything, f"{rate:g}"]),
        ("PyTorch: everything, ten times the rate", [*everything, f"{10 * rate:g}"]),
    ]


def subset(source: Path, folder: Path, most: int) -> Path:
    """Link at most `most` images of a source, evenly chosen, where the same splits stand."""
    found = list(items(source))
    chosen = {found[i * len(found) // most].key for i in range(most)}
    for item in found:
        if len(found) <= most or item.key in chosen:
            path = folder / item.key
            path.parent.mkdir(parents=True, exist_ok=True)
            link(Path(item.place), path)
    return folder


def run_tlpipe(source: Path, work: Path) -> dict[str, Any]:
    """Embed and train by the commands; seconds of each, and what the classifier's report says."""
    features, classifier = work / "features.h5", work / "classifier.onnx"
    embedded = run(embed_command(source, features, "fp32"))
    command = [sys.executable, "-m", "tlpipe", "train-head", str(features)]
    trained = run([*command, "-o", str(classifier), "--overwrite"])
    report = json.loads(classifier.with_suffix(".metrics.json").read_text())["metrics"]
    return {
        "embed_s": embedded.seconds,
        "train_head_s": trained.seconds,
        "accuracy": report["accuracy"],
        "log_loss": report["log_loss"],
        "peak_bytes": max(embedded.peak_bytes, trained.peak_bytes),
    }


def write_plan(source: Path, features: Path, path: Path) -> dict[str, int]:
    """Write which images train and which judge, as ``train-head`` has it; the counts of these."""
    paths = {item.key: str(Path(item.place).resolve()) for item in items(source)}
    found = planned(features)
    data, plan = found.data, found.plan

    def pairs(rows: Any) -> list[tuple[str, int]]:
        return [(paths[data.keys[row]], int(data.labels[row])) for row in rows]

    train, judge = pairs(plan.fit), pairs(plan.judge)
    path.write_text(json.dumps({"classes": len(data.classes), "train": train, "judge": judge}))
    return {"train": len(train), "judge": len(judge), "classes": len(data.classes)}


def measure(
    source: Path, work: Path, environments: Environments, chosen: argparse.Namespace
) -> dict[str, Any]:
    """Run everything over one source."""
    others = Others()
    folder = subset(source, work / "images", chosen.images) if chosen.images else source
    own = run_tlpipe(folder, work)
    print(f"{source.name}: {told(own)}", flush=True)
    plan = work / "plan.json"
    counts = write_plan(folder, work / "features.h5", plan)
    peers = []
    for name, options in contenders(chosen.rate):
        command = [str(environments.python("torch")), str(SCRIPTS / "torch_train.py"), str(plan)]
        command += [
            *options,
            "--seed",
            str(chosen.seed),
            "--epochs",
            str(chosen.epochs),
            "--budget-s",
            str(chosen.budget_s),
        ]
        peer: dict[str, Any] = {"name": name, "options": options}
        try:
            done = run(command, KEEP_MEMORY)
            peer |= {"curve": done.figures["curve"], "peak_bytes": done.peak_bytes}
            last = peer["curve"][-1]
            print(f"{source.name}: {name}: {len(peer['curve']) - 1} epochs, {last}", flush=True)
        except RunError as exc:
            peer["failure"] = str(exc)
        peers.append(peer)
    told_of = {"name": source.name, "others": others.told()}
    return {**told_of, **counts, "tlpipe": own, "peers": peers}


def told(own: dict[str, Any]) -> str:
    """What tlpipe took and reached, in a line."""
    return (
        f"tlpipe embed {own['embed_s']:.1f} s, train-head {own['train_head_s']:.1f} s,"
        f" accuracy {own['accuracy']:.4f}"
    )


def reached(curve: list[dict[str, float]], target: float) -> float | None:
    """Seconds to the end of the first epoch with that accuracy; None where there is none."""
    return next((at["seconds"] for at in curve if at["accuracy"] >= target), None)


def peer_line(peer: dict[str, Any], target: float, whole_s: float) -> str:
    """A row of the table."""
    if "failure" in peer:
        return f"{peer['name']:{WIDTH}}    not measured: {peer['failure']}"
    curve = peer["curve"][1:]
    seconds, end_s = reached(curve, target), curve[-1]["seconds"]
    if seconds is None:
        time, ratio = f"not within {end_s:.0f} s", f"> {end_s / whole_s:.1f}"
    else:
        time, ratio = f"{seconds:.1f} s", f"{seconds / whole_s:.1f}"
    best = max(curve, key=lambda at: at["accuracy"])
    return (
        f"{peer['name']:{WIDTH}}{time:>20}{ratio:>9}{best['accuracy']:>9.4f}"
        f"{best['seconds']:>9.0f} s{curve[0]['accuracy']:>9.4f}{curve[-1]['accuracy']:>9.4f}"
        f"{end_s / len(curve):>9.1f} s{len(curve):>8}"
        f"{curve[0]['kept']:>9.2f}{curve[-1]['kept']:>6.2f}"
        f"{peer['peak_bytes'] / 1e6:>9.0f} MB"
    )


def show(result: dict[str, Any]) -> None:
    """Print the table of one source."""
    own = result["tlpipe"]
    whole_s, target = own["embed_s"] + own["train_head_s"], own["accuracy"] - MARGIN
    print(
        f"\n{result['name']}: {result['train']:,} images to train with, {result['judge']:,} held"
        f" out, {result['classes']} classes; to be reached: {target:.4f}, tlpipe's accuracy"
        f" less {100 * MARGIN:.1f} points"
    )
    print(
        f"{'':{WIDTH}}{'time to reach it':>20}{'times':>9}{'best':>9}{'after':>11}"
        f"{'first':>9}{'last':>9}{'an epoch':>11}{'epochs':>8}{'kept: 1, all':>15}{'memory':>12}"
    )
    memory = f"{own['peak_bytes'] / 1e6:.0f} MB"
    print(
        f"{'tlpipe embed and train-head':{WIDTH}}{whole_s:>18.1f} s{1:>9.1f}{own['accuracy']:>9.4f}"
        f"{whole_s:>9.0f} s{'':52}{memory:>12}"
    )
    again = own["train_head_s"]
    print(
        f"{'  train-head alone: any further head':{WIDTH}}{again:>18.1f} s{again / whole_s:>9.2f}"
        f"{own['accuracy']:>9.4f}"
    )
    for peer in result["peers"]:
        print(peer_line(peer, target, whole_s))
    print(f"other processes meanwhile: {result['others']}")


def show_all(report: dict[str, Any]) -> None:
    """Print the conditions and all tables."""
    for result in report["sources"]:
        show(result)
    print(
        "\ntimes: of tlpipe's whole time. first, last: accuracy after these epochs; best: of all,"
        "\nwhich only those know who look at the held-out images. kept: part of these to which the"
        "\noriginal network, with the backbone as it is after one and after all epochs, still gives"
        "\nthe ImageNet class of before. Times to reach are ends of epochs."
    )
    for name, value in report["conditions"].items():
        print(f"{name}: {value}")


def parsed() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", type=Path, nargs="*", help="folders of labelled images")
    parser.add_argument("--budget-s", type=float, default=600.0, help="of each of PyTorch's")
    parser.add_argument("--epochs", type=int, default=100, help="most epochs of each of these")
    parser.add_argument("--rate", type=float, default=3e-4, help="of training everything (Adam)")
    parser.add_argument("--seed", type=int, default=0, help="of PyTorch's runs")
    parser.add_argument("--images", type=int, help="this many of each source, evenly chosen")
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="what is kept")
    parser.add_argument("--json", type=Path, help="where the figures go [FOLDER/claim.json]")
    parser.add_argument("--chart", type=Path, help="where the picture goes [FOLDER/claim.svg]")
    parser.add_argument("--redraw", type=Path, help="print and draw the figures of this file")
    chosen = parser.parse_args()
    if bool(chosen.sources) == bool(chosen.redraw):
        parser.error("name folders of labelled images, or --redraw a file of figures")
    for path in [*chosen.sources, *([chosen.redraw] if chosen.redraw else [])]:
        if not path.exists():
            parser.error(f"there is nothing at {path}")
    if chosen.epochs < 1 or chosen.budget_s <= 0 or (chosen.images or 1) < 1:
        parser.error("epochs, seconds and images are numbers above 0")
    chosen.json = chosen.json or chosen.folder / "claim.json"
    chosen.chart = chosen.chart or chosen.folder / "claim.svg"
    return chosen


def main() -> None:
    """Measure, print, write and draw."""
    chosen = parsed()
    if chosen.redraw:
        report = json.loads(chosen.redraw.read_text())
    else:
        chosen.folder.mkdir(parents=True, exist_ok=True)
        environments = Environments(chosen.folder.resolve() / "environments")
        try:
            environments.make("torch")
        except RunError as exc:
            sys.exit(f"there is no PyTorch to compare with: {exc}")
        told_of = {
            **conditions(),
            "torch": environments.versions("torch"),
            "budget": f"{chosen.budget_s:.0f} s or {chosen.epochs} epochs for each of PyTorch's",
            "images": chosen.images or "all",
        }
        report = {"conditions": told_of, "sources": []}
        for source in chosen.sources:
            work = Path(tempfile.mkdtemp(dir=chosen.folder.resolve()))
            try:
                report["sources"].append(measure(source, work, environments, chosen))
            finally:
                shutil.rmtree(work, ignore_errors=True)
            chosen.json.write_text(json.dumps(report, indent=1) + "\n")
    show_all(report)
    chosen.chart.write_text(draw(report))
    print(f"figures: {chosen.redraw or chosen.json}; picture: {chosen.chart}")


if __name__ == "__main__":
    main()
