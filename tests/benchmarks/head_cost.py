"""What training the head costs, and how good it is, against scikit-learn.

Run: ``make bench-head FEATURES="a.h5 b.h5" [BENCH_ROUNDS=3]``. On each feature file, with the rows
that ``tlpipe train-head`` trains and judges with, in turn, round by round, each in a process of its
own:

* the search for C, on the same ten values, the same folds and raw embeddings: tlpipe's solver by
  itself, scikit-learn's LogisticRegressionCV as a user would call it, and the same with its thread
  pools tamed (``peers/sklearn_head.py``); their log loss and accuracy on the judging rows;
* the whole of ``tlpipe train-head``, from the call to the end of the process, against one
  LogisticRegression with scikit-learn's defaults, its fit alone, as it comes and tamed; the most
  memory of each, as a multiple of the embeddings in float32;
* how far the objective of tlpipe's weights is above the least, by a reference in float64
  (``peers/head_reference.py``).

Sets of more than 10,000 training rows are searched and compared with the reference only with
``--large``: LogisticRegressionCV takes a quarter of an hour or more there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from children import Run, RunError, run
from conditions import Others, conditions
from contenders import SCRIPTS
from insides import Planned, planned
from sklearn.model_selection import StratifiedKFold
from table import middle

LARGE = 10_000
GRID = np.logspace(-4, 3, 10)  # of C
OURS, USUAL, TAMED = "tlpipe", "scikit-learn, as it comes", "scikit-learn, pools tamed"
WIDTH = 44


@dataclass
class Measured:
    """Of one contender, a value per round.

    Attributes
    ----------
    seconds : list of float
    ratio : list of float
        Of its seconds to tlpipe's of the same round.
    peak_bytes : int
        The largest of all rounds.
    figures : dict
        What it printed last.
    failure : str
        Why there is nothing, if so.
    """

    seconds: list[float] = field(default_factory=list)
    ratio: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    figures: dict[str, Any] = field(default_factory=dict)
    failure: str = ""


Command = tuple[list[str], Callable[[Run], float]]
"""A command, and how its seconds are told from its run."""


def whole(done: Run) -> float:
    """From the call to the end of the process."""
    return done.seconds


def fit_alone(done: Run) -> float:
    """What the command says that the fit took."""
    return float(done.figures["fit_s"])


def in_turn(commands: dict[str, Command], rounds: int) -> dict[str, Measured]:
    """Run all commands, round by round; ratios are to the first, within a round."""
    table = {name: Measured() for name in commands}
    for number in range(1, rounds + 1):
        seconds: dict[str, float] = {}
        for name, (command, told) in commands.items():
            into = table[name]
            if into.failure:
                continue
            try:
                done = run(command)
            except RunError as exc:
                into.failure = str(exc)
                continue
            seconds[name] = told(done)
            into.seconds.append(seconds[name])
            into.peak_bytes = max(into.peak_bytes, done.peak_bytes)
            into.figures = done.figures
            first = seconds.get(next(iter(commands)))
            if first is not None:
                into.ratio.append(seconds[name] / first)
        print(
            f"  round {number}: " + ", ".join(f"{name} {s:.2f} s" for name, s in seconds.items()),
            flush=True,
        )
    return table


def write_data(found: Planned, folder: Path, folds: int) -> None:
    """Write what ``peers/head_data.py`` reads."""
    data, plan = found.data, found.plan
    labels = data.labels[plan.fit]
    if folds:
        parts = StratifiedKFold(folds, shuffle=True, random_state=0).split(plan.fit, labels)
        pairs = [(plan.fit[train], plan.fit[held]) for train, held in parts]
    else:
        pairs = plan.folds
    sides = np.full((len(pairs), plan.fit.size), -1, np.int8)
    for side, (train, held) in zip(sides, pairs, strict=True):
        side[np.isin(plan.fit, train)] = 0
        side[np.isin(plan.fit, held)] = 1
    np.save(folder / "x_fit.npy", data.vectors[plan.fit])
    np.save(folder / "y_fit.npy", labels)
    np.save(folder / "x_judge.npy", data.vectors[plan.judge])
    np.save(folder / "y_judge.npy", data.labels[plan.judge])
    np.save(folder / "folds.npy", sides)
    np.save(folder / "grid.npy", GRID)


def script(name: str, folder: Path, *options: object) -> list[str]:
    """A command that runs a script of ``peers/`` in this environment."""
    return [sys.executable, str(SCRIPTS / name), str(folder), *map(str, options)]


def search_table(folder: Path, chosen: argparse.Namespace) -> dict[str, Measured]:
    """The search on the same grid and folds."""
    usual = script("sklearn_head.py", folder, "search", "--max-iter", chosen.max_iter)
    commands: dict[str, Command] = {
        OURS: (script("tlpipe_head.py", folder, "search"), fit_alone),
        TAMED: ([*usual, "--tamed"], fit_alone),
        USUAL: (usual, fit_alone),
    }
    return in_turn(commands, chosen.rounds)


def whole_table(features: Path, folder: Path, chosen: argparse.Namespace) -> dict[str, Measured]:
    """The whole command against one fit."""
    output = folder / "classifier.onnx"
    command = [sys.executable, "-m", "tlpipe", "train-head", str(features)]
    command += ["-o", str(output), "--overwrite"]
    fit = script("sklearn_head.py", folder, "fit")
    commands: dict[str, Command] = {"tlpipe train-head, whole": (command, whole)}
    if chosen.memory:
        streamed = [*command, "--memory", chosen.memory]
        commands[f"the same with --memory {chosen.memory}"] = (streamed, whole)
    commands[f"{TAMED}, one fit"] = ([*fit, "--tamed"], fit_alone)
    commands[f"{USUAL}, one fit"] = (fit, fit_alone)
    table = in_turn(commands, chosen.rounds)
    if table["tlpipe train-head, whole"].failure:
        return table
    report = json.loads(output.with_suffix(".metrics.json").read_text())
    metrics, training = report["metrics"], report["training"]
    table["tlpipe train-head, whole"].figures = {
        "log_loss": metrics["log_loss"],
        "accuracy": metrics["accuracy"],
        "c": training["C"],
        "scaling": training["scaling"],
    }
    return table


def quality(figures: dict[str, Any]) -> str:
    """C, log loss and accuracy, where they are known."""
    if "log_loss" not in figures:
        return ""
    scaling = f" {figures['scaling']}" if "scaling" in figures else ""
    return f"{figures['c']:>11.3g}{figures['log_loss']:>10.4f}{figures['accuracy']:>10.4f}{scaling}"


def limits(figures: dict[str, Any]) -> str:
    """How many of scikit-learn's fits were cut short."""
    if "cut_short" not in figures:
        return ""
    return f"   {figures['cut_short']} fits cut short, at most {figures['most']} iterations"


def show(title: str, table: dict[str, Measured], size_bytes: int) -> None:
    """Print a table."""
    print(
        f"{title:{WIDTH}}{'seconds':>24}{'times the first':>24}{'memory':>10}{'embeddings':>12}"
        f"{'C':>11}{'log loss':>10}{'accuracy':>10}"
    )
    for name, row in table.items():
        if row.failure:
            print(f"{name:{WIDTH}}    not measured: {row.failure}")
            continue
        # Of a few megabytes of embeddings, a multiple would tell of Python and its libraries.
        multiple = f"{row.peak_bytes / size_bytes:.2f} x" if size_bytes > 100e6 else "-"
        print(
            f"{name:{WIDTH}}{middle(row.seconds, 2):>24}{middle(row.ratio, 2):>24}"
            f"{row.peak_bytes / 1e6:>7.0f} MB{multiple:>12}"
            f"{quality(row.figures)}{limits(row.figures)}"
        )


def show_gaps(folder: Path, values: list[float]) -> None:
    """Print how far our objective is above the least."""
    for c in values:
        try:
            found = run(script("tlpipe_head.py", folder, "gap", "--c", c)).figures
        except RunError as exc:
            print(f"objective at C = {c:g}: not measured: {exc}")
            continue
        print(
            f"objective at C = {c:g}: {found['ours']:.9g}, least {found['reference']:.9g} (proved"
            f" within {found['uncertain']:.1e} of it): {found['gap']:+.1e} of it too much;"
            " asked: 1e-6"
        )


def ratio_line(table: dict[str, Measured]) -> str:
    """The two figures that are asked of the search."""
    parts = []
    for name, asked in ((USUAL, 20), (TAMED, 3)):
        ratio = table[name].ratio
        if ratio:
            parts.append(f"{statistics.median(ratio):.1f} times as fast as {name} (asked: {asked})")
    return "the search: " + "; ".join(parts)


def measure(features: Path, chosen: argparse.Namespace) -> None:
    """Everything for one feature file."""
    found = planned(features)
    data, plan = found.data, found.plan
    large = plan.fit.size > LARGE
    print(
        f"\n{features.name}: {plan.fit.size:,} x {data.vectors.shape[1]} to train with,"
        f" {plan.judge.size:,} to judge, {len(data.classes)} classes; the search's folds:"
        f" {f'{chosen.folds}, stratified' if chosen.folds else plan.chosen_on}",
        flush=True,
    )
    size_bytes, others = data.vectors.size * 4, Others()
    with tempfile.TemporaryDirectory(dir=chosen.folder.resolve()) as name:
        folder = Path(name)
        write_data(found, folder, chosen.folds)
        del found, data  # the memory is the contenders'
        if not large or chosen.large:
            table = search_table(folder, chosen)
            show(f"search over {GRID.size} values of C", table, size_bytes)
            print(ratio_line(table), flush=True)
        show("whole command", whole_table(features, folder, chosen), size_bytes)
        if not large or chosen.large:
            show_gaps(folder, chosen.gap_c)
    print(f"other processes meanwhile: {others.told()}")


def parsed() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("features", type=Path, nargs="+", help="feature files with labels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folds", type=int, default=5, help="0: those of train-head")
    parser.add_argument("--max-iter", type=int, default=100, help="of LogisticRegressionCV")
    parser.add_argument("--gap-c", type=float, nargs="+", default=[0.01, 0.1, 1.0])
    parser.add_argument("--memory", help="also run train-head with this budget, as it takes it")
    parser.add_argument("--large", action="store_true", help="search large sets as well")
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="for what is written")
    chosen = parser.parse_args()
    for path in chosen.features:
        if not path.is_file():
            parser.error(f"there is no feature file at {path}")
    if chosen.rounds < 1 or chosen.max_iter < 1 or chosen.folds < 0 or chosen.folds == 1:
        parser.error("rounds and iterations are at least 1, folds 0 or at least 2")
    return chosen


def main() -> None:
    """Measure and print."""
    chosen = parsed()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    told_of = conditions()
    for features in chosen.features:
        measure(features, chosen)
    print()
    for name, value in told_of.items():
        print(f"{name}: {value}")
    print(f"scikit-learn: {sklearn.__version__}, NumPy {np.__version__}")
    print(f"LogisticRegressionCV: lbfgs, at most {chosen.max_iter} iterations, tol 1e-4 (default)")


if __name__ == "__main__":
    main()
