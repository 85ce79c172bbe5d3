"""What the words of a command line stand for: files of some kind, sources, backbones, presets.

Owns what a shell may complete a word to. Nothing here opens a file: that is for the workflows.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from tlpipe.types import FEATURE_SUFFIXES


def file_item(*endings: str) -> CompletionItem[str]:
    """Has the shell complete to files with these endings, or to any; folders lead to them."""
    return CompletionItem(" ".join(endings), type="file")


def _at_home(
    kind: click.ParamType[Any], value: str, param: click.Parameter | None, ctx: click.Context | None
) -> str:
    """A path below "~", which shells leave as it is in quotes and behind "--option=".

    An empty one, as of a variable of the shell that is not set, would be the current folder.
    """
    if not value:
        kind.fail("it is empty; is a variable of the shell not set?", param, ctx)
    return os.path.expanduser(value) if value.startswith(("~/", "~\\")) else value  # noqa: PTH111


class File(click.ParamType[Path]):
    """The path of a file with one of some endings; of any file, where there are none."""

    name = "path"

    def __init__(self, *endings: str) -> None:
        self._endings = endings

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Make a path of it."""
        return Path(_at_home(self, os.fspath(value), param, ctx))

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        """Files of this kind."""
        return [file_item(*self._endings)]


class Folder(File):
    """The path of a folder."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        """Folders alone."""
        return [CompletionItem("", type="folder")]


class Name(click.ParamType[str]):
    """A name, or the path of a file."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Leave it as it is, but for a path below one's home."""
        return _at_home(self, str(value), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        """Any file: images come as folders, tables, archives and more."""
        return [file_item()]


class Backbone(Name):
    """The name of a backbone, or the path of a network or a card."""

    def __init__(self, *, files: bool = True) -> None:
        self._files = files

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        """Names of the catalogue, the user's own among them, and files."""
        from tlpipe.catalogue import all_cards

        names = [CompletionItem(name) for name in all_cards() if name.startswith(incomplete)]
        return [*names, file_item(".onnx", ".toml")] if self._files else names


class Preset(Name):
    """The name of a preset of preprocessing, or the path of a file to take it from."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        """Names of the presets, and files."""
        from tlpipe.presets import PRESETS

        names = [CompletionItem(name) for name in PRESETS if name.startswith(incomplete)]
        return [*names, file_item(".toml", ".json")]


PATH = File()
FEATURES = File(*FEATURE_SUFFIXES)
CLASSIFIER = File(".onnx")
TABLE = File(".parquet", ".npz", ".csv")
PREDICTIONS = File(".csv", ".jsonl", ".parquet")
JSON = File(".json")
JOB = File(".toml")
FOLDER = Folder()
SOURCE = Name()
