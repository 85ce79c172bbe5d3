"""Names of the classes that pretrained backbones know: those of ImageNet-1k.

Takes a number of classes, gives their names; finds the class that a label means. Imports nothing of
tlpipe's.

Source of the names: WordNet 3.0, Copyright 2006 by Princeton University; of their order, ILSVRC
2012: that of the WordNet identifiers.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

_FILE = Path(__file__).parent / "data" / "imagenet1k.tsv"
_BACKGROUND = "background"


@dataclass(frozen=True)
class ClassNames:
    """Names of a network's own classes.

    Attributes
    ----------
    names : tuple of str
        In the order of the network's outputs.
    identifiers : tuple of str
        WordNet identifiers, like "n02123045"; "" where there is none.
    """

    names: tuple[str, ...]
    identifiers: tuple[str, ...]

    def find(self, label: str) -> int | None:
        """Number of the class that a label means: its number, identifier or name; else None."""
        if label.isdecimal():
            number = int(label[-9:])
            return number if len(label) < 10 and number < len(self.names) else None
        plain = _plain(label)
        for number, (name, identifier) in enumerate(zip(self.names, self.identifiers, strict=True)):
            if plain in (identifier, _plain(name), _plain(name.partition(",")[0])):
                return number
        return None


def class_names(count: int) -> ClassNames:
    """Names of a network's classes, as far as their number tells.

    Parameters
    ----------
    count : int
        1000 is taken for ImageNet-1k, 1001 for the same after a class "background"; of any other
        number the classes are called by their numbers, from "0".
    """
    if count not in (1000, 1001):
        return ClassNames(tuple(map(str, range(count))), ("",) * count)
    known = _imagenet()
    extra = count - len(known)
    return ClassNames(
        (_BACKGROUND,) * extra + tuple(name for _, name in known),
        ("",) * extra + tuple(identifier for identifier, _ in known),
    )


@functools.cache
def _imagenet() -> list[tuple[str, str]]:
    lines = _FILE.read_text(encoding="utf-8").splitlines()
    pairs = (line.split("\t") for line in lines if not line.startswith("#"))
    return [(identifier, name) for identifier, name in pairs]


def _plain(text: str) -> str:
    return text.strip().lower().replace("_", " ").replace("-", " ")
