"""Source: lists labelled images, in an order of its own that never changes by itself.

Owns the layouts below. Takes a path, gives a ``Source``: a survey of what is there, and items as a
stream (a source is never held in memory). Imports ``errors`` and ``types`` only.

* a folder per class: ``cat/1.jpg``, ``dog/sub/2.jpg`` (the first folder is the class);
* the same under split folders: ``train/cat/1.jpg``, ``validation/`` or ``val/``, ``test/``;
* a flat folder: images without labels;
* one image file;
* a CSV or TSV manifest with a header: ``path`` and optionally ``label`` and ``split``.

Folders are walked in the order of their path components, so that two listings can be merged as
streams; a manifest stays in its own order. Symbolic links are followed, loops are cut. Hidden
names and files whose extension is of no image format are skipped and counted.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tlpipe.errors import SourceError
from tlpipe.types import Item, Split

# Extensions of the formats that Pillow decodes by itself (a test compares them with its registry).
IMAGE_EXTENSIONS = frozenset(
    (
        ".apng .avif .avifs .blp .bmp .bw .cur .dcx .dds .dib .fit .fits .flc .fli .ftc .ftu .gbr"
        " .gif .icb .icns .ico .iim .im .j2c .j2k .jfif .jp2 .jpc .jpe .jpeg .jpf .jpg .jpx .mpo"
        " .msp .pbm .pcd .pcx .pfm .pgm .png .pnm .ppm .psd .pxr .qoi .ras .rgb .rgba .sgi .tga"
        " .tif .tiff .vda .vst .webp .xbm .xpm"
    ).split()
)

MANIFEST_DELIMITERS = {".csv": ",", ".tsv": "\t"}

_SPLITS = {
    "train": Split.TRAIN,
    "training": Split.TRAIN,
    "validation": Split.VALIDATION,
    "valid": Split.VALIDATION,
    "val": Split.VALIDATION,
    "dev": Split.VALIDATION,
    "test": Split.TEST,
    "testing": Split.TEST,
}


@dataclass
class Survey:
    """What a source holds, counted before any work is done.

    Attributes
    ----------
    layout : str
        How the source was understood, in words.
    labels : Counter of (Split, str or None)
        Items by split and label.
    skipped : Counter of str
        Entries that are no items, by the reason in words.
    notices : list of str
        What a user would want to know.
    """

    layout: str
    labels: Counter[tuple[Split, str | None]] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    notices: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Number of items, N."""
        return self.labels.total()

    @property
    def classes(self) -> list[str]:
        """Distinct labels, sorted."""
        return sorted({label for _, label in self.labels if label is not None})

    def by_split(self) -> dict[Split, int]:
        """Number of items per split."""
        counts: Counter[Split] = Counter()
        for (split, _), count in self.labels.items():
            counts[split] += count
        return {split: counts[split] for split in Split if counts[split]}


@dataclass(frozen=True)
class Source:
    """Images that can be listed any number of times, always in the same order.

    Attributes
    ----------
    path : pathlib.Path
        As the user gave it.
    items : callable
        Gives a new stream of all items.
    survey : Survey
    """

    path: Path
    items: Callable[[], Iterator[Item]]
    survey: Survey


def open_source(path: Path) -> Source:
    """Understand a path as a source of images, and survey it.

    Parameters
    ----------
    path : pathlib.Path
        A folder, an image file or a manifest.

    Raises
    ------
    SourceError
        There is nothing at `path`, it cannot be read, it is ambiguous, or it holds no image.
    """
    if path.is_dir():
        source = _folder(path)
    elif path.suffix.lower() in MANIFEST_DELIMITERS and path.is_file():
        source = _manifest(path)
    elif path.is_file():
        source = _single(path)
    else:
        raise SourceError(
            f"The source {str(path)!r} does not exist.",
            hint="Give a folder of images, an image, or a CSV manifest.",
        )
    if not source.survey.count:
        skipped = ", ".join(f"{n} {what}" for what, n in sorted(source.survey.skipped.items()))
        raise SourceError(
            f"The source {str(path)!r} holds no image"
            + (f" (skipped: {skipped})." if skipped else "."),
            hint="Images are recognised by their extension: .jpg, .png, .webp, .tif and so on.",
        )
    return source


# -- folders ---------------------------------------------------------------------------------------


@dataclass
class _Walk:
    """Walks a tree in the order of its path components."""

    root: Path
    skipped: Counter[str] = field(default_factory=Counter)
    empty: list[str] = field(default_factory=list)

    def images(self) -> Iterator[tuple[str, Path]]:
        """Key and path of each image; keys are valid UTF-8 with "/" between components."""
        yield from self._visit(self.root, "", (os.path.realpath(self.root),))

    def _visit(
        self, folder: Path, prefix: str, above: tuple[str, ...]
    ) -> Iterator[tuple[str, Path]]:
        try:
            with os.scandir(folder) as entries:
                named = sorted((printable(entry.name), entry) for entry in entries)
        except OSError as exc:
            raise SourceError(
                f"The folder {str(folder)!r} cannot be listed: {exc.strerror}.",
                hint="Correct its permissions, or leave it out of the source.",
            ) from exc
        found = False
        for name, entry in named:
            path = folder / entry.name
            if name.startswith("."):
                self.skipped["hidden"] += 1
            elif self._is_dir(entry):
                real = os.path.realpath(path)
                if real in above:
                    self.skipped["symbolic link to a folder it lies in"] += 1
                    continue
                for image in self._visit(path, f"{prefix}{name}/", (*above, real)):
                    found = True
                    yield image
            elif PurePosixPath(name).suffix.lower() in IMAGE_EXTENSIONS:
                found = True
                yield f"{prefix}{name}", path
            else:
                suffix = PurePosixPath(name).suffix.lower()
                self.skipped[f"not an image ({suffix or 'no extension'})"] += 1
        if not found:
            self.empty.append(prefix.rstrip("/"))

    @staticmethod
    def _is_dir(entry: os.DirEntry[str]) -> bool:
        try:
            return entry.is_dir()
        except OSError:  # a symbolic link that leads to itself: listed, then rejected as missing
            return False


def printable(name: str) -> str:
    r"""`name` as valid UTF-8: bytes that are none become ``\xNN``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _folder(root: Path) -> Source:
    walk = _Walk(root)
    counts: Counter[tuple[str, ...]] = Counter()
    for key, _ in walk.images():
        counts[tuple(key.split("/")[:-1][:2])] += 1  # at most: split folder, class folder
    top = {folders[0] for folders in counts if folders}
    split_of = _split_folders(root, top)
    skip = 1 if split_of else 0

    def describe(folders: tuple[str, ...]) -> tuple[Split, str | None]:
        split = split_of.get(folders[0], Split.NONE) if folders else Split.NONE
        return split, folders[skip] if len(folders) > skip else None

    survey = Survey(_layout(bool(split_of), top), skipped=walk.skipped)
    for folders, count in counts.items():
        survey.labels[describe(folders)] += count
    loose = sum(n for (_, label), n in survey.labels.items() if label is None)
    if loose and survey.classes:
        survey.notices.append(f"{loose} images lie outside any class folder: they have no label.")
    empty = [name for name in walk.empty if name]
    if empty:
        names = ", ".join(repr(name) for name in empty[:5]) + (" ..." if len(empty) > 5 else "")
        survey.notices.append(f"Folders without any image: {names}.")

    def items() -> Iterator[Item]:
        for key, path in _Walk(root).images():
            split, label = describe(tuple(key.split("/")[:-1][:2]))
            yield Item(key, path, label, split)

    return Source(root, items, survey)


def _split_folders(root: Path, top: set[str]) -> dict[str, Split]:
    """Top-level folders that are splits; empty where the folders are classes."""
    splits = {name: _SPLITS[name.lower()] for name in top if name.lower() in _SPLITS}
    if not splits or splits.keys() == top:
        return splits
    if len(splits) == 1:
        return {}  # a class may well be called "train", or "test"
    others = sorted(top - splits.keys())
    raise SourceError(
        f"The folder {str(root)!r} holds the splits {sorted(splits)} and beside them {others}.",
        hint="Move the others away, or list the images in a CSV with path, label and split.",
    )


def _layout(splits: bool, top: set[str]) -> str:
    if splits:
        return "a folder per class under split folders"
    return "a folder per class" if top else "a flat folder without labels"


# -- one image, and manifests ----------------------------------------------------------------------


def _single(path: Path) -> Source:
    item = Item(printable(path.name), path)
    survey = Survey("one image", Counter({(Split.NONE, None): 1}))
    return Source(path, lambda: iter((item,)), survey)


def _manifest(path: Path) -> Source:
    survey = Survey("a manifest")
    for item in _manifest_items(path, survey):
        survey.labels[item.split, item.label] += 1
    return Source(path, lambda: _manifest_items(path, Survey("")), survey)


def _manifest_items(path: Path, survey: Survey) -> Iterator[Item]:
    """Items of a manifest, in its order; the path as written is the key."""
    where = f"The manifest {str(path)!r}"
    folder = path.parent
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.reader(
                stream, delimiter=MANIFEST_DELIMITERS[path.suffix.lower()], strict=True
            )
            columns = _columns(next(rows, []), where, survey)
            for row in rows:
                if not row or row == [""]:
                    survey.skipped["blank line"] += 1
                    continue
                yield _manifest_item(row, columns, folder, f"{where}, line {rows.line_num}")
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise SourceError(
            f"{where} cannot be read: {exc}.", hint="It must be UTF-8 text with a header line."
        ) from exc


def _columns(header: list[str], where: str, survey: Survey) -> dict[str, int]:
    """Position of each known column."""
    names = [name.strip().lower() for name in header]
    known: dict[str, int] = {
        name: names.index(name) for name in ("path", "label", "split") if name in names
    }
    if "path" not in known:
        raise SourceError(
            f"{where} has no column 'path' in its first line, but {header}.",
            hint="The first line must name the columns: path, and optionally label and split.",
        )
    twice = sorted(name for name in known if names.count(name) > 1)
    if twice:
        raise SourceError(f"{where} names the columns {twice} more than once.")
    extra = [name for name in header if name.strip().lower() not in known]
    if extra:
        survey.notices.append(f"Columns of the manifest that are not used: {extra}.")
    return known


def _manifest_item(row: list[str], columns: dict[str, int], folder: Path, where: str) -> Item:
    if len(row) <= max(columns.values()):
        raise SourceError(f"{where} has only {len(row)} values: {row}.")
    values = {name: row[position].strip() for name, position in columns.items()}
    if not values["path"]:
        raise SourceError(f"{where} has an empty path.")
    if any("\0" in value for value in values.values()):
        raise SourceError(f"{where} holds a NUL character.")
    split = values.get("split", "").lower()
    if split and split not in _SPLITS:
        raise SourceError(
            f"{where} has the split {split!r}.", hint="Use train, validation, test or nothing."
        )
    return Item(
        values["path"],
        folder / values["path"],
        values.get("label") or None,
        _SPLITS.get(split, Split.NONE),
    )
