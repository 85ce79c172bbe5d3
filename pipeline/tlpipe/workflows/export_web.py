"""export_web: from a classifier file to a folder that runs it in the browser."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tlpipe.errors import ClassifierError
from tlpipe.files import cache_dir, make_folder
from tlpipe.stages.classifier import ClassifierInfo
from tlpipe.stages.download import Expected, download
from tlpipe.stages.predictions import Columns
from tlpipe.stages.session import WRONG_OPTIMIZERS
from tlpipe.stages.site import PUBLISHED, Runtime, check_site, read_runtime, write_site
from tlpipe.types import ProgressCallback
from tlpipe.workflows.classifier import Classifier, open_classifier
from tlpipe.workflows.run_options import RunOptions

MOST_BYTES = 1_500_000_000
"""Of a classifier: WebAssembly has 4 GB of memory, for the file and the network made of it."""


@dataclass(frozen=True)
class ExportWebResult:
    """What ``export_web`` did.

    Attributes
    ----------
    path : pathlib.Path
        The folder.
    files : int
        Number of files in it.
    size_bytes : int
        Of all of them.
    classes : int
        K.
    outputs : list of str
        What the page asks the classifier for.
    runtime_version : str
        Of onnxruntime-web.
    """

    path: Path
    files: int
    size_bytes: int
    classes: int
    outputs: list[str]
    runtime_version: str


def export_web(
    classifier: str | Path,
    output: str | Path,
    *,
    runtime: str | Path | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> ExportWebResult:
    """Write a static folder that runs a classifier in the browser.

    The page in it takes pictures and shows what ``classify`` would say of them, with
    onnxruntime-web on the CPU. Any web server can serve it; no picture leaves the browser.

    Parameters
    ----------
    classifier : str or pathlib.Path
        A file that ``train_head`` wrote; it is copied as it is.
    output : str or pathlib.Path
        The folder. It appears whole or not at all.
    runtime : str or pathlib.Path, optional
        The package onnxruntime-web: its archive (.tgz), or a folder with what is in it. By default
        a version that is stated in tlpipe is downloaded once, and checked.
    overwrite : bool
        Whether an earlier site may be replaced. A folder that holds anything else never is.
    progress : callable, optional
        For the download.

    Returns
    -------
    ExportWebResult

    Raises
    ------
    ClassifierError, BackboneError
        The classifier cannot be used, or not in a browser.
    OptionError
        `runtime` is not that package, or this system cannot prepare images as the classifier wants
        them.
    DownloadError
        The package cannot be fetched.
    OutputError
        The folder cannot be written.
    """
    classifier, output = Path(classifier), Path(output)
    check_site(output, overwrite=overwrite, classifier=classifier)
    # The build for browsers has the CPU's operators: what opens here on the CPU opens there.
    opened = open_classifier(classifier, RunOptions(device="cpu"))
    size_bytes = classifier.stat().st_size
    if size_bytes > MOST_BYTES:
        raise ClassifierError(
            f"{str(classifier)!r} has {size_bytes / 1e9:.1f} GB; a browser can run"
            f" {MOST_BYTES / 1e9:.1f} GB at most.",
            hint="Choose a smaller backbone, or embed with --precision int8.",
        )
    outputs = _outputs(opened)
    found = _runtime(None if runtime is None else Path(runtime), progress)
    summary = write_site(output, classifier, _about(opened.info, outputs), found)
    return ExportWebResult(
        path=output,
        files=summary.files,
        size_bytes=summary.size_bytes,
        classes=len(opened.info.classes),
        outputs=outputs,
        runtime_version=found.version,
    )


def _outputs(classifier: Classifier) -> list[str]:
    """What the page asks for: all that ``classify`` could tell of an image; it is there."""
    info = classifier.info
    columns = Columns(unknown=info.unknown is not None, sets=info.sets is not None)
    classifier.saying(columns)
    return classifier.outputs_of(columns)


def _runtime(path: Path | None, progress: ProgressCallback | None) -> Runtime:
    if path is None:
        path = cache_dir() / "runtime" / PUBLISHED.sha256[:16] / PUBLISHED.url.rpartition("/")[2]
        make_folder(path.parent)
        download(
            [PUBLISHED.url],
            path,
            Expected(PUBLISHED.size_bytes, PUBLISHED.sha256),
            progress,
            hint="Where the network does not reach, fetch the file by other means and give it:"
            f" --runtime PATH. Its SHA-256 is {PUBLISHED.sha256}.",
        )
    return read_runtime(path)


def _about(info: ClassifierInfo, outputs: list[str]) -> dict[str, Any]:
    """What the page must know of a classifier."""
    return {
        "classes": list(info.classes),
        "image_size": list(info.image_size),
        "preprocess": info.preprocess.to_dict(),
        "decoder": info.decoder,
        "outputs": outputs,
        "thresholds": list(info.thresholds),
        "unknown": None if info.unknown is None else asdict(info.unknown),
        "sets": None if info.sets is None else asdict(info.sets),
        "backbone": info.card().name,
        "precision": info.precision,
        "created_at": info.created_at,
        "tlpipe_version": info.tlpipe_version,
        "left_out_optimizers": WRONG_OPTIMIZERS,
    }
