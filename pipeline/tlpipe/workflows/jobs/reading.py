"""From a job file to a ``Job``: everything is looked at before anything is done.

Takes a TOML file and the environment, gives a ``Job``, or the error that lists all its mistakes.
"""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlpipe.errors import JobError
from tlpipe.near import did_you_mean, sentences, similar_file
from tlpipe.workflows.jobs.checks import Named, opened_places, reads_features
from tlpipe.workflows.jobs.job import Job
from tlpipe.workflows.jobs.mistakes import Mistakes
from tlpipe.workflows.jobs.records import records_of
from tlpipe.workflows.jobs.schema import (
    BACKBONE,
    COMMANDS,
    PLACES,
    SCHEMA,
    SOURCE,
    Shape,
    parameters_of,
    shape_of,
)
from tlpipe.workflows.jobs.values import (
    expanded,
    is_address,
    path_of,
    text_or_path,
    value_of,
)

_MOST_BYTES = 1 << 20
"""A job file is a page; whoever names a dataset by mistake shall not wait for it to be parsed."""

_TOP = ("schema", "command", "options")


def read_job(path: str | Path, environment: Mapping[str, str] | None = None) -> Job:
    """Read a job file, and check all that can be known before work begins.

    Parameters
    ----------
    path : str or pathlib.Path
        A TOML file; ``docs/reference/jobs.md`` explains it. Paths in it are relative to its folder.
    environment : mapping of str to str, optional
        For ``${NAME}`` in its texts; by default that of this process.

    Raises
    ------
    JobError
        The file cannot be read, or has mistakes: all of them are listed.
    """
    path = Path(path)
    environment = os.environ if environment is None else environment
    content, table = _parsed(path)
    mistakes = Mistakes(repr(str(path)))
    shape = _shape(table, mistakes)
    if shape is None:
        mistakes.check()
        raise AssertionError("a job without a command is a mistake")
    _check_keys(table, shape, mistakes)
    folder = Path(os.path.abspath(path)).parent  # noqa: PTH100  (links stay: so does "..")
    places = _places(table, shape, folder, environment, mistakes)
    options = table.get("options", {})
    if not isinstance(options, Mapping):
        mistakes.add("options", f"is {options!r}; it must be a table: [options].")
        options = {}
    given = _settings(options, shape, folder, environment, mistakes)
    records, complete = records_of(shape, given, mistakes)
    named = Named(shape, path, places, given, records, complete=complete)
    opened = opened_places(named, mistakes)
    mistakes.check()
    own = {
        name: given.get(name, setting.default)
        for name, setting in shape.settings.items()
        if setting.owners == (name,)
    }
    return Job(
        path=path,
        sha256=hashlib.sha256(content).hexdigest(),
        command=shape.command,
        output=places["output"],
        inputs={name: places[name] for name in _inputs(shape, places)},
        source=opened.source,
        card=opened.card,
        arguments=own | {name: value for name, value in records.items() if name != BACKBONE},
        settings=_plain_settings(shape, places, given),
    )


def _inputs(shape: Shape, places: Mapping[str, Any]) -> list[str]:
    """Which of the places are single files that are read as they are."""
    found = [name for name in ("features", "classifier") if name in places]
    return [*found, SOURCE] if reads_features(shape, places) else found


def _parsed(path: Path) -> tuple[bytes, dict[str, Any]]:
    where = repr(str(path))
    try:
        with path.open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as exc:
        why = getattr(exc, "strerror", None) or str(exc)
        near = similar_file(path) if isinstance(exc, FileNotFoundError) else ""
        raise JobError(where, [sentences(f"the file cannot be read: {why}.", near)]) from exc
    if len(content) > _MOST_BYTES:
        raise JobError(where, ["the file has more than 1 MB; a job file is a page of TOML."])
    try:
        return content, tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as exc:
        raise JobError(where, [f"the file is no UTF-8 text: {exc.reason}."]) from exc
    except (tomllib.TOMLDecodeError, RecursionError) as exc:
        raise JobError(where, [f"the file is no TOML: {exc}."]) from exc


def _shape(table: Mapping[str, Any], mistakes: Mistakes) -> Shape | None:
    """What the job may say, by its command; None where that is not known."""
    schema, command = table.get("schema"), table.get("command")
    if "schema" not in table:
        mistakes.add("schema", f"is missing; write 'schema = {SCHEMA}'.")
    elif type(schema) is not int or schema != SCHEMA:
        mistakes.add("schema", f"is {schema!r}; this tlpipe reads {SCHEMA}.")
    if "command" not in table:
        mistakes.add("command", f"is missing; it must be one of {list(COMMANDS)}.")
    elif command not in COMMANDS:
        meant = did_you_mean(command, COMMANDS) if isinstance(command, str) else ""
        what = sentences(f"is {command!r}; it must be one of {list(COMMANDS)}.", meant)
        mistakes.add("command", what)
    else:
        return shape_of(command)
    return None


def _check_keys(table: Mapping[str, Any], shape: Shape, mistakes: Mistakes) -> None:
    """Find keys that are unknown, or stand in the wrong place."""
    top = [*_TOP, *shape.places]
    for key in table:
        if key in top:
            continue
        if key.replace("-", "_") in shape.settings:
            mistakes.add(key, f"stands at the top; move {key.replace('-', '_')!r} to [options].")
        elif key in PLACES:
            mistakes.add(key, f"is of no use to the command {shape.command!r}; leave it out.")
        else:
            what = sentences(f"is unknown; known are {top}.", did_you_mean(key, top))
            mistakes.add(key, what)
    options = table.get("options")
    for key in options if isinstance(options, Mapping) else ():
        if key in shape.settings:
            continue
        if key in shape.places:
            mistakes.add(f"[options] {key}", "stands in [options]; move it to the top of the file.")
            continue
        others = [c for c in COMMANDS if c != shape.command and key in shape_of(c).settings]
        if others:
            what = f"is an option of {' and '.join(others)}, not of {shape.command}; leave it out."
        else:
            meant = did_you_mean(key, shape.settings)
            what = sentences("is unknown.", meant or f"Known are {sorted(shape.settings)}.")
        mistakes.add(f"[options] {key}", what)


def _places(
    table: Mapping[str, Any],
    shape: Shape,
    folder: Path,
    environment: Mapping[str, str],
    mistakes: Mistakes,
) -> dict[str, Any]:
    """What the job reads and writes, as paths; or texts, where something else may be named."""
    found: dict[str, Any] = {}
    for name, required in shape.places.items():
        if name not in table:
            if required:
                mistakes.add(name, f"is missing; the command {shape.command!r} needs it.")
            continue
        raw = table[name]
        try:
            if not isinstance(raw, str):
                raise ValueError(f"is {raw!r}; it must be a text.")
            text = expanded(raw, environment)
            if name == BACKBONE:
                found[name] = text_or_path(text, folder)
            elif name == SOURCE and is_address(text):
                found[name] = text
            elif name == SOURCE and text == "-":
                raise ValueError(
                    "is '-'; a job does not read standard input. Name a manifest of the images."
                )
            else:
                found[name] = path_of(text, folder)
        except ValueError as exc:
            mistakes.add(name, str(exc))
    if BACKBONE in shape.places and BACKBONE not in table:
        found[BACKBONE] = parameters_of(shape.verb)[BACKBONE][1]
    return found


def _settings(
    options: Mapping[str, Any],
    shape: Shape,
    folder: Path,
    environment: Mapping[str, str],
    mistakes: Mistakes,
) -> dict[str, Any]:
    """Values of the settings that are given and right, each looked at alone."""
    found = {}
    for name, raw in options.items():
        if name in shape.settings:
            try:
                found[name] = value_of(shape.settings[name], raw, folder, environment)
            except ValueError as exc:
                mistakes.add(f"[options] {name}", str(exc))
    return found


def _plain_settings(
    shape: Shape, places: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """All that the job says, and what holds where it says nothing."""
    values = {name: given.get(name, setting.default) for name, setting in shape.settings.items()}
    return {name: plain(value) for name, value in {**places, "options": values}.items()}


def plain(value: Any) -> Any:
    """A value of the types that JSON has."""
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value
