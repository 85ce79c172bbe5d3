"""The images that a benchmark runs over: those of a user's folder, in a folder that suits everyone.

Takes any source of tlpipe's; makes a folder of a folder per class, whose names sort in one way
only, without what would make the work unequal: images that tlpipe rejects, images of the very same
content (tlpipe runs the network over a content once), and formats that torchvision's ImageFolder
does not take by their names.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from insides import items, stored

CLASS = 8
"""Fewest images of a class with which a classifier is trained in any case."""

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


@dataclass(frozen=True)
class ImageSet:
    """A folder to run over, with the vectors that tlpipe gives for it.

    Attributes
    ----------
    name : str
    folder : pathlib.Path
    vectors : float32 array (N, D)
        Of its images in the order of their names.
    features : pathlib.Path
        The feature file of these.
    mean_bytes : float
        Mean size of a file.
    """

    name: str
    folder: Path
    vectors: np.ndarray
    features: Path
    mean_bytes: float

    def __len__(self) -> int:
        return len(self.vectors)


def make_image_set(
    name: str, source: Path, work: Path, most: int | None, precision: str
) -> ImageSet:
    """Link at most `most` images, evenly chosen, into a new folder below `work`."""
    folder, features = work / "images", work / "reference.h5"
    found = [item for item in items(source) if Path(item.place).suffix.lower() in SUFFIXES]
    if most is not None and len(found) > most:
        found = [found[i * len(found) // most] for i in range(most)]
    classes = Counter(item.label for item in found)
    usable = len(classes) > 1 and min(classes.values()) >= CLASS
    seen = set()
    for number, item in enumerate(found):
        digest = hashlib.sha256(Path(item.place).read_bytes()).digest()
        if digest in seen:
            continue
        seen.add(digest)
        # Two classes that mean nothing do for the rate of a classifier.
        label = str(item.label) if usable else ("a", "b")[number % 2]
        path = folder / label / f"{number:08d}{Path(item.place).suffix.lower()}"
        path.parent.mkdir(parents=True, exist_ok=True)
        link(Path(item.place), path)
    embed(folder, features, precision)
    keys, vectors = stored(features)
    kept = {folder / key for key in keys}
    for path in folder.glob("*/*"):
        if path not in kept:  # it was rejected
            path.unlink()
    order = sorted(range(len(keys)), key=lambda row: folder / keys[row])
    sizes = [path.stat().st_size for path in kept]
    return ImageSet(name, folder, vectors[order], features, float(np.mean(sizes)))


def embed_command(folder: Path, features: Path, precision: str) -> list[str]:
    """The command that embeds a folder."""
    command = [sys.executable, "-m", "tlpipe", "embed", str(folder), "-o", str(features)]
    command += ["--device", "cpu", "--overwrite"]
    return command if precision == "fp32" else [*command, "--precision", precision]


def embed(folder: Path, features: Path, precision: str) -> None:
    """Embed a folder by the command."""
    command = embed_command(folder, features, precision)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def link(source: Path, path: Path) -> None:
    """Make a file of the same content: a hard link where that can be, else a copy."""
    try:
        os.link(source.resolve(), path)  # no symbolic link: tlpipe lets none lead outside
    except OSError:
        shutil.copy2(source, path)
