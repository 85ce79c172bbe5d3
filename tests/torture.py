"""Kills ``tlpipe embed`` at every step and at any instant, and checks what is left each time.

    python tests/torture.py --rounds 300 --seed 1

A round puts a folder into the state of its scenario, starts an embedding that is killed with
SIGKILL, and holds what it left against the promises: the feature file is the old one or the new
one, whole; finished parts are whole; the next run completes, embeds no content that a finished part
held, leaves nothing behind, and its file equals that of an undisturbed run byte for byte.

It ends with a table, and with 1 if any promise was broken.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # no threads before a fork


from stored import datasets, digests, parts_of, unlisted
from tlpipe.errors import TlpipeError
from torture_child import STEPS, Kill, Task, small_everything, start
from torture_world import World, contents_of_log

OUTPUT = "features.h5"
POISON = 1000.0


@dataclass(frozen=True)
class Scenario:
    """What is there before a run that is killed, and what that run is."""

    name: str
    before: tuple[tuple[int, bool, Kill | None], ...] = ()  # stage, poisoned, killed where
    stage: int = 1
    overwrite: bool = False
    set_above: int | None = None
    set_before: int | None = None


_TWO_PARTS = Kill("fsync", 6, after=True)
"""A step at which two parts are finished, few enough not to be joined."""

SCENARIOS = (
    Scenario("first run"),
    Scenario("update", ((1, False, None),), stage=2),
    Scenario("resumed", ((1, False, _TWO_PARTS),)),
    Scenario("resumed, source changed", ((1, False, _TWO_PARTS),), stage=2),
    Scenario("update resumed", ((1, False, None), (2, False, _TWO_PARTS)), stage=3),
    Scenario("parts joined", ((1, False, replace(_TWO_PARTS, number=12)),)),
    Scenario("anew", ((1, True, None),), stage=2, overwrite=True),
)

_LARGE = 1000

SETS = (
    Scenario("first set", set_above=10),
    Scenario("set updated", ((1, False, None),), stage=2, set_above=10, set_before=7),
    Scenario("set resumed", ((1, False, _TWO_PARTS),), set_above=10, set_before=10),
    Scenario("file to set", ((1, False, None),), stage=2, set_above=10),
    Scenario("set to file", ((1, False, None),), stage=2, set_above=_LARGE, set_before=10),
    Scenario("set anew", ((1, True, None),), 2, overwrite=True, set_above=10, set_before=10),
)
"""Results that are sets of files, or were."""


@dataclass
class Findings:
    """What the rounds came to."""

    rounds: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    said: list[str] = field(default_factory=list)

    def blame(self, what: str, said: str) -> None:
        self.wrong[what] += 1
        self.said.append(f"{what}: {said}")


class Torturer:
    """Runs rounds in a folder of its own."""

    def __init__(self, folder: Path, scenarios: Sequence[Scenario]) -> None:
        self.world = World(folder)
        self.folder = folder
        self.findings = Findings()
        self.place = folder / "out"
        self.seconds: dict[str, float] = {}
        self.expected: dict[str, dict[str, bytes]] = {}
        self.calls: dict[str, Counter[str]] = {}
        for scenario in scenarios:
            self._measure(scenario)

    def task(self, scenario: Scenario, kill: Kill | None = None) -> Task:
        self.world.stage(scenario.stage)
        log = self.folder / "run.log"
        log.unlink(missing_ok=True)
        world = self.world
        overwrite = scenario.overwrite
        output, most = self.place / OUTPUT, scenario.set_above
        return Task(world.source, output, world.card, log, overwrite, 0.0, kill, most)

    def prepare(self, scenario: Scenario) -> None:
        """Put the folder into the state before a scenario's run; made once, copied then."""
        saved = self.folder / f"before {scenario.name}"
        shutil.rmtree(self.place, ignore_errors=True)
        if not saved.exists():
            self.place.mkdir()
            for stage, poisoned, kill in scenario.before:
                earlier = replace(scenario, stage=stage, overwrite=False)
                task = self.task(replace(earlier, set_above=scenario.set_before), kill)
                self.finish(replace(task, poison=POISON * poisoned), killed=kill is not None)
            shutil.copytree(self.place, saved)
        shutil.copytree(saved, self.place, dirs_exist_ok=True)

    def finish(self, task: Task, *, killed: bool = False) -> None:
        """Run a task to its end, which must be as it is expected."""
        _, status = os.waitpid(start(task), 0)
        if killed != os.WIFSIGNALED(status) or (not killed and status):
            error = task.log.with_suffix(".error")
            text = error.read_text() if error.exists() else f"status {status}"
            raise RuntimeError(f"The run ended otherwise than it should: {text}")

    def _measure(self, scenario: Scenario) -> None:
        """What an undisturbed run makes, from nothing, and how often it comes by each step."""
        self.prepare(scenario)
        task = self.task(scenario)
        begun = time.monotonic()
        self.finish(task)
        self.seconds[scenario.name] = time.monotonic() - begun
        self.calls[scenario.name] = self.world.counts(task.log)
        shutil.rmtree(self.place)
        self.place.mkdir()
        self.finish(replace(self.task(scenario), overwrite=False))
        self.expected[scenario.name] = datasets(self.place / OUTPUT)

    def sweep(self, scenario: Scenario) -> Iterator[Kill]:
        """Every kill there is: before and after each call of each step."""
        calls = self.calls[scenario.name]
        for step in STEPS:
            for number in range(1, calls["write" if step == "half-write" else step] + 1):
                yield Kill(step, number, after=False)
                if step != "half-write":
                    yield Kill(step, number, after=True)

    def round(self, scenario: Scenario, kill: Kill | None, rng: random.Random) -> None:
        """Kill one run, at a step or after a random time, and check what comes of it."""
        self.findings.rounds += 1
        self.prepare(scenario)
        before = datasets(self.place / OUTPUT)
        child = start(self.task(scenario, kill))
        if kill is None:
            time.sleep(rng.uniform(0, 1.2 * self.seconds[scenario.name]))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        name = kill.step if kill is not None else "random instant"
        self.findings.kills[name if os.WIFSIGNALED(status) else "ended before its kill"] += 1
        where = f"{scenario.name}, {kill or name}"
        try:
            self._check(scenario, before, where)
        except (TlpipeError, OSError, RuntimeError, KeyError, ValueError) as exc:
            self.findings.blame("broken", f"{where}: {exc}")

    def _check(self, scenario: Scenario, before: dict[str, bytes], where: str) -> None:
        blame, expected = self.findings.blame, self.expected[scenario.name]
        found = datasets(self.place / OUTPUT)
        if found not in (before, expected):
            blame("damaged files", where)
        folder = self.place / f".{OUTPUT}.parts"
        parts = [p for p in folder.glob("*.h5") if re.fullmatch(r"\d+\.h5", p.name)]
        held = set().union(*(digests(path) for path in parts))
        if found and (found == expected or not scenario.overwrite):
            held |= digests(self.place / OUTPUT)
        marked = (folder / "anew").exists() or (found == expected)
        task = self.task(replace(scenario, overwrite=scenario.overwrite and not marked))
        self.finish(task)
        last = datasets(self.place / OUTPUT)
        keys = last["keys"].split(b"\0")
        if last != expected:
            lost = set(expected["keys"].split(b"\0")) - set(keys)
            other = [name for name in expected if last.get(name) != expected[name]]
            blame("lost rows" if lost else "other files", f"{where}: {sorted(lost) or other}")
        if len(set(keys)) != len(keys):
            blame("doubled rows", where)
        embedded = contents_of_log(task.log, self.world)
        if len(set(embedded)) != len(embedded) or held & set(embedded):
            blame("embedded twice", f"{where}: {len(held & set(embedded))} were held")
        left = {p.name for p in self.place.iterdir()} - {OUTPUT, f".{OUTPUT}.lock"}
        if parts_of(self.place / OUTPUT):
            left.discard(f"{OUTPUT}.set")
        left |= set(unlisted(self.place / OUTPUT))
        if left:
            blame("leftovers", f"{where}: {sorted(left)}")

    def table(self) -> str:
        """What the rounds came to, as text."""
        found = self.findings
        lines = [f"{'rounds':28}{found.rounds:7,}"]
        lines += [f"  killed at {name:18}{n:7,}" for name, n in sorted(found.kills.items())]
        for name in ("damaged files", "lost rows", "doubled rows", "embedded twice"):
            lines.append(f"{name:28}{found.wrong[name]:7,}")
        for name in ("other files", "leftovers", "broken"):
            lines.append(f"{name:28}{found.wrong[name]:7,}")
        return "\n".join(lines + found.said[:20])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300, help="kills in all")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--first-run", action="store_true", help="that scenario alone")
    parser.add_argument("--sets", action="store_true", help="the scenarios of sets of files alone")
    parser.add_argument(
        "--sweep",
        type=int,
        metavar="N",
        help="beside --rounds random instants, every N-th write and all other steps there are",
    )
    options = parser.parse_args()
    rng = random.Random(options.seed)
    print(f"seed {options.seed}", flush=True)
    small_everything()
    with tempfile.TemporaryDirectory() as folder:
        scenarios = SETS if options.sets else SCENARIOS + SETS
        if options.first_run:
            scenarios = scenarios[:1]
        torturer = Torturer(Path(folder), scenarios)
        plan: list[tuple[Scenario, Kill | None]]
        plan = [(s, kill) for s in scenarios for kill in torturer.sweep(s)]
        print(f"{len(plan):,} steps at which a run can be killed", flush=True)
        if options.sweep:
            writes = [(s, kill) for s, kill in plan if kill and kill.step.endswith("write")]
            plan = [(s, kill) for s, kill in plan if kill and not kill.step.endswith("write")]
            print(f"{len(plan):,} of them are no writes", flush=True)
            plan += writes[:: options.sweep]
            times = options.rounds
        else:
            by_step: dict[str, list[tuple[Scenario, Kill | None]]] = {}
            for scenario, kill in plan:
                by_step.setdefault(kill.step if kill else "", []).append((scenario, kill))
            times = options.rounds // 4
            groups = list(by_step.values())
            plan = [rng.choice(rng.choice(groups)) for _ in range(options.rounds - times)]
        plan += [(rng.choice(scenarios), None) for _ in range(times)]
        rng.shuffle(plan)
        for number, (scenario, kill) in enumerate(plan, 1):
            torturer.round(scenario, kill, rng)
            if number % 100 == 0:
                print(f"{number:,} of {len(plan):,} rounds", torturer.findings.said[:3], flush=True)
        print(torturer.table())
    return 1 if torturer.findings.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
