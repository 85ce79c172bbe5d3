"""pull: obtains the weights of a backbone that is downloaded.

Takes a backbone's name, gives the path of its pretrained file.
"""

from __future__ import annotations

from pathlib import Path

from tlpipe.catalogue import find_card
from tlpipe.errors import CardError
from tlpipe.files import make_folder
from tlpipe.stages.download import Expected, download, fetch_file
from tlpipe.stages.session import open_graph
from tlpipe.stages.weights import downloaded_file, prepared_file, pretrained_file
from tlpipe.types import ProgressCallback


def pull_backbone(
    name: str, *, source: str | Path | None = None, progress: ProgressCallback | None = None
) -> Path:
    """Obtain a backbone's weights, verified, and prepare the network.

    Parameters
    ----------
    name : str
        As for ``find_card``.
    source : str or pathlib.Path, optional
        The URL of a mirror, or the path of the file fetched by other means; its size and SHA-256
        must be the card's.
    progress : callable, optional

    Returns
    -------
    pathlib.Path
        The pretrained file.

    Raises
    ------
    UnknownBackboneError
        There is no such backbone.
    DownloadError
        The file cannot be had, or what arrives is another one.
    CardError
        `source` is given, and the weights are not downloaded: they come with a Python package, or
        are in a file that the card names.
    WeightsError
        The Python package is not installed, or the card's file is missing or another one.
    BackboneError
        The file is the published one, and cannot be used all the same.
    """
    card = find_card(name)
    weights = card.weights
    if weights.urls:
        target = downloaded_file(card)
        make_folder(target.parent)
        expected = Expected(weights.size_bytes, weights.sha256)
        if source is not None:
            fetch_file(source, target, expected, progress)
        else:
            hint = (
                "Where the network does not reach, fetch the file by other means and give it:"
                f" tlpipe models pull {card.name} --from PATH_OR_URL. Its SHA-256 is"
                f" {weights.sha256}."
            )
            download(weights.urls, target, expected, progress, hint=hint)
    elif source is not None:
        raise CardError(
            f"The weights of {card.name!r} are not downloaded:"
            + (
                f" they come with the package {weights.package!r}."
                if weights.package
                else f" they are in {weights.file!r}."
            ),
            hint="Leave out --from.",
        )
    path = pretrained_file(card)
    if card.preprocess is not None:
        prepared_file(card, open_graph)
    return path
