"""What the folder of a site holds, and how it appears whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from tlpipe.errors import OutputError
from tlpipe.files import check_parent, is_dir
from tlpipe.stages.site.runtime import MODULE, WASM, Runtime

MODEL = "classifier.onnx"
ABOUT = "classifier.json"
FORMAT = "tlpipe-site"
FORMAT_VERSION = 1

_MOST_BYTES = 1 << 26  # of `ABOUT` in a folder that may be replaced: it has the classes


@dataclass(frozen=True)
class SiteSummary:
    """What was written.

    Attributes
    ----------
    files : int
    size_bytes : int
    """

    files: int
    size_bytes: int


def check_site(path: Path, *, overwrite: bool, classifier: Path) -> None:
    """Refuse a folder that could not or should not be written, before any work is done for it.

    Raises
    ------
    OutputError
        The folder above it is missing or read-only; it is no folder; it holds something, and
        `overwrite` is false; it holds what is not of an earlier site, or `classifier` itself.
    """
    target = Path(os.path.realpath(path))
    shown = repr(str(path))
    check_parent(target)
    if not os.path.lexists(target):
        return
    if not is_dir(target):
        raise OutputError(
            f"The output {shown} exists and is no folder.", hint="Choose another --output."
        )
    held = _files_below(target)
    if not held:
        return
    if Path(os.path.realpath(classifier)).is_relative_to(target):
        raise OutputError(
            f"The output {shown} is the folder that the classifier lies in.",
            hint="Choose a folder that does not exist yet.",
        )
    strangers = sorted(held - _own_files(target))
    if strangers:
        raise OutputError(
            f"The output {shown} is a folder that holds something else than a site of tlpipe:"
            f" {strangers[0]!r}.",
            hint="Choose a folder that does not exist yet. What is not a site is never replaced.",
        )
    if not overwrite:
        raise OutputError(
            f"The output {shown} exists already.",
            hint="Choose another --output, or replace it with --overwrite.",
        )


def _files_below(folder: Path) -> set[str]:
    """All that lies in a folder and those below it, but for folders that hold something."""
    found = set()
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        for name in [*files, *links]:
            found.add((Path(parent) / name).relative_to(folder).as_posix())
        if not folders and not files and Path(parent) != folder:
            found.add(Path(parent).relative_to(folder).as_posix() + "/")
    return found


def _own_files(folder: Path) -> set[str]:
    """Files of the site that a folder holds; none where it holds no site."""
    about = folder / ABOUT
    try:
        if about.is_symlink() or about.stat().st_size > _MOST_BYTES:
            return set()
        told = json.loads(about.read_bytes())
        ours = isinstance(told, dict) and told.get("format") == FORMAT
        return _site_files() if ours else set()
    except (OSError, ValueError, RecursionError):  # it is missing, or is something else
        return set()


def _site_files() -> set[str]:
    return {*(name for name, _ in _static()), MODEL, ABOUT, *_in_runtime((MODULE, WASM))}


def _in_runtime(names: tuple[str, ...]) -> list[str]:
    return [f"runtime/{name}" for name in names]


def _static() -> Iterator[tuple[str, Traversable]]:
    """The page's files by their place in the site."""
    root = resources.files("tlpipe.stages.site") / "static"
    for entry in root.iterdir():
        if entry.is_dir():
            yield from ((f"{entry.name}/{inner.name}", inner) for inner in entry.iterdir())
        else:
            yield entry.name, entry


def write_site(
    path: Path, classifier: Path, about: Mapping[str, Any], runtime: Runtime
) -> SiteSummary:
    """Write a site; `check_site` has passed it.

    Parameters
    ----------
    path : pathlib.Path
        A site that stands there is replaced when the new one is whole.
    classifier : pathlib.Path
    about : mapping
        What the page is told of the classifier, for JSON.
    runtime : Runtime

    Raises
    ------
    OutputError
        The system refused; a site that stood there is as it was.
    """
    with _whole_folder(path) as folder:
        (folder / "runtime").mkdir()
        for name, content in _static():
            (folder / name).write_bytes(content.read_bytes())
        for name, content_bytes in runtime.files.items():
            (folder / "runtime" / name).write_bytes(content_bytes)
        shutil.copyfile(classifier, folder / MODEL)
        told = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "model": MODEL,
            "model_bytes": (folder / MODEL).stat().st_size,
            "runtime": {"version": runtime.version, "module": MODULE, "wasm": WASM},
            **about,
        }
        text = json.dumps(told, ensure_ascii=True, indent=1, allow_nan=False)
        (folder / ABOUT).write_text(text + "\n", encoding="utf-8")
        written = [entry for entry in folder.rglob("*") if entry.is_file()]
        return SiteSummary(len(written), sum(entry.stat().st_size for entry in written))


@contextlib.contextmanager
def _whole_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path` that takes its name once the block has ended well."""
    target = Path(os.path.realpath(path))
    mark = secrets.token_hex(8)
    new, old = (target.with_name(f".tlpipe-{mark}.{kind}") for kind in ("tmp", "old"))
    try:
        new.mkdir()
        yield new
        try:
            if os.path.lexists(target):
                target.rename(old)
            new.rename(target)
        except BaseException:  # also an interruption
            if not os.path.lexists(target) and os.path.lexists(old):
                old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)  # the new site is there: what is left harms nobody
    except OSError as exc:
        raise OutputError(
            f"The output {str(path)!r} could not be written: {exc.strerror or exc}.",
            hint="Nothing was left behind; a site that stood there before is unchanged.",
        ) from exc
    finally:
        shutil.rmtree(new, ignore_errors=True)
