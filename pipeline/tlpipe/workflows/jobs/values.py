"""From the values of a TOML file to those that options take.

Takes a value and the ``Setting`` it is for, gives what the command line would have given. What is
wrong with it is a ``ValueError`` in words that follow the key's name: "is 'x'; it must be ...".
"""

from __future__ import annotations

import collections.abc
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from tlpipe.near import did_you_mean, sentences
from tlpipe.quantities import parsed_bytes, parsed_image_size, parsed_limit
from tlpipe.workflows.jobs.schema import Setting

_AS_TEXT: dict[str, Callable[[str], Any]] = {
    "max_rejects": parsed_limit,
    "max_gone": lambda text: parsed_limit(text, whole=True),
    "columns": lambda text: tuple(name.strip() for name in text.split(",") if name.strip()),
    "memory": parsed_bytes,
    "image_size": parsed_image_size,
}
"""Settings that may be a text as on the command line, such as "5%"."""

_EXPECTED = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}

_VARIABLE = re.compile(r"\$(\$?)\{([^}]*)(\}?)")
_IS_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_FILES_OF_NETWORKS = (".onnx", ".toml", ".json")
"""Ends of texts that name a file where they could name something of tlpipe's as well."""

_TEXT_OR_FILE = ("preprocess",)


def value_of(setting: Setting, raw: Any, folder: Path, environment: Mapping[str, str]) -> Any:
    """The value of a setting.

    Parameters
    ----------
    setting : Setting
    raw : object
        As TOML has it.
    folder : pathlib.Path
        Where paths begin.
    environment : mapping of str to str

    Raises
    ------
    ValueError
        It is none that the setting can have.
    """
    if isinstance(raw, str):
        raw = expanded(raw, environment)
    if setting.name in _AS_TEXT and isinstance(raw, str):
        try:
            return _AS_TEXT[setting.name](raw)
        except ValueError as exc:
            raise ValueError(f"is no such value: {exc}") from exc
    if setting.name == "image_size" and isinstance(raw, list):
        raw = tuple(raw)
        if len(raw) == 2 and all(type(side) is int and side > 0 for side in raw):
            return raw
        raise ValueError(f"is {list(raw)!r}; it must be [height, width] in pixels.")
    if setting.name in _TEXT_OR_FILE and isinstance(raw, str):
        return text_or_path(raw, folder)
    return _typed(setting.hint, raw, folder, environment)


def _typed(hint: Any, raw: Any, folder: Path, environment: Mapping[str, str]) -> Any:
    if get_origin(hint) is Literal:
        return _choice(get_args(hint), raw)
    if get_origin(hint) in (collections.abc.Sequence, list, tuple):
        return _several(get_args(hint)[0], raw, folder, environment)
    alternatives = {choice for choice in get_args(hint) if isinstance(choice, type)} or {hint}
    if Path in alternatives:
        if not isinstance(raw, str):
            raise ValueError(f"is {raw!r}; it must be a text: a path.")
        return path_of(raw, folder)
    kinds = [kind for kind in (bool, int, float, str) if kind in alternatives]
    for kind in kinds:
        if type(raw) is kind or (kind is float and type(raw) is int):
            return raw
    expected = " or ".join(_EXPECTED[kind] for kind in kinds)
    raise ValueError(f"is {raw!r}; it must be {expected}.")


def _several(hint: Any, raw: Any, folder: Path, environment: Mapping[str, str]) -> tuple[Any, ...]:
    if not isinstance(raw, list) or not all(isinstance(text, str) for text in raw):
        raise ValueError(f"is {raw!r}; it must be a list of texts.")
    return tuple(_typed(hint, expanded(text, environment), folder, environment) for text in raw)


def _choice(choices: tuple[Any, ...], raw: Any) -> Any:
    if raw in choices and type(raw) is str:
        return raw
    meant = did_you_mean(raw, choices) if isinstance(raw, str) else ""
    raise ValueError(sentences(f"is {raw!r}; it must be one of {list(choices)}.", meant))


def expanded(text: str, environment: Mapping[str, str]) -> str:
    """`text` with each ``${NAME}`` replaced by that environment variable; ``$${`` means ``${``.

    Raises
    ------
    ValueError
        A variable is not set or empty: a path with a hole would lead elsewhere. Or there is no name
        within the braces.
    """

    def replaced(found: re.Match[str]) -> str:
        if found[1]:
            return found[0][1:]
        if not found[3] or not _IS_NAME.fullmatch(found[2]):
            raise ValueError(
                f"is {text!r}; {found[0]!r} must be ${{NAME}}, or $${{ for the characters"
                " themselves."
            )
        if not environment.get(found[2]):
            state = "is empty" if found[2] in environment else "is not set"
            raise ValueError(f"is {text!r}; the environment variable {found[2]!r} {state}.")
        return environment[found[2]]

    return _VARIABLE.sub(replaced, text)


def path_of(text: str, folder: Path) -> Path:
    """A path as a job file has it: relative to the job file's folder.

    Raises
    ------
    ValueError
        It is none.
    """
    if not text.strip():
        raise ValueError(f"is {text!r}; it must be a path.")
    if "\0" in text:
        raise ValueError(f"is {text!r}; a path cannot hold the NUL character.")
    if text == "~" or text.startswith("~/"):
        raise ValueError(f"is {text!r}; write '${{HOME}}{text[1:]}' for a path in your home.")
    return folder / text


def is_address(text: str) -> bool:
    """Whether a text names something by a scheme, such as "s3://bucket/photos", and not a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None


def text_or_path(text: str, folder: Path) -> str:
    """A name of tlpipe's stays as it is; the name of a file becomes a path.

    Raises
    ------
    ValueError
        It is neither.
    """
    if text.lower().endswith(_FILES_OF_NETWORKS):
        return str(path_of(text, folder))
    if not text.strip():
        raise ValueError(f"is {text!r}; it must be a name or a path.")
    return text
