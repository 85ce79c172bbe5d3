"""What a job file may say: derived from the verbs and their option records, not restated.

Takes the name of a command, gives its ``Shape``. A verb's parameters that name what it reads and
writes stand at the top of a job file; all that is an option on the command line stands in
[options], under the name that it has there.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import types
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from tlpipe.stages.source import open_source

SCHEMA = 1
"""Version of the schema of job files. Raise it when a key changes its meaning."""

_VERBS = {
    "train": ("tlpipe.workflows.train", "train"),
    "embed": ("tlpipe.workflows.embed", "embed"),
    "train-head": ("tlpipe.workflows.train_head", "train_head"),
    "classify": ("tlpipe.workflows.classify", "classify"),
    "evaluate": ("tlpipe.workflows.evaluate", "evaluate"),
}
COMMANDS = tuple(_VERBS)

PLACES = ("source", "features", "classifier", "backbone", "output")
"""Parameters of verbs that stand at the top of a job file."""

SOURCE, BACKBONE, EMBEDDINGS = "source", "backbone", "embeddings"

_REPORTING = ("progress", "surveyed")

_FLAGS = {"memory_bytes": "memory", "keep": "columns"}
"""Fields whose option on the command line has another name."""

_NOT_OFFERED = {
    "train": {"engine", "address"},
    "classify": {"decode", "min_agreement"},
    "evaluate": {"decode", "min_agreement", "engine", "address"},
}
"""Fields of a command's records that say nothing to it: a classifier states its decoder."""


@dataclass(frozen=True)
class Setting:
    """One key of a job file.

    Attributes
    ----------
    name : str
    hint : Any
        Its type; None where that is a record's alternative.
    default : Any
    owners : tuple of str
        Which parameters of the verb take it: the names of records, "source" or "backbone" where it
        is for opening that, its own name where it is a parameter itself.
    field : str
        Its name there.
    """

    name: str
    hint: Any
    default: Any
    owners: tuple[str, ...]
    field: str


@dataclass(frozen=True)
class Shape:
    """What a job of one command may say.

    Attributes
    ----------
    command : str
    verb : callable
    places : dict of str to bool
        Keys at the top, and whether they are required.
    settings : dict of str to Setting
        Keys of [options].
    records : dict of str to type
        Option records by the parameter that takes them.
    """

    command: str
    verb: Callable[..., Any]
    places: dict[str, bool]
    settings: dict[str, Setting]
    records: dict[str, type]


@functools.cache
def shape_of(command: str) -> Shape:
    """The shape of a command's jobs; its workflow is loaded."""
    module, name = _VERBS[command]
    verb = getattr(importlib.import_module(module), name)
    found = parameters_of(verb)
    places = {name: name != BACKBONE for name in PLACES if name in found}
    records = {name: kind for name, (kind, _) in found.items() if _is_record(kind)}
    settings: dict[str, Setting] = {}
    for parameter, kind in records.items():
        _add_record(settings, parameter, kind)
    if SOURCE in places:
        for name, (hint, default) in parameters_of(open_source).items():
            if default is not inspect.Parameter.empty:
                _add(settings, Setting(name, hint, default, (SOURCE,), name))
    if BACKBONE in places:
        from tlpipe.workflows.network import BackboneOptions

        records[BACKBONE] = BackboneOptions
        _add_record(settings, BACKBONE, BackboneOptions)
    for name, (hint, default) in found.items():
        if name not in records and name not in places:
            _add(settings, Setting(name, hint, default, (name,), name))
    if command == "classify":  # of ``Cached``, which stands around a source
        _add(settings, Setting(EMBEDDINGS, Path, None, (EMBEDDINGS,), EMBEDDINGS))
    for name in _NOT_OFFERED.get(command, ()):
        settings.pop(name, None)
    return Shape(command, verb, places, settings, records)


def parameters_of(function: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """Type, without None, and default of each parameter that is not for reporting."""
    hints = get_type_hints(function)
    return {
        name: (without_none(hints[name]), parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in _REPORTING
    }


def without_none(hint: Any) -> Any:
    """A type without its alternative None."""
    if get_origin(hint) not in (types.UnionType, Union):
        return hint
    choices = [choice for choice in get_args(hint) if choice is not type(None)]
    return functools.reduce(lambda one, other: one | other, choices)


def _is_record(kind: Any) -> bool:
    return isinstance(kind, type) and is_dataclass(kind)


def _add_record(settings: dict[str, Setting], parameter: str, kind: type) -> None:
    hints = get_type_hints(kind)
    for field in fields(kind):
        default = None if field.default is MISSING else field.default
        name = _FLAGS.get(field.name, field.name)
        hint = without_none(hints[field.name])
        _add(settings, Setting(name, hint, default, (parameter,), field.name))


def _add(settings: dict[str, Setting], found: Setting) -> None:
    """Add a setting; one that another record has as well is for both."""
    known = settings.get(found.name)
    owners = found.owners if known is None else (*known.owners, *found.owners)
    settings[found.name] = Setting(found.name, found.hint, found.default, owners, found.field)
