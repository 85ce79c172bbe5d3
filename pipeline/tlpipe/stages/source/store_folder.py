"""Folders in object stores: listed by the same rules, and in the same order, as local ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tlpipe.addresses import shown
from tlpipe.files import is_utf8
from tlpipe.stages.source.addressed import Address
from tlpipe.stages.source.folder import walking
from tlpipe.stages.source.stores import Store, StoreFailure, size_and_time, source_error
from tlpipe.stages.source.survey import Source
from tlpipe.stages.source.walk import Folder, is_image_name


@dataclass(slots=True)
class _StoreFolder(Folder):
    """A folder whose files' sizes and times came with their names."""

    stats: dict[str, tuple[int, int]] = field(default_factory=dict)

    def places(self, names: list[str]) -> list[Address]:
        return [Address(self.path + name, True, *self.stats[name]) for name in names]


class _StoreWalker:
    """See ``Walks``. A store has no links."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.skipped: Counter[str] = Counter()
        self.first_outside = ""

    def listing(self, path: str, prefix: str, /) -> Folder:
        try:
            entries = self._store.entries(path)
        except StoreFailure as failure:
            raise source_error(path, failure) from failure
        start = self._store.path(path).rstrip("/") + "/"
        files: dict[str, tuple[int, int]] = {}
        folders: set[str] = set()
        for entry in entries:
            named = str(entry["name"]).rstrip("/")
            name = named.removeprefix(start)
            if name == named or not name or "/" in name:
                continue  # what stands for the folder itself
            if "\0" in name or not is_utf8(name):
                self.skipped["name that cannot be written"] += 1
            elif name.startswith("."):
                self.skipped["hidden"] += 1
            elif entry["type"] == "directory":
                folders.add(name)
            elif is_image_name(name, self.skipped):
                files[name] = size_and_time(entry)
        return _StoreFolder(path, prefix, sorted(files), sorted(folders), {}, "/", files)

    def has_image(self, path: str, prefix: str, /) -> bool:
        pending = [(path, prefix)]
        while pending:
            here = self.listing(*pending.pop())
            if here.files:
                return True
            pending += [here.below(name) for name in reversed(here.folders)]
        return False


def open_store_folder(url: str, new_store: Callable[[], Store]) -> Source:
    """Take a folder in a store as classes, splits of classes or unlabelled images."""
    start = url.rstrip("/") + "/"
    name = shown(url)
    return Source(name, walking(name, start, lambda: _StoreWalker(new_store())), walked=True)
