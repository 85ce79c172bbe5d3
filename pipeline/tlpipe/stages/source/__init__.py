"""Source: lists labelled images, in an order of its own that never changes by itself.

Owns the layouts below. Takes a path, gives a ``Source``: a survey of what is there, and items as a
stream (a source is never held in memory). Imports ``errors``, ``types`` and
``files``.

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

from collections import Counter
from pathlib import Path

from tlpipe.errors import SourceError
from tlpipe.files import is_dir, is_file
from tlpipe.stages.source.folder import IMAGE_EXTENSIONS as IMAGE_EXTENSIONS
from tlpipe.stages.source.folder import open_folder
from tlpipe.stages.source.manifest import MANIFEST_DELIMITERS, open_manifest
from tlpipe.stages.source.survey import Source as Source
from tlpipe.stages.source.survey import Survey as Survey
from tlpipe.stages.source.survey import printable as printable
from tlpipe.types import Item, Split


def open_source(path: str | Path) -> Source:
    """Understand a path as a source of images, and survey it.

    Parameters
    ----------
    path : str or pathlib.Path
        A folder, an image file or a manifest.

    Raises
    ------
    SourceError
        There is nothing at `path`, it cannot be read, it is ambiguous, or it holds no image.
    """
    path = Path(path)
    if is_dir(path):
        source = open_folder(path)
    elif path.suffix.lower() in MANIFEST_DELIMITERS and is_file(path):
        source = open_manifest(path)
    elif is_file(path):
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


def _single(path: Path) -> Source:
    item = Item(printable(path.name), path)
    survey = Survey("one file", Counter({(Split.NONE, None): 1}))
    return Source(path, lambda: iter((item,)), survey)
