"""The option records of a job: made of its settings, and checked by their own checks.

A record complains of one thing at a time. Here all complaints are found, and whom each is about.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from tlpipe.errors import OptionError
from tlpipe.workflows.jobs.mistakes import Mistakes, in_job_words
from tlpipe.workflows.jobs.schema import Shape


def records_of(
    shape: Shape, given: Mapping[str, Any], mistakes: Mistakes
) -> tuple[dict[str, Any], bool]:
    """Option records with what is given; their own checks say what is wrong.

    Returns
    -------
    dict of str to object
        By parameter; what is wrong, or contradicts something, is left out.
    bool
        Whether nothing is.
    """
    flags = [name for name, setting in shape.settings.items() if setting.hint is bool]
    made: dict[str, Any] = {}
    complete = True
    for parameter, kind in shape.records.items():
        names = {
            name: setting.field
            for name, setting in shape.settings.items()
            if parameter in setting.owners and name in given
        }
        complaints, names = _complaints(kind, names, given)
        for guilty, message in complaints:
            complete = False
            mistakes.add(f"[options] {', '.join(guilty)}:", in_job_words(message, flags))
        made[parameter] = _made(kind, names, given)
    return made, complete


def _made(kind: type, names: Mapping[str, str], given: Mapping[str, Any]) -> Any:
    return kind(**{field: given[name] for name, field in names.items()})


def _complaints(
    kind: type, names: dict[str, str], given: Mapping[str, Any]
) -> tuple[list[tuple[tuple[str, ...], str]], dict[str, str]]:
    """All that a record's checks say, and the settings that they have nothing against.

    Each time one of those that are wrong is left out; of settings that contradict each other that
    one whose absence leaves fewer complaints.
    """
    try:
        _made(kind, names, given)
    except OptionError as exc:
        guilty = _guilty(kind, names, given, str(exc))
        rests = ({n: f for n, f in names.items() if n != wrong} for wrong in guilty)
        outcomes = (_complaints(kind, rest, given) for rest in rests)
        further, good = min(outcomes, key=lambda outcome: len(outcome[0]))
        return [(guilty, str(exc)), *further], good
    return [], names


def _guilty(
    kind: type, names: Mapping[str, str], given: Mapping[str, Any], message: str
) -> tuple[str, ...]:
    """The fewest settings that make a record complain in the very same words."""
    for count in range(1, len(names)):
        for some in itertools.combinations(names, count):
            try:
                _made(kind, {name: names[name] for name in some}, given)
            except OptionError as exc:
                if str(exc) == message:
                    return some
        if count == 2:  # no check of ours looks at three
            break
    return tuple(names)
