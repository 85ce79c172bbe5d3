"""The images that are embedded under torture, in three states, and a tiny backbone."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from pathlib import Path

import onnx

from conftest import card_text, tiny_network, write_image
from stored import read_file
from tlpipe.catalogue import read_card
from tlpipe.files import CACHE_VARIABLE, CARDS_VARIABLE
from tlpipe.types import Reject
from tlpipe.workflows.pixels import decoder_of, pixels_of

OLD_NS = 10**18
"""A time of change long before any run: 2001."""


class World:
    """A source that can be put into one of its states, always at the same path."""

    def __init__(self, folder: Path) -> None:
        os.environ[CACHE_VARIABLE] = str(folder / "cache")
        os.environ[CARDS_VARIABLE] = str(folder / "cards")
        self.source = folder / "source"
        network = folder / "tiny.onnx"
        onnx.save(tiny_network(), network)
        (folder / "tiny.toml").write_text(card_text(network), encoding="utf-8")
        self.card = read_card(folder / "tiny.toml")
        self._states = {number: folder / f"state {number}" for number in (1, 2, 3)}
        _first(self._states[1])
        for number in (2, 3):
            shutil.copytree(self._states[number - 1], self._states[number])
            _change(self._states[number], number)
        for state in self._states.values():
            _age(state)
        self._now = 0
        self.content_of: dict[str, bytes] = {}
        self._read_all()

    def stage(self, number: int) -> None:
        """Put the source into a state."""
        if self._now == number:
            return
        if self._now:
            self.source.rename(self._states[self._now])
        self._states[number].rename(self.source)
        self._now = number

    def _read_all(self) -> None:
        """Which content has which pixels."""
        pixels = pixels_of(self.card.image_size, self.card.arithmetic, decoder_of("auto"))
        for state in self._states.values():
            for path in state.rglob("*.*"):
                read = read_file(path)
                loaded = read if isinstance(read, Reject) else pixels(*read)
                if not isinstance(loaded, Reject) and not isinstance(read, Reject):
                    digest = hashlib.sha256(loaded.tobytes()).hexdigest()
                    self.content_of[digest] = read[1].sha256

    @staticmethod
    def counts(log: Path) -> Counter[str]:
        """How often a run that has ended came by each step."""
        return Counter(json.loads(log.with_suffix(".counts").read_text()))


def contents_of_log(log: Path, world: World) -> list[bytes]:
    """Contents that the network ran over, once for each time it did."""
    lines = log.read_text().split() if log.exists() else []
    return [world.content_of[line] for line in lines]


def _first(root: Path) -> None:
    for number, name in enumerate(("blue", "green", "green/deep", "red")):
        for index in range(7):
            write_image(root / name / f"{index}.png", 100 * number + index)
    for copy in ("blue/a copy.png", "red/a copy.png", "red/another.png"):
        shutil.copy(root / "green" / "3.png", root / copy)
    (root / "blue" / "broken.png").write_bytes((root / "blue" / "1.png").read_bytes()[:300])
    shutil.copy(root / "blue" / "broken.png", root / "red" / "broken too.png")
    (root / "green" / "empty.jpg").touch()


def _change(root: Path, number: int) -> None:
    """Add, change, remove, move, copy and break images."""
    for index in range(4):
        write_image(root / "blue" / f"new {number} {index}.png", 1000 * number + index)
        write_image(root / "green" / f"{index + number}.png", 2000 * number + index)
    (root / "red" / f"{number}.png").unlink()
    (root / "blue" / f"{number}.png").rename(root / "red" / f"moved {number}.png")
    shutil.copy(root / "blue" / "0.png", root / "green" / f"copy {number}.png")
    (root / "green" / "deep" / f"{number}.png").write_bytes(b"no image")
    write_image(root / "white" / f"{number}.png", 3000 * number)


def _age(root: Path) -> None:
    """Times of change that are old, and differ where the contents do."""
    for path in sorted(root.rglob("*.*")):
        content = int.from_bytes(hashlib.sha256(path.read_bytes()).digest()[:3], "little")
        os.utime(path, ns=(OLD_NS, OLD_NS + content))
